//! Buffers of the engine's own, and the way back to the host.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
#[cfg(not(target_arch = "wasm32"))]
use std::time::Duration;

use crate::engine::Engine;
use crate::error::Result;
use crate::guard::{Fault, Operation, locked};
use crate::run::Watch;

/// How long to let another thread call what its poll has taken from ours.
#[cfg(not(target_arch = "wasm32"))]
const NAP: Duration = Duration::from_millis(1);

impl Engine {
    /// A buffer, or what kept the device from giving one. One that the host writes is mapped.
    pub(crate) async fn buffer(
        &self,
        what: &str,
        size: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        self.guarded(what, size, |device| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(what),
                size,
                usage,
                mapped_at_creation: usage.contains(wgpu::BufferUsages::MAP_WRITE),
            })
        })
        .await
    }

    /// A buffer that holds these bytes, a multiple of 4 of them.
    pub(crate) async fn buffer_with(
        &self,
        what: &str,
        bytes: &[u8],
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        let size = bytes.len() as u64;
        self.guarded(what, size, |device| device.buffer_with(what, bytes, usage))
            .await?
            .map_err(|error| self.refused(what, &error))
    }

    /// Waits until the device has finished a submission, or all of them, and the host has what it was
    /// to map after it.
    pub(crate) async fn landed(
        &self,
        what: &'static str,
        submission: Option<wgpu::SubmissionIndex>,
        mappings: Vec<Mapping>,
    ) -> Result<()> {
        let watch = Watch::start();
        let left = || self.patience.saturating_sub(watch.elapsed());
        self.wait(what, submission, left())?;
        for mapping in mappings {
            let fault = self.planted(Operation::Mapping);
            if matches!(fault, Some(Fault::LostBefore | Fault::LostAfter)) {
                self.device().destroy();
            }
            // On a system with threads an await could last forever; in a browser nothing else wakes us.
            #[cfg(not(target_arch = "wasm32"))]
            while !mapping.is_there() || fault == Some(Fault::Late) {
                if left().is_zero() {
                    return Err(self.timed_out(what));
                }
                std::thread::sleep(NAP);
                self.wait(what, None, left())?;
            }
            let mapped = match fault {
                Some(Fault::OutOfMemory | Fault::Refused) => Err(wgpu::BufferAsyncError),
                _ => mapping.await,
            };
            mapped.map_err(|error| self.refused(what, &error))?;
        }
        self.alive()
    }

    /// Maps a staging buffer, hands its bytes to `read`, and unmaps it.
    pub(crate) async fn read_back(
        &self,
        staging: &wgpu::Buffer,
        size: u64,
        read: impl FnOnce(&[u8]),
    ) -> Result<()> {
        let what = "the read-back";
        let mapping = self
            .guarded(what, size, |device| {
                device.map(staging, wgpu::MapMode::Read, size)
            })
            .await?;
        self.landed(what, None, vec![mapping]).await?;
        read(&self.bytes(staging, size)?);
        self.guarded(what, size, |_| staging.unmap()).await
    }

    /// The first bytes of a buffer that is mapped to be read.
    pub(crate) fn bytes(&self, buffer: &wgpu::Buffer, size: u64) -> Result<wgpu::BufferView> {
        let what = "the read-back";
        self.look(what)?;
        let bytes = buffer.get_mapped_range(..size);
        bytes.map_err(|error| self.refused(what, &error))
    }

    /// Some bytes of a buffer that is mapped to be written.
    pub(crate) fn bytes_mut(
        &self,
        buffer: &wgpu::Buffer,
        range: std::ops::Range<u64>,
    ) -> Result<wgpu::BufferViewMut> {
        let what = "the upload";
        self.look(what)?;
        let bytes = buffer.get_mapped_range_mut(range);
        bytes.map_err(|error| self.refused(what, &error))
    }
}

type MapResult = std::result::Result<(), wgpu::BufferAsyncError>;

/// A mapping that was asked for: a future that is ready when the host may use the bytes.
pub(crate) struct Mapping(Arc<Mutex<Promise>>);

/// The result of a mapping, and whoever waits for it.
#[derive(Default)]
struct Promise {
    result: Option<MapResult>,
    waker: Option<Waker>,
}

impl Mapping {
    /// One that was answered before anybody asked.
    pub(crate) fn done() -> Mapping {
        let mapping = Mapping(Arc::default());
        mapping.with(|promise| promise.result = Some(Ok(())));
        mapping
    }

    /// Asks for the first bytes of a buffer, which a device that is gone refuses: to be guarded.
    pub(crate) fn ask(buffer: &wgpu::Buffer, mode: wgpu::MapMode, size: u64) -> Mapping {
        let mapping = Mapping(Arc::default());
        let kept = Mapping(Arc::clone(&mapping.0));
        buffer.map_async(mode, ..size, move |result| {
            let waker = kept.with(|promise| {
                promise.result = Some(result);
                promise.waker.take()
            });
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        mapping
    }

    fn with<T>(&self, change: impl FnOnce(&mut Promise) -> T) -> T {
        change(&mut locked(&self.0))
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn is_there(&self) -> bool {
        self.with(|promise| promise.result.is_some())
    }
}

impl Future for Mapping {
    type Output = MapResult;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<MapResult> {
        self.with(|promise| match promise.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                promise.waker = Some(context.waker().clone());
                Poll::Pending
            }
        })
    }
}

//! Buffers of the engine's own, and the way back to the host.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::engine::Engine;
use crate::error::{Error, Result};

/// How long a device may take to finish what it was given, before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(300);
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

    /// Waits until the device has finished a submission, or all of them. In a browser this returns at
    /// once.
    fn wait(&self, what: &'static str, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let waited = self.device().poll(wgpu::PollType::Wait {
            submission_index: submission,
            timeout: Some(PATIENCE),
        });
        self.alive()?;
        waited.map(|_| ()).map_err(|error| match error {
            wgpu::PollError::Timeout => timeout(what),
            other => self.refused(what, &other),
        })
    }

    /// Waits until the device has finished a submission, or all of them, and the host has what it was
    /// to map after it.
    pub(crate) async fn landed(
        &self,
        what: &'static str,
        submission: Option<wgpu::SubmissionIndex>,
        mappings: Vec<Mapping>,
    ) -> Result<()> {
        self.wait(what, submission)?;
        for mapping in mappings {
            // On a system with threads an await could last forever; in a browser nothing else wakes us.
            #[cfg(not(target_arch = "wasm32"))]
            {
                let mut naps = PATIENCE.as_millis() / NAP.as_millis();
                while !mapping.is_there() {
                    naps = naps.checked_sub(1).ok_or_else(|| timeout(what))?;
                    std::thread::sleep(NAP);
                    self.wait(what, None)?;
                }
            }
            mapping.await.map_err(|error| self.refused(what, &error))?;
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
            .guarded(what, size, |_| {
                Mapping::ask(staging, wgpu::MapMode::Read, size)
            })
            .await?;
        self.landed(what, None, vec![mapping]).await?;
        read(&self.bytes(staging, size)?);
        self.guarded(what, size, |_| staging.unmap()).await
    }

    /// The first bytes of a buffer that is mapped to be read.
    pub(crate) fn bytes(&self, buffer: &wgpu::Buffer, size: u64) -> Result<wgpu::BufferView> {
        buffer
            .get_mapped_range(..size)
            .map_err(|error| self.refused("the read-back", &error))
    }

    /// Some bytes of a buffer that is mapped to be written.
    pub(crate) fn bytes_mut(
        &self,
        buffer: &wgpu::Buffer,
        range: std::ops::Range<u64>,
    ) -> Result<wgpu::BufferViewMut> {
        buffer
            .get_mapped_range_mut(range)
            .map_err(|error| self.refused("the upload", &error))
    }

    /// Why a device does not do something: because it is gone, where it is.
    fn refused(&self, what: &'static str, reason: &dyn std::error::Error) -> Error {
        self.notice_loss();
        self.alive().err().unwrap_or_else(|| Error::Driver {
            what: what.to_owned(),
            reason: reason.to_string(),
        })
    }
}

fn timeout(what: &'static str) -> Error {
    Error::Timeout {
        what,
        seconds: PATIENCE.as_secs(),
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
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
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

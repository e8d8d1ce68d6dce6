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

impl Engine {
    /// A buffer, or what kept the device from giving one.
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
                mapped_at_creation: false,
            })
        })
        .await
    }

    /// Waits until the device has finished a submission.
    pub(crate) fn wait(
        &self,
        what: &'static str,
        submission: Option<wgpu::SubmissionIndex>,
    ) -> Result<()> {
        let waited = self.device().poll(wgpu::PollType::Wait {
            submission_index: submission,
            timeout: Some(PATIENCE),
        });
        self.alive()?;
        waited.map(|_| ()).map_err(|error| match error {
            wgpu::PollError::Timeout => Error::Timeout {
                what,
                seconds: PATIENCE.as_secs(),
            },
            other => Error::Driver {
                what: what.to_owned(),
                reason: other.to_string(),
            },
        })
    }

    /// Maps a staging buffer, hands its bytes to `read`, and unmaps it.
    pub(crate) async fn read_back(
        &self,
        staging: &wgpu::Buffer,
        size: u64,
        read: impl FnOnce(&[u8]),
    ) -> Result<()> {
        let mapped = Arc::new(Promise::default());
        let kept = Arc::clone(&mapped);
        staging
            .slice(..size)
            .map_async(wgpu::MapMode::Read, move |result| kept.keep(result));
        // In a browser this returns at once and the promise is kept later.
        self.wait("the read-back", None)?;
        let refused = |reason: String| Error::Driver {
            what: "the read-back".to_owned(),
            reason,
        };
        Promised(mapped)
            .await
            .map_err(|error| refused(error.to_string()))?;
        self.alive()?;
        {
            let view = staging
                .slice(..size)
                .get_mapped_range()
                .map_err(|error| refused(error.to_string()))?;
            read(&view);
        }
        staging.unmap();
        Ok(())
    }
}

type MapResult = std::result::Result<(), wgpu::BufferAsyncError>;

/// The result of a mapping, and whoever waits for it.
#[derive(Default)]
struct Promise(Mutex<(Option<MapResult>, Option<Waker>)>);

impl Promise {
    fn keep(&self, result: MapResult) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = Some(result);
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }
}

struct Promised(Arc<Promise>);

impl Future for Promised {
    type Output = MapResult;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<MapResult> {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.0.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

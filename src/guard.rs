//! What stands between a fault of the device and the caller: all that the library asks of a device goes
//! through here. What the driver says becomes an [`Error`], and every wait has an end. Each operation is
//! counted, so that a test can plant a fault in any of them.

use std::any::Any;
use std::cell::Cell;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::transfer::Mapping;

/// What a test makes of one operation of a device.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is no memory for it. wgpu panics where that is found out by waiting, as it does where the driver
    /// reports a loss then.
    OutOfMemory,
    /// The driver refuses it.
    Refused,
    /// The device is lost before it.
    LostBefore,
    /// The device is lost after it.
    LostAfter,
    /// It takes longer than anyone waits.
    Late,
    /// It is not carried out, and nobody says so: of several calls, the first.
    Skipped,
}

/// What an operation of a device is.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Calls whose errors are caught: what is created, recorded, submitted, asked for.
    Calls,
    /// Waiting for what was submitted.
    Wait,
    /// The answer to a mapping that was asked for.
    Mapping,
    /// A look at mapped memory.
    Bytes,
}

/// What is known of a device, and what a test has planned for it.
#[derive(Default)]
pub(crate) struct Faults {
    pub lost: Option<String>,
    pub uncaptured: Option<String>,
    /// Whether the last wait ended before the device did.
    hung: bool,
    /// Operations since a fault was last planted.
    operations: u64,
    planted: Option<(u64, Fault)>,
    struck: Option<Operation>,
}

/// Why a planted fault is refused.
#[derive(Debug, thiserror::Error)]
#[error("a test planted this fault")]
struct Planted;

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind these locks is whole at every moment a panic could strike.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device whose errors are being caught.
pub(crate) struct Guarded<'a> {
    engine: &'a Engine,
    skips: Cell<bool>,
}

impl Deref for Guarded<'_> {
    type Target = wgpu::Device;

    fn deref(&self) -> &wgpu::Device {
        self.engine.device()
    }
}

impl Guarded<'_> {
    /// A buffer that holds these bytes, a multiple of 4 of them.
    pub(crate) fn buffer_with(
        &self,
        what: &str,
        bytes: &[u8],
        usage: wgpu::BufferUsages,
    ) -> std::result::Result<wgpu::Buffer, wgpu::MapRangeError> {
        let buffer = self.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size: bytes.len() as u64,
            usage,
            mapped_at_creation: true,
        });
        buffer.get_mapped_range_mut(..)?.copy_from_slice(bytes);
        buffer.unmap();
        Ok(buffer)
    }

    pub(crate) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        let commands = encoder.finish();
        let commands = (!self.skips.take()).then_some(commands);
        self.engine.queue().submit(commands)
    }

    /// Asks for the first bytes of a buffer.
    pub(crate) fn map(&self, buffer: &wgpu::Buffer, mode: wgpu::MapMode, size: u64) -> Mapping {
        match self.skips.take() {
            true => Mapping::done(),
            false => Mapping::ask(buffer, mode, size),
        }
    }
}

impl Engine {
    /// Plants a fault in the operation of this number, counted from the next one on; says how many there
    /// have been, and what the fault before struck.
    #[doc(hidden)]
    pub fn plant(&self, fault: Option<(u64, Fault)>) -> (u64, Option<Operation>) {
        let mut faults = locked(&self.faults);
        faults.planted = fault;
        (std::mem::take(&mut faults.operations), faults.struck.take())
    }

    /// Each operation comes by here before it is carried out.
    pub(crate) fn planted(&self, operation: Operation) -> Option<Fault> {
        let mut faults = locked(&self.faults);
        let number = faults.operations;
        faults.operations += 1;
        let (_, fault) = faults.planted.filter(|(at, _)| *at == number)?;
        faults.struck = Some(operation);
        Some(fault)
    }

    /// Runs device calls and turns what the driver says of them into an error.
    pub(crate) async fn guarded<T>(
        &self,
        what: &str,
        bytes: u64,
        calls: impl FnOnce(&Guarded<'_>) -> T,
    ) -> Result<T> {
        let fault = self.planted(Operation::Calls);
        if fault == Some(Fault::LostBefore) {
            self.device().destroy();
        }
        // Scopes belong to the thread, so all are popped before anything is awaited.
        let scope = |filter| self.device().push_error_scope(filter);
        let memory = scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = scope(wgpu::ErrorFilter::Internal);
        let validation = scope(wgpu::ErrorFilter::Validation);
        let value = calls(&Guarded {
            engine: self,
            skips: Cell::new(fault == Some(Fault::Skipped)),
        });
        let validation = validation.pop();
        let internal = internal.pop();
        let memory = memory.pop();
        if fault == Some(Fault::LostAfter) {
            self.device().destroy();
        }
        let refused = match validation.await {
            Some(error) => Some(error),
            None => internal.await,
        };
        let mut refused = refused.map(|error| error.to_string());
        let mut no_memory = memory.await.is_some();
        match fault {
            Some(Fault::OutOfMemory) => no_memory = true,
            Some(Fault::Refused) => refused = Some(Planted.to_string()),
            _ => {}
        }
        if no_memory || refused.is_some() {
            self.notice_loss();
        }
        self.alive()?;
        if no_memory {
            return Err(Error::OutOfMemory {
                place: "device",
                what: what.to_owned(),
                bytes,
            });
        }
        match refused {
            Some(reason) => Err(Error::Driver {
                what: what.to_owned(),
                reason,
            }),
            None => Ok(value),
        }
    }

    /// Before a look at mapped memory.
    pub(crate) fn look(&self, what: &str) -> Result<()> {
        match self.planted(Operation::Bytes) {
            Some(Fault::OutOfMemory | Fault::Refused) => Err(self.refused(what, &Planted)),
            Some(Fault::LostBefore | Fault::LostAfter) => {
                self.device().destroy();
                Ok(())
            }
            Some(Fault::Late | Fault::Skipped) | None => Ok(()),
        }
    }

    /// Waits until the device has finished a submission, or all of them, for so long. In a browser this
    /// returns at once.
    pub(crate) fn wait(
        &self,
        what: &'static str,
        submission: Option<wgpu::SubmissionIndex>,
        limit: Duration,
    ) -> Result<()> {
        let fault = self.planted(Operation::Wait);
        let waits_for_all = submission.is_none();
        let until = wgpu::PollType::Wait {
            submission_index: submission,
            timeout: Some(limit),
        };
        if fault == Some(Fault::LostBefore) {
            self.device().destroy();
        }
        let waited = match fault {
            Some(Fault::Late) => Err(wgpu::PollError::Timeout),
            Some(Fault::Refused) => Err(wgpu::PollError::WrongSubmissionIndex(1, 0)),
            Some(Fault::Skipped) => Ok(()),
            _ => self.poll(until, fault == Some(Fault::OutOfMemory)),
        };
        if fault == Some(Fault::LostAfter) {
            self.device().destroy();
        }
        self.alive()?;
        match waited {
            Ok(()) => {
                if waits_for_all {
                    locked(&self.faults).hung = false;
                }
                Ok(())
            }
            Err(wgpu::PollError::Timeout) => Err(self.timed_out(what)),
            Err(other) => Err(self.refused(what, &other)),
        }
    }

    /// Polls the device. Where the driver then reports a loss, wgpu 30 panics: it has let go of its locks by
    /// then, and marked the device as lost.
    fn poll(
        &self,
        until: wgpu::PollType,
        panics: bool,
    ) -> std::result::Result<(), wgpu::PollError> {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            assert!(!panics, "{Planted}");
            self.device().poll(until)
        }));
        match polled {
            Ok(polled) => polled.map(|_| ()),
            Err(panic) => {
                locked(&self.faults).lost.get_or_insert(message(&*panic));
                Ok(())
            }
        }
    }

    /// The error of a device that takes too long.
    pub(crate) fn timed_out(&self, what: &'static str) -> Error {
        locked(&self.faults).hung = true;
        Error::Timeout {
            what,
            limit: self.patience,
        }
    }

    /// Why a device does not do something: because it is gone, where it is.
    pub(crate) fn refused(&self, what: &str, reason: &dyn std::error::Error) -> Error {
        self.notice_loss();
        self.alive().err().unwrap_or_else(|| Error::Driver {
            what: what.to_owned(),
            reason: reason.to_string(),
        })
    }

    /// A device that is gone says why only when it is polled, and only to its owner. But it no longer says
    /// what is invalid either, and that anyone can ask.
    pub(crate) fn notice_loss(&self) {
        let _ = self.poll(wgpu::PollType::Poll, false);
        #[cfg(not(target_arch = "wasm32"))]
        {
            let scope = self
                .device()
                .push_error_scope(wgpu::ErrorFilter::Validation);
            let _invalid = self.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4,
                usage: wgpu::BufferUsages::empty(),
                mapped_at_creation: false,
            });
            if pollster::block_on(scope.pop()).is_none() {
                let reason = || "it does not answer any more".to_owned();
                locked(&self.faults).lost.get_or_insert_with(reason);
            }
        }
    }

    /// Fails where the device is known to be gone or to have failed behind our back.
    pub(crate) fn alive(&self) -> Result<()> {
        let mut faults = locked(&self.faults);
        if let Some(reason) = &faults.lost {
            return Err(Error::DeviceLost {
                reason: reason.clone(),
            });
        }
        match faults.uncaptured.take() {
            Some(reason) => Err(Error::Driver {
                what: "an operation".to_owned(),
                reason,
            }),
            None => Ok(()),
        }
    }

    /// Whether the device is gone, and with it this engine: see [`Engine::renewed`].
    pub fn is_lost(&self) -> bool {
        self.notice_loss();
        locked(&self.faults).lost.is_some()
    }
}

impl Drop for Engine {
    /// The last handle of a queue waits for the device when it is dropped, without an end. A device that did
    /// not finish in time keeps one.
    fn drop(&mut self) {
        if locked(&self.faults).hung {
            std::mem::forget(self.queue().clone());
        }
    }
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("the driver said so").to_owned()
}

//! The device that is timed: with a clock, if the adapter has one, and without a self-test of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pollster::block_on;
use softxent::plan::DeviceProfile;
use softxent::wgpu::{self, BufferUsages as Usage};
use softxent::{Accuracy, Engine, Error, adapters, useful_features};

use super::clock::Clock;
use crate::cli::Failure;
use crate::cli::device::simulated;

/// How long a device may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Gpu {
    pub engine: Engine,
    pub clock: Clock,
    /// What the self-test of the engine before found.
    pub accuracy: Accuracy,
    fault: Arc<Mutex<Option<String>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds this.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// Another device of the adapter of an engine that has passed the self-test.
    pub fn like(
        tested: &Engine,
        profile: DeviceProfile,
        shader_checks: bool,
    ) -> Result<Gpu, Failure> {
        let info = tested.adapter_info();
        let found = block_on(adapters());
        let adapter = found.iter().find(|adapter| adapter.get_info() == *info);
        let refused = |reason: String| Error::DeviceRefused {
            adapter: info.name.clone(),
            reason,
        };
        let adapter = adapter.ok_or_else(|| refused("it is no longer there".to_owned()))?;
        let clock = Clock::FEATURES & adapter.features();
        let asked = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("softxent bench"),
            required_features: clock | useful_features(adapter),
            required_limits: adapter.limits(),
            ..Default::default()
        });
        let (device, queue) = block_on(asked).map_err(|error| refused(error.to_string()))?;

        let fault = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&fault);
        device.set_device_lost_callback(move |reason, message| {
            *locked(&kept) = Some(format!("the device was lost, {reason:?}: {message}"));
        });
        let kept = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            locked(&kept).get_or_insert_with(|| error.to_string());
        }));

        let clock = Clock::new(&device, &queue);
        let mut engine = simulated(Engine::from_device(device, queue)).with_profile(profile);
        if shader_checks {
            engine = engine.with_shader_checks();
        }
        let mut gpu = Gpu {
            clock,
            engine,
            accuracy: tested.accuracy(),
            fault,
        };
        gpu.try_clock()?;
        Ok(gpu)
    }

    pub fn device(&self) -> &wgpu::Device {
        self.engine.device()
    }

    /// Fails where the device has failed behind our back.
    fn alive(&self) -> Result<(), Failure> {
        match locked(&self.fault).take() {
            Some(reason) => Err(Failure::Message(reason)),
            None => Ok(()),
        }
    }

    /// Submits, and waits until it is done.
    pub fn submit(&self, encoder: wgpu::CommandEncoder) -> Result<(), Failure> {
        let submission = self.engine.queue().submit([encoder.finish()]);
        self.wait(Some(submission))
    }

    pub fn wait(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<(), Failure> {
        let waited = self.device().poll(wgpu::PollType::Wait {
            submission_index,
            timeout: Some(PATIENCE),
        });
        self.alive()?;
        match waited {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::Message(format!("the device: {error}"))),
        }
    }

    pub fn encoder(&self) -> wgpu::CommandEncoder {
        self.device().create_command_encoder(&Default::default())
    }

    /// A buffer of zeros for shaders and copies.
    pub fn buffer(&self, what: &str, size: u64) -> Result<wgpu::Buffer, Failure> {
        self.make(
            what,
            size,
            Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC,
        )
    }

    fn make(&self, what: &str, size: u64, usage: Usage) -> Result<wgpu::Buffer, Failure> {
        let most = self.engine.profile().max_buffer;
        if size > most {
            Err(Error::DeviceTooSmall {
                limit: "bytes in a buffer",
                found: most,
                needed: size,
            })?;
        }
        let scope = self
            .device()
            .push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size: size.next_multiple_of(4),
            usage,
            mapped_at_creation: false,
        });
        let refused = block_on(scope.pop()).is_some();
        self.alive()?;
        if refused {
            Err(Error::OutOfMemory {
                place: "device",
                what: what.to_owned(),
                bytes: size,
            })?;
        }
        Ok(buffer)
    }

    /// A buffer with these bytes, a multiple of 4 of them.
    pub fn upload(&self, what: &str, bytes: &[u8]) -> Result<wgpu::Buffer, Failure> {
        let buffer = self.buffer(what, bytes.len() as u64)?;
        self.engine.queue().write_buffer(&buffer, 0, bytes);
        Ok(buffer)
    }

    /// Hands the bytes of a buffer to `read`.
    pub fn read<T>(
        &self,
        buffer: &wgpu::Buffer,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Failure> {
        let size = buffer.size();
        let staging = self.make("read-back", size, Usage::MAP_READ | Usage::COPY_DST)?;
        let mut encoder = self.encoder();
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, size);
        self.submit(encoder)?;
        self.mapped(&staging, read)
    }

    /// Hands the bytes of a buffer that can be mapped to `read`.
    pub fn mapped<T>(
        &self,
        staging: &wgpu::Buffer,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Failure> {
        staging.slice(..).map_async(wgpu::MapMode::Read, |_| {});
        self.wait(None)?;
        let value = {
            let view = staging.slice(..).get_mapped_range();
            let view = view.map_err(|error| Failure::Message(format!("the device: {error}")))?;
            read(&view)
        };
        staging.unmap();
        Ok(value)
    }
}

//! The other way round: the application makes the device, and burn is its guest.

use burn::backend::wgpu::WgpuSetup;
use burn::tensor::Device;
use softxent::wgpu;

use crate::Error;

/// A wgpu device of the application, and burn on it. An application that draws or simulates has one already;
/// what counts is that it asks for the features and limits that burn's kernels need, which are all that the
/// adapter has.
///
/// # Errors
/// No adapter; a device that the driver or burn refuses.
pub async fn own_device() -> Result<(Device, WgpuSetup), Error> {
    let instance =
        wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = instance.request_adapter(&options).await?;
    let descriptor = wgpu::DeviceDescriptor {
        // Buffers that the host maps are slow on a discrete GPU: the same exception as in burn.
        required_features: adapter.features() - wgpu::Features::MAPPABLE_PRIMARY_BUFFERS,
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let (device, queue) = adapter.request_device(&descriptor).await?;
    let setup = WgpuSetup {
        backend: adapter.get_info().backend,
        instance,
        adapter,
        device,
        queue,
    };
    // Once: each registration is another runtime, with a memory of its own.
    let device = Device::wgpu_options().setup(setup.clone()).init()?;
    Ok((device, setup))
}

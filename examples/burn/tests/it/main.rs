//! softxent as burn's loss: how exact, on whose device, and whether anything leaves it.

mod agreement;
mod batch;
mod device;
mod host;

use std::sync::OnceLock;

use burn::backend::wgpu::WgpuSetup;
use burn::tensor::Device;

/// burn's device and what it consists of: a process can make it but once.
fn shared() -> (Device, WgpuSetup) {
    static SHARED: OnceLock<(Device, WgpuSetup)> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let made = Device::wgpu_options().init_with_setup();
        made.expect("an adapter")
    });
    shared.clone()
}

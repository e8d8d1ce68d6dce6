//! softxent as burn's loss: how exact, and on whose device.

mod agreement;
mod batch;
mod device;

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

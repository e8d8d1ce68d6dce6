//! softxent as the loss of a [burn](https://burn.dev) model: cross-entropy and its gradient on burn's own
//! buffers, through burn's wgpu device, with nothing copied to the host.
//!
//! ```no_run
//! use burn::tensor::{Device, Int, Tensor};
//! use softxent_burn::{CrossEntropy, Options};
//!
//! # fn main() -> Result<(), softxent_burn::Error> {
//! // burn makes the device and hands it out …
//! let (device, setup) = Device::wgpu_options().init_with_setup()?;
//! // … and softxent works on the same one.
//! let criterion = CrossEntropy::new(&device, &setup, Options { z_loss: 1e-4, ..Options::default() });
//!
//! let device = device.autodiff();
//! let logits = Tensor::<2>::zeros([64, 1000], &device).require_grad();
//! let labels = Tensor::<1, Int>::zeros([64], &device);
//! let loss = criterion.forward(logits.clone(), labels)?;
//! let grads = loss.backward();
//! let grad = logits.grad(&grads);
//! # Ok(())
//! # }
//! ```
//!
//! An application that has a wgpu device already gives it to burn: see [`own_device`].

mod criterion;
mod device;
mod operation;
mod step;

pub use criterion::{CrossEntropy, Options};
pub use device::own_device;

/// What went wrong, in burn, in softxent or on the device.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

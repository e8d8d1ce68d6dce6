//! Neither logits nor gradients reach the host: wgpu tells of every call that maps a buffer, and there is none
//! between the logits and the end of the backward pass. In a process of its own, as the logger has all of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Distribution, Int, Tensor};
use softxent_burn::{CrossEntropy, Options};

/// Counts the calls.
struct Maps(AtomicUsize);

impl log::Log for Maps {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("wgpu_core")
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.args().to_string().starts_with("Buffer::map_async") {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn flush(&self) {}
}

static MAPS: Maps = Maps(AtomicUsize::new(0));

fn maps() -> usize {
    MAPS.0.load(Ordering::SeqCst)
}

#[test]
fn nothing_is_mapped() {
    log::set_logger(&MAPS).expect("the only logger");
    log::set_max_level(log::LevelFilter::Trace);
    let (device, setup) = Device::wgpu_options()
        .init_with_setup()
        .expect("an adapter");
    let criterion = CrossEntropy::new(&device, &setup, Options::default());
    let device = device.autodiff();
    let shape = [64, 1000];
    for step in 0..3 {
        let logits = Tensor::<2>::random(shape, Distribution::Default, &device).require_grad();
        let labels = Tensor::<1, Int>::zeros([64], &device);
        device.sync().expect("a device");
        let before = maps();
        let loss = criterion.forward(logits.clone(), labels).expect("a loss");
        let grads = loss.backward();
        let grad = logits.grad(&grads).expect("a gradient");
        device.sync().expect("a device");
        assert_eq!(maps(), before, "step {step} mapped a buffer");

        // What it looks like when an array is read, which burn does when somebody looks at the values.
        let values = grad.into_data().try_to_vec::<f32>().expect("values");
        assert!(
            maps() > before,
            "a read of {} values does not show",
            values.len()
        );
    }
}

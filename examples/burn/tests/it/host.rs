//! Nothing of the shape of the logits reaches the host, and nobody waits for the device.
//!
//! burn's buffers cannot be mapped, so what is read has to be copied to one that can. burn keeps those for the next
//! time, so that a copy shows as memory of the device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{DType, Int, Tensor};
use softxent::wgpu;
use softxent_burn::{CrossEntropy, Options, own_device};

use crate::batch::Batch;

const ROWS: usize = 256;
const CLASSES: usize = 32_768;
/// Bytes of the logits, and of their gradient.
const SIZE: u64 = 4 * (ROWS * CLASSES) as u64;

/// Loss and gradient, on their way.
fn step(
    criterion: &CrossEntropy,
    logits: Tensor<2>,
    labels: Tensor<1, Int>,
) -> (Tensor<1>, Tensor<2>) {
    let logits = logits.require_grad();
    let loss = criterion.forward(logits.clone(), labels).expect("a loss");
    let grads = loss.backward();
    (loss, logits.grad(&grads).expect("a gradient"))
}

fn allocated(device: &wgpu::Device) -> u64 {
    let report = device.generate_allocator_report();
    report
        .expect("a report of the allocator")
        .total_allocated_bytes
}

#[test]
fn nothing_is_read_and_nobody_waits() {
    let (device, setup) = pollster::block_on(own_device()).expect("a device");
    let criterion = CrossEntropy::new(&device, &setup, Options::default());
    let device = device.autodiff();
    let batch = Batch::new(ROWS, CLASSES, DType::F32, 3.0);
    let (logits, labels) = batch.tensors(&device);
    // burn's memory for all arrays of a step is there after this.
    drop(step(&criterion, busy(&logits, 1), labels.clone()));
    device.sync().expect("a device");

    let before = allocated(&setup.device);
    let late = busy(&logits, 40);
    device.flush().expect("a device");
    let done = Arc::new(AtomicBool::new(false));
    let noted = done.clone();
    setup
        .queue
        .on_submitted_work_done(move || noted.store(true, Ordering::SeqCst));
    let (loss, grad) = step(&criterion, late, labels);
    device.flush().expect("a device");
    setup.device.poll(wgpu::PollType::Poll).expect("a poll");
    // The logits were not even there when the last call returned.
    assert!(
        !done.load(Ordering::SeqCst),
        "somebody waited for the logits"
    );

    device.sync().expect("a device");
    let after = allocated(&setup.device);
    println!("{before} bytes before the step, {after} after");
    assert!(after < before + SIZE / 4, "{} bytes more", after - before);

    // What it looks like when an array is read.
    let read = grad.into_data();
    assert_eq!(read.num_elements(), ROWS * CLASSES);
    let after_reading = allocated(&setup.device);
    println!("{after_reading} after reading");
    assert!(
        after_reading >= after + SIZE,
        "a copy to the host does not show"
    );
    drop(loss);
}

/// The logits, after so many passes over them.
fn busy(logits: &Tensor<2>, passes: usize) -> Tensor<2> {
    let mut late = logits.clone();
    for _ in 0..passes {
        // Sums of rows end burn's fusion: each is a dispatch, or more.
        let mean = late.clone().mean_dim(1);
        late = late - mean.clone() * 0.5;
    }
    late.detach()
}

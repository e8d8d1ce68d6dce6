//! Whose device it is, and where tensors come from.

use burn::tensor::{DType, Int, Tensor};
use softxent_burn::{CrossEntropy, Options, own_device};

use crate::batch::{Batch, values};
use crate::shared;

#[test]
fn a_device_of_the_application_serves_both() {
    let (device, setup) = pollster::block_on(own_device()).expect("a device");
    let criterion = CrossEntropy::new(&device, &setup, Options::default());
    let batch = Batch::new(48, 10, DType::F32, 3.0);
    let ours = batch.ours(&device, &criterion);
    let (device, setup) = shared();
    let there = batch.ours(
        &device,
        &CrossEntropy::new(&device, &setup, Options::default()),
    );
    assert_eq!((ours.loss, ours.grad), (there.loss, there.grad));
}

/// What is upstream of the loss is read on the device, and burn goes on with the result.
#[test]
fn the_upstream_gradient_counts() {
    let (device, setup) = shared();
    let criterion = CrossEntropy::new(&device, &setup, Options::default());
    let device = device.autodiff();
    let batch = Batch::new(48, 10, DType::F32, 3.0);
    let (x, labels) = batch.tensors(&device);
    let x = x.require_grad();
    let loss = criterion.forward(x.clone() * 2.0, labels).expect("a loss");
    let grads = (loss.clone() * loss).backward();
    let grad = values(x.grad(&grads).expect("a gradient").into_data());

    let doubled = Batch {
        logits: batch.logits.iter().map(|x| 2.0 * x).collect(),
        ..batch
    };
    let exact = doubled.exact(&Options::default()).outcome;
    for (got, exact_grad) in grad.iter().zip(&exact.grad) {
        // d(loss²) = 2·loss·d(loss), with the 2 of the logits. Beside the 10 ULP of a gradient there are 4 of the
        // loss and a rounding of loss + loss; an ULP is between 2⁻²⁴ and 2⁻²³ of a number.
        let exact = 2.0 * 2.0 * exact.loss * exact_grad;
        assert!(
            (got - exact).abs() <= 15.0 * exact.abs() * 2.0_f64.powi(-23),
            "{got} {exact}"
        );
    }
}

/// Tensors that are views, that another thread made, that nobody tracks.
#[test]
fn tensors_of_any_kind() {
    let (device, setup) = shared();
    let criterion = CrossEntropy::new(&device, &setup, Options::default());
    let batch = Batch::new(33, 100, DType::F32, 3.0);
    let (logits, labels) = batch.tensors(&device);
    let loss = |logits: Tensor<2>, labels: Tensor<1, Int>| {
        let loss = criterion.forward(logits, labels).expect("a loss");
        values(loss.into_data())[0]
    };
    let expected = loss(logits.clone(), labels.clone());
    let exact = batch.exact(&Options::default()).outcome.loss;
    assert!((expected - exact).abs() <= 4.0 * exact * 2.0_f64.powi(-23));

    // Columns first in memory.
    let transposed = logits.clone().transpose().mul_scalar(1.0).transpose();
    assert_eq!(loss(transposed, labels.clone()), expected);
    // A part of a larger tensor.
    let wide = Tensor::cat(vec![logits.clone() - 1.0, logits.clone()], 1);
    assert_eq!(
        loss(wide.slice([0..33, 100..200]), labels.clone()),
        expected
    );
    let long = Tensor::cat(vec![logits.clone() - 1.0, logits.clone()], 0);
    assert_eq!(loss(long.slice([33..66, 0..100]), labels.clone()), expected);
    // From another thread, whose work nobody has submitted yet.
    let made = std::thread::spawn(move || (logits + 1.0) - 1.0)
        .join()
        .expect("logits");
    assert!((loss(made, labels) - expected).abs() <= 1e-5);
}

#[test]
fn faults_are_errors() {
    let (device, setup) = shared();
    let batch = Batch::new(5, 3, DType::F32, 3.0);
    let (logits, labels) = batch.tensors(&device);
    let criterion = CrossEntropy::new(&device, &setup, Options::default());
    let short = labels.clone().narrow(0, 0, 4);
    assert!(criterion.forward(logits.clone(), short).is_err());
    let wrong = CrossEntropy::new(
        &device,
        &setup,
        Options {
            label_smoothing: 2.0,
            ..Options::default()
        },
    );
    assert!(wrong.forward(logits.clone(), labels.clone()).is_err());

    let (elsewhere, other) = pollster::block_on(own_device()).expect("a device");
    let stranger = CrossEntropy::new(&elsewhere, &other, Options::default());
    assert!(stranger.forward(logits, labels).is_err());
}

/// In 16 bits the gradient is rounded once, after the loss scale has lifted it.
#[test]
fn a_loss_scale_comes_before_the_rounding() {
    let (device, setup) = shared();
    let criterion = CrossEntropy::new(&device, &setup, Options::default());
    let device = device.autodiff();
    let batch = Batch::new(33, 100, DType::F16, 3.0);
    let (logits, labels) = batch.tensors(&device);
    let logits = logits.require_grad();
    let loss = criterion.forward(logits.clone(), labels).expect("a loss");
    let scale = 2.0_f64.powi(20);
    let grads = loss.mul_scalar(scale).backward();
    let grad = values(logits.grad(&grads).expect("a gradient").into_data());
    let exact = batch.exact(&Options::default()).outcome.grad;
    let mut lifted = 0;
    for (got, exact) in grad.iter().zip(exact.iter().map(|exact| scale * exact)) {
        // Half an f16's unit, at most 2⁻¹¹ of a number or 2⁻²⁵, and 10 ULP of f32.
        let allowed = exact.abs() * (2.0_f64.powi(-11) + 10.0 * 2.0_f64.powi(-23));
        let allowed = allowed.max(2.0_f64.powi(-25));
        assert!((got - exact).abs() <= allowed, "{got} {exact}");
        lifted += usize::from(*got != 0.0 && exact.abs() / scale < 2.0_f64.powi(-25));
    }
    // Numbers that would be 0 without the scale.
    assert!(lifted > 0);
}

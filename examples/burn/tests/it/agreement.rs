//! Losses and gradients beside burn's own and the f64 oracle's.

use burn::tensor::DType;
use softxent::Reduction;
use softxent_burn::{CrossEntropy, Options};

use crate::batch::{Batch, Exact, Outcome};
use crate::shared;

/// One class; an odd number of 16-bit values; rows for an invocation, for a subgroup, for a workgroup; rows that
/// begin inside a vector; a vocabulary.
const SHAPES: [(usize, usize); 8] = [
    (5, 1),
    (1, 2),
    (7, 3),
    (48, 10),
    (33, 100),
    (9, 1000),
    (5, 4097),
    (3, 50_257),
];

/// One unit in the last place of an f32, or of an f16. Results below 2⁻¹²⁶ may be flushed to 0.
fn ulp(value: f64, dtype: DType) -> f64 {
    let (digits, smallest) = match dtype {
        DType::F16 => (10, -24),
        _ => (23, -126),
    };
    let exponent = value.abs().max(f64::MIN_POSITIVE).log2().floor() as i32;
    2.0_f64.powi((exponent - digits).max(smallest))
}

/// How many of them the loss is off, and the gradient at most. The loss is an f32 in ours.
fn off(outcome: &Outcome, exact: &Exact, dtype: DType) -> [f64; 2] {
    assert_eq!(outcome.grad.len(), exact.outcome.grad.len());
    let mut worst = 0.0_f64;
    for ((got, exact), size) in outcome
        .grad
        .iter()
        .zip(&exact.outcome.grad)
        .zip(&exact.sizes)
    {
        assert!(got.is_finite(), "{got} where {exact} should be");
        worst = worst.max((got - exact).abs() / ulp(*size, dtype));
    }
    let loss = exact.outcome.loss;
    [(outcome.loss - loss).abs() / ulp(loss, DType::F32), worst]
}

/// softxent promises 4 ULP of a loss and 10 of a gradient in f32; one rounding to f16 adds half a unit there.
fn assert_exact([loss, grad]: [f64; 2], dtype: DType, case: &str) {
    let allowed = match dtype {
        DType::F16 => 0.5 + 10.0 / 8192.0,
        _ => 10.0,
    };
    assert!(loss <= 4.0, "{case}: the loss is {loss:.2} ULP off");
    assert!(grad <= allowed, "{case}: the gradient is {grad:.2} ULP off");
}

/// What burn's formula `x − max − log Σ exp(x − max)` is off at most, computed in the dtype of the logits: a
/// rounding of each difference and of each of K terms as it is added, 64 units of an exp (the most that was seen
/// of this driver's), 8 of a logarithm (2⁻²¹, WGSL's bound), and as much again for what follows.
fn burns_error(batch: &Batch, loss: f64) -> f64 {
    let unit = match batch.dtype {
        DType::F16 => 2.0_f64.powi(-11),
        _ => 2.0_f64.powi(-24),
    };
    let sizes = batch.logits.iter().map(|logit| f64::from(logit.abs()));
    let widest = sizes.fold(0.0, f64::max);
    2.0 * unit * (2.0 * widest + batch.classes as f64 + 64.0 + 8.0 + loss)
}

fn assert_alike(ours: &Outcome, burns: &Outcome, allowed: f64, case: &str) {
    let losses = (ours.loss - burns.loss).abs();
    assert!(losses <= allowed, "{case}: losses differ by {losses:e}");
    for (ours, burns) in ours.grad.iter().zip(&burns.grad) {
        let differ = (ours - burns).abs();
        assert!(differ <= allowed, "{case}: gradients differ by {differ:e}");
    }
}

#[test]
fn ours_is_the_more_exact() {
    let (device, setup) = shared();
    let (plain, smoothed) = (
        Options::default(),
        Options {
            label_smoothing: 0.1,
            ..Options::default()
        },
    );
    let padded = |options| Options {
        ignore_index: 0,
        ..options
    };
    // burn's smoothing is for f32 alone: its smoothed labels are f32, and do not meet f16.
    for (options, dtypes) in [
        (plain, &[DType::F32, DType::F16][..]),
        (padded(plain), &[DType::F32, DType::F16]),
        (smoothed, &[DType::F32]),
        (padded(smoothed), &[DType::F32]),
    ] {
        let criterion = CrossEntropy::new(&device, &setup, options);
        for &dtype in dtypes {
            // The most over all shapes, of losses and of gradients.
            let (mut worst, mut burns_worst) = ([0.0_f64; 2], [0.0_f64; 2]);
            for (rows, classes) in SHAPES {
                let mut batch = Batch::new(rows, classes, dtype, 3.0);
                if options.ignore_index == 0 {
                    if rows == 1 || classes == 1 {
                        continue; // nothing would be left
                    }
                    batch = batch.padded(0);
                }
                let exact = batch.exact(&options);
                let ours = batch.ours(&device, &criterion);
                let burns = batch.burns(&device, &options);
                let ours_off = off(&ours, &exact, dtype);
                let burns_off = off(&burns, &exact, dtype);
                let case = format!("{options:?} {dtype:?} {rows} × {classes}");
                println!("{case}: {ours_off:.2?} ULP, burn {burns_off:.2?}");
                assert_exact(ours_off, dtype, &case);
                let allowed = burns_error(&batch, exact.outcome.loss);
                assert_alike(&ours, &burns, allowed, &case);
                for i in 0..2 {
                    worst[i] = worst[i].max(ours_off[i]);
                    burns_worst[i] = burns_worst[i].max(burns_off[i]);
                }
            }
            println!("{options:?} {dtype:?}: {worst:.2?} ULP, burn {burns_worst:.2?}");
            assert!(worst[0] < burns_worst[0] && worst[1] < burns_worst[1]);
        }
    }
}

#[test]
fn options_that_burn_lacks() {
    let (device, setup) = shared();
    let plain = Options::default();
    for options in [
        Options {
            z_loss: 1e-2,
            ..plain
        },
        Options {
            logit_scale: 0.7,
            ..plain
        },
        Options {
            softcap: Some(30.0),
            ..plain
        },
        Options {
            reduction: Reduction::Sum,
            label_smoothing: 0.1,
            ..plain
        },
        Options {
            z_loss: 1e-3,
            ignore_index: 0,
            label_smoothing: 0.1,
            ..plain
        },
    ] {
        let criterion = CrossEntropy::new(&device, &setup, options);
        for dtype in [DType::F32, DType::F16] {
            for (rows, classes) in [(48, 10), (33, 100), (5, 4097)] {
                let batch = Batch::new(rows, classes, dtype, 3.0).padded(options.ignore_index);
                let ours = batch.ours(&device, &criterion);
                let ours_off = off(&ours, &batch.exact(&options), dtype);
                let case = format!("{options:?} {dtype:?} {rows} × {classes}");
                assert_exact(ours_off, dtype, &case);
            }
        }
    }
}

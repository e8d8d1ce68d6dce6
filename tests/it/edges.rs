//! The edge table of the specification: each line on the oracle and on all kernels, judged by the
//! same words; and no line touches the rows beside it.

use softxent::half::f16;
use softxent::{
    Denominator, Dtype, EmptyMean, Error, Padding, Problem, Reduction, Results, Strategy, Wanted,
};

use crate::common::{Case, MASKED as M, bits, gpu, per_row, same_bits, select, widen};
use crate::guest::{Home, resident};
use crate::judge::{Worst, check_rounded, judge};

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;
const MAX: f32 = f32::MAX;

/// What a line of the table promises of its case.
type Promise = fn(&Results<f64>) -> bool;

struct Line {
    name: &'static str,
    case: Case,
    promise: Promise,
}

fn line(name: &'static str, case: Case, promise: Promise) -> Line {
    Line {
        name,
        case: Case {
            name: name.to_owned(),
            ..case
        },
        promise,
    }
}

/// With options, and every output that it has then.
fn with(mut case: Case, options: impl FnOnce(&mut Case)) -> Case {
    options(&mut case);
    case.want_everything()
}

fn near(value: f64, expected: f64) -> bool {
    (value - expected).abs() <= 1e-6 * expected.abs()
}

fn rows<const K: usize>(rows: &[[f32; K]]) -> Case {
    Case::new("", K, rows.concat()).reduce(Reduction::Sum)
}

fn p(r: &Results<f64>) -> &[f64] {
    r.softmax.as_deref().unwrap_or_default()
}
fn log_p(r: &Results<f64>) -> &[f64] {
    r.log_softmax.as_deref().unwrap_or_default()
}
fn grad(r: &Results<f64>) -> &[f64] {
    r.grad.as_deref().unwrap_or_default()
}
fn losses(r: &Results<f64>) -> &[f64] {
    r.losses.as_deref().unwrap_or_default()
}
fn lse(r: &Results<f64>) -> &[f64] {
    r.lse.as_deref().unwrap_or_default()
}
fn predictions(r: &Results<f64>) -> &[i64] {
    r.predictions.as_deref().unwrap_or_default()
}
fn entropy(r: &Results<f64>) -> &[f64] {
    r.entropy.as_deref().unwrap_or_default()
}
fn z_losses(r: &Results<f64>) -> &[f64] {
    r.z_losses.as_deref().unwrap_or_default()
}
fn correct_rows(r: &Results<f64>) -> &[bool] {
    r.correct_rows.as_deref().unwrap_or_default()
}
fn z_loss(r: &Results<f64>) -> f64 {
    r.z_loss.unwrap_or(-1.0)
}
fn loss(r: &Results<f64>) -> f64 {
    r.loss.unwrap_or(-1.0)
}
fn all_nan(values: &[f64]) -> bool {
    !values.is_empty() && values.iter().all(|value| value.is_nan())
}
fn finite(values: &[f64]) -> bool {
    !values.is_empty() && values.iter().all(|value| value.is_finite())
}
fn zero(values: &[f64]) -> bool {
    !values.is_empty() && values.iter().all(|&value| value == 0.0)
}
fn nan_rows(r: &Results<f64>) -> (u64, Option<u64>, u64) {
    (r.nan_rows, r.first_nan_row, r.valid_rows)
}

/// Rows 1, 2 and 3 are NaN rows.
fn spoilt() -> Case {
    rows(&[
        [0.0, 1.0, 2.0],
        [M; 3],
        [1.0, INF, 0.0],
        [NAN, 1.0, 2.0],
        [2.0, 1.0, 0.0],
    ])
    .index(vec![0, 1, 2, 1, 0])
}

fn spoilt_rows_are_nan(r: &Results<f64>) -> bool {
    [log_p(r), p(r), grad(r)]
        .iter()
        .all(|matrix| all_nan(&matrix[3..12]) && finite(&matrix[..3]) && finite(&matrix[12..]))
        && [losses(r), lse(r), entropy(r)]
            .iter()
            .all(|row| all_nan(&row[1..4]) && row[0].is_finite() && row[4].is_finite())
        && predictions(r) == [2, -1, -1, -1, 0]
        && correct_rows(r) == [false, false, false, false, true]
        && nan_rows(r) == (3, Some(1), 5)
        && r.correct == Some(1)
}

fn lines() -> Vec<Line> {
    let confident = |gap: f32| [gap, 0.0, -1.0];
    vec![
        line(
            "some logits −inf: p and gradient 0 exactly, log_softmax −inf, the others as if the class were absent",
            rows(&[[M, 1.0, 2.0, M], [0.0, M, M, 3.0], [M, M, 7.0, M]]).index(vec![1, 3, 2]),
            |r| {
                let masked = [0, 3, 5, 6, 8, 9, 11];
                masked.iter().all(|&j| {
                    p(r)[j] == 0.0 && grad(r)[j] == 0.0 && log_p(r)[j] == f64::NEG_INFINITY
                }) && p(r)[10] == 1.0
                    && (losses(r)[2], grad(r)[10]) == (0.0, 0.0)
                    && entropy(r)[2] == 0.0
                    && finite(losses(r))
                    && finite(entropy(r))
            },
        ),
        line(
            "label at a −inf logit: loss +inf, gradient finite (p − y)",
            rows(&[[M, 1.0, 2.0], [0.0, 1.0, 2.0]]).index(vec![0, 1]),
            |r| {
                losses(r)[0] == f64::INFINITY
                    && loss(r) == f64::INFINITY
                    && grad(r)[0] == -1.0
                    && finite(grad(r))
                    && r.nan_rows == 0
            },
        ),
        line(
            "dense label 0 at a −inf logit: contributes 0",
            rows(&[[M, 1.0, 2.0], [0.0, M, 4.0]]).dense(vec![0.0, 0.25, 0.75, 2.0, 0.0, 1.0]),
            |r| finite(losses(r)) && loss(r).is_finite() && grad(r)[0] == 0.0 && grad(r)[4] == 0.0,
        ),
        line(
            "all logits −inf, any +inf, any NaN: that row NaN; sum NaN",
            spoilt(),
            |r| spoilt_rows_are_nan(r) && loss(r).is_nan(),
        ),
        line(
            "all logits −inf, any +inf, any NaN: that row NaN; mean NaN",
            spoilt().reduce(Reduction::Mean),
            |r| spoilt_rows_are_nan(r) && loss(r).is_nan(),
        ),
        line(
            "all logits −inf, any +inf, any NaN: that row NaN; none",
            spoilt().reduce(Reduction::None),
            |r| spoilt_rows_are_nan(r) && r.loss.is_none(),
        ),
        line(
            "any +inf or NaN, dense labels",
            rows(&[[1.0, 0.0], [INF, 0.0], [0.0, NAN]]).dense(vec![0.5, 0.5, 0.0, 1.0, 0.0, 0.0]),
            |r| {
                all_nan(&grad(r)[2..])
                    && all_nan(&p(r)[2..])
                    && all_nan(&losses(r)[1..])
                    && nan_rows(r) == (2, Some(1), 3)
            },
        ),
        line(
            "an ignored row with NaN or inf: loss 0, gradient 0",
            rows(&[[NAN, 1.0, 2.0], [0.0, 1.0, 2.0], [INF, 0.0, 0.0], [M; 3]])
                .index(vec![-100, 1, -100, -100]),
            |r| {
                zero(&grad(r)[..3])
                    && zero(&grad(r)[6..])
                    && zero(&[losses(r)[0], losses(r)[2], losses(r)[3]])
                    && all_nan(&p(r)[..3])
                    && all_nan(&[lse(r)[0], lse(r)[2], lse(r)[3]])
                    && all_nan(&[entropy(r)[0], entropy(r)[2], entropy(r)[3]])
                    && predictions(r) == [-1, 2, -1, -1]
                    && loss(r) == losses(r)[1]
                    && nan_rows(r) == (0, None, 1)
            },
        ),
        line(
            "softmax, log_softmax, lse, prediction, entropy of an ignored row: as for any other row",
            rows(&[[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
                .index(vec![0, -100])
                .reduce(Reduction::Mean),
            |r| {
                p(r)[..3] == p(r)[3..]
                    && log_p(r)[..3] == log_p(r)[3..]
                    && lse(r)[0] == lse(r)[1]
                    && entropy(r)[0] == entropy(r)[1]
                    && predictions(r) == [0, 0]
                    && correct_rows(r) == [true, false]
                    && (r.correct, r.valid_rows) == (Some(1), 1)
                    && zero(&grad(r)[3..])
            },
        ),
        line(
            "all rows ignored, mean: NaN loss and zero gradient",
            rows(&[[0.0, 1.0], [NAN, 0.0]])
                .index(vec![-100, -100])
                .reduce(Reduction::Mean),
            |r| loss(r).is_nan() && zero(grad(r)) && zero(losses(r)) && nan_rows(r) == (0, None, 0),
        ),
        line(
            "all rows ignored, sum: 0",
            rows(&[[0.0, 1.0], [NAN, 0.0]]).index(vec![-100, -100]),
            |r| loss(r).to_bits() == 0 && zero(grad(r)) && r.valid_rows == 0,
        ),
        line(
            "N = 0, none: empty",
            Case::new("", 4, vec![])
                .index(vec![])
                .reduce(Reduction::None),
            |r| {
                r.losses.as_ref().is_some_and(Vec::is_empty)
                    && r.grad.as_ref().is_some_and(Vec::is_empty)
                    && r.loss.is_none()
            },
        ),
        line(
            "N = 0, sum: 0",
            Case::new("", 4, vec![])
                .index(vec![])
                .reduce(Reduction::Sum),
            |r| loss(r).to_bits() == 0 && nan_rows(r) == (0, None, 0),
        ),
        line(
            "N = 0, mean: NaN",
            Case::new("", 4, vec![]).dense(vec![]),
            |r| loss(r).is_nan(),
        ),
        line(
            "K = 1: p = 1, loss +0, gradient 0",
            rows(&[[0.0], [3.5], [1e30], [-MAX], [-0.0]]).index(vec![0; 5]),
            |r| {
                p(r).iter().all(|&p| p == 1.0)
                    && zero(grad(r))
                    && loss(r).to_bits() == 0
                    && losses(r).iter().all(|loss| loss.to_bits() == 0)
            },
        ),
        line(
            "confident row: full relative accuracy, never negative, never −0, not 0 before it underflows",
            rows(&[17.0, 20.0, 30.0, 40.0, 60.0, 80.0, 86.0, 100.0, 200.0, 1e30].map(confident))
                .index(vec![0; 10]),
            |r| {
                losses(r)[..7].iter().all(|&loss| loss > 0.0)
                    && losses(r).iter().all(|loss| loss.is_sign_positive())
                    && (0..7).all(|i| grad(r)[3 * i] < 0.0)
                    && loss(r) > 0.0
            },
        ),
        line(
            "±1e30, ±3.4e38: finite where the exact result is finite",
            rows(&[
                [1e30, -1e30, 0.0],
                [-1e30; 3],
                [3.4e38, 1.0, 3.4e38],
                [-3.4e38, -3.4e38, -3.4e38],
                [3.4e38, 0.0, -3.4e38],
            ])
            .index(vec![1, 0, 0, 2, 1]),
            |r| {
                finite(losses(r)) && finite(lse(r)) && finite(p(r)) && finite(grad(r))
                    && log_p(r)[14] < -6e38 // past the largest f32, so −inf on a device
                    && losses(r)[0] > 1.9e30 && losses(r)[1] < 1.1 && losses(r)[4] > 3.3e38
            },
        ),
        line(
            "±1e30, ±3.4e38: sums of label × gap included",
            rows(&[[-MAX, MAX, 0.0, 1.0], [MAX, MAX, -MAX, 0.0]])
                .dense(vec![0.25, 0.25, 0.25, 0.25, 0.0, 0.5, 0.25, 0.0]),
            |r| {
                finite(losses(r))
                    && finite(grad(r))
                    && losses(r)[0] > 3.3e38
                    && losses(r)[1] > 1.7e38
            },
        ),
        line(
            "losses that sum past 3.4e38, mean finite: the mean, not inf",
            rows(&[[3e38, 0.0]; 40])
                .index(vec![1; 40])
                .reduce(Reduction::Mean),
            |r| (loss(r) / 3e38 - 1.0).abs() < 1e-6,
        ),
        line(
            "losses that sum past 3.4e38: the sum is inf",
            rows(&[[3e38, 0.0]; 40]).index(vec![1; 40]),
            |r| loss(r) > 3.4e38,
        ),
        line(
            "dense labels: NaN or inf: row NaN and counted",
            rows(&[[0.0, 1.0]; 4]).dense(vec![1.0, 0.0, NAN, 0.0, 0.0, INF, -INF, 1.0]),
            |r| {
                all_nan(&losses(r)[1..])
                    && all_nan(&grad(r)[2..])
                    && finite(&grad(r)[..2])
                    && finite(p(r))
                    && finite(lse(r))
                    && predictions(r) == [1; 4]
                    && nan_rows(r) == (3, Some(1), 4)
                    && loss(r).is_nan()
            },
        ),
        line(
            "dense labels: negative: computed",
            rows(&[[0.0, 1.0, 2.0]; 2]).dense(vec![-0.5, 1.0, 0.25, -1.0, -1.0, -1.0]),
            |r| finite(losses(r)) && losses(r)[1] < 0.0 && finite(grad(r)) && r.nan_rows == 0,
        ),
        line(
            "dense weight above 0 at a −inf logit: loss +inf, gradient finite",
            rows(&[[M, 1.0, 2.0], [0.0, 1.0, 4.0]]).dense(vec![0.5, 0.25, 0.25, 0.0, 1.0, 0.0]),
            |r| {
                losses(r)[0] == f64::INFINITY
                    && grad(r)[0] == -0.5
                    && finite(grad(r))
                    && r.nan_rows == 0
            },
        ),
        line(
            "dense weights of both signs at −inf logits: loss NaN, counted, gradient finite",
            rows(&[[M, M, 2.0], [0.0, 1.0, 4.0], [M, 0.0, 0.0]])
                .dense(vec![0.5, -0.5, 1.0, 0.0, 1.0, 0.0, -1.0, 1.0, 0.0]),
            |r| {
                losses(r)[0].is_nan()
                    && losses(r)[2] == f64::NEG_INFINITY
                    && finite(grad(r))
                    && finite(p(r))
                    && nan_rows(r) == (1, Some(0), 3)
                    && loss(r).is_nan()
            },
        ),
        line(
            "results below 2⁻¹²⁶: may be flushed to 0",
            rows(&[88.0, 90.0, 95.0, 103.0].map(confident)).index(vec![0; 4]),
            |r| {
                losses(r).iter().all(|&loss| (0.0..1.2e-38).contains(&loss))
                    && p(r).iter().all(|&p| (0.0..=1.0).contains(&p))
            },
        ),
        // ---- [2]: with the options ----------------------------------------------------------
        line(
            "index label of weight 0 at a −inf logit: contributes 0",
            with(
                rows(&[[M, 1.0, 2.0], [0.0, 1.0, 2.0]]).index(vec![0, 1]),
                |case| {
                    case.class_weights = vec![0.0, 2.0, 1.0];
                },
            ),
            |r| {
                losses(r)[0].to_bits() == 0
                    && zero(&grad(r)[..3])
                    && losses(r)[1] > 2.8
                    && finite(grad(r))
                    && r.nan_rows == 0
            },
        ),
        line(
            "dense label of weight 0 at a −inf logit: contributes 0",
            with(
                rows(&[[M, 1.0, 2.0]; 2]).dense(vec![0.5, 0.25, 0.25, -3.0, 0.0, 1.0]),
                |case| case.class_weights = vec![0.0, 2.0, 1.0],
            ),
            |r| finite(losses(r)) && losses(r)[0] > 0.0 && finite(grad(r)) && grad(r)[0] == 0.0,
        ),
        line(
            "smoothing with a −inf logit whose weight is not 0: loss +inf, gradient finite",
            with(
                rows(&[[M, 1.0, 2.0], [0.0, 1.0, 2.0]]).index(vec![1, 1]),
                |case| {
                    case.label_smoothing = 0.3;
                },
            ),
            |r| {
                losses(r)[0] == f64::INFINITY
                    && losses(r)[1].is_finite()
                    && loss(r) == f64::INFINITY
                    && finite(grad(r))
                    && near(grad(r)[0], -0.1)
                    && r.nan_rows == 0
            },
        ),
        line(
            "smoothing with a −inf logit whose weight is 0: contributes 0",
            with(rows(&[[M, 1.0, 2.0]]).index(vec![1]), |case| {
                case.label_smoothing = 0.3;
                case.class_weights = vec![0.0, 1.0, 1.0];
            }),
            |r| finite(losses(r)) && finite(grad(r)) && grad(r)[0] == 0.0,
        ),
        line(
            "smoothing of 1: the label itself does not count",
            with(rows(&[[3.0, 1.0, 2.0]; 2]).index(vec![0, 1]), |case| {
                case.label_smoothing = 1.0;
            }),
            |r| {
                near(losses(r)[0], losses(r)[1])
                    && (0..3).all(|j| (grad(r)[j] - grad(r)[j + 3]).abs() < 1e-6)
            },
        ),
        line(
            "an ignored row with every option: loss 0, z-loss 0, gradient 0",
            with(
                rows(&[[NAN, 1.0], [5.0, 1.0], [0.0, 1.0]]).index(vec![-100, -100, 1]),
                |case| {
                    (case.label_smoothing, case.z_loss) = (0.5, 0.5);
                    (case.logit_scale, case.softcap) = (2.0, Some(4.0));
                    case.class_weights = vec![3.0, 2.0];
                },
            ),
            |r| {
                zero(&losses(r)[..2])
                    && zero(&z_losses(r)[..2])
                    && zero(&grad(r)[..4])
                    && loss(r) == losses(r)[2]
                    && z_loss(r) == z_losses(r)[2]
                    && correct_rows(r) == [false, false, true]
                    && nan_rows(r) == (0, None, 1)
            },
        ),
        line(
            "a NaN row with every option: NaN, counted, alone",
            with(
                rows(&[[0.0, 1.0], [NAN, 1.0], [INF, 0.0]]).index(vec![1, 1, 0]),
                |case| {
                    (case.label_smoothing, case.z_loss) = (0.5, 0.5);
                    (case.logit_scale, case.softcap) = (2.0, Some(4.0));
                    case.class_weights = vec![3.0, 2.0];
                },
            ),
            |r| {
                all_nan(&losses(r)[1..])
                    && all_nan(&z_losses(r)[1..])
                    && all_nan(&entropy(r)[1..])
                    && all_nan(&grad(r)[2..])
                    && finite(&grad(r)[..2])
                    && loss(r).is_nan()
                    && z_loss(r).is_nan()
                    && predictions(r) == [1, -1, -1]
                    && nan_rows(r) == (2, Some(1), 3)
            },
        ),
        line(
            "the weights of the rest sum to 0, mean: NaN loss and zero gradient",
            with(
                rows(&[[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]]).index(vec![1, -100, 1]),
                |case| {
                    case.reduction = Reduction::Mean;
                    case.class_weights = vec![2.0, 0.0];
                },
            ),
            |r| loss(r).is_nan() && zero(grad(r)) && zero(losses(r)) && nan_rows(r) == (0, None, 2),
        ),
        line(
            "the weights of the rest sum to 0, `EmptyMean::Zero`: 0, and zero gradient",
            with(
                rows(&[[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]]).index(vec![1, -100, 1]),
                |case| {
                    (case.reduction, case.empty_mean) = (Reduction::Mean, EmptyMean::Zero);
                    case.class_weights = vec![2.0, 0.0];
                },
            ),
            |r| loss(r).to_bits() == 0 && zero(grad(r)) && r.valid_rows == 2,
        ),
        line(
            "the weights of the rest sum to 0, `EmptyMean::Zero`: the z term stays, a mean over rows",
            with(
                rows(&[[0.0, 0.0], [9.0, 0.0], [0.0, 0.0]]).index(vec![1, -100, 1]),
                |case| {
                    (case.reduction, case.empty_mean) = (Reduction::Mean, EmptyMean::Zero);
                    case.class_weights = vec![2.0, 0.0];
                    case.z_loss = 0.5;
                },
            ),
            |r| {
                let lse = f64::ln(2.0);
                near(loss(r), 0.5 * lse * lse)
                    && loss(r) == z_loss(r)
                    && [0, 1, 4, 5].iter().all(|&j| near(grad(r)[j], lse / 4.0))
                    && zero(&grad(r)[2..4])
            },
        ),
        line(
            "the weights sum to 0, a given denominator: it divides, and nothing is empty",
            with(rows(&[[0.0, 1.0]]).index(vec![1]), |case| {
                (case.reduction, case.denominator) = (Reduction::Mean, Denominator::Number(4.0));
                case.class_weights = vec![2.0, 0.0];
            }),
            |r| loss(r).to_bits() == 0 && zero(grad(r)),
        ),
        line(
            "all rows ignored, `EmptyMean::Zero`: 0, with the z-loss too",
            with(
                rows(&[[0.0, 1.0], [NAN, 0.0]]).index(vec![-100; 2]),
                |case| {
                    (case.reduction, case.empty_mean) = (Reduction::Mean, EmptyMean::Zero);
                    case.z_loss = 0.5;
                },
            ),
            |r| {
                (loss(r).to_bits(), z_loss(r).to_bits()) == (0, 0)
                    && zero(grad(r))
                    && r.valid_rows == 0
            },
        ),
        line(
            "N = 0, mean, `EmptyMean::Zero`: 0",
            with(Case::new("", 4, vec![]).index(vec![]), |case| {
                case.empty_mean = EmptyMean::Zero;
            }),
            |r| loss(r).to_bits() == 0,
        ),
        line(
            "N = 0, none, every output: empty",
            with(
                Case::new("", 4, vec![])
                    .index(vec![])
                    .reduce(Reduction::None),
                |case| {
                    (case.z_loss, case.inner) = (0.5, 4);
                    (case.row_length, case.padding) = (9, Padding::Kept);
                },
            ),
            |r| {
                r.z_losses.as_ref().is_some_and(Vec::is_empty)
                    && r.entropy.as_ref().is_some_and(Vec::is_empty)
                    && r.correct_rows.as_ref().is_some_and(Vec::is_empty)
                    && r.softmax.as_ref().is_some_and(Vec::is_empty)
                    && (r.loss, r.z_loss) == (None, None)
            },
        ),
        line(
            "the weighted mean: Σ w_y·loss / Σ w_y, rows that are not ignored",
            with(
                rows(&[[0.0, 0.0], [0.0, 0.0], [NAN, 0.0]]).index(vec![0, 1, -100]),
                |case| {
                    case.reduction = Reduction::Mean;
                    case.class_weights = vec![3.0, 5.0];
                },
            ),
            |r| {
                near(loss(r), f64::ln(2.0))
                    && near(losses(r)[0], 3.0 * f64::ln(2.0))
                    && near(grad(r)[0], -3.0 / 16.0)
                    && near(grad(r)[3], -5.0 / 16.0)
            },
        ),
        line(
            "the mean of dense labels: over rows, never over weights",
            with(
                rows(&[[0.0, 0.0]; 2]).dense(vec![1.0, 0.0, 0.0, 1.0]),
                |case| {
                    case.reduction = Reduction::Mean;
                    case.class_weights = vec![3.0, 5.0];
                },
            ),
            |r| near(loss(r), 4.0 * f64::ln(2.0)),
        ),
        line(
            "K = 1 with a z-loss: λ·lse², gradient 2λ·lse",
            with(rows(&[[3.0], [-2.0], [0.0]]).index(vec![0; 3]), |case| {
                case.z_loss = 0.5
            }),
            |r| {
                losses(r) == [4.5, 2.0, 0.0]
                    && grad(r) == [3.0, -2.0, 0.0]
                    && entropy(r) == [0.0; 3]
            },
        ),
        line(
            "the entropy: log K of equal logits, 0 of one class, never negative or −0",
            rows(&[[1.0, 1.0, 1.0, 1.0], [M, M, -7.0, M], [1e30, 0.0, -1e30, M]]),
            |r| {
                near(entropy(r)[0], f64::ln(4.0))
                    && entropy(r)[1..].iter().all(|h| h.to_bits() == 0)
            },
        ),
        line(
            "a cap: far logits end at it, with a gradient that vanishes; −inf stays a mask",
            with(
                rows(&[[1e30, -1e30, 0.0], [3.4e38, M, 0.0]]).index(vec![0, 2]),
                |case| case.softcap = Some(10.0),
            ),
            |r| {
                near(lse(r)[0], 10.0 + f64::exp(-10.0))
                    && grad(r)[0] == 0.0
                    && grad(r)[3] == 0.0
                    && p(r)[4] == 0.0
                    && grad(r)[4] == 0.0
                    && near(losses(r)[1], 10.0 + f64::exp(-10.0))
                    && finite(grad(r))
                    && predictions(r) == [0, 0]
            },
        ),
        line(
            "the prediction under a cap: the first index of the maximum of x, where z ties",
            with(rows(&[[100.0, 200.0, 200.0]]).index(vec![1]), |case| {
                case.softcap = Some(2.0)
            }),
            |r| predictions(r) == [1] && r.correct == Some(1),
        ),
        line(
            "a scale: gradients of the logits as given",
            with(rows(&[[1.0, 0.0]]).index(vec![0]), |case| {
                case.logit_scale = 30.0
            }),
            |r| losses(r)[0] > 9e-14 && near(grad(r)[1], 30.0 * f64::exp(-30.0)),
        ),
        line(
            "loss above 65504 with f16 logits: losses, lse and reduced results are f32",
            with(
                rows(&[[65504.0, -65504.0], [60000.0, -60000.0]])
                    .index(vec![1, 1])
                    .store(Dtype::F16),
                |case| case.same_dtype_out = true,
            ),
            |r| {
                losses(r) == [131_008.0, 120_000.0]
                    && loss(r) == 251_008.0
                    && lse(r) == [65504.0, 60000.0]
                    && log_p(r)[1] == f64::NEG_INFINITY // past the largest f16
            },
        ),
        line(
            "f16 logits: NaN, ±inf and masks in either half of a word",
            with(
                rows(&[[0.0, NAN, 1.0], [INF, 0.0, 1.0], [M, 1.0, M], [M, M, M]])
                    .index(vec![0, 0, 1, 1])
                    .store(Dtype::F16),
                |_| (),
            ),
            |r| {
                all_nan(&p(r)[..6])
                    && p(r)[6..9] == [0.0, 1.0, 0.0]
                    && all_nan(&p(r)[9..])
                    && nan_rows(r) == (3, Some(0), 4)
            },
        ),
        line(
            "padding: NaN past the last class is not read, and masked in what is written",
            with(
                rows(&[[1.0, 2.0], [0.0, M]])
                    .index(vec![0, 0])
                    .laid_out(1, 5, Padding::Masked),
                |_| (),
            ),
            |r| {
                r.nan_rows == 0
                    && [2, 3, 4, 7, 8, 9].iter().all(|&j| {
                        (p(r)[j], grad(r)[j], log_p(r)[j]) == (0.0, 0.0, f64::NEG_INFINITY)
                    })
                    && p(r)[5] == 1.0
            },
        ),
        line(
            "padding kept: the host's vectors hold 0",
            with(
                rows(&[[1.0, 2.0], [0.0, M]])
                    .index(vec![0, 0])
                    .laid_out(2, 3, Padding::Kept),
                |_| (),
            ),
            |r| {
                r.nan_rows == 0
                    && zero(&p(r)[4..])
                    && zero(&grad(r)[4..])
                    && zero(&log_p(r)[4..])
                    && p(r)[1] == 1.0
            },
        ),
        line(
            "the Jacobian: masked classes 0, NaN rows NaN and counted, an offset of v cancels",
            rows(&[
                [0.0, 0.0, M],
                [NAN, 0.0, 0.0],
                [0.0, 0.0, 0.0],
                [0.0, 0.0, 0.0],
            ])
            .vector(
                vec![1.0, 0.0, 9.0, 1.0, 1.0, 1.0, 1e6, 1e6, 1e6, 0.0, INF, 0.0],
                false,
            ),
            |r| {
                grad(r)[..3] == [0.25, -0.25, 0.0]
                    && all_nan(&grad(r)[3..6])
                    && grad(r)[6..9].iter().all(|g| g.abs() < 1.0)
                    && all_nan(&grad(r)[9..])
                    && nan_rows(r) == (2, Some(1), 4)
            },
        ),
        line(
            "the Jacobian of softmax that is given",
            rows(&[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [NAN, 0.0, 0.0]])
                .vector(vec![1.0, 0.0, 9.0, 3.0, 4.0, 5.0, 1.0, 1.0, 1.0], true),
            |r| {
                grad(r)[..3] == [0.25, -0.25, 0.0]
                    && zero(&grad(r)[3..6])
                    && all_nan(&grad(r)[6..])
                    && nan_rows(r) == (1, Some(2), 3)
            },
        ),
        line(
            "the prediction is the first index of the maximum",
            rows(&[
                [1.0, 3.0, 0.0, 3.0],
                [-0.0, 0.0, -1.0, M],
                [M, M, -5.0, -5.0],
            ])
            .index(vec![3, 0, 2]),
            |r| predictions(r) == [1, 0, 2] && r.correct == Some(2),
        ),
    ]
}

/// What the oracle has of outputs that are stored in the dtype of the logits.
fn rounded(case: &Case, oracle: &Results<f64>) -> Results<f64> {
    let round = |values: &Option<Vec<f64>>| {
        let round = |&value: &f64| f64::from(case.dtype.round(value as f32));
        Some(values.as_ref()?.iter().map(round).collect())
    };
    match case.same_dtype_out {
        true => Results {
            softmax: round(&oracle.softmax),
            log_softmax: round(&oracle.log_softmax),
            grad: round(&oracle.grad),
            ..oracle.clone()
        },
        false => oracle.clone(),
    }
}

/// The lines as they are of the oracle, which needs no device.
#[test]
fn every_line_holds_on_the_oracle() {
    for Line {
        name,
        case,
        promise,
    } in lines()
    {
        let oracle = case.oracle();
        assert!(
            promise(&rounded(&case, &oracle)),
            "{name}: not so on the oracle: {oracle:?}"
        );
    }
}

#[test]
fn every_line_holds() {
    let engine = gpu!();
    let mut worst = Worst::default();
    for Line {
        name,
        case,
        promise,
    } in lines()
    {
        let oracle = case.oracle();
        let rounded = rounded(&case, &oracle);
        assert!(
            promise(&rounded),
            "{name}: not so on the oracle: {oracle:?}"
        );
        for kernel in Strategy::ALL {
            let found = case.run(engine, kernel);
            let wide = widen(&found);
            assert!(
                promise(&wide),
                "{name}: not so with {}: {found:?}",
                kernel.name()
            );
            if case.same_dtype_out && case.dtype != Dtype::F32 {
                let mut wide = case.clone();
                wide.same_dtype_out = false;
                let wide = wide.run(engine, kernel);
                check_rounded(name, case.dtype, &wide, &found)
            } else {
                judge(&case, kernel.name(), &found, &oracle, &mut worst)
            }
            .unwrap_or_else(|why| panic!("{why}"));
            // Each row alone, under the same reduction, has the same bits: no line touches another.
            if case.reduction != Reduction::Mean {
                for i in 0..case.rows {
                    let alone = case.select(&[i]).run(engine, kernel);
                    let found = bits(&case.contiguous_results(&found));
                    let row = select(&found, case.classes, &[i]);
                    same_bits(&format!("{name}: row {i}"), &row, &per_row(bits(&alone)))
                        .unwrap_or_else(|why| panic!("{why}"));
                }
            }
        }
    }
}

#[test]
fn no_classes_are_an_error_before_any_dispatch() {
    let problem = Problem::of(1, 0).want([Wanted::Softmax]).build();
    assert!(matches!(problem, Err(Error::NoClasses)));
}

/// A masked class at the end is as good as none: the same bits as the narrower row.
#[test]
fn a_masked_tail_is_absent() {
    let engine = gpu!();
    let mut rng = crate::common::Rng(3);
    for (k, wider) in [(1, 2), (3, 4), (5, 70), (1000, 1030), (1025, 2100)] {
        let logits = rng.normals(k);
        let mut tail = logits.clone();
        tail.resize(wider, M);
        for kernel in Strategy::ALL {
            let narrow = bits(
                &Case::new("", k, logits.clone())
                    .index(vec![0])
                    .run(engine, kernel),
            );
            let mut wide = bits(
                &Case::new("", wider, tail.clone())
                    .index(vec![0])
                    .run(engine, kernel),
            );
            for matrix in [&mut wide.softmax, &mut wide.log_softmax, &mut wide.grad] {
                matrix.as_mut().unwrap().truncate(k);
            }
            same_bits(&format!("{k} and {wider}"), &narrow, &wide).unwrap();
        }
    }
}

/// Every pattern of f16, and of bf16, is the lse of a row of one class; what is subnormal in f32 may be
/// flushed.
#[test]
fn every_half_is_read() {
    let engine = gpu!();
    for dtype in [Dtype::F16, Dtype::Bf16] {
        let value = |bits: u16| match dtype {
            Dtype::F16 => f16::from_bits(bits).to_f32(),
            _ => f32::from_bits(u32::from(bits) << 16),
        };
        let mut case = Case::new(dtype.name(), 1, (0..=u16::MAX).map(value).collect());
        case = case.want([Wanted::Lse, Wanted::Predictions]);
        case.dtype = dtype;
        let found = case.run(engine, Strategy::RowPerInvocation);
        let (lse, predictions) = (found.lse.unwrap(), found.predictions.unwrap());
        for ((&x, lse), prediction) in case.logits.iter().zip(lse).zip(predictions) {
            assert_eq!(prediction, if x.is_finite() { 0 } else { -1 }, "{x:e}");
            let flushed = x.abs() < f32::MIN_POSITIVE && lse == 0.0;
            assert!(
                lse == x || lse.is_nan() && !x.is_finite() || flushed,
                "{x:e} is read as {lse:e}"
            );
        }
    }
}

/// A label that names no class, host call: an error that names the first bad row, before any dispatch.
#[test]
fn a_bad_label_is_refused_by_the_host() {
    let engine = gpu!();
    for (labels, message) in [
        (
            vec![0, 3],
            "row 1 has the label 3: labels are 0 to 2, or -100 for a row to ignore",
        ),
        (
            vec![-7, 3],
            "row 0 has the label -7: labels are 0 to 2, or -100 for a row to ignore",
        ),
        // 2³² would narrow to class 0.
        (
            vec![-100, 1 << 32],
            "row 1 has the label 4294967296: labels are 0 to 2, or -100 for a row to ignore",
        ),
    ] {
        let case = rows(&[[0.0; 3]; 2]).index(labels);
        for kernel in Strategy::ALL {
            assert_eq!(
                case.try_run(engine, kernel).expect_err(message).to_string(),
                message
            );
        }
    }
}

/// The same, device-resident: never an access out of bounds, loss and gradient of the row NaN, its
/// other outputs normal, the status holds the count and the first bad row.
#[test]
fn a_bad_label_on_the_device_spoils_its_row() {
    let engine = gpu!();
    let case = rows(&[
        [0.0, 1.0, 2.0],
        [1.0, 0.0, -1.0],
        [2.0, 2.0, 0.0],
        [0.0, 4.0, 0.0],
    ])
    .index(vec![2, 0, 1, 1]);
    for kernel in Strategy::ALL {
        let (good, _) = resident(engine, kernel, &case, Home::Apart(3)).unwrap();
        for bad in [3, i32::MAX, i32::MIN, -1, 1 << 24] {
            let mut case = case.clone();
            case.index = Some(vec![2, i64::from(bad), -100, i64::from(bad)]);
            let (found, status) = resident(engine, kernel, &case, Home::Apart(3)).unwrap();
            let is_nan = |words: &[u32]| words.iter().all(|&word| f32::from_bits(word).is_nan());
            let (losses, grad) = (found.losses.unwrap(), found.grad.unwrap());
            assert!(
                is_nan(&losses[1..2])
                    && is_nan(&losses[3..])
                    && is_nan(&grad[3..6])
                    && is_nan(&grad[9..]),
                "{bad}"
            );
            assert_eq!(losses[0], good.losses.as_ref().unwrap()[0], "{bad}");
            assert_eq!(
                (losses[2], &grad[6..9]),
                (0, &[0; 3][..]),
                "{bad}: the ignored row"
            );
            assert_eq!(grad[..3], good.grad.as_ref().unwrap()[..3], "{bad}");
            assert_eq!(
                (found.softmax, found.log_softmax),
                (good.softmax.clone(), good.log_softmax.clone()),
                "{bad}"
            );
            assert_eq!(
                (found.lse, found.predictions),
                (good.lse.clone(), good.predictions.clone()),
                "{bad}"
            );
            // Bad labels are counted on their own, not as NaN rows: 2 of them, row 1 the first.
            assert_eq!(
                (status.bad_labels, status.first_bad_label),
                (2, Some(1)),
                "{bad}"
            );
            assert_eq!(
                (found.nan_rows, found.valid_rows, found.correct),
                (0, 3, Some(1)),
                "{bad}"
            );
            assert!(is_nan(&[found.loss.unwrap()]), "{bad}");
        }
    }
}

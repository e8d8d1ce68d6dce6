//! The edge table of the specification: each line on the oracle and on both kernels, judged by the
//! same words; and no line touches the rows beside it.

use softxent::{Error, Problem, Reduction, Results, Strategy, Wanted};

use crate::common::{Case, MASKED as M, bits, gpu, per_row, same_bits, select, widen};
use crate::guest::{Home, resident};
use crate::judge::{Worst, judge};

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
        && [losses(r), lse(r)]
            .iter()
            .all(|row| all_nan(&row[1..4]) && row[0].is_finite() && row[4].is_finite())
        && predictions(r) == [2, -1, -1, -1, 0]
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
                    && finite(losses(r))
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
                    && predictions(r) == [-1, 2, -1, -1]
                    && loss(r) == losses(r)[1]
                    && nan_rows(r) == (0, None, 1)
            },
        ),
        line(
            "softmax, log_softmax, lse, prediction of an ignored row: as for any other row",
            rows(&[[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
                .index(vec![0, -100])
                .reduce(Reduction::Mean),
            |r| {
                p(r)[..3] == p(r)[3..]
                    && log_p(r)[..3] == log_p(r)[3..]
                    && lse(r)[0] == lse(r)[1]
                    && predictions(r) == [0, 0]
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
        assert!(promise(&oracle), "{name}: not so on the oracle: {oracle:?}");
        for kernel in Strategy::ALL {
            let found = case.run(engine, kernel);
            let wide = widen(&found);
            assert!(
                promise(&wide),
                "{name}: not so with {}: {found:?}",
                kernel.name()
            );
            judge(&case, kernel.name(), &found, &oracle, &mut worst)
                .unwrap_or_else(|why| panic!("{why}"));
            // Each row alone, under the same reduction, has the same bits: no line touches another.
            if case.reduction != Reduction::Mean {
                for i in 0..case.rows {
                    let alone = case.select(&[i]).run(engine, kernel);
                    let row = select(&bits(&found), case.classes, &[i]);
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

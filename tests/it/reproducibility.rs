//! What must not change a bit: the kernel, the batch around a row, its place, the buffers' offsets,
//! limits, chunks, which outputs are asked for, the order of rows, another run. And what must hold of
//! any softmax, on the device.

use softxent::{Reduction, Results, Strategy, Wanted};

use crate::cases::{Kind, Shape, generate};
use crate::checks::ONE_PASS;
use crate::common::{ALL, Case, Rng, bits, gpu, limited, long, per_row, same_bits, select};
use crate::guest::{Home, resident};
use crate::judge::ulp;

#[track_caller]
fn assert_same(what: &str, a: &Results<u32>, b: &Results<u32>) {
    same_bits(what, a, b).unwrap_or_else(|why| panic!("{why}"));
}

/// Reduction `sum`, so that the denominator is the same for every batch.
fn job(shape: Shape, kind: Kind, rows: usize, k: usize) -> Case {
    generate(shape, kind, rows, k).reduce(Reduction::Sum)
}

/// The same row alone, in batches of 2, 3, 64 and 257, at any place in them, with all kernels.
#[test]
fn the_batch_around_a_row_does_not_matter() {
    let engine = gpu!();
    for (kind, k) in [(Kind::Index, 3), (Kind::Index, 1030), (Kind::Dense, 33)] {
        let whole = job(Shape::Wide, kind, 257, k);
        let found = Strategy::ALL.map(|kernel| bits(&whole.run(engine, kernel)));
        assert_same(&whole.name, &found[0], &found[1]);
        let mut batches = vec![vec![5], vec![5, 200], vec![256, 5, 0], (100..164).collect()];
        batches.push((0..257).rev().collect());
        for from in batches {
            for kernel in Strategy::ALL {
                let some = per_row(bits(&whole.select(&from).run(engine, kernel)));
                let name = format!("{}, {}, {} rows", whole.name, kernel.name(), from.len());
                assert_same(&name, &select(&found[0], k, &from), &some);
            }
        }
    }
}

/// The same in a batch of more rows than a dispatch has workgroups in one dimension.
#[test]
fn seventy_thousand_rows_do_not_matter() {
    let engine = gpu!();
    let small = limited(engine, |profile| profile.max_invocations = 32);
    let whole = job(Shape::Wide, Kind::Index, 70_000, 2).want(ONE_PASS);
    let found = bits(&whole.run(engine, Strategy::RowPerInvocation));
    assert_same(
        "70000 rows",
        &found,
        &bits(&whole.run(&small, Strategy::RowPerWorkgroup)),
    );
    for from in [
        (0..64).collect::<Vec<_>>(),
        (69_000..69_300).collect(),
        vec![69_999, 65_535, 65_536],
    ] {
        let some = per_row(bits(
            &whole.select(&from).run(engine, Strategy::RowPerInvocation),
        ));
        assert_same("some of 70000 rows", &select(&found, 2, &from), &some);
    }
}

/// Arrays that begin at any element of a buffer; nothing around them is written, or read into a result.
#[test]
fn offsets_in_buffers_do_not_matter() {
    let engine = gpu!();
    for (kind, k, wanted, over) in [
        (Kind::Index, 3, &ONE_PASS[..], false),
        (Kind::Index, 1030, &ONE_PASS, false),
        (Kind::Dense, 33, &ALL, false),
        (Kind::Index, 130, &ALL, true),
    ] {
        for kernel in Strategy::ALL {
            let mut case = job(Shape::Confident, kind, 65, k).want(wanted.iter().copied());
            let host = bits(&case.run(engine, kernel));
            case.over_logits = over;
            for offset in 0..=9 {
                let (found, _) = resident(engine, kernel, &case, Home::Apart(offset))
                    .unwrap_or_else(|why| panic!("{why}"));
                let name = format!("{}, {}, offset {offset}", case.name, kernel.name());
                assert_same(&name, &host, &found);
            }
        }
    }
    // One upstream gradient a row, which is an array with an offset too.
    let mut case = job(Shape::Normal, Kind::Index, 7, 10)
        .want(ONE_PASS)
        .reduce(Reduction::None);
    case.upstream = vec![1.0, -0.5, 3.0, 0.0, 1e-3, 65536.0, -1.0];
    case.per_row = true;
    for kernel in Strategy::ALL {
        let host = bits(&case.run(engine, kernel));
        for offset in [0, 1, 4, 7] {
            let (found, _) = resident(engine, kernel, &case, Home::Apart(offset))
                .unwrap_or_else(|why| panic!("{why}"));
            assert_same(&format!("upstream a row, offset {offset}"), &host, &found);
        }
    }
}

/// Workgroups of any size, and chunks of any number of rows: every output, the reduced loss, the
/// counts and the first NaN row.
#[test]
fn limits_and_chunks_do_not_matter() {
    let engine = gpu!();
    for (kind, k) in [
        (Kind::Index, 1030),
        (Kind::Dense, 1100),
        (Kind::Index, 9000),
    ] {
        let mut case = generate(Shape::Wide, kind, 23, k).want(ONE_PASS);
        // A NaN row that is neither in the first chunk nor the first of its own.
        if k < 9000 {
            case.logits[17 * k + 2] = f32::NAN;
        }
        for kernel in Strategy::ALL {
            let plain = bits(&case.run(engine, kernel));
            // The exact sums need a binding of 4 KiB; a block has 8 words beside the row's.
            let row_bytes = (4 * k as u64).max(32 * (1 + k.div_ceil(1024) as u64));
            let rows_of_binding = |rows: u64| (rows * row_bytes).max(4096);
            let alignment = u64::from(engine.profile().offset_alignment);
            let invocations = if kind == Kind::Dense && !long() {
                &[32][..]
            } else {
                &[32, 64, 128]
            };
            for &most in invocations {
                // 3 rows a chunk, where the last one has fewer; then one.
                for rows in [3, 1] {
                    let limits = limited(engine, |profile| {
                        profile.max_invocations = most;
                        profile.max_binding = rows_of_binding(rows) + alignment;
                        profile.max_workgroups = 2;
                    });
                    let name = format!(
                        "{}, {}, {most} invocations, {rows} rows",
                        case.name,
                        kernel.name()
                    );
                    assert_same(&name, &plain, &bits(&case.run(&limits, kernel)));
                }
            }
        }
    }
}

#[test]
fn ten_runs_are_one() {
    let engine = gpu!();
    for kernel in Strategy::ALL {
        let case = generate(Shape::Normal, Kind::Index, 40, 2500);
        let first = bits(&case.run(engine, kernel));
        for run in 1..10 {
            assert_same(
                &format!("run {run}"),
                &first,
                &bits(&case.run(engine, kernel)),
            );
        }
    }
}

/// Rows in another order: their outputs move with them, and the reduced loss keeps its bits.
#[test]
fn the_order_of_rows_does_not_matter() {
    let engine = gpu!();
    let mut rng = Rng(11);
    for (kind, shape) in [
        (Kind::Index, Shape::Confident),
        (Kind::Signed, Shape::Wide),
        (Kind::Dense, Shape::Normal),
    ] {
        for reduction in [Reduction::Sum, Reduction::Mean] {
            let case = generate(shape, kind, 193, 17).reduce(reduction);
            let mut order: Vec<usize> = (0..case.rows).collect();
            for i in (1..order.len()).rev() {
                order.swap(i, rng.below(i + 1));
            }
            for kernel in Strategy::ALL {
                let (before, after) = (
                    bits(&case.run(engine, kernel)),
                    bits(&case.select(&order).run(engine, kernel)),
                );
                assert_eq!(before.loss, after.loss, "{}", case.name);
                assert_eq!(before.correct, after.correct, "{}", case.name);
                assert_same(&case.name, &select(&before, 17, &order), &per_row(after));
            }
        }
    }
}

/// Each output alone has the bits that it has among all of them.
#[test]
fn asking_for_less_changes_nothing() {
    let engine = gpu!();
    for kernel in Strategy::ALL {
        let case = generate(Shape::Edges, Kind::Index, 20, 1500);
        let all = bits(&case.run(engine, kernel));
        for output in ALL {
            let one = bits(&case.clone().want([output]).run(engine, kernel));
            let has = |wanted| output == wanted;
            let expected = Results {
                softmax: all.softmax.clone().filter(|_| has(Wanted::Softmax)),
                log_softmax: all.log_softmax.clone().filter(|_| has(Wanted::LogSoftmax)),
                grad: all.grad.clone().filter(|_| has(Wanted::Grad)),
                losses: all.losses.clone().filter(|_| has(Wanted::Losses)),
                lse: all.lse.clone().filter(|_| has(Wanted::Lse)),
                loss: all.loss.filter(|_| has(Wanted::Loss)),
                predictions: all.predictions.clone().filter(|_| has(Wanted::Predictions)),
                correct: all.correct.filter(|_| has(Wanted::Predictions)),
                ..all.clone()
            };
            assert_same(
                &format!("{output} alone, {}", kernel.name()),
                &expected,
                &one,
            );
        }
    }
}

// ---- what holds of any softmax -----------------------------------------------------------------

/// Multiples of 2⁻¹⁰ in [−8, 8): shifts and steps below are exact in f32.
fn coarse(seed: u64, rows: usize, k: usize) -> Case {
    let mut rng = Rng(seed);
    let logits = (0..rows * k)
        .map(|_| (rng.below(1 << 14) as f32 - 8192.0) / 1024.0)
        .collect();
    let labels = (0..rows).map(|_| rng.below(k) as i64).collect();
    Case::new(format!("{rows}×{k}"), k, logits)
        .index(labels)
        .reduce(Reduction::Sum)
}

/// A constant added to all logits changes lse alone.
#[test]
fn a_shift_changes_only_lse() {
    let engine = gpu!();
    for k in [3, 100, 1500] {
        let case = coarse(1, 6, k);
        let mut shifted = case.clone();
        shifted.logits.iter_mut().for_each(|z| *z += 4096.0);
        for kernel in Strategy::ALL {
            let (a, b) = (case.run(engine, kernel), shifted.run(engine, kernel));
            let without_lse = |r: &Results| {
                bits(&Results {
                    lse: None,
                    ..r.clone()
                })
            };
            assert_same(&case.name, &without_lse(&a), &without_lse(&b));
            for (a, b) in a.lse.unwrap().into_iter().zip(b.lse.unwrap()) {
                // Each within 4 ULP of its exact value.
                let apart = (f64::from(b) - f64::from(a) - 4096.0).abs();
                assert!(
                    apart <= 4.0 * (ulp(f64::from(a)) + ulp(f64::from(b))),
                    "lse {a} and {b}"
                );
            }
        }
    }
}

/// Classes in another order: every output within its tolerance, twice, of the permuted one.
#[test]
fn a_permutation_permutes() {
    let engine = gpu!();
    for k in [3, 100, 1500] {
        let case = generate(Shape::Wide, Kind::Index, 6, k);
        let mut mirror = case.clone();
        mirror.logits.chunks_exact_mut(k).for_each(<[f32]>::reverse);
        for y in mirror.index.iter_mut().flatten().filter(|y| **y >= 0) {
            *y = k as i64 - 1 - *y;
        }
        for kernel in Strategy::ALL {
            let (a, b) = (case.run(engine, kernel), mirror.run(engine, kernel));
            let near = |a: f32, b: f32, ulps: f64| {
                let (a, b) = (f64::from(a), f64::from(b));
                (a - b).abs()
                    <= 2.0 * ulps * ulp(a.abs().max(b.abs()))
                        + k as f64 * f64::from(f32::MIN_POSITIVE)
            };
            for (mine, theirs) in [(&a.softmax, &b.softmax), (&a.grad, &b.grad)] {
                let (mine, theirs) = (mine.as_ref().unwrap(), theirs.as_ref().unwrap());
                for j in 0..mine.len() {
                    let other = theirs[j / k * k + k - 1 - j % k];
                    assert!(
                        near(mine[j], other, 10.0),
                        "{}: {} and {other}",
                        case.name,
                        mine[j]
                    );
                }
            }
            for (&mine, theirs) in a.losses.iter().flatten().zip(b.losses.iter().flatten()) {
                assert!(
                    near(mine, *theirs, 4.0),
                    "{}: loss {mine} and {theirs}",
                    case.name
                );
            }
        }
    }
}

/// Σp = 1 and, at index labels, Σ gradient = 0. Each p is off by a few roundings of which most are
/// common to the row: 3·10⁻⁷ are 2.5 ULP of 1, and the gradient's label adds one more.
#[test]
fn softmax_sums_to_1_and_gradient_to_0() {
    let engine = gpu!();
    for (shape, k) in [
        (Shape::Normal, 10),
        (Shape::Wide, 1000),
        (Shape::Confident, 33),
        (Shape::Normal, 50_257),
    ] {
        let case = generate(shape, Kind::Index, 5, k).reduce(Reduction::Sum);
        for kernel in Strategy::ALL {
            let found = case.run(engine, kernel);
            for i in 0..case.rows {
                let sum = |values: &Option<Vec<f32>>| -> f64 {
                    values.as_ref().unwrap()[case.row(i)]
                        .iter()
                        .map(|&value| f64::from(value))
                        .sum()
                };
                let (p, grad) = (sum(&found.softmax), sum(&found.grad));
                approx::assert_abs_diff_eq!(p, 1.0, epsilon = 3e-7);
                approx::assert_abs_diff_eq!(grad, 0.0, epsilon = 4e-7);
            }
        }
    }
}

/// The device's gradient against central differences of the oracle's loss, in f64: off by h²/6 times
/// the third derivative of lse, |p(1 − p)(1 − 2p)| < 0.1, by 8 ε of two losses below 32 over 2h, and
/// by 10 ULP of its own.
#[test]
fn gradient_is_the_derivative_of_the_loss() {
    let engine = gpu!();
    let h = 1.0 / 16384.0;
    let tolerance = f64::from(h).powi(2) / 60.0 + 8.0 * 32.0 * f64::EPSILON / f64::from(h);
    let case = coarse(2, 1, 12);
    for kernel in Strategy::ALL {
        let grad = case.run(engine, kernel).grad.unwrap();
        for (j, &grad) in grad.iter().enumerate() {
            let loss = |step: f32| {
                let mut case = case.clone();
                case.logits[j] += step;
                case.oracle().loss.unwrap()
            };
            let slope = (loss(h) - loss(-h)) / (2.0 * f64::from(h));
            let allowed = tolerance + 10.0 * ulp(slope);
            approx::assert_abs_diff_eq!(f64::from(grad), slope, epsilon = allowed);
        }
    }
}

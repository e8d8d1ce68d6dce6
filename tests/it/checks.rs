//! Named checks of an engine: what the unedited shaders pass, and what catches a planted bug.

use std::time::Instant;

use softxent::half::f16;
use softxent::{Denominator, Dtype, EmptyMean, Engine, Padding, Reduction, Strategy, Wanted};

use crate::cases::{Kind, Shape, generate, some_weights};
use crate::common::{Case, bits, exact_quotient, gpu, limited, long, report, same_bits};
use crate::guest::{Guest, Home};
use crate::judge::{Worst, check_rounded, judge};

pub type Check = fn(&Engine, Strategy) -> Result<(), String>;

macro_rules! checks {
    ($($name:ident)*) => {
        const CHECKS: &[(&str, Check)] = &[$((stringify!($name), $name)),*];

        /// What no bug is planted in passes every check, with each kernel.
        mod unedited {
            $(
                #[test]
                fn $name() {
                    super::passes(stringify!($name));
                }
            )*
        }
    };
}

checks! {
    last_columns
    shifted_rows
    block_maxima
    every_label
    confident_rows
    ties
    dense_weights
    masks
    ignored_rows
    poisoned_rows
    all_sizes
    exact_sums
    in_place
    one_tree
    resident_steps
    class_weights
    smoothing
    z_loss
    scale_and_cap
    entropy
    correct_rows
    half_logits
    half_rounding
    half_outputs
    strided
    padded
    softmax_backward
    bad_weights
    empty_means
    weighted_denominators
    weight_sums
}

/// A check by its name.
pub fn named(name: &str) -> Check {
    let found = CHECKS.iter().find(|(known, _)| *known == name);
    found
        .unwrap_or_else(|| panic!("no check is called {name}"))
        .1
}

/// What one row pass gives with index or dense labels: few pipelines, every path.
pub const ONE_PASS: [Wanted; 6] = [
    Wanted::Softmax,
    Wanted::Grad,
    Wanted::Losses,
    Wanted::Lse,
    Wanted::Loss,
    Wanted::Predictions,
];

/// The kernel's results are those of the oracle.
pub fn agree(
    engine: &Engine,
    kernel: Strategy,
    case: &Case,
    worst: &mut Worst,
) -> Result<(), String> {
    let found = case
        .try_run(engine, kernel)
        .map_err(|error| format!("{}, {}: {error}", case.name, kernel.name()))?;
    judge(case, kernel.name(), &found, &case.oracle(), worst)
}

fn all_agree(
    engine: &Engine,
    kernel: Strategy,
    cases: impl IntoIterator<Item = Case>,
) -> Result<(), String> {
    let agree = |case: Case| agree(engine, kernel, &case.want(ONE_PASS), &mut Worst::default());
    cases.into_iter().try_for_each(agree)
}

fn of(shape: Shape, kind: Kind, rows: usize, classes: &[usize]) -> impl Iterator<Item = Case> {
    classes.iter().map(move |&k| generate(shape, kind, rows, k))
}

/// The last column counts, wherever the tail of a slot, a stripe or a block begins; of three rows, and of
/// four, which are whole vectors whatever their width.
fn last_columns(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let widths = [
        1, 2, 3, 4, 5, 33, 36, 127, 129, 1023, 1024, 1025, 1028, 2049,
    ];
    let cases = of(Shape::LastIsTop, Kind::Index, 3, &widths);
    all_agree(
        engine,
        kernel,
        cases.chain(of(Shape::LastIsHeavy, Kind::Index, 4, &widths)),
    )
}

/// Rows that begin and end inside vectors, wherever the first does, and more of them than a workgroup has: each
/// is written whole, and nothing around it; wherever the other arrays begin.
fn shifted_rows(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let sizes: &[(usize, usize)] = match kernel {
        Strategy::RowPerInvocation => &[(70, 3), (70, 37), (70, 66)],
        Strategy::RowPerSubgroup => &[(19, 263)],
        Strategy::RowPerWorkgroup => &[(3, 8195)],
        Strategy::SplitRow => &[(3, 1030)],
    };
    for &(rows, classes) in sizes {
        let case = generate(Shape::Wide, Kind::Index, rows, classes);
        let case = case.want([Wanted::Softmax, Wanted::Grad]);
        let expected = case.oracle();
        let homes = (0..4).map(Home::Apart).chain([Home::Uneven]);
        for home in homes {
            let (found, _) = Guest::new(engine, kernel, &case, home)?.step()?;
            let found = found.map(f32::from_bits);
            judge(
                &case,
                kernel.name(),
                &found,
                &expected,
                &mut Worst::default(),
            )?;
        }
    }
    // Whole vectors of logits, and class weights that are none.
    let mut weighted = generate(Shape::Normal, Kind::Index, 9, 72).want([Wanted::Losses]);
    weighted.class_weights = some_weights(72);
    weighted.label_smoothing = 0.1;
    let (found, _) = Guest::new(engine, kernel, &weighted, Home::Uneven)?.step()?;
    let found = found.map(f32::from_bits);
    judge(
        &weighted,
        kernel.name(),
        &found,
        &weighted.oracle(),
        &mut Worst::default(),
    )?;
    Ok(())
}

/// Blocks merge right when each raises the maximum, none does, or a middle one does; and a long row
/// needs every level of the tree.
fn block_maxima(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    // The last one is more than a workgroup merges at once.
    let has_workgroup = matches!(kernel, Strategy::RowPerWorkgroup | Strategy::SplitRow);
    let widths = [1025, 3000, 5121, 17 * 1024 + 1, 70 * 1024];
    let widths = &widths[..if long() && has_workgroup { 5 } else { 4 }];
    [
        Shape::Ascending,
        Shape::Descending,
        Shape::Edges,
        Shape::Wide,
    ]
    .into_iter()
    .try_for_each(|shape| all_agree(engine, kernel, of(shape, Kind::Index, 2, widths)))
}

/// Each class in turn is the label.
fn every_label(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    all_agree(
        engine,
        kernel,
        [1, 2, 5, 12, 130].map(|k| {
            let case = generate(Shape::Normal, Kind::Index, k, k);
            case.index((0..k as i64).collect()).reduce(Reduction::Sum)
        }),
    )
}

/// Gaps of 0 to 87: loss, gradient and log-softmax keep their relative accuracy, and so do the small
/// probabilities, for which the rounding error of `z − m` counts.
fn confident_rows(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    all_agree(
        engine,
        kernel,
        of(Shape::Confident, Kind::Index, 48, &[2, 3, 10, 1500]),
    )?;
    let logs = generate(Shape::Confident, Kind::Index, 48, 10).want([Wanted::LogSoftmax]);
    agree(engine, kernel, &logs, &mut Worst::default())
}

/// All logits equal; two or more maxima in one slot, in two, in two blocks.
fn ties(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let mut two = generate(Shape::Normal, Kind::Index, 6, 2100);
    two.name = "two maxima".to_owned();
    let places = [
        [0, 1],
        [0, 4],
        [5, 1024],
        [2099, 3],
        [1024, 2048],
        [130, 131],
    ];
    for (i, places) in places.into_iter().enumerate() {
        for j in places {
            two.logits[2100 * i + j] = 9.0;
        }
    }
    all_agree(
        engine,
        kernel,
        of(Shape::Tied, Kind::Index, 6, &[1, 2, 5, 7, 1030]).chain([two]),
    )
}

/// Dense labels that need not sum to 1.
fn dense_weights(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let cases = of(Shape::Normal, Kind::Dense, 8, &[1, 3, 10, 1500, 4097]);
    all_agree(
        engine,
        kernel,
        cases.chain(of(Shape::Wide, Kind::Signed, 8, &[4, 10, 2050])),
    )
}

/// Masked classes, and whole masked blocks.
fn masks(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let mut blocks = generate(Shape::Normal, Kind::Index, 3, 3100);
    blocks.name = "masked blocks".to_owned();
    blocks.logits[..1024].fill(f32::NEG_INFINITY);
    blocks.logits[3100 + 1024..3100 + 2048].fill(f32::NEG_INFINITY);
    blocks.logits[2 * 3100 + 1..].fill(f32::NEG_INFINITY);
    all_agree(
        engine,
        kernel,
        of(Shape::Masked, Kind::Index, 9, &[2, 5, 40, 1100]).chain([blocks]),
    )
}

/// Ignored rows leave the loss, the gradient and the count, whatever the label that says so.
fn ignored_rows(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let cases = [-100, 0, 2, -1, i64::MIN, i64::MAX, 1 << 32].map(|ignore_index| {
        let mut case = generate(Shape::Wide, Kind::Index, 40, 3);
        case.ignore_index = ignore_index;
        let mark = |y: &mut i64| *y = if *y == -100 { ignore_index } else { *y };
        case.index.iter_mut().flatten().for_each(mark);
        case
    });
    all_agree(engine, kernel, cases)
}

/// NaN, +∞ and fully masked rows, in any column, spoil themselves alone.
fn poisoned_rows(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    all_agree(
        engine,
        kernel,
        [3, 1500, 9001].map(|k| {
            let mut case = generate(Shape::Normal, Kind::Index, 6, k);
            case.name = format!("poisoned rows of {k}");
            case.logits[k] = f32::NAN;
            case.logits[3 * k - 1] = f32::INFINITY;
            case.logits[3 * k..4 * k].fill(f32::NEG_INFINITY);
            case.logits[5 * k - 1] = -f32::NAN;
            case
        }),
    )
}

/// Maxima of every size and sign, on both sides of where gaps get another base, which they pass on the way
/// through a row too; and classes so far below them that nothing is left of them.
fn all_sizes(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    const LEVELS: [f32; 20] = [
        -3e38, -1e30, -1000.0, -350.0, -212.0, -206.0, -100.0, -5.0, -1.5, -0.9, 0.0, 0.5, 20.0,
        150.0, 206.0, 212.0, 350.0, 1000.0, 1e30, 3e38,
    ];
    let at_levels = |shape, k: usize, noise: f32| {
        let mut case = generate(shape, Kind::Index, LEVELS.len(), k);
        case.name += " at levels";
        for (row, level) in case.logits.chunks_exact_mut(k).zip(LEVELS) {
            for (j, z) in row.iter_mut().enumerate() {
                *z = level + noise * *z;
                if shape == Shape::Normal && j % 3 == 2 {
                    *z -= 400.0;
                }
            }
        }
        case
    };
    let cases = [
        at_levels(Shape::Normal, 40, 0.1),
        at_levels(Shape::Ascending, 300, 1.0),
        at_levels(Shape::Descending, 600, 1.0),
        generate(Shape::Huge, Kind::Index, 24, 9),
    ];
    all_agree(engine, kernel, cases)
}

/// The reduced loss is the exact one of its rows' losses: ties to even, carries through many limbs,
/// sums past the largest f32, subnormal losses, signs that cancel.
fn exact_sums(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    // The loss of logits (200, 0) with weight w on the second class is w·200, that of (a, 0) with
    // the label 1 is a for a > 104.
    let dense = |name: &str, weights: &[f32]| {
        let logits = weights.iter().flat_map(|_| [256.0, 0.0]).collect();
        let dense = weights.iter().flat_map(|&w| [0.0, w / 256.0]).collect();
        Case::new(name, 2, logits).dense(dense)
    };
    let mut rng = crate::common::Rng(7);
    let mut spread = |count: usize, low: i32, high: i32, signed: bool| -> Vec<f32> {
        let mut one = || {
            let power = low + rng.below((high - low) as usize) as i32;
            let value = (1.0 + rng.unit()) * 2f64.powi(power);
            (if signed && rng.below(2) == 0 {
                -value
            } else {
                value
            }) as f32
        };
        (0..count).map(|_| one()).collect()
    };
    let (all, high, low) = (
        spread(3000, -100, 100, true),
        spread(999, 100, 120, false),
        spread(999, -118, -110, false),
    );
    let ones: Vec<f32> = (0..200).map(|i| 16777215.0 * 2f32.powi(i % 48)).collect();
    let cancel: Vec<f32> = all.iter().flat_map(|&l| [l, -l]).chain([0.75]).collect();
    let huge = |reduction| {
        let logits = (0..70).flat_map(|_| [3e38, 0.0]).collect();
        Case::new(format!("70 losses of 3e38, {reduction:?}"), 2, logits)
            .index(vec![1; 70])
            .reduce(reduction)
    };
    let tiny = |reduction| {
        let logits = (0..99)
            .flat_map(|i| [85.0 + i as f32 / 50.0, 0.0])
            .collect();
        Case::new(format!("99 losses near 2^-126, {reduction:?}"), 2, logits)
            .index(vec![0; 99])
            .reduce(reduction)
    };
    let cases = [
        dense("a tie, to even below", &[16777216.0, 1.0]).reduce(Reduction::Sum),
        dense("a tie, to even above", &[16777218.0, 1.0]).reduce(Reduction::Sum),
        dense("past a tie", &[16777216.0, 1.0, 2f32.powi(-60)]).reduce(Reduction::Sum),
        dense("a negative tie", &[-16777218.0, -1.0]).reduce(Reduction::Sum),
        dense("a third", &[1.0, 0.0, 0.0]),
        dense(
            "a tie of the mean",
            &[16777217.0 * 2.0, 16777216.0 * 2.0 + 4.0],
        ),
        dense("all sizes", &all).reduce(Reduction::Sum),
        dense("all sizes, mean", &all),
        dense("large ones", &high),
        dense("small ones", &low),
        dense("limbs of ones", &ones).reduce(Reduction::Sum),
        // A limb begins at 2¹¹.
        dense("a borrow", &[2048.0, -1024.0, -0.5]).reduce(Reduction::Sum),
        dense("what cancels", &cancel).reduce(Reduction::Sum),
        huge(Reduction::Sum),
        huge(Reduction::Mean),
        tiny(Reduction::Sum),
        tiny(Reduction::Mean),
    ];
    for case in cases {
        let case = case.want([Wanted::Losses, Wanted::Loss]);
        let found = case
            .try_run(engine, kernel)
            .map_err(|error| format!("{}: {error}", case.name))?;
        let (losses, loss) = (
            found.losses.unwrap_or_default(),
            found.loss.unwrap_or(f32::NAN),
        );
        let denominator = match case.reduction {
            Reduction::Mean => case.rows as u32,
            _ => 1,
        };
        let exact = exact_quotient(&losses, denominator);
        if exact.to_bits() != loss.to_bits() {
            return Err(format!(
                "{}: the reduced loss is {loss:e}, that of its rows {exact:e}",
                case.name
            ));
        }
    }
    Ok(())
}

/// The gradient over the logits has the bits of the gradient in a buffer of its own.
fn in_place(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    for (shape, kind, rows, k) in [
        (Shape::Confident, Kind::Index, 9, 7),
        (Shape::LastIsHeavy, Kind::Index, 9, 9001),
        (Shape::Ascending, Kind::Index, 9, 2048),
        (Shape::Ascending, Kind::Index, 1, 9004),
        (Shape::Wide, Kind::Dense, 9, 1030),
    ] {
        let mut case =
            generate(shape, kind, rows, k).want([Wanted::Grad, Wanted::Loss, Wanted::Losses]);
        let run = |case: &Case| {
            case.try_run(engine, kernel)
                .map_err(|error| error.to_string())
        };
        let own = run(&case)?;
        case.over_logits = true;
        same_bits(&case.name, &bits(&own), &bits(&run(&case)?))?;
    }
    Ok(())
}

/// All kernels sum in one order, so that they give the same bits.
fn one_tree(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let other = match kernel {
        Strategy::RowPerInvocation => Strategy::RowPerWorkgroup,
        _ => Strategy::RowPerInvocation,
    };
    let cases = [5, 64, 130, 1000, 1025, 5000]
        .map(|k| generate(Shape::Wide, Kind::Index, 12, k).want(ONE_PASS));
    let dense = [66, 2500].map(|k| generate(Shape::Wide, Kind::Dense, 12, k).want(ONE_PASS));
    for case in cases.into_iter().chain(dense) {
        let run = |kernel| {
            case.try_run(engine, kernel)
                .map_err(|error| error.to_string())
        };
        same_bits(&case.name, &bits(&run(kernel)?), &bits(&run(other)?))?;
    }
    Ok(())
}

/// Steps on the caller's buffers give the bits of the host call each time: labels counted and weighed
/// on the device, the upstream gradient and a denominator in buffers, nothing left of the step before.
fn resident_steps(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let mut counted = generate(Shape::Wide, Kind::Index, 9, 70).want(ONE_PASS);
    counted.shared = true;
    counted.upstream = vec![-2.5];
    let mut given = counted.clone();
    given.denominator = Denominator::Number(7.0);
    let mut weighted = counted.clone();
    weighted.class_weights = some_weights(70);
    weighted.z_loss = 0.5;
    weighted.wanted.extend([Wanted::ZLosses, Wanted::ZLoss]);
    // Halves, of which an odd number is before each row, where outputs share a buffer with the logits.
    let mut halves = generate(Shape::Wide, Kind::Index, 9, 7).store(Dtype::F16);
    halves.same_dtype_out = true;
    halves = halves.want([Wanted::Softmax, Wanted::Grad, Wanted::Loss]);
    // Rows that begin where a vector does, in buffers that do not, and rows that begin anywhere.
    let whole = generate(Shape::Wide, Kind::Index, 9, 72).want([Wanted::Softmax, Wanted::Grad]);
    let pooled = [counted, weighted, given, halves].map(|case| (case, Home::Pooled(3)));
    let apart = [(whole.clone(), Home::Apart(4)), (whole, Home::Apart(3))];
    for (case, home) in pooled.into_iter().chain(apart) {
        let host = case
            .try_run(engine, kernel)
            .map_err(|error| error.to_string())?;
        let mut case = case;
        if case.denominator == Denominator::Number(7.0) {
            case.denominator = Denominator::Buffer;
            case.denominator_value = 7.0;
        }
        let guest = Guest::new(engine, kernel, &case, home)?;
        for step in 0..3 {
            let (found, _) = guest.step()?;
            same_bits(&format!("{}, step {step}", case.name), &bits(&host), &found)?;
        }
    }
    Ok(())
}

// ---- options -----------------------------------------------------------------------------------

fn run(engine: &Engine, kernel: Strategy, case: &Case) -> Result<softxent::Results, String> {
    case.try_run(engine, kernel)
        .map_err(|error| format!("{}, {}: {error}", case.name, kernel.name()))
}

/// Class weights, some of them 0 or −0, of index and dense labels, under each reduction; a label that
/// weighs nothing may be masked.
fn class_weights(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let mut each = generate(Shape::Normal, Kind::Index, 10, 5);
    each.name = "each weight".to_owned();
    each.class_weights = vec![2.5, 0.0, -0.0, 0.5, 3.0];
    each.index = Some((0..10).map(|i| i % 5).collect());
    each.logits[5 + 1] = f32::NEG_INFINITY;
    let jobs = [
        (Kind::Index, 1, Reduction::Mean),
        (Kind::Index, 130, Reduction::Mean),
        (Kind::Index, 1500, Reduction::None),
        (Kind::Dense, 5, Reduction::Mean),
        (Kind::Dense, 1030, Reduction::Sum),
        (Kind::Index, 72, Reduction::Mean),
        (Kind::Dense, 72, Reduction::Mean),
    ];
    let weighted = jobs.map(|(kind, k, reduction)| {
        let mut case = generate(Shape::Normal, kind, 9, k).reduce(reduction);
        case.class_weights = some_weights(k);
        if k == 1 {
            case.class_weights = vec![2.5];
        }
        case
    });
    all_agree(engine, kernel, [each].into_iter().chain(weighted))
}

/// What is no weight, given on the device: the rows of its class are NaN, the others as ever.
fn bad_weights(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    const BAD: [f32; 6] = [1.0, -1.0, f32::NAN, f32::INFINITY, -0.0, f32::NEG_INFINITY];
    let mut case = generate(Shape::Normal, Kind::Index, 6, 6)
        .index((0..6).collect())
        .reduce(Reduction::Sum)
        .want(ONE_PASS);
    case.name = "weights that are none".to_owned();
    case.class_weights = BAD.to_vec();
    let is_bad = |i: usize| !(BAD[i].is_finite() && BAD[i] >= 0.0);
    let (found, _) = Guest::new(engine, kernel, &case, Home::Apart(1))?.step()?;
    for i in 0..6 {
        if is_bad(i) {
            case.class_weights[i] = 1.0;
        }
    }
    let good = bits(&run(engine, kernel, &case)?);
    let parts = |results: &softxent::Results<u32>, i: usize| {
        let losses = results.losses.as_deref().unwrap_or_default();
        let grad = results.grad.as_deref().unwrap_or_default();
        [&losses[i..=i], &grad[6 * i..6 * i + 6]].concat()
    };
    for (i, weight) in BAD.iter().enumerate() {
        let (found, good) = (parts(&found, i), parts(&good, i));
        let is_nan = found.iter().all(|&word| f32::from_bits(word).is_nan());
        if is_bad(i) && !is_nan || !is_bad(i) && found != good {
            return Err(format!(
                "loss and gradient of the row with the class weight {weight} are {:?}",
                found.into_iter().map(f32::from_bits).collect::<Vec<_>>()
            ));
        }
    }
    match (found.loss.map(f32::from_bits), found.nan_rows) {
        (Some(loss), 4) if loss.is_nan() => {}
        other => {
            return Err(format!(
                "loss and NaN rows with weights that are none: {other:?}"
            ));
        }
    }
    // They are in the denominator too, of which each row has its share.
    case.class_weights = BAD.to_vec();
    case = case.reduce(Reduction::Mean);
    for (bad, weight) in BAD.iter().enumerate().skip(1) {
        case.index = Some(vec![0, 0, 0, bad as i64, 0, 4]);
        let (found, _) = Guest::new(engine, kernel, &case, Home::Apart(1))?.step()?;
        let words = found.grad.iter().flatten().chain(&found.loss);
        let nans = words.filter(|&&word| f32::from_bits(word).is_nan()).count();
        if nans != if is_bad(bad) { 37 } else { 0 } {
            return Err(format!(
                "{nans} of loss and gradient are NaN where a row has the class weight {weight}"
            ));
        }
    }
    // Dense labels, of which the host sees nothing on the caller's own buffers.
    let mut case = generate(Shape::Normal, Kind::Dense, 3, 6).reduce(Reduction::Sum);
    case = case.want(ONE_PASS);
    let good = bits(&run(engine, kernel, &case)?);
    for (at, label) in [(6, f32::NAN), (11, f32::INFINITY), (8, f32::NEG_INFINITY)] {
        let mut bad = case.clone();
        bad.dense.as_mut().ok_or("no labels")?[at] = label;
        let (found, _) = Guest::new(engine, kernel, &bad, Home::Apart(1))?.step()?;
        for i in 0..3 {
            let (found, good) = (parts(&found, i), parts(&good, i));
            let is_nan = found.iter().all(|&word| f32::from_bits(word).is_nan());
            if i == 1 && !is_nan || i != 1 && found != good {
                return Err(format!(
                    "loss and gradient of row {i} are {:?} where row 1 has the label {label}",
                    found.into_iter().map(f32::from_bits).collect::<Vec<_>>()
                ));
            }
        }
    }
    Ok(())
}

/// Smoothing a little and wholly, with and without class weights, and over masked classes.
fn smoothing(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let jobs = [
        (Shape::Normal, Kind::Index, 5, 0.3),
        (Shape::Normal, Kind::Index, 1, 0.1),
        (Shape::Confident, Kind::Index, 10, 0.1),
        (Shape::Wide, Kind::Index, 130, 1.0),
        (Shape::Wide, Kind::Index, 1500, 0.1),
        (Shape::Masked, Kind::Index, 7, 0.1),
        (Shape::LastIsHeavy, Kind::Dense, 33, 0.25),
        (Shape::Normal, Kind::Dense, 1030, 0.1),
    ];
    let smooth = jobs.map(|(shape, kind, k, epsilon)| {
        let mut case = generate(shape, kind, 9, k);
        case.label_smoothing = epsilon;
        case
    });
    // A smoothed class that weighs nothing may be masked.
    let mut masked = generate(Shape::Normal, Kind::Index, 8, 12);
    masked.name = "a weight of 0 at a mask".to_owned();
    masked.label_smoothing = 0.5;
    masked.class_weights = (0..12).map(|j| f32::from(u8::from(j % 3 != 0))).collect();
    masked
        .logits
        .chunks_exact_mut(12)
        .for_each(|row| row[3] = f32::NEG_INFINITY);
    let weighted = smooth.clone().map(|mut case| {
        case.class_weights = some_weights(case.classes);
        case.name += " weighted";
        case
    });
    let cases = weighted.into_iter().chain([masked]).chain(smooth);
    all_agree(engine, kernel, cases)
}

/// What one row pass gives with a z-loss.
fn with_z_losses(case: Case) -> Case {
    case.want(ONE_PASS.into_iter().chain([Wanted::ZLosses, Wanted::ZLoss]))
}

/// The z-loss and its share, where lse is of any sign, where it cancels, and where its square is past
/// the largest f32.
fn z_loss(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let jobs = [
        (Shape::Normal, Kind::Index, 5, 0.5, -3.0),
        (Shape::Normal, Kind::Index, 1, 0.5, 0.0),
        (Shape::Wide, Kind::Index, 130, 1e-4, 0.0),
        (Shape::Normal, Kind::Index, 1500, 1e-4, -7.8),
        (Shape::Huge, Kind::Index, 4, 0.5, 0.0),
        (Shape::Confident, Kind::Dense, 10, 0.5, 0.0),
        (Shape::Normal, Kind::Dense, 1030, 0.5, -8.0),
    ];
    let both = jobs
        .into_iter()
        .flat_map(|(shape, kind, k, lambda, shift)| {
            let mut case = generate(shape, kind, 9, k);
            case.z_loss = lambda;
            case.logits.iter_mut().for_each(|z| *z += shift);
            let sum = case.clone().reduce(Reduction::Sum);
            let mut weighted = case.clone();
            weighted.class_weights = some_weights(k);
            [weighted, case, sum]
        });
    both.into_iter()
        .map(with_z_losses)
        .try_for_each(|case| agree(engine, kernel, &case, &mut Worst::default()))
}

/// Scales above and below 1, caps that are felt and caps that are not, one with the other; confident
/// rows, whose small probabilities feel how z is rounded, rows whose logits are farther apart than `exp`
/// reaches and whose z are not, huge and masked ones.
fn scale_and_cap(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let jobs = [
        (Shape::Confident, Kind::Index, 10, 0.25, None),
        (Shape::Descending, Kind::Index, 40, 0.25, None),
        (Shape::Descending, Kind::Index, 1500, 0.02, None),
        (Shape::Confident, Kind::Index, 7, 0.7, Some(1000.0)),
        (Shape::Offset, Kind::Index, 7, 0.25, Some(1000.0)),
        (Shape::Wide, Kind::Index, 1500, 1.0, Some(50.0)),
        (Shape::Wide, Kind::Index, 130, 3.0, None),
        (Shape::Confident, Kind::Index, 3, 1.0, Some(30.0)),
        (Shape::Wide, Kind::Index, 33, 1.0, Some(5.0)),
        (Shape::Tied, Kind::Index, 5, 1.0, Some(30.0)),
        (Shape::Masked, Kind::Index, 12, 3.0, Some(5.0)),
        (Shape::Huge, Kind::Index, 4, 3.0, None),
        (Shape::Normal, Kind::Dense, 1030, 30.0, None),
        (Shape::Wide, Kind::Dense, 40, 3.0, Some(30.0)),
        // Numbers of more than 12 bits; a cap that is not low, whose slopes nearly vanish.
        (Shape::Wide, Kind::Index, 33, 0.7, Some(10.1)),
        (Shape::Confident, Kind::Dense, 30, 0.7, Some(47.3)),
        (Shape::Wide, Kind::Index, 40, 7.0, Some(65.0)),
        (Shape::Masked, Kind::Index, 12, 3.0, Some(100.0)),
        (Shape::Huge, Kind::Dense, 9, 3.0, None),
        (Shape::Huge, Kind::Index, 9, 3.0, Some(30.0)),
    ];
    let cases = jobs.map(|(shape, kind, k, scale, cap)| {
        let mut case = generate(shape, kind, 12, k);
        (case.logit_scale, case.softcap) = (scale, cap);
        if shape == Shape::Descending {
            case.logits.iter_mut().for_each(|z| *z *= 4.0);
        }
        case.name += &format!(" scale {scale} cap {cap:?}");
        case
    });
    all_agree(engine, kernel, cases.into_iter().chain([whole_curve()]))
}

/// From where a cap is not felt to where tanh is 1 and its slope vanishes, of the largest of the low caps.
fn whole_curve() -> Case {
    let mut case = generate(Shape::Normal, Kind::Index, 700, 2);
    case.softcap = Some(64.0);
    for (i, row) in case.logits.chunks_mut(2).enumerate() {
        let u = (i as f32 / 50.0 - 8.0).exp2();
        row.copy_from_slice(&[64.0 * u, if i % 2 == 0 { 0.0 } else { -96.0 * u }]);
    }
    case.name += " along the cap of 64";
    case
}

/// From 0 to log K, with masked classes, ties, and maxima that rise from block to block.
fn entropy(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let jobs = [
        (Shape::Confident, 10),
        // Blocks whose maxima differ a little: what moves is not small.
        (Shape::Normal, 3000),
        (Shape::Normal, 1),
        (Shape::Wide, 130),
        (Shape::Tied, 1030),
        (Shape::Masked, 40),
        (Shape::Ascending, 3001),
        (Shape::Descending, 2050),
        (Shape::Offset, 33),
        (Shape::Huge, 9),
    ];
    let cases = jobs.map(|(shape, k)| {
        let job = generate(shape, Kind::Index, 9, k);
        Case::new(job.name, k, job.logits).want([Wanted::Entropy, Wanted::Lse])
    });
    cases
        .into_iter()
        .try_for_each(|case| agree(engine, kernel, &case, &mut Worst::default()))
}

/// The first of equal maxima counts, an ignored row and a NaN row never do.
fn correct_rows(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let cases = [1, 3, 130, 1500].map(|k| {
        let mut case = generate(Shape::Confident, Kind::Index, 24, k);
        case.name += " correct";
        case.logits[0] = f32::NAN;
        // Ignored rows are right but for that.
        for (i, row) in case.logits.chunks_exact_mut(k).enumerate() {
            if i % 7 == 6 {
                row[0] = 100.0;
            }
        }
        if k > 1 {
            let (first, last) = (5 * k, 6 * k - 1);
            case.logits[first] = 200.0;
            case.logits[last] = 200.0;
            if let Some(labels) = &mut case.index {
                labels[5] = k as i64 - 1;
            }
        }
        case.ignore_index = 0;
        let ignore = |y: &mut i64| *y = (*y).max(0);
        case.index.iter_mut().flatten().for_each(ignore);
        case.want([Wanted::Correct, Wanted::Losses])
    });
    cases
        .into_iter()
        .try_for_each(|case| agree(engine, kernel, &case, &mut Worst::default()))
}

/// Logits of 16 bits: many patterns, each of which is the lse of a row of one class; odd widths, where a
/// row begins in the middle of a word; subnormal and the largest values, −0, NaN of either sign, ±∞ in
/// either half of a word.
fn half_logits(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        // Subnormal f16 are normal f32; subnormal bf16 are subnormal f32, which may be flushed.
        let value = |bits: u16| match dtype {
            Dtype::F16 => f16::from_bits(bits).to_f32(),
            _ => f32::from_bits(u32::from(bits) << 16),
        };
        let patterns: Vec<f32> = (0..1024u16)
            .map(|i| value(i.wrapping_mul(64) + i % 61))
            .collect();
        let finite = patterns.into_iter().filter(|value| value.is_finite());
        let ends = [0x0001, 0x03ff, 0x0400, 0x7bff, 0x8001, 0x8000].map(value);
        let mut each = Case::new(
            format!("{} patterns", dtype.name()),
            1,
            finite.chain(ends).collect(),
        );
        each.dtype = dtype;
        let found = run(engine, kernel, &each.clone().want([Wanted::Lse]))?;
        for (x, lse) in each.logits.iter().zip(found.lse.unwrap_or_default()) {
            let flushed = x.abs() < f32::MIN_POSITIVE && lse == 0.0;
            // +0 + −0 is +0.
            if lse != *x && !flushed {
                return Err(format!("{}: {x:e} is read as {lse:e}", each.name));
            }
        }

        let mut spoilt = generate(Shape::Normal, Kind::Index, 7, 5).store(dtype);
        spoilt.name += " spoilt";
        spoilt.logits[6] = f32::NAN;
        spoilt.logits[11] = f32::INFINITY;
        spoilt.logits[15..20].fill(f32::NEG_INFINITY);
        spoilt.logits[22] = f32::NEG_INFINITY;
        spoilt.logits[33] = -f32::NAN;
        let widths = [1, 16, 3, 7, 129, 1027].map(|k| {
            let shape = [Shape::Wide, Shape::Confident, Shape::LastIsTop][k % 3];
            generate(shape, Kind::Index, 9, k).store(dtype)
        });
        all_agree(engine, kernel, widths.into_iter().chain([spoilt]))?;
    }
    let dense = generate(Shape::Normal, Kind::Dense, 5, 67).store(Dtype::F16);
    all_agree(engine, kernel, [dense])
}

/// Numbers that are known exactly, ±g/2 of two equal logits, come out rounded to nearest, ties to even:
/// about ties of normal and of subnormal numbers, about the largest; and NaN.
fn half_rounding(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let tiny = 2f32.powi(-24);
    let around = |tie: f32| [tie.next_down(), tie, tie.next_up()];
    for (dtype, ties) in [
        (
            Dtype::F16,
            &[
                1.0 + 2f32.powi(-11),
                1.0 + 3.0 * 2f32.powi(-11),
                65520.0,
                1e5,
                1e30,
                0.5 * tiny,
                1.5 * tiny,
                2.5 * tiny,
                1022.5 * tiny,
                1023.5 * tiny,
                0.2 * tiny,
                1e-20,
            ][..],
        ),
        (
            Dtype::Bf16,
            &[
                1.0 + 2f32.powi(-8),
                1.0 + 3.0 * 2f32.powi(-8),
                1e-3,
                1e-30,
                1.6e38,
            ][..],
        ),
    ] {
        let values: Vec<f32> = ties.iter().flat_map(|&tie| around(tie)).collect();
        let rows = values.len() + 1;
        let mut case = Case::new(dtype.name(), 2, vec![0.0; 2 * rows])
            .index(vec![0; rows])
            .reduce(Reduction::None)
            .want([Wanted::Grad]);
        case.logits[2 * rows - 1] = f32::NAN;
        (case.dtype, case.same_dtype_out, case.per_row) = (dtype, true, true);
        case.upstream = values.iter().map(|value| 2.0 * value).collect();
        case.upstream.push(1.0);
        let grad = run(engine, kernel, &case)?.grad.unwrap_or_default();
        let nan = f32::NAN;
        for (pair, value) in grad.chunks_exact(2).zip(values.into_iter().chain([nan])) {
            for (found, exact) in pair.iter().zip([-value, value]) {
                let rounded = dtype.round(exact);
                if found.to_bits() != rounded.to_bits() && !(found.is_nan() && rounded.is_nan()) {
                    return Err(format!(
                        "{exact:e} is {found:e} in {}, and rounds to {rounded:e}",
                        dtype.name()
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Outputs of 16 bits are those of 32, rounded: odd widths, whose rows share words; NaN; and the gradient
/// in the place of the logits, with the same bits. A dtype is chosen where a value is read or written,
/// which is the same text for all labels and outputs: each is taken with one.
fn half_outputs(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    const BOTH: &[Wanted] = &[Wanted::Softmax, Wanted::Grad, Wanted::Losses];
    const LOGS: &[Wanted] = &[Wanted::LogSoftmax];
    const GRAD: &[Wanted] = &[Wanted::Grad];
    for (dtype, shape, kind, k, wanted) in [
        (Dtype::F16, Shape::Confident, Kind::Index, 3, BOTH),
        (Dtype::F16, Shape::Confident, Kind::Index, 1, BOTH),
        (Dtype::F16, Shape::Wide, Kind::Index, 136, BOTH),
        (Dtype::F16, Shape::Normal, Kind::Index, 1027, BOTH),
        (Dtype::Bf16, Shape::Confident, Kind::Index, 5, BOTH),
        (Dtype::Bf16, Shape::Wide, Kind::Index, 3, LOGS),
        (Dtype::F16, Shape::Wide, Kind::Dense, 33, GRAD),
        (Dtype::Bf16, Shape::Normal, Kind::Vector, 9, GRAD),
    ] {
        let mut case = generate(shape, kind, 7, k).store(dtype);
        case = case.want(wanted.iter().copied());
        case.logits[k / 2] = f32::NAN;
        let wide = run(engine, kernel, &case)?;
        case.same_dtype_out = true;
        let narrow = run(engine, kernel, &case)?;
        let what = format!("{}, {}", case.name, kernel.name());
        check_rounded(&what, dtype, &wide, &narrow)?;
        if kind == Kind::Index && wanted == BOTH {
            case.over_logits = true;
            let over = run(engine, kernel, &case)?;
            same_bits(&format!("{what}, in place"), &bits(&narrow), &bits(&over))?;
        }
    }
    Ok(())
}

/// Rows that are laid out in another way agree with the oracle.
fn laid_out_agrees(engine: &Engine, kernel: Strategy, case: &Case) -> Result<(), String> {
    agree(engine, kernel, case, &mut Worst::default())
}

/// They have the bits of the same rows one after the other.
fn laid_out_is_the_same(engine: &Engine, kernel: Strategy, laid_out: &Case) -> Result<(), String> {
    let plain = run(engine, kernel, &laid_out.contiguous())?;
    let found = run(engine, kernel, laid_out)?;
    same_bits(
        &format!("{}, {}", laid_out.name, kernel.name()),
        &bits(&plain),
        &bits(&laid_out.contiguous_results(&found)),
    )
}

fn lay_out(case: Case, inner: usize, row_length: usize, padding: Padding) -> Case {
    let mut laid_out = case.laid_out(inner, row_length, padding);
    laid_out.name += &format!(", inner {inner}, row of {row_length}, {padding:?}");
    laid_out
}

/// Interleaved rows, each with a NaN in one.
fn strided(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let layout = |kind, k, inner| {
        let case = generate(Shape::Wide, kind, 24, k).want(match kind {
            Kind::Vector => vec![Wanted::Grad],
            _ => ONE_PASS.to_vec(),
        });
        lay_out(case, inner, 0, Padding::Masked)
    };
    for (k, inner) in [(5, 3), (1, 2), (130, 8), (1500, 6)] {
        let case = layout(Kind::Index, k, inner);
        laid_out_agrees(engine, kernel, &case)?;
        laid_out_is_the_same(engine, kernel, &case)?;
    }
    laid_out_agrees(engine, kernel, &layout(Kind::Dense, 7, 24))?;
    laid_out_agrees(engine, kernel, &layout(Kind::Dense, 1030, 2))?;
    laid_out_agrees(engine, kernel, &layout(Kind::Vector, 9, 4))?;
    let logs = generate(Shape::Wide, Kind::Index, 24, 6).want([Wanted::LogSoftmax]);
    laid_out_agrees(engine, kernel, &lay_out(logs, 3, 0, Padding::Masked))?;
    let mut half = generate(Shape::Wide, Kind::Index, 24, 5).store(Dtype::Bf16);
    half.same_dtype_out = true;
    half = half.want([Wanted::Softmax, Wanted::Grad]);
    laid_out_is_the_same(engine, kernel, &lay_out(half, 3, 0, Padding::Masked))
}

/// Rows that are farther apart than they are long, one of them NaN: what lies between is never read,
/// and written as the padding says.
fn padded(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let layout = |kind, k, row_length, inner, padding, wanted: &[Wanted]| {
        let mut case = generate(Shape::LastIsTop, kind, 8, k).want(wanted.iter().copied());
        case.logits[3 * k] = f32::NAN;
        lay_out(case, inner, row_length, padding)
    };
    for (k, row_length, padding) in [
        (5, 8, Padding::Masked),
        (1, 4, Padding::Masked),
        (130, 257, Padding::Masked),
        (1022, 1030, Padding::Masked),
        (5, 8, Padding::Kept),
        (1022, 1030, Padding::Kept),
    ] {
        let case = layout(Kind::Index, k, row_length, 1, padding, &ONE_PASS);
        laid_out_agrees(engine, kernel, &case)?;
        laid_out_is_the_same(engine, kernel, &case)?;
    }
    // What a caller has in padding that is kept stays.
    let kept = layout(Kind::Index, 5, 8, 1, Padding::Kept, &ONE_PASS);
    Guest::new(engine, kernel, &kept, Home::Apart(1))?.step()?;
    let logs = &[Wanted::LogSoftmax];
    for (kind, k, row_length, inner, wanted) in [
        (Kind::Index, 6, 9, 1, &logs[..]),
        (Kind::Dense, 6, 9, 2, &ONE_PASS),
        (Kind::Vector, 6, 7, 1, &[Wanted::Grad]),
    ] {
        let case = layout(kind, k, row_length, inner, Padding::Masked, wanted);
        laid_out_agrees(engine, kernel, &case)?;
    }
    let mut half = generate(Shape::Wide, Kind::Index, 8, 5).store(Dtype::F16);
    half.same_dtype_out = true;
    half = half.want([Wanted::Softmax, Wanted::Grad]);
    [6, 7].into_iter().try_for_each(|row_length| {
        let padded = lay_out(half.clone(), 1, row_length, Padding::Masked);
        laid_out_is_the_same(engine, kernel, &padded)
    })
}

/// The product of the Jacobian with a vector, of logits and of softmax, with a factor a row.
fn softmax_backward(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    // −∞ is no probability.
    let mut spoilt = generate(Shape::Normal, Kind::FromSoftmax, 8, 5);
    spoilt.name += " spoilt";
    spoilt.logits[7] = f32::NEG_INFINITY;
    spoilt.logits[11] = f32::NAN;
    agree(engine, kernel, &spoilt, &mut Worst::default())?;
    let jobs = [
        (Shape::Ascending, 2050),
        (Shape::Confident, 5),
        (Shape::Wide, 130),
        (Shape::Masked, 33),
        (Shape::Normal, 1),
        (Shape::LastIsHeavy, 1030),
    ];
    for (turn, (shape, k)) in jobs.into_iter().enumerate() {
        for kind in [Kind::Vector, Kind::FromSoftmax] {
            let mut case = generate(shape, kind, 8, k);
            if turn % 2 == 1 {
                case.per_row = true;
                case.upstream = vec![1.0, -0.5, 3.0, 0.0, 1e-3, 65536.0, -1.0, 2.0];
            }
            if kind == Kind::Vector && turn == 2 {
                (case.logit_scale, case.softcap) = (0.5, Some(20.0));
            }
            agree(engine, kernel, &case, &mut Worst::default())?;
        }
    }
    // A NaN, an infinity: of the logits, of the vector.
    let mut spoilt = generate(Shape::Normal, Kind::Vector, 6, 5);
    spoilt.name += " spoilt";
    spoilt.logits[5] = f32::NAN;
    if let Some(vector) = &mut spoilt.vector {
        vector[14] = f32::INFINITY;
        vector[23] = f32::NAN;
    }
    agree(engine, kernel, &spoilt, &mut Worst::default())
}

/// The mean of nothing: all rows ignored, or none with a weight; NaN or 0; with a z-loss and without.
fn empty_means(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    for empty_mean in [EmptyMean::Nan, EmptyMean::Zero] {
        for lambda in [0.0, 0.5] {
            for weighted in [false, true] {
                for rows in [0, 5] {
                    let mut case =
                        Case::new("", 3, generate(Shape::Wide, Kind::Index, rows, 3).logits);
                    case.rows = rows;
                    case = case.index(vec![if weighted { 1 } else { -100 }; rows]);
                    case.name = format!(
                        "{rows} rows, {empty_mean:?}, z-loss {lambda}, weighted {weighted}"
                    );
                    case.z_loss = lambda;
                    case.empty_mean = empty_mean;
                    if weighted {
                        case.class_weights = vec![2.0, 0.0, 1.0];
                    }
                    let wanted = [Wanted::Losses, Wanted::Loss, Wanted::Grad];
                    let z = [Wanted::ZLosses, Wanted::ZLoss].into_iter();
                    let case = case.want(wanted.into_iter().chain(z.filter(|_| lambda != 0.0)));
                    agree(engine, kernel, &case, &mut Worst::default())?;
                }
            }
        }
    }
    Ok(())
}

/// The class weights of the labels are summed exactly and rounded once, in whatever order and size they
/// come; ignored rows weigh nothing, and the z-loss is a mean over rows.
/// A mean divides by the sum of the weights, rounded once: of a row of each class, wherever in a word the sum
/// begins; and of so many rows that every carry goes on.
fn weight_sums(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let two = |power: i32| 2f32.powi(power);
    let ones: Vec<f32> = (0..72).map(|i| 16777215.0 * two(i % 48 - 30)).collect();
    let tiny = f32::from_bits(0x80_0001);
    for (name, weights, rows) in [
        ("a tie, to even below", vec![two(24), 1.0], 2),
        ("a tie, to even above", vec![two(24) + 2.0, 1.0], 2),
        ("past a tie", vec![two(24), 1.0, two(-60)], 3),
        (
            "past a tie by the next word",
            vec![two(24), 1.0, two(-20)],
            3,
        ),
        ("a word's last bit first", vec![two(10), two(-14)], 2),
        (
            "the same, to even above",
            vec![two(10) + two(-13), two(-14)],
            2,
        ),
        ("the same, past a tie", vec![two(10), two(-14), two(-30)], 3),
        ("a word's first bit first", vec![two(11), two(-13)], 2),
        (
            "the same, to even above",
            vec![two(11) + two(-12), two(-13)],
            2,
        ),
        ("up to a power of two", vec![two(24) - 1.0, 0.75, 0.125], 3),
        ("the smallest", vec![two(-126)], 1),
        ("a tie of the smallest", vec![tiny, two(-126)], 2),
        ("words of ones", ones, 20_000),
    ] {
        let classes = weights.len();
        let logits = (0..rows * classes).map(|i| (i % 5) as f32).collect();
        let mut case = Case::new(name, classes, logits)
            .index((0..rows).map(|row| (row % classes) as i64).collect())
            .want([Wanted::Losses, Wanted::Loss, Wanted::Grad]);
        case.class_weights = weights;
        agree(engine, kernel, &case, &mut Worst::default())?;
    }
    Ok(())
}

fn weighted_denominators(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let sizes: [&[f32]; 4] = [
        // 2²⁴ and ones: each alone is lost in f32.
        &[16_777_216.0, 1.0, 1.0, 1.0, 1.0],
        &[1e-10, 1e10, 3.0, 1e-3, 7e7],
        &[0.1, 0.3, 0.7, 0.0, 1e-20],
        &[16_777_218.0, 1.0, 0.0, 0.0, 3e-8],
    ];
    for (turn, weights) in sizes.into_iter().enumerate() {
        for denominator in [Denominator::Weights, Denominator::ValidRows] {
            for lambda in [0.0, 0.5] {
                let mut case = generate(Shape::Normal, Kind::Index, 1301, 5);
                case.class_weights = weights.to_vec();
                (case.denominator, case.z_loss) = (denominator, lambda);
                case.name = format!("weights {turn}, {denominator:?}, z-loss {lambda}");
                let wanted = [Wanted::Losses, Wanted::Loss, Wanted::Grad];
                let z = [Wanted::ZLosses, Wanted::ZLoss];
                let z = z.into_iter().filter(|_| lambda != 0.0);
                let case = case.want(wanted.into_iter().chain(z));
                agree(engine, kernel, &case, &mut Worst::default())?;
            }
        }
    }
    Ok(())
}

fn passes(name: &str) {
    let engine = gpu!();
    let begun = Instant::now();
    for kernel in Strategy::ALL {
        if let Err(why) = named(name)(engine, kernel) {
            panic!("{name}: {why}");
        }
    }
    if begun.elapsed().as_secs() >= 8 {
        report(&format!("the check {name} took {:.1?}", begun.elapsed()));
    }
}

/// What the host alone does with a batch that it cuts into chunks: halves, padded rows, pairs of interleaved
/// ones, which stay together; a sum of weights that is that of all. No shader has a part in it, so one
/// kernel is enough.
#[test]
fn a_batch_in_chunks_is_the_batch() {
    let engine = gpu!();
    let kernel = Strategy::RowPerInvocation;
    for inner in [1, 2] {
        let mut case = generate(Shape::Wide, Kind::Index, 10, 1101).store(Dtype::F16);
        case.class_weights = some_weights(1101);
        case.z_loss = 0.5;
        case.logits[9 * 1101] = f32::NAN;
        case = case.want([
            Wanted::Grad,
            Wanted::Losses,
            Wanted::Loss,
            Wanted::ZLosses,
            Wanted::ZLoss,
        ]);
        case = lay_out(case, inner, 1103, Padding::Masked);
        let whole = run(engine, kernel, &case);
        let row_bytes = 4 * case.columns() as u64;
        let few = limited(engine, |profile| {
            // Three pairs.
            profile.max_binding = 6 * row_bytes + u64::from(profile.offset_alignment);
        });
        let parts = run(&few, kernel, &case);
        match (whole, parts) {
            (Ok(whole), Ok(parts)) => same_bits(&case.name, &bits(&whole), &bits(&parts)),
            (whole, parts) => whole.and(parts).map(|_| ()),
        }
        .unwrap_or_else(|why| panic!("{why}"));
    }
}

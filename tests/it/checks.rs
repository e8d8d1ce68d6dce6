//! Named checks of an engine: what the unedited shaders pass, and what catches a planted bug.

use softxent::{Denominator, Engine, Reduction, Strategy, Wanted};

use crate::cases::{Kind, Shape, generate};
use crate::common::{Case, bits, exact_quotient, gpu, same_bits};
use crate::guest::{Guest, Home};
use crate::judge::{Worst, judge};

pub type Check = fn(&Engine, Strategy) -> Result<(), String>;

pub const CHECKS: [(&str, Check); 13] = [
    ("last_columns", last_columns),
    ("block_maxima", block_maxima),
    ("every_label", every_label),
    ("confident_rows", confident_rows),
    ("ties", ties),
    ("dense_weights", dense_weights),
    ("masks", masks),
    ("ignored_rows", ignored_rows),
    ("poisoned_rows", poisoned_rows),
    ("exact_sums", exact_sums),
    ("in_place", in_place),
    ("one_tree", one_tree),
    ("resident_steps", resident_steps),
];

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

/// The last column counts, wherever the tail of a slot, a lane step or a block begins.
fn last_columns(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let widths = [
        1, 2, 3, 4, 5, 31, 33, 127, 129, 1023, 1024, 1025, 1029, 2049,
    ];
    let cases = of(Shape::LastIsTop, Kind::Index, 3, &widths);
    all_agree(
        engine,
        kernel,
        cases.chain(of(Shape::LastIsHeavy, Kind::Index, 3, &widths)),
    )
}

/// Blocks merge right when each raises the maximum, none does, or a middle one does; and a long row
/// needs every level of the tree.
fn block_maxima(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let widths = [1025, 3000, 5121, 17 * 1024 + 1];
    [
        Shape::Ascending,
        Shape::Descending,
        Shape::Edges,
        Shape::Wide,
    ]
    .into_iter()
    .try_for_each(|shape| all_agree(engine, kernel, of(shape, Kind::Index, 2, &widths)))
}

/// Each class in turn is the label.
fn every_label(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    all_agree(
        engine,
        kernel,
        [1, 2, 5, 9, 130].map(|k| {
            let case = generate(Shape::Normal, Kind::Index, k, k);
            case.index((0..k as i64).collect()).reduce(Reduction::Sum)
        }),
    )
}

/// Gaps of 0 to 87: loss and gradient keep their relative accuracy, and so do the small
/// probabilities, for which the rounding error of `z − m` counts.
fn confident_rows(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    all_agree(
        engine,
        kernel,
        of(Shape::Confident, Kind::Index, 48, &[2, 3, 10, 1500]),
    )
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
        [3, 1500].map(|k| {
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
    for (shape, kind, k) in [
        (Shape::Confident, Kind::Index, 7),
        (Shape::LastIsHeavy, Kind::Index, 3001),
        (Shape::Ascending, Kind::Index, 2048),
        (Shape::Wide, Kind::Dense, 1030),
    ] {
        let mut case =
            generate(shape, kind, 9, k).want([Wanted::Grad, Wanted::Loss, Wanted::Losses]);
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

/// Steps on the caller's buffers give the bits of the host call each time: labels counted on the
/// device, the upstream gradient and a denominator in buffers, nothing left of the step before.
fn resident_steps(engine: &Engine, kernel: Strategy) -> Result<(), String> {
    let mut counted = generate(Shape::Wide, Kind::Index, 9, 70).want(ONE_PASS);
    counted.shared = true;
    counted.upstream = vec![-2.5];
    let mut given = counted.clone();
    given.denominator = Denominator::Number(7.0);
    for case in [counted, given] {
        let host = case
            .try_run(engine, kernel)
            .map_err(|error| error.to_string())?;
        let mut case = case;
        if case.denominator != Denominator::ValidRows {
            case.denominator = Denominator::Buffer;
            case.denominator_value = 7.0;
        }
        let guest = Guest::new(engine, kernel, &case, Home::Pooled(3))?;
        for step in 0..3 {
            let (found, _) = guest.step()?;
            same_bits(&format!("{}, step {step}", case.name), &bits(&host), &found)?;
        }
    }
    Ok(())
}

#[test]
fn the_shaders_pass_every_named_check() {
    let engine = gpu!();
    for (name, check) in CHECKS {
        for kernel in Strategy::ALL {
            if let Err(why) = check(engine, kernel) {
                panic!("{name}: {why}");
            }
        }
    }
}

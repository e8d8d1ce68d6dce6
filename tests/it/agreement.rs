//! All kernels against the oracle, over shapes of rows, widths, batches, labels and reductions, on the
//! device as it is and under limits of WebGPU and below, where no subgroups are used.
//!
//! Every width meets every shape of row and every kernel; batch size, reduction, upstream gradient and
//! limits take turns. One kernel's results are judged, the others' have to be the same bits. With
//! `SOFTXENT_LONG=1` every width meets every batch size and kind of label too.

use std::time::Instant;

use softxent::{Dtype, Reduction, Strategy};

use crate::cases::{Kind, Shape, TURNS, generate, with_options};
use crate::checks::{ONE_PASS, agree};
use crate::common::{Case, bits, gpu, limited, long, report, same_bits, sibling, small, web};
use crate::judge::{Worst, check_rounded};

/// Around a slot (4), stripes (32), blocks (256), parts (1024), rounds of 32 blocks, and vocabularies.
const CLASSES: [usize; 38] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257,
    1000, 1023, 1024, 1025, 2047, 2048, 2049, 4096, 8191, 8193, 16385, 32768, 50257, 131_072,
];
/// Those of them that a run takes that is not to be long.
const SOME_CLASSES: [usize; 18] = [
    1, 3, 4, 5, 9, 16, 17, 31, 33, 128, 255, 257, 1000, 1025, 4096, 8193, 16385, 50257,
];
const ROWS: [usize; 6] = [1, 2, 3, 7, 64, 257];

/// Turns of reduction and upstream gradient.
fn with_turn(mut case: Case, turn: usize) -> Case {
    case.reduction = [Reduction::Mean, Reduction::Sum, Reduction::None][turn % 3];
    case.upstream = match turn % 9 {
        0 => vec![0.75],
        1 => vec![-2.5],
        2 | 5 => (0..case.rows)
            .map(|i| [1.0, -0.5, 3.0, 0.0, 1e-3, 65536.0][i % 6])
            .collect(),
        4 => vec![1e-3],
        6 => vec![0.0],
        _ => vec![1.0],
    };
    case.per_row = matches!(turn % 9, 2 | 5);
    case.name += &format!(" {:?}", case.reduction);
    case
}

fn grid(kinds: &[Kind]) {
    let engine = gpu!();
    let engines = [
        ("as it is", sibling(engine)),
        ("WebGPU", limited(engine, web)),
        ("small", limited(engine, small)),
    ];
    let (started, mut worst, mut count) = (Instant::now(), Worst::default(), 0);
    // Logits of one job: the long grid takes more rows of each width.
    let most = if long() { 1 << 20 } else { 1 << 17 };
    let classes = if long() { &CLASSES[..] } else { &SOME_CLASSES };
    for (c, &k) in classes.iter().enumerate() {
        let rows: Vec<usize> = ROWS.into_iter().filter(|n| n * k <= most).collect();
        for (s, shape) in Shape::ALL.into_iter().enumerate() {
            let turns = if long() { rows.len() * kinds.len() } else { 1 };
            for t in 0..turns {
                let turn = c + 5 * s + t;
                let (n, kind) = (
                    rows[turn % rows.len()],
                    kinds[(turn / rows.len() + s) % kinds.len()],
                );
                let case = with_turn(generate(shape, kind, n, k), turn);
                // Where a software driver cannot loop over so long a row, other kernels do.
                let first = case.kernels(engine)[0];
                if let Err(why) = agree(engine, first, &case, &mut worst) {
                    panic!("{why}\nuntil then:\n{worst}");
                }
                let judged = bits(&case.run(engine, first));
                for (s, kernel) in Strategy::ALL.into_iter().enumerate() {
                    let (limits, engine) = &engines[(turn + s) % engines.len()];
                    if !case.kernels(engine).contains(&kernel) {
                        continue;
                    }
                    let name = format!("{}, {}, {limits}", case.name, kernel.name());
                    same_bits(&name, &judged, &bits(&case.run(engine, kernel)))
                        .unwrap_or_else(|why| panic!("{why}"));
                    count += 1;
                }
            }
        }
    }
    report(&format!(
        "{kinds:?}: {count} jobs in {:.1?}, off at most by\n{worst}",
        started.elapsed()
    ));
}

#[test]
fn index_labels_agree_with_the_oracle() {
    grid(&[Kind::Index]);
}

#[test]
fn dense_labels_agree_with_the_oracle() {
    grid(&[Kind::Dense, Kind::Signed]);
}

/// Where a block (1024), a slot (4) and a word of 16-bit logits (2) end and begin; a few blocks; a
/// vocabulary.
const OPTION_CLASSES: [usize; 26] = [
    1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33, 64, 65, 127, 129, 255, 257, 513, 1000, 1023, 1024,
    1025, 1100, 4100, 50_257,
];

/// The job of a turn: its options, and shape of row, width and labels by turns that have no common
/// divisor.
fn option_job(turn: usize) -> Case {
    const LABELS: [Kind; 5] = [
        Kind::Index,
        Kind::Dense,
        Kind::Index,
        Kind::Signed,
        Kind::Index,
    ];
    let k = match turn % OPTION_CLASSES.len() {
        // The longest rows now and then only, where not all are asked for.
        at if at >= 24 && !long() && turn % 4 != 1 => OPTION_CLASSES[at - 9],
        at => OPTION_CLASSES[at],
    };
    let rows = match (k, turn % 7) {
        (50_257.., _) => 2,
        (4100.., _) => 6,
        (_, 3) => 1,
        (_, 5) => 96 * usize::from(k < 300) + 24,
        _ => 24,
    };
    // Some turns are left for what has no labels.
    let shape = Shape::ALL[(turn + turn / 12) % 12];
    let mut case = match turn.checked_sub(TURNS * if long() { 4 } else { 1 }) {
        None => generate(shape, LABELS[turn % 5], rows, k),
        Some(turn) => match turn % 3 {
            0 => generate(shape, Kind::Vector, rows, k),
            1 => generate(shape, Kind::FromSoftmax, rows, k),
            _ => {
                let job = generate(shape, Kind::Index, rows, k);
                Case::new(job.name.replace("Index", "no labels"), k, job.logits)
            }
        },
    };
    case = with_options(case, turn);
    case.per_row = case.reduction == Reduction::None && turn.is_multiple_of(2);
    case.upstream = match case.per_row {
        true => (0..case.rows)
            .map(|i| [1.0, -0.5, 3.0, 0.0, 1e-3, 65536.0][i % 6])
            .collect(),
        false => vec![[1.0, 0.75, -2.5, 1024.0][turn % 4]],
    };
    case
}

/// Each turn is a problem, and its batch fits it; no GPU.
#[test]
fn every_turn_of_options_is_a_problem() {
    for turn in 0..TURNS + TURNS / 4 {
        let mut case = option_job(turn);
        for same in [false, true] {
            case.same_dtype_out = same;
            let checked = case
                .problem()
                .and_then(|problem| case.with_batch(|batch| problem.check(batch)));
            let valid = checked.unwrap_or_else(|error| panic!("{}: {error}", case.name));
            assert_eq!(valid, case.valid_rows(), "{}", case.name);
        }
    }
}

/// Every option with every other, on all kernels: one judged, the others the same bits, in turn on the
/// device as it is, under WebGPU's limits and below; outputs of 16 bits are those of 32, rounded.
#[test]
fn options_agree_with_the_oracle() {
    let engine = gpu!();
    let engines = [
        ("as it is", sibling(engine)),
        ("WebGPU", limited(engine, web)),
        ("small", limited(engine, small)),
    ];
    let (started, mut worst, mut count) = (Instant::now(), Worst::default(), 0);
    // Pipelines take a driver a second each: unless all are asked for, some of the turns, a step apart
    // that has no divisor in common with any rotation, and one other kernel each.
    let all = if long() { 5 * TURNS } else { TURNS + TURNS / 4 };
    let turns: Vec<usize> = (0..all).step_by(if long() { 1 } else { 17 }).collect();
    for &turn in &turns {
        let mut case = option_job(turn);
        let first = Strategy::ALL[turn % Strategy::ALL.len()];
        if let Err(why) = agree(engine, first, &case, &mut worst) {
            panic!("turn {turn}: {why}\nuntil then:\n{worst}");
        }
        let wide = case.run(engine, first);
        let mut judged = bits(&wide);
        if case.dtype != Dtype::F32 {
            case.same_dtype_out = true;
            let narrow = case.run(engine, first);
            let name = format!("turn {turn}: {}, {}", case.name, first.name());
            check_rounded(&name, case.dtype, &wide, &narrow).unwrap_or_else(|why| panic!("{why}"));
            // The other kernels with outputs of one width or the other.
            match turn.is_multiple_of(2) {
                true => judged = bits(&narrow),
                false => case.same_dtype_out = false,
            }
        }
        for (s, kernel) in Strategy::ALL.into_iter().enumerate() {
            let other = (turn + 1 + turn % 3) % Strategy::ALL.len();
            if kernel == first && (turn + s) % engines.len() == 0 || !long() && s != other {
                continue;
            }
            let (limits, engine) = &engines[(turn + s) % engines.len()];
            let name = format!("turn {turn}: {}, {}, {limits}", case.name, kernel.name());
            same_bits(&name, &judged, &bits(&case.run(engine, kernel)))
                .unwrap_or_else(|why| panic!("{why}"));
            count += 1;
        }
    }
    report(&format!(
        "options: {} turns of {all}, {count} jobs in {:.1?}, off at most by\n{worst}",
        turns.len(),
        started.elapsed()
    ));
}

/// More rows than one dimension of a dispatch has workgroups, and none at all. A workgroup a row is
/// slow where all workgroups share a few processors, so it gets the smallest ones there.
#[test]
fn many_rows_agree_with_the_oracle() {
    let engine = gpu!();
    let least = limited(engine, |profile| profile.max_invocations = 32);
    let started = Instant::now();
    let mut worst = Worst::default();
    let few = [(70_000, 2), (4096, 17), (0, 1), (0, 9), (0, 4096)];
    let more = [
        (70_000, 1),
        (70_000, 9),
        (65_536, 3),
        (65_535, 3),
        (131_072, 2),
        (16_384, 33),
    ];
    let jobs = few.into_iter().chain(more.into_iter().filter(|_| long()));
    for (turn, (n, k)) in jobs.enumerate() {
        for kind in [Kind::Index, Kind::Dense]
            .into_iter()
            .take(if n < 70_000 { 2 } else { 1 })
        {
            let case = with_turn(generate(Shape::Wide, kind, n, k), turn + kind as usize);
            for kernel in Strategy::ALL {
                let case = case.clone().want(ONE_PASS);
                agree(&least, kernel, &case, &mut worst).unwrap_or_else(|why| panic!("{why}"));
            }
        }
    }
    report(&format!(
        "many rows: {:.1?}, off at most by\n{worst}",
        started.elapsed()
    ));
}

#[test]
fn rows_without_labels_agree_with_the_oracle() {
    let engine = gpu!();
    let mut worst = Worst::default();
    for (s, shape) in Shape::ALL.into_iter().enumerate() {
        let k = [3, 40, 1025][s % 3];
        let logits = generate(shape, Kind::Index, 7, k).logits;
        let case = Case::new(format!("{shape:?} 7×{k}"), k, logits);
        for kernel in Strategy::ALL {
            agree(engine, kernel, &case, &mut worst).unwrap_or_else(|why| panic!("{why}"));
        }
    }
    report(&format!("no labels, off at most by\n{worst}"));
}

/// The proof that shaders need no checks is in `src/engine.rs`; this is what it comes to.
#[test]
fn checks_in_shaders_change_no_bit() {
    let engine = gpu!();
    let [bare, checked] = [sibling(engine), sibling(engine).with_shader_checks()];
    let mut compared = 0;
    for (turn, (rows, classes)) in [(33, 3), (9, 100), (5, 257), (3, 1000), (2, 5001)]
        .into_iter()
        .enumerate()
    {
        let plain = generate(Shape::Normal, Kind::Index, rows, classes);
        // Shaders with options take their time to compile.
        let cases = match turn {
            2 => vec![plain.clone(), with_options(plain, turn)],
            _ => vec![plain],
        };
        for case in cases {
            for strategy in case.kernels(&bare) {
                let [one, other] =
                    [&bare, &checked].map(|engine| bits(&case.run(engine, strategy)));
                let what = format!("{}, {}", case.name, strategy.name());
                same_bits(&what, &one, &other).unwrap_or_else(|why| panic!("{why}"));
                compared += 1;
            }
        }
    }
    assert!(compared >= 24, "{compared} runs compared");
}

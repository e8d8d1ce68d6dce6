//! What must not change a bit: the kernel, the batch around a row, its place, the buffers' offsets,
//! limits, chunks, which outputs are asked for, the order of rows, another run. And what must hold of
//! any softmax, on the device.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use softxent::plan::Tuning;
use softxent::{Denominator, Dtype, Engine, Padding, Plan, Reduction, Results, Strategy, Wanted};

use crate::cases::{Kind, Shape, generate, some_weights, with_options};
use crate::checks::ONE_PASS;
use crate::common::{
    ALL, Case, Rng, bits, gpu, limited, long, per_row, report, same_bits, select, small, web,
};
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

/// Rows of each batch whose bits are not those of the same rows alone.
fn differing_rows(
    alone: &[Results<u32>],
    pool: usize,
    k: usize,
    found: &Results<u32>,
    n: usize,
) -> usize {
    let one = |i: usize| per_row(select(found, k, &[i]));
    (0..n).filter(|&i| one(i) != alone[i % pool]).count()
}

/// Every width in batches of every size: row after row the bits of the row alone, with all kernels, on
/// the device as it is and under lower limits; gradients under none, sum and a given denominator.
#[test]
fn no_row_differs_in_any_batch() {
    const POOL: usize = 5;
    const CLASSES: [usize; 7] = [1, 31, 127, 1000, 4096, 50_257, 262_144];
    let engine = gpu!();
    let limits: [fn(&mut softxent::plan::DeviceProfile); 3] = [|_| (), web, small];
    let engines = limits.map(|limits| limited(engine, limits));
    // Where a workgroup takes a row and a few processors take all workgroups, the smallest ones.
    let least = limited(engine, |profile| profile.max_invocations = 32);
    let few = [1, 2, 3, 5, 8, 31, 33, 64, 65, 128, 1025, 65_536];
    let every = (1..=65)
        .chain(127..=129)
        .chain(1023..=1025)
        .chain(65_535..=65_537);
    let sizes: Vec<usize> = if long() {
        every.collect()
    } else {
        few.to_vec()
    };
    // Logits of one batch.
    let most = if long() { 1 << 24 } else { 1 << 17 };
    let (started, mut rows, mut differing) = (Instant::now(), 0, 0);
    for (c, &k) in CLASSES.iter().enumerate() {
        let pool = generate(Shape::Wide, Kind::Index, POOL, k).want(ONE_PASS);
        // By reduction: none with a factor a row, sum, a given denominator.
        let as_of = |turn: usize, mut case: Case| -> Case {
            match turn % 3 {
                0 => {
                    case.reduction = Reduction::None;
                    case.per_row = true;
                    let factors = (0..case.rows).map(|i| 0.75 * (1 + i % POOL) as f32);
                    case.upstream = factors.collect();
                }
                1 => case.reduction = Reduction::Sum,
                _ => case.denominator = Denominator::Number(37.5),
            }
            case
        };
        let alone: Vec<Vec<Results<u32>>> = (0..3)
            .map(|turn| {
                let pool = as_of(turn, pool.clone());
                let run = |i| per_row(bits(&pool.select(&[i]).run(engine, Strategy::SplitRow)));
                (0..POOL).map(run).collect()
            })
            .collect();
        // The longest rows at least alone and in twos.
        let fits = |n: &&usize| **n <= 2 || **n * k <= most;
        for (s, &n) in sizes.iter().filter(fits).enumerate() {
            let turn = c + s;
            let from: Vec<usize> = (0..n).map(|i| i % POOL).collect();
            let case = as_of(turn, pool.select(&from));
            for (place, kernel) in case.kernels(engine).into_iter().enumerate() {
                let engine = match n > 2000 {
                    true => &least,
                    false => &engines[(turn + place) % engines.len()],
                };
                let found = bits(&case.run(engine, kernel));
                rows += n;
                differing += differing_rows(&alone[turn % 3], POOL, k, &found, n);
            }
        }
    }
    report(&format!(
        "batches: {differing} of {rows} rows differ, {:.1?}",
        started.elapsed()
    ));
    assert_eq!(differing, 0, "of {rows} rows");
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
            // The exact sums need a binding of 8 KiB; a block has 12 words beside the row's.
            let row_bytes = (4 * k as u64).max(48 * (1 + k.div_ceil(1024) as u64));
            let rows_of_binding = |rows: u64| (rows * row_bytes).max(8192);
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

/// A way to run a case: what a plan is chosen by, but for the strategy.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// Invocations of a workgroup.
    size: u32,
    /// Invocations of a subgroup, if shuffles are to be used.
    subgroup: Option<u32>,
    keeps: bool,
    vectors: bool,
    /// Whether rows are finished by the kernel that reads them.
    fuses: bool,
    /// Where the arrays begin in their buffers, else a host call.
    offset: Option<usize>,
}

/// The ways that a sweep takes; all of them, or some in which any two choices meet now and then.
fn ways(subgroups: &[Option<u32>], turn: usize) -> Vec<Way> {
    let mut ways = Vec::new();
    for (s, &subgroup) in subgroups.iter().enumerate() {
        for (i, size) in [8, 16, 32, 64, 128].into_iter().enumerate() {
            for choice in 0..16 {
                let bit = |place: usize| choice >> place & 1 == 1;
                // A subgroup for each size, and a number that takes every value from shape to shape.
                let taken = s == (i + turn) % subgroups.len() && choice == (5 * i + 7 * turn) % 16;
                if !long() && !taken {
                    continue;
                }
                ways.push(Way {
                    size,
                    subgroup,
                    keeps: bit(0),
                    vectors: bit(1),
                    fuses: bit(2),
                    offset: bit(3).then_some([0, 1, 4, 6][(turn + i + s) % 4]),
                });
            }
        }
    }
    ways
}

/// Every strategy in workgroups of 8 to 128, by teams of a subgroup, of half a block's lanes and in workgroup
/// memory, with what fits a row and what fits any, by vectors, by pairs of words and by the word, rows finished
/// where they are read and after that, in arrays that begin anywhere.
#[test]
fn no_choice_of_the_planner_changes_a_bit() {
    let engine = gpu!();
    let profile = engine.profile().clone();
    let mut subgroups = vec![None];
    // A part of a subgroup is a team too.
    if let Some(lanes) = profile.subgroup {
        subgroups.extend([4, 8].into_iter().filter(|&size| size <= lanes).map(Some));
    }
    let (started, mut runs) = (Instant::now(), 0);
    // One engine for words and one for pairs of them, so that pipelines are made once.
    let mut engines = [false, true].map(|pairs| {
        let pairs = pairs && profile.pairs;
        Some(limited(engine, |profile| profile.pairs = pairs))
    });
    let shapes = [(37, 10), (5, 64), (9, 257), (3, 1000), (2, 5003)];
    for (turn, (rows, k)) in shapes.into_iter().enumerate() {
        let mut case = job(Shape::Wide, Kind::Index, rows, k).want(ONE_PASS);
        // A row whose base is not 0, and one whose first half is masked.
        for z in &mut case.logits[..k] {
            *z += 1000.0;
        }
        case.logits[k..k + k / 2].fill(f32::NEG_INFINITY);
        let expected = bits(&case.run(engine, Strategy::RowPerInvocation));
        for (at, strategy) in Strategy::ALL.into_iter().enumerate() {
            for way in ways(&subgroups, turn + 2 * at) {
                let third = (turn + way.size.trailing_zeros() as usize) % 3;
                let by = if profile.software {
                    Tuning::SOFTWARE
                } else {
                    Tuning::GPU
                };
                let mut like = profile.clone();
                like.subgroup = way.subgroup;
                if !way.fuses {
                    like.max_storage_buffers = 8;
                }
                like.tuning = Some(Tuning {
                    workgroup: way.size,
                    alone: 0,
                    row_workgroup: way.size,
                    span_workgroup: way.size,
                    spans: [1, 7, 1000][third],
                    parts: [2048, 1, 3][third],
                    vectors: way.vectors,
                    keeps: way.keeps,
                    ..by
                });
                let engine = &mut engines[usize::from(way.keeps)];
                like.pairs &= way.keeps;
                let swept = engine.take().expect("it was put back").with_profile(like);
                let found = match way.offset {
                    None => bits(&case.run(&swept, strategy)),
                    Some(offset) => {
                        let found = resident(&swept, strategy, &case, Home::Apart(offset));
                        found.unwrap_or_else(|why| panic!("{way:?}: {why}")).0
                    }
                };
                let name = format!("{rows}×{k}, {}, {way:?}", strategy.name());
                assert_same(&name, &expected, &found);
                *engine = Some(swept);
                runs += 1;
            }
        }
    }
    report(&format!(
        "{runs} ways to run {} cases: the same bits, {:.0?}",
        shapes.len(),
        started.elapsed()
    ));
}

/// The longest rows that a software driver is given for each kernel, which ends an invocation after so many
/// loops without a word: nothing of them is missing.
#[test]
fn a_software_driver_reaches_the_end_of_the_longest_rows() {
    use Strategy::{RowPerInvocation, RowPerSubgroup, RowPerWorkgroup};
    use Wanted::{Entropy, Grad, LogSoftmax, Loss, Lse, Predictions, Softmax};
    let engine = gpu!();
    if !engine.profile().software {
        return;
    }
    let plain = |k, wanted: &[Wanted]| {
        let case = job(Shape::Normal, Kind::Index, 2, k);
        case.want(wanted.iter().copied())
    };
    let with_options = |kind, k| {
        let mut case = with_every_option(kind, 2, k);
        (case.reduction, case.same_dtype_out) = (Reduction::Sum, false);
        case
    };
    // Those of which the columns of a slot have loops of their own.
    let with_slot_loops = |kind, k| {
        let mut case = with_options(kind, k);
        (case.softcap, case.same_dtype_out) = (Some(100.0), true);
        case
    };
    let smoothed = |k, wanted: &[Wanted]| {
        let mut case = plain(k, wanted);
        case.label_smoothing = 0.1;
        case.want(wanted.iter().copied())
    };
    let one_team = |shuffles: bool| {
        limited(engine, |profile| {
            profile.subgroup = profile.subgroup.filter(|_| shuffles);
            profile.tuning = Some(Tuning {
                row_workgroup: 8,
                ..Tuning::SOFTWARE
            });
        })
    };
    let (shuffled, in_memory) = (one_team(true), one_team(false));
    let by_teams = vec![&shuffled, &in_memory];
    let mut failed = Vec::new();
    for (strategy, engines, mut case) in [
        (
            RowPerInvocation,
            vec![&shuffled],
            plain(524_288, &[Loss, Lse]),
        ),
        (
            RowPerInvocation,
            vec![&shuffled],
            plain(131_072, &[Loss, Lse, Softmax, Grad]),
        ),
        (
            RowPerInvocation,
            vec![&shuffled],
            plain(131_071, &[Loss, Softmax, Grad]),
        ),
        (
            RowPerInvocation,
            vec![&shuffled],
            plain(131_072, &[LogSoftmax]),
        ),
        (
            RowPerInvocation,
            vec![&shuffled],
            plain(131_072, &[Loss, Predictions]),
        ),
        (
            RowPerInvocation,
            vec![&shuffled],
            plain(65_536, &[Softmax, Grad, Predictions]),
        ),
        (
            RowPerInvocation,
            vec![&shuffled],
            plain(65_536, &[LogSoftmax, Predictions]),
        ),
        (
            RowPerInvocation,
            vec![&shuffled],
            smoothed(524_288, &[Loss, Entropy]),
        ),
        (
            RowPerInvocation,
            vec![&shuffled],
            smoothed(131_072, &[Loss, Entropy, Softmax, Grad]),
        ),
        (
            RowPerInvocation,
            vec![&shuffled],
            with_options(Kind::Index, 65_536),
        ),
        (
            RowPerInvocation,
            vec![&shuffled],
            with_options(Kind::Dense, 65_535),
        ),
        (
            RowPerInvocation,
            vec![&shuffled],
            with_slot_loops(Kind::Index, 7680),
        ),
        (
            RowPerInvocation,
            vec![&shuffled],
            with_slot_loops(Kind::Dense, 7680),
        ),
        (
            RowPerSubgroup,
            by_teams.clone(),
            plain(262_144, &[Loss, Softmax, Grad, Predictions]),
        ),
        (
            RowPerSubgroup,
            by_teams.clone(),
            plain(262_144, &[LogSoftmax, Predictions]),
        ),
        (
            RowPerSubgroup,
            by_teams.clone(),
            with_options(Kind::Index, 262_144),
        ),
        (
            RowPerSubgroup,
            by_teams.clone(),
            with_slot_loops(Kind::Index, 32_768),
        ),
        (
            RowPerSubgroup,
            by_teams.clone(),
            with_slot_loops(Kind::Dense, 32_768),
        ),
        (
            RowPerWorkgroup,
            by_teams.clone(),
            plain(262_144, &[Loss, Softmax, Grad, Predictions]),
        ),
        (
            RowPerWorkgroup,
            by_teams.clone(),
            plain(262_144, &[LogSoftmax, Predictions]),
        ),
        (
            RowPerWorkgroup,
            by_teams.clone(),
            with_options(Kind::Dense, 262_144),
        ),
        (
            RowPerWorkgroup,
            by_teams.clone(),
            with_slot_loops(Kind::Dense, 32_768),
        ),
    ] {
        // A base that is guessed, wrongly; in the first row the maximum of each block is its last.
        let k = case.classes;
        for (i, z) in case.logits.iter_mut().enumerate() {
            *z = match i < k {
                true => 1000.0 + (i % 256) as f32 / 2.0,
                false => *z + 1000.0,
            };
        }
        let expected = bits(&case.run(engine, Strategy::SplitRow));
        for engine in engines {
            let name = format!("{}, {}, {:?}", case.name, strategy.name(), case.wanted);
            if let Err(why) = same_bits(&name, &expected, &bits(&case.run(engine, strategy))) {
                failed.push(why);
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
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

/// All bits of the results in one number, by FNV-1a.
fn digest(results: &Results<u32>) -> u64 {
    let matrices = [&results.softmax, &results.log_softmax, &results.grad];
    let vectors = [
        &results.losses,
        &results.lse,
        &results.entropy,
        &results.z_losses,
    ];
    let words = matrices
        .into_iter()
        .chain(vectors)
        .flatten()
        .flatten()
        .copied();
    let signs = results.predictions.iter().flatten().map(|&p| p as u32);
    let right = results.correct_rows.iter().flatten().map(|&c| u32::from(c));
    let reduced = results.loss.iter().chain(&results.z_loss).copied();
    let counts = [
        results.correct.unwrap_or_default(),
        results.valid_rows,
        results.nan_rows,
        results.first_nan_row.unwrap_or(u64::MAX),
    ];
    let counts = counts.map(|count| count as u32);
    let all = words.chain(signs).chain(right).chain(reduced).chain(counts);
    all.fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        (hash ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// 20 jobs, plain ones and such with options, run again and again: 20 hashes.
#[test]
fn every_run_is_the_same() {
    let engine = gpu!();
    let runs = if long() { 1000 } else { 20 };
    let jobs: Vec<(Case, Strategy)> = (0..20)
        .map(|turn| {
            let k = [3, 10, 129, 1000, 1500][turn % 5];
            let kind = [Kind::Index, Kind::Dense, Kind::Index, Kind::Signed][turn % 4];
            let case = generate(Shape::ALL[turn % Shape::ALL.len()], kind, 24, k);
            let case = match turn < 10 {
                true => case.want(ONE_PASS),
                false => with_options(case, turn),
            };
            (case, Strategy::ALL[(turn / 5 + turn) % Strategy::ALL.len()])
        })
        .collect();
    let (mut hashes, mut of_jobs) = (HashSet::new(), BTreeSet::new());
    for _ in 0..runs {
        for (job, (case, kernel)) in jobs.iter().enumerate() {
            let hash = digest(&bits(&case.run(engine, *kernel)));
            hashes.insert(hash);
            of_jobs.insert((job, hash));
        }
    }
    assert_eq!(
        (hashes.len(), of_jobs.len()),
        (20, 20),
        "{runs} runs: {of_jobs:?}"
    );
}

/// Jobs with every option at once, whose denominator is a sum of weights.
fn with_every_option(kind: Kind, rows: usize, k: usize) -> Case {
    let mut case = generate(Shape::Wide, kind, rows, k).store(Dtype::F16);
    case.class_weights = some_weights(k);
    case.class_weights[0] = 1e7;
    (case.label_smoothing, case.z_loss) = (0.1, 1e-3);
    (case.logit_scale, case.softcap) = (0.5, Some(30.0));
    case.same_dtype_out = true;
    case.want_everything()
}

/// With every option, the reduced losses keep their bits in any order of the rows, and so does each row.
#[test]
fn the_order_of_rows_does_not_matter_to_options() {
    let engine = gpu!();
    let mut rng = Rng(12);
    for (kind, k) in [(Kind::Index, 17), (Kind::Dense, 17), (Kind::Index, 1100)] {
        for (lambda, reduction) in [
            (0.0, Reduction::Mean),
            (1e-3, Reduction::Mean),
            (1e-3, Reduction::Sum),
        ] {
            let mut case = with_every_option(kind, 97, k).reduce(reduction);
            case.z_loss = lambda;
            let case = case.want_everything();
            let mut order: Vec<usize> = (0..case.rows).collect();
            for i in (1..order.len()).rev() {
                order.swap(i, rng.below(i + 1));
            }
            for kernel in Strategy::ALL {
                let before = bits(&case.run(engine, kernel));
                let after = bits(&case.select(&order).run(engine, kernel));
                let of_batch = |r: &Results<u32>| (r.loss, r.z_loss, r.correct, r.valid_rows);
                assert_eq!(of_batch(&before), of_batch(&after), "{}", case.name);
                assert_same(&case.name, &select(&before, k, &order), &per_row(after));
            }
        }
    }
}

/// An engine whose bindings hold this many rows.
fn in_chunks(engine: &Engine, row_bytes: u64, rows: u64) -> Engine {
    let alignment = u64::from(engine.profile().offset_alignment);
    limited(engine, |profile| {
        // The exact sums need a binding of 4 KiB.
        profile.max_binding = (rows * row_bytes).max(8192) + alignment;
    })
}

/// The batch cut anywhere by the host, with every option: every bit, the sum of the weights included.
#[test]
fn chunks_do_not_matter_to_options() {
    let engine = gpu!();
    for (kind, dtype) in [
        (Kind::Index, Dtype::F32),
        (Kind::Index, Dtype::F16),
        (Kind::Dense, Dtype::F32),
        (Kind::Vector, Dtype::F32),
    ] {
        let k = 1500;
        let plain = match kind {
            Kind::Vector => generate(Shape::Wide, kind, 22, k),
            _ => with_every_option(kind, 22, k),
        };
        for (inner, row_length) in [(1, 0), (2, k + 1)] {
            let mut case = plain.clone();
            (case.dtype, case.same_dtype_out) = (dtype, dtype != Dtype::F32);
            if inner > 1 {
                case = case.laid_out(inner, row_length, Padding::Masked);
            }
            // Interleaved rows stay together.
            let row_bytes = (4 * case.columns() * inner) as u64;
            for kernel in Strategy::ALL {
                let whole = bits(&case.run(engine, kernel));
                for rows in [2, 3, 7] {
                    let chunked = bits(&case.run(&in_chunks(engine, row_bytes, rows), kernel));
                    let name = format!(
                        "{}, {}, {rows} rows, inner {inner}",
                        case.name,
                        kernel.name()
                    );
                    assert_same(&name, &whole, &chunked);
                }
            }
        }
    }
}

/// Sixty chunks, one after the other through two sets of buffers, with every output: on a device whose memory
/// the host maps, and on one that it copies to and from.
#[test]
fn many_chunks_do_not_matter() {
    let engine = gpu!();
    let k = 1100;
    for (dtype, kind, over) in [
        (Dtype::F32, Kind::Index, false),
        (Dtype::Bf16, Kind::Index, true),
        (Dtype::F32, Kind::Dense, false),
    ] {
        let mut case = with_every_option(kind, 119, k);
        (case.dtype, case.same_dtype_out) = (dtype, dtype != Dtype::F32);
        case.over_logits = over;
        let padded = case.laid_out(1, k + 3, Padding::Kept).want_everything();
        for case in [case.want_everything(), padded] {
            let kernel = Strategy::SplitRow;
            let whole = bits(&case.run(engine, kernel));
            let size = if kind == Kind::Dense {
                4
            } else {
                dtype.size().max(2)
            };
            let row_bytes = (size * case.columns()).max(144) as u64;
            for software in [true, false] {
                let rows = 8192_u64.div_ceil(row_bytes).max(2);
                let mut profile = in_chunks(engine, row_bytes, rows).profile().clone();
                profile.software = software;
                let chunks = limited(engine, |now| *now = profile.clone());
                let plan = Plan::with_strategy(&case.problem().unwrap(), &profile, kernel).unwrap();
                assert!(plan.chunks() >= 30, "{}: {plan}", case.name);
                let name = format!("{}, {} chunks", case.name, plan.chunks());
                assert_same(&name, &whole, &bits(&case.run(&chunks, kernel)));
            }
        }
    }
}

/// Arrays that several threads copy, an odd number of halves among them.
#[test]
fn threads_that_copy_do_not_matter() {
    let engine = gpu!();
    let copied = limited(engine, |profile| profile.software = false);
    for dtype in [Dtype::F32, Dtype::F16] {
        let mut case = generate(Shape::Wide, Kind::Index, 3, 1_500_001).want(ONE_PASS);
        (case.dtype, case.same_dtype_out) = (dtype, dtype != Dtype::F32);
        let kernel = Strategy::SplitRow;
        let found = bits(&case.run(&copied, kernel));
        assert_same(&case.name, &bits(&case.run(engine, kernel)), &found);
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
        let mut case = generate(Shape::Edges, Kind::Index, 20, 1500);
        case.z_loss = 0.25;
        let case = case.want_everything();
        assert_eq!(case.wanted, Wanted::ALL);
        let all = bits(&case.run(engine, kernel));
        for output in Wanted::ALL {
            let one = bits(&case.clone().want([output]).run(engine, kernel));
            let has = |wanted| output == wanted;
            let counted = has(Wanted::Predictions) || has(Wanted::Correct);
            let expected = Results {
                softmax: all.softmax.clone().filter(|_| has(Wanted::Softmax)),
                log_softmax: all.log_softmax.clone().filter(|_| has(Wanted::LogSoftmax)),
                grad: all.grad.clone().filter(|_| has(Wanted::Grad)),
                losses: all.losses.clone().filter(|_| has(Wanted::Losses)),
                lse: all.lse.clone().filter(|_| has(Wanted::Lse)),
                loss: all.loss.filter(|_| has(Wanted::Loss)),
                predictions: all.predictions.clone().filter(|_| has(Wanted::Predictions)),
                entropy: all.entropy.clone().filter(|_| has(Wanted::Entropy)),
                correct_rows: all.correct_rows.clone().filter(|_| has(Wanted::Correct)),
                z_losses: all.z_losses.clone().filter(|_| has(Wanted::ZLosses)),
                z_loss: all.z_loss.filter(|_| has(Wanted::ZLoss)),
                correct: all.correct.filter(|_| counted),
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

/// Whether two values are within so many ULP of one and the same, but for what may be flushed.
fn near(a: f32, b: f32, ulps: f64, k: usize) -> bool {
    let (a, b) = (f64::from(a), f64::from(b));
    (a - b).abs()
        <= 2.0 * ulps * ulp(a.abs().max(b.abs())) + k as f64 * f64::from(f32::MIN_POSITIVE)
}

/// A constant added to all logits, exactly, changes lse alone: every other output is within its tolerance,
/// twice, of what it was. Its bits are not the same, as exp is relative to 0 or to the maximum.
#[test]
fn a_shift_changes_only_lse() {
    let engine = gpu!();
    for k in [3, 100, 1500] {
        let case = coarse(1, 6, k);
        let mut shifted = case.clone();
        shifted.logits.iter_mut().for_each(|z| *z += 4096.0);
        for kernel in Strategy::ALL {
            let (a, b) = (case.run(engine, kernel), shifted.run(engine, kernel));
            assert_eq!(a.predictions, b.predictions, "{}", case.name);
            for (one, other, ulps) in [
                (&a.softmax, &b.softmax, 6.0),
                (&a.grad, &b.grad, 10.0),
                (&a.losses, &b.losses, 4.0),
            ] {
                let (one, other) = (one.as_ref().unwrap(), other.as_ref().unwrap());
                for (&one, &other) in one.iter().zip(other) {
                    assert!(
                        near(one, other, ulps, k),
                        "{}: {one} and {other}",
                        case.name
                    );
                }
            }
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
            for (mine, theirs) in [(&a.softmax, &b.softmax), (&a.grad, &b.grad)] {
                let (mine, theirs) = (mine.as_ref().unwrap(), theirs.as_ref().unwrap());
                for j in 0..mine.len() {
                    let other = theirs[j / k * k + k - 1 - j % k];
                    assert!(
                        near(mine[j], other, 10.0, k),
                        "{}: {} and {other}",
                        case.name,
                        mine[j]
                    );
                }
            }
            for (&mine, theirs) in a.losses.iter().flatten().zip(b.losses.iter().flatten()) {
                assert!(
                    near(mine, *theirs, 4.0, k),
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
    let (mut most_p, mut most_grad) = (0.0f64, 0.0f64);
    for (turn, (shape, k)) in [
        (Shape::Normal, 1),
        (Shape::Normal, 10),
        (Shape::Wide, 31),
        (Shape::Wide, 1000),
        (Shape::Confident, 33),
        (Shape::Offset, 4096),
        (Shape::Normal, 50_257),
        (Shape::Normal, 262_144),
        (Shape::Wide, 262_144),
    ]
    .into_iter()
    .enumerate()
    {
        let reduction = [Reduction::Sum, Reduction::None][turn % 2];
        let rows = if k > 100_000 { 1 } else { 5 };
        let case = generate(shape, Kind::Index, rows, k).reduce(reduction);
        let case = case.want([Wanted::Softmax, Wanted::Grad]);
        for kernel in case.kernels(engine) {
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
                most_p = most_p.max((p - 1.0).abs());
                most_grad = most_grad.max(grad.abs());
            }
        }
    }
    report(&format!(
        "|1 − Σp| at most {most_p:.1e}, |Σ gradient| at most {most_grad:.1e}"
    ));
}

/// Rows of N(0, 10), as long as they come: every softmax that is not below 2⁻¹²⁶ within 6 ULP of itself.
#[test]
fn softmax_of_wide_rows_is_within_6_ulp() {
    let engine = gpu!();
    for k in [10, 1000, 4096, 50_257, 262_144] {
        let rows = if k > 100_000 { 1 } else { 4 };
        let logits = generate(Shape::Wide, Kind::Index, rows, k).logits;
        let case = Case::new(format!("{rows}×{k}"), k, logits).want([Wanted::Softmax]);
        let exact = case.oracle().softmax.unwrap();
        for kernel in case.kernels(engine) {
            let found = case.run(engine, kernel).softmax.unwrap();
            let (mut most, mut judged) = (0.0f64, 0);
            for (&p, &exact) in found.iter().zip(&exact) {
                if exact >= f64::from(f32::MIN_POSITIVE) {
                    most = most.max((f64::from(p) - exact).abs() / ulp(exact));
                    judged += 1;
                }
            }
            assert!(judged > k / 2, "{judged} results of {k}");
            assert!(
                most <= 6.0,
                "{}, {}: {most:.2} ULP",
                case.name,
                kernel.name()
            );
            report(&format!(
                "softmax of {k}, {}: at most {most:.2} ULP",
                kernel.name()
            ));
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

//! The resident calls: a guest on the caller's device, among the caller's buffers, in the caller's
//! submission.

use std::sync::atomic::{AtomicUsize, Ordering};

use softxent::wgpu::{self, BufferUsages as Usage};
use softxent::{
    BufferRange, Buffers, Chunk, Denominator, Dtype, EmptyMean, Engine, Error, Padding, Prepared,
    Problem, ProblemBuilder, Reduction, STATUS_SIZE, Status, Strategy, Wanted,
};

use crate::cases::{Kind, Shape, generate, some_weights, with_options};
use crate::checks::ONE_PASS;
use crate::common::{ALL, Case, bits, gpu, same_bits, sibling};
use crate::guest::{Guest, Home, floats, resident, stored_words};
use crate::judge::{Worst, judge};

#[track_caller]
fn good<T>(result: Result<T, String>) -> T {
    result.unwrap_or_else(|why| panic!("{why}"))
}

/// The gradients are known in bits by other tests; here only what differs between two cases counts.
fn loss_grad(shape: Shape, rows: usize, classes: usize) -> Case {
    generate(shape, Kind::Index, rows, classes).want([Wanted::Loss, Wanted::Grad, Wanted::Losses])
}

#[test]
fn all_arrays_may_share_a_buffer() {
    let engine = gpu!();
    for (kind, k, wanted, over) in [
        (Kind::Index, 10, &ONE_PASS[..], false),
        (Kind::Index, 1030, &ALL, true),
        (Kind::Dense, 33, &ALL, false),
        (Kind::Dense, 1100, &ONE_PASS, true),
    ] {
        for kernel in Strategy::ALL {
            let mut case = generate(Shape::Confident, kind, 9, k).want(wanted.iter().copied());
            let host = bits(&case.run(engine, kernel));
            case.over_logits = over;
            for gap in [0, 1, 3, 64] {
                let (found, _) = good(resident(engine, kernel, &case, Home::Pooled(gap)));
                good(same_bits(
                    &format!("{}, {gap} apart", case.name),
                    &host,
                    &found,
                ));
            }
        }
    }
    // Without labels too.
    let case = Case::new(
        "no labels",
        33,
        generate(Shape::Wide, Kind::Index, 9, 33).logits,
    );
    for kernel in Strategy::ALL {
        let host = bits(&case.run(engine, kernel));
        let (found, _) = good(resident(engine, kernel, &case, Home::Pooled(7)));
        good(same_bits("no labels, pooled", &host, &found));
    }
}

/// The device counts the rows that are not ignored: the same bits as where the host did.
#[test]
fn labels_are_counted_on_the_device() {
    let engine = gpu!();
    for (rows, ignored) in [
        (1, 0),
        (1, 1),
        (64, 63),
        (65, 65),
        (1000, 143),
        (70_000, 10_000),
    ] {
        let mut case = loss_grad(Shape::Wide, rows, 3);
        case.index = Some(
            (0..rows)
                .map(|i| if i < ignored { -100 } else { 1 })
                .collect(),
        );
        let kernel = Strategy::RowPerInvocation;
        let guest = good(Guest::new(engine, kernel, &case, Home::Apart(3)));
        let host = bits(&case.run(engine, kernel));
        // Twice: the count of the first step is gone.
        for _ in 0..2 {
            let (found, status) = good(guest.step());
            assert_eq!(status.valid_rows as usize, rows - ignored);
            good(same_bits(
                &format!("{rows} rows, {ignored} ignored"),
                &host,
                &found,
            ));
        }
    }
}

/// Every option and layout, among them columns past the last class that stay: the bits of the host call,
/// twice in one submission. Each job has a kernel of its own; that all agree is known from others.
#[test]
fn options_are_those_of_the_host() {
    let engine = gpu!();
    for (i, (kind, rows, k, turn)) in [
        (Kind::Index, 24, 5, 8),
        (Kind::Index, 24, 33, 9),
        (Kind::Dense, 24, 130, 11),
        (Kind::Index, 6, 1100, 41),
        (Kind::Vector, 24, 41, 2),
        (Kind::FromSoftmax, 6, 1027, 4),
        (Kind::Index, 24, 37, 28),
        (Kind::Signed, 24, 7, 31),
    ]
    .into_iter()
    .enumerate()
    {
        let mut case = with_options(generate(Shape::Wide, kind, rows, k), turn);
        // One pass over the logits, but for the first case.
        if i > 0 {
            case.wanted.retain(|&output| output != Wanted::LogSoftmax);
        }
        case.same_dtype_out = i % 2 == 0;
        let kernel = Strategy::ALL[i % 4];
        let host = bits(&case.run(engine, kernel));
        let over = case.same_dtype_out && i >= 4;
        case.over_logits = over;
        let home = match i % 3 {
            0 => Home::Pooled(0),
            1 => Home::Apart(3),
            _ => Home::Pooled(5),
        };
        let what = format!("{}, {}", case.name, kernel.name());
        let guest = good(Guest::new(engine, kernel, &case, home));
        let mut encoder = guest.encoder();
        let copies = [0, 1].map(|_| {
            guest.bound.record(&mut encoder);
            guest.record_copy(&mut encoder)
        });
        engine.queue().submit([encoder.finish()]);
        let (found, _) = good(guest.results(&copies[0]));
        good(same_bits(&what, &host, &found));
        if !over {
            let (found, _) = good(guest.results(&copies[1]));
            good(same_bits(&format!("{what}, again"), &host, &found));
        }
    }
}

/// Outputs of 16 bits: odd numbers of elements, arrays that follow each other, the gradient over the
/// logits; no half of a neighbour changes.
#[test]
fn arrays_of_halves_leave_their_neighbours_alone() {
    let engine = gpu!();
    for (i, kernel) in Strategy::ALL.into_iter().enumerate() {
        let dtype = [Dtype::F16, Dtype::Bf16][i % 2];
        for k in [1, 3, 33, 1029] {
            let mut case = generate(Shape::Confident, Kind::Index, 5, k).store(dtype);
            case.logits[3 * k] = f32::NAN;
            case.same_dtype_out = true;
            case = case.want([Wanted::Softmax, Wanted::Grad, Wanted::Losses]);
            let host = bits(&case.run(engine, kernel));
            for home in [Home::Apart(1), Home::Pooled(0)] {
                let (found, _) = good(resident(engine, kernel, &case, home));
                good(same_bits(
                    &format!("{}, {home:?}", case.name),
                    &host,
                    &found,
                ));
            }
            case.over_logits = true;
            let (found, _) = good(resident(engine, kernel, &case, Home::Apart(3)));
            good(same_bits(
                &format!("{}, in place", case.name),
                &host,
                &found,
            ));
        }
    }
}

/// The device sums the class weights of the labels exactly, as the host does; twice in one submission, and
/// with other weights in the next.
#[test]
fn class_weights_are_summed_on_the_device() {
    let engine = gpu!();
    let kernel = Strategy::RowPerInvocation;
    let weights: [[f32; 3]; 4] = [
        // 2²⁴ and ones: each alone is lost in f32.
        [16_777_216.0, 1.0, 1.0],
        [1e-30, 1e30, 3.0],
        [0.1, 0.0, 1e-20],
        // Nothing weighs anything.
        [0.0, -0.0, 0.0],
    ];
    for (rows, ignored) in [(1, 0), (1, 1), (65, 64), (1000, 143)] {
        for (lambda, empty_mean) in [(0.0, EmptyMean::Nan), (0.5, EmptyMean::Zero)] {
            let mut case = generate(Shape::Normal, Kind::Index, rows, 3);
            let label = |i| if i < ignored { -100 } else { i as i64 % 3 };
            case.index = Some((0..rows).map(label).collect());
            (case.z_loss, case.empty_mean) = (lambda, empty_mean);
            case = case.want([Wanted::Loss, Wanted::Losses, Wanted::Grad]);
            if lambda > 0.0 {
                case.wanted.extend([Wanted::ZLoss, Wanted::ZLosses]);
            }
            case.class_weights = weights[0].to_vec();
            let mut guest = good(Guest::new(engine, kernel, &case, Home::Apart(3)));
            for weights in weights {
                case.class_weights = weights.to_vec();
                guest.write("class_weights", &floats(&weights));
                let host = bits(&case.run(engine, kernel));
                let mut encoder = guest.encoder();
                let copies = [0, 1].map(|_| {
                    guest.bound.record(&mut encoder);
                    guest.record_copy(&mut encoder)
                });
                engine.queue().submit([encoder.finish()]);
                for copy in copies {
                    let (found, status) = good(guest.results(&copy));
                    assert_eq!(status.valid_rows as usize, rows - ignored);
                    let what = format!("{rows} rows, {ignored} ignored, weights {weights:?}");
                    good(same_bits(&what, &host, &found));
                }
            }
        }
    }
}

/// What is no class weight makes NaN of the rows that it counts in, and of the mean that it divides; all
/// else stays.
#[test]
fn bad_class_weights_spoil_the_rows_that_count_them() {
    let engine = gpu!();
    for kernel in Strategy::ALL {
        for (smoothing, denominator) in [
            (0.0, Denominator::ValidRows),
            (0.0, Denominator::Weights),
            (0.1, Denominator::ValidRows),
        ] {
            let mut case = generate(Shape::Normal, Kind::Index, 9, 4).want(ONE_PASS);
            case.index = Some(vec![0, 1, 2, 3, 2, -100, 1, 0, 2]);
            (case.label_smoothing, case.denominator) = (smoothing, denominator);
            case.class_weights = vec![0.5, 1.0, -0.0, 2.0];
            let clean = bits(&case.run(engine, kernel));
            let mut guest = good(Guest::new(engine, kernel, &case, Home::Pooled(1)));
            for bad in [
                -1.0,
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                -f32::MIN_POSITIVE,
                f32::from_bits(0xffc0_0001),
            ] {
                let mut words = floats(&case.class_weights);
                words[2] = bad.to_bits();
                guest.write("class_weights", &words);
                guest.write("status", &[0; STATUS_SIZE as usize / 4]);
                let (found, status) = good(guest.step());
                let what = format!("{}, {bad}, {smoothing}, {denominator:?}", kernel.name());
                let is_nan = |word: &u32| f32::from_bits(*word).is_nan();
                // Class 2 is the label of rows 2, 4 and 8; smoothing counts it in all but the ignored row.
                let spoilt = |i: usize| i != 5 && (smoothing > 0.0 || [2, 4, 8].contains(&i));
                let (grad, losses) = (found.grad.unwrap(), found.losses.unwrap());
                for i in 0..9 {
                    let all_nan = grad[4 * i..][..4].iter().all(is_nan);
                    let by_mean = denominator == Denominator::Weights && i != 5;
                    assert_eq!(all_nan, spoilt(i) || by_mean, "{what}: gradient of row {i}");
                    assert_eq!(is_nan(&losses[i]), spoilt(i), "{what}: loss of row {i}");
                    if !spoilt(i) {
                        assert_eq!(
                            Some(losses[i]),
                            clean.losses.as_ref().map(|l| l[i]),
                            "{what}"
                        );
                    }
                    if !all_nan {
                        let before = clean.grad.as_ref().map(|grad| &grad[4 * i..][..4]);
                        assert_eq!(Some(&grad[4 * i..][..4]), before, "{what}: row {i}");
                    }
                }
                assert!(found.loss.iter().all(is_nan), "{what}");
                assert_eq!(found.softmax, clean.softmax, "{what}");
                assert_eq!(found.lse, clean.lse, "{what}");
                let rows = (0..9).filter(|&i| spoilt(i));
                assert_eq!(status.nan_rows as usize, rows.clone().count(), "{what}");
                let first = rows.min().map(|i| i as u32);
                assert_eq!(
                    (status.first_nan_row, status.bad_labels),
                    (first, 0),
                    "{what}"
                );
                assert_eq!(status.valid_rows, 8, "{what}");
            }
        }
    }
}

/// A number, the same number in a buffer: the same bits, and those of the oracle.
#[test]
fn the_denominator_may_be_given() {
    let engine = gpu!();
    for kernel in Strategy::ALL {
        for (kind, k) in [(Kind::Index, 10), (Kind::Dense, 1030)] {
            let mut case = generate(Shape::Wide, kind, 9, k).want(ONE_PASS);
            for number in [
                1.0,
                3.0,
                0.1,
                1e-20,
                7e30,
                16_777_217.0,
                f32::MIN_POSITIVE,
                f32::MAX,
            ] {
                case.upstream = vec![if number < 1e-30 { 1e-9 } else { 1.0 }];
                case.denominator = Denominator::Number(number);
                let host = case.run(engine, kernel);
                // Losses of a tiny denominator overflow, which the oracle says in f64.
                if (1e-30..1e30).contains(&number) {
                    let oracle = case.oracle();
                    good(judge(
                        &case,
                        kernel.name(),
                        &host,
                        &oracle,
                        &mut Worst::default(),
                    ));
                }
                case.denominator = Denominator::Buffer;
                case.denominator_value = number;
                let (found, _) = good(resident(engine, kernel, &case, Home::Apart(5)));
                good(same_bits(
                    &format!("{} / {number}", case.name),
                    &bits(&host),
                    &found,
                ));
            }
            // What is no denominator makes loss and gradient NaN; other outputs stay.
            for number in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
                case.denominator_value = number;
                let (found, _) = good(resident(engine, kernel, &case, Home::Apart(5)));
                let is_nan = |word: &u32| f32::from_bits(*word).is_nan();
                assert!(found.loss.iter().all(is_nan), "{number}");
                let grad = found.grad.unwrap();
                for i in (0..9).filter(|&i| !case.is_ignored(i)) {
                    assert!(grad[case.row(i)].iter().all(is_nan), "{number}");
                }
                assert!(!found.losses.unwrap().iter().any(is_nan), "{number}");
            }
        }
    }
}

/// One upstream gradient in a buffer has the bits of the same number, and may change from step to step.
#[test]
fn the_upstream_gradient_may_be_in_a_buffer() {
    let engine = gpu!();
    for kernel in Strategy::ALL {
        let mut case = loss_grad(Shape::Wide, 9, 130);
        case.shared = true;
        let mut guest = good(Guest::new(engine, kernel, &case, Home::Pooled(2)));
        for number in [1.0, -2.5, 65_536.0, 0.0, 1e-6] {
            case.upstream = vec![number];
            guest.write("upstream", &floats(&[number]));
            let (found, _) = good(guest.step());
            let shared = case.run(engine, kernel);
            let mut plain = case.clone();
            plain.shared = false;
            let host = bits(&plain.run(engine, kernel));
            good(same_bits("the host call", &host, &bits(&shared)));
            good(same_bits(&format!("upstream {number}"), &host, &found));
        }
    }
}

/// What is no upstream gradient makes the gradient of all rows NaN but that of ignored ones; other outputs
/// stay.
#[test]
fn an_upstream_gradient_that_is_not_finite_shows() {
    let engine = gpu!();
    let kernel = Strategy::RowPerInvocation;
    for (kind, smoothing) in [(Kind::Index, 0.0), (Kind::Index, 0.1), (Kind::Dense, 0.0)] {
        let mut case = generate(Shape::Wide, kind, 9, 5).want(ONE_PASS);
        (case.shared, case.label_smoothing) = (true, smoothing);
        let host = bits(&case.run(engine, kernel));
        let mut guest = good(Guest::new(engine, kernel, &case, Home::Apart(1)));
        for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            guest.write("upstream", &floats(&[number]));
            let (mut found, _) = good(guest.step());
            let grad = found.grad.take().unwrap();
            for i in 0..9 {
                let is_nan = |word: &u32| f32::from_bits(*word).is_nan();
                let row = &grad[case.row(i)];
                let right = match case.is_ignored(i) {
                    true => row.iter().all(|&word| word == 0),
                    false => row.iter().all(is_nan),
                };
                assert!(right, "{}, {number}: row {i}", case.name);
            }
            found.grad = host.grad.clone();
            good(same_bits(&case.name, &host, &found));
        }
    }
}

/// Two problems and two steps of each in one submission, each step with logits, labels, upstream
/// gradient and denominator of its own.
#[test]
fn many_steps_share_a_submission() {
    let engine = gpu!();
    for kernel in Strategy::ALL {
        let with = |case: Case, upstream: f32, denominator: f32| Case {
            shared: true,
            upstream: vec![upstream],
            denominator: Denominator::Buffer,
            denominator_value: denominator,
            ..case
        };
        let steps = [
            with(loss_grad(Shape::Wide, 9, 10), 1.0, 9.0),
            with(loss_grad(Shape::Confident, 9, 10), -3.0, 4.0),
        ];
        let others = [
            with(loss_grad(Shape::Normal, 5, 1030), 0.5, 5.0),
            with(loss_grad(Shape::Tied, 5, 1030), 2.0, 100.0),
        ];
        let mut all = Vec::new();
        let first = good(Guest::new(engine, kernel, &steps[0], Home::Pooled(1)));
        let other = good(Guest::new(engine, kernel, &others[0], Home::Apart(4)));
        let mut encoder = first.encoder();
        for (guest, step) in [(&first, 0), (&other, 0), (&first, 1), (&other, 1)] {
            let case = match std::ptr::eq(guest, &first) {
                true => &steps[step],
                false => &others[step],
            };
            let labels = case.index.iter().flatten().map(|&y| y as i32 as u32);
            for (name, words) in [
                ("logits", floats(&case.logits)),
                ("labels", labels.collect()),
                ("upstream", floats(&case.upstream)),
                ("denominator", floats(&[case.denominator_value])),
            ] {
                guest.record_write(&mut encoder, name, &guest.source(&words));
            }
            guest.bound.record(&mut encoder);
            all.push((case, guest.record_copy(&mut encoder)));
        }
        engine.queue().submit([encoder.finish()]);
        for (i, (case, copy)) in all.iter().enumerate() {
            // A second guest that only holds the case's own inputs says what the step should give.
            let alone = good(Guest::new(engine, kernel, case, Home::Apart(0)));
            let (expected, _) = good(alone.step());
            let guest = if i % 2 == 0 { &first } else { &other };
            let (found, _) = good(guest.results_of_a_step(copy));
            good(same_bits(
                &format!("{}, step {i}", case.name),
                &expected,
                &found,
            ));
        }
    }
}

/// Bad labels and NaN rows are counted until the caller clears the status; the rows of the last batch
/// are those of the last batch.
#[test]
fn the_status_is_sticky() {
    let engine = gpu!();
    for kernel in Strategy::ALL {
        let mut case = generate(Shape::Normal, Kind::Index, 20, 5).want(ONE_PASS);
        case.index = Some(vec![2; 20]);
        let clean = (floats(&case.logits), vec![2; 20]);
        let mut spoilt = clean.clone();
        spoilt.0[5 * 7 + 1] = f32::NAN.to_bits();
        spoilt.0[5 * 11] = f32::INFINITY.to_bits();
        spoilt.1[3] = 5;
        spoilt.1[19] = u32::MAX;
        let mut guest = good(Guest::new(engine, kernel, &case, Home::Apart(1)));
        let mut step = |(logits, labels): &(Vec<u32>, Vec<u32>)| -> Status {
            guest.write("logits", logits);
            guest.write("labels", labels);
            good(guest.step()).1
        };
        let correct = case.run(engine, kernel).correct;
        let untouched = Status {
            valid_rows: 20,
            correct: correct.unwrap(),
            ..Status::default()
        };
        assert_eq!(step(&clean), untouched);
        let seen = step(&spoilt);
        assert_eq!((seen.nan_rows, seen.first_nan_row), (2, Some(7)));
        assert_eq!((seen.bad_labels, seen.first_bad_label), (2, Some(3)));
        assert_eq!(seen.valid_rows, 20);
        let later = step(&clean);
        assert_eq!(
            later,
            Status {
                correct: untouched.correct,
                ..seen
            }
        );
        assert_eq!(step(&spoilt).nan_rows, 4);
        guest.write("status", &[0; STATUS_SIZE as usize / 4]);
        assert_eq!(good(guest.step()).1.nan_rows, 2);
    }
}

/// Scratch that holds anything is emptied by a reset, the sum and the count of a denominator among it.
#[test]
fn scratch_may_be_dirty_before_a_reset() {
    let engine = gpu!();
    let plain = loss_grad(Shape::Wide, 9, 10);
    let mut weighted = plain.clone();
    weighted.class_weights = some_weights(10);
    weighted.z_loss = 0.5;
    for kernel in Strategy::ALL {
        for case in [&plain, &weighted] {
            let host = bits(&case.run(engine, kernel));
            let mut guest = good(Guest::new(engine, kernel, case, Home::Pooled(1)));
            let words = guest.prepared.scratch_size(engine) as usize / 4;
            guest.write("scratch", &vec![0x7fc0_beef; words]);
            let mut encoder = guest.encoder();
            guest.bound.record_reset(&mut encoder);
            guest.bound.record(&mut encoder);
            let copy = guest.record_copy(&mut encoder);
            engine.queue().submit([encoder.finish()]);
            let (found, _) = good(guest.results(&copy));
            good(same_bits("after a reset", &host, &found));
        }
    }
}

/// Chunks of a batch over the same scratch add up to the batch.
#[test]
fn chunks_add_up() {
    let engine = gpu!();
    let mut case = loss_grad(Shape::Wide, 100, 7).want([Wanted::Loss, Wanted::Predictions]);
    case.index.as_mut().unwrap()[90] = 2;
    case.logits[90 * 7] = f32::NAN;
    case.denominator = Denominator::Number(100.0);
    in_chunks(engine, Strategy::RowPerInvocation, &case);

    // Interleaved rows of 16 bits, with every option of a loss. A NaN loss would hide the others.
    let mut case = generate(Shape::Wide, Kind::Index, 100, 6).store(Dtype::F16);
    case.class_weights = some_weights(6);
    (case.label_smoothing, case.z_loss, case.softcap) = (0.1, 0.5, Some(30.0));
    (case.denominator, case.denominator_value) = (Denominator::Buffer, 37.5);
    case = case.want([Wanted::Loss, Wanted::Predictions, Wanted::ZLoss]);
    for kernel in Strategy::ALL {
        in_chunks(engine, kernel, &case.laid_out(4, 7, Padding::Kept));
    }
}

/// Losses, status and predictions of a case of 100 rows by chunks are those of the host call.
fn in_chunks(engine: &Engine, kernel: Strategy, case: &Case) {
    let mut told = case.clone();
    if case.denominator == Denominator::Buffer {
        told.denominator = Denominator::Number(case.denominator_value);
    }
    let expected = told.run(engine, kernel);
    let problem = case.problem().unwrap();
    let prepared = pollster::block_on(engine.prepare_with(&problem, kernel)).unwrap();
    let buffer = |words: &[u32]| {
        let buffer = engine.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * words.len() as u64,
            usage: Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC,
            mapped_at_creation: false,
        });
        let bytes = bytemuck::cast_slice(words);
        engine.queue().write_buffer(&buffer, 0, bytes);
        buffer
    };
    let labels: Vec<u32> = case
        .index
        .iter()
        .flatten()
        .map(|&y| y as i32 as u32)
        .collect();
    let (logits, labels) = (
        buffer(&stored_words(case.dtype, &case.logits)),
        buffer(&labels),
    );
    let weights = buffer(&floats(&[&case.class_weights[..], &[0.0]].concat()));
    let denominator = buffer(&floats(&[case.denominator_value]));
    // Status from 0 on, losses at 256 and 512, predictions from 1024 on.
    let outputs = buffer(&[0; 256 + 100]);
    let scratch = buffer(&vec![0; prepared.scratch_size_for(engine, 40) as usize / 4]);
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let mut last = None;
    let logits_bytes = case.dtype.size() * case.columns();
    for (rows_before, rows) in [(0, 40), (40, 40), (80, 20), (100, 0)] {
        let part = |buffer, start: usize, bytes: usize| BufferRange {
            buffer,
            offset: (start + bytes * rows_before) as u64,
            size: (bytes * rows) as u64,
        };
        let total = |offset, size| BufferRange {
            buffer: &outputs,
            offset,
            size,
        };
        let weights = BufferRange::whole(&weights);
        let denominator = BufferRange::whole(&denominator);
        let buffers = Buffers {
            labels: Some(part(&labels, 0, 4)),
            class_weights: (!case.class_weights.is_empty()).then_some(weights),
            denominator: (case.denominator == Denominator::Buffer).then_some(denominator),
            predictions: Some(part(&outputs, 1024, 4)),
            loss: Some(total(256, 4)),
            z_loss: problem.wants(Wanted::ZLoss).then_some(total(512, 4)),
            ..Buffers::new(
                part(&logits, 0, logits_bytes),
                total(0, STATUS_SIZE),
                BufferRange::whole(&scratch),
            )
        };
        let chunk = Chunk { rows, rows_before };
        let bound = pollster::block_on(prepared.bind_chunk(engine, &buffers, chunk)).unwrap();
        bound.record_rows(&mut encoder);
        last = Some(bound);
    }
    last.unwrap().record_reduce(&mut encoder);
    let staging = engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: outputs.size(),
        usage: Usage::MAP_READ | Usage::COPY_DST,
        mapped_at_creation: false,
    });
    encoder.copy_buffer_to_buffer(&outputs, 0, &staging, 0, outputs.size());
    engine.queue().submit([encoder.finish()]);
    staging.slice(..).map_async(wgpu::MapMode::Read, |_| {});
    engine
        .device()
        .poll(wgpu::PollType::wait_indefinitely())
        .unwrap();
    let words: Vec<u32> =
        bytemuck::pod_collect_to_vec(&staging.slice(..).get_mapped_range().unwrap());
    let status = Status::from_words(words[..STATUS_SIZE as usize / 4].try_into().unwrap());
    let what = format!("{}, {}", case.name, kernel.name());
    assert_eq!(Some(words[64]), expected.loss.map(f32::to_bits), "{what}");
    if let Some(z_loss) = expected.z_loss {
        assert_eq!(words[128], z_loss.to_bits(), "{what}");
    }
    let found = words[256..].iter().map(|&word| i64::from(word as i32));
    assert_eq!(Some(found.collect()), expected.predictions, "{what}");
    assert_eq!(status.valid_rows, expected.valid_rows, "{what}");
    let first = status.first_nan_row.map(u64::from);
    assert_eq!(first, expected.first_nan_row, "{what}");
    assert_eq!(Some(status.correct), expected.correct, "{what}");
}

#[test]
fn no_rows_have_a_loss_too() {
    let engine = gpu!();
    let guest = |reduction, denominator: Denominator| {
        let mut case = Case::new("no rows", 5, vec![]).index(vec![]);
        case = case.want([Wanted::Loss]).reduce(reduction);
        case.denominator = denominator;
        case
    };
    for (case, expected) in [
        (guest(Reduction::Sum, Denominator::ValidRows), 0.0),
        (guest(Reduction::Mean, Denominator::ValidRows), f32::NAN),
        (guest(Reduction::Mean, Denominator::Number(3.0)), 0.0),
    ] {
        for kernel in Strategy::ALL {
            let host = case.run(engine, kernel).loss.unwrap();
            assert_eq!(host.to_bits(), expected.to_bits());
        }
    }
}

/// What the caller gets wrong is an error that says so, and binds nothing.
#[test]
fn buffers_that_do_not_fit_are_errors() {
    let engine = gpu!();
    let make = |size, usage| {
        engine.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    };
    let (big, bare) = (
        make(1 << 20, Usage::STORAGE),
        make(1 << 20, Usage::COPY_DST),
    );
    let part = |offset, size| BufferRange {
        buffer: &big,
        offset,
        size,
    };
    let problem = Problem::of(4, 10)
        .index_labels(-100)
        .want([Wanted::Loss, Wanted::Grad])
        .build()
        .unwrap();
    let prepared = pollster::block_on(engine.prepare(&problem)).unwrap();
    let scratch = prepared.scratch_size(engine);
    let buffers = Buffers {
        labels: Some(part(1024, 16)),
        grad: Some(part(2048, 160)),
        loss: Some(part(4096, 4)),
        ..Buffers::new(part(0, 160), part(8192, STATUS_SIZE), part(16_384, scratch))
    };
    let bind = |buffers: Buffers<'_>| pollster::block_on(prepared.bind(engine, &buffers)).err();
    assert!(bind(buffers).is_none());
    let grad = |range| Buffers {
        grad: range,
        ..buffers
    };
    for (buffers, message) in [
        (
            grad(None),
            "the buffer for grad is missing: this problem reads or writes it",
        ),
        (
            Buffers {
                softmax: Some(part(65_536, 160)),
                ..buffers
            },
            "the buffer for softmax is not used by this problem: leave it out",
        ),
        (
            grad(Some(part(2048, 159))),
            "the buffer for grad: 159 bytes at offset 2048 given, 160 bytes at a multiple of 4 needed",
        ),
        (
            grad(Some(part(2050, 160))),
            "the buffer for grad: 160 bytes at offset 2050 given, 160 bytes at a multiple of 4 needed",
        ),
        (
            grad(Some(part((1 << 20) - 80, 160))),
            "the buffer for grad: 160 bytes at offset 1048496 given, 160 bytes at a multiple of 4 needed",
        ),
        (
            grad(Some(part(u64::MAX - 3, 160))),
            "the buffer for grad: 160 bytes at offset 18446744073709551612 given, 160 bytes at a multiple of 4 needed",
        ),
        (
            grad(Some(BufferRange::whole(&bare))),
            "the buffer for grad was made without the usage STORAGE",
        ),
        (
            grad(Some(part(156, 160))),
            "the buffers for grad and logits overlap, and one of them is written",
        ),
        (
            grad(Some(part(16_380, 160))),
            "the buffers for grad and scratch overlap, and one of them is written",
        ),
    ] {
        let error = bind(buffers).map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some(message));
    }
    let small = Buffers {
        scratch: part(16_384, scratch - 4),
        ..buffers
    };
    assert!(matches!(
        bind(small),
        Some(Error::BufferRange {
            what: "scratch",
            ..
        })
    ));
    // Two inputs may overlap; a chunk needs a denominator that is not its own.
    let chunk = Chunk {
        rows: 2,
        rows_before: 0,
    };
    let some = pollster::block_on(prepared.bind_chunk(engine, &buffers, chunk));
    assert_eq!(
        some.err().map(|error| error.to_string()).as_deref(),
        Some(
            "2 of 4 rows bound, and the mean divides by the rows of all that are not ignored: give the denominator as a number or in a buffer"
        )
    );
}

/// The arrays of options: each is demanded by its option, and by nothing else; chunks end where
/// interleaved rows do.
#[test]
fn arrays_of_options_are_demanded_by_them() {
    let engine = gpu!();
    let big = engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 1 << 20,
        usage: Usage::STORAGE,
        mapped_at_creation: false,
    });
    let part = |at: u64, size| BufferRange {
        buffer: &big,
        offset: 4096 * at,
        size,
    };
    let plain = Problem::of(4, 10).index_labels(-100).want([Wanted::Loss]);
    let optional = [
        Wanted::Loss,
        Wanted::Entropy,
        Wanted::Correct,
        Wanted::ZLosses,
        Wanted::ZLoss,
    ];
    let all = plain
        .clone()
        .inner(2)
        .class_weights()
        .z_loss(0.5)
        .denominator(Denominator::Buffer)
        .want(optional);
    let kernel = Strategy::RowPerInvocation;
    let prepare = |problem: ProblemBuilder| {
        pollster::block_on(engine.prepare_with(&problem.build().unwrap(), kernel)).unwrap()
    };
    let (plain, all) = (prepare(plain), prepare(all));
    let needed = Buffers {
        labels: Some(part(1, 16)),
        loss: Some(part(2, 4)),
        ..Buffers::new(part(0, 160), part(3, STATUS_SIZE), part(16, 1 << 19))
    };
    let given = Buffers {
        class_weights: Some(part(4, 40)),
        denominator: Some(part(5, 4)),
        entropy: Some(part(6, 16)),
        correct: Some(part(7, 16)),
        z_losses: Some(part(8, 16)),
        z_loss: Some(part(9, 4)),
        ..needed
    };
    let error = |prepared: &Prepared, buffers: &Buffers<'_>, rows| {
        let chunk = Chunk {
            rows,
            rows_before: 0,
        };
        let bound = pollster::block_on(prepared.bind_chunk(engine, buffers, chunk));
        bound.err().map(|error| error.to_string())
    };
    assert_eq!(error(&plain, &needed, 4), None);
    assert_eq!(error(&all, &given, 4), None);
    type Field = for<'a, 'b> fn(&'b mut Buffers<'a>) -> &'b mut Option<BufferRange<'a>>;
    let fields: [(&str, Field); 6] = [
        ("class_weights", |buffers| &mut buffers.class_weights),
        ("denominator", |buffers| &mut buffers.denominator),
        ("entropy", |buffers| &mut buffers.entropy),
        ("correct", |buffers| &mut buffers.correct),
        ("z_losses", |buffers| &mut buffers.z_losses),
        ("z_loss", |buffers| &mut buffers.z_loss),
    ];
    for (name, field) in fields {
        let (mut less, mut more, mut short) = (given, needed, given);
        let range = field(&mut less).take();
        *field(&mut more) = range;
        let missing = format!("the buffer for {name} is missing: this problem reads or writes it");
        assert_eq!(error(&all, &less, 4), Some(missing));
        let needless = format!("the buffer for {name} is not used by this problem: leave it out");
        assert_eq!(error(&plain, &more, 4), Some(needless));
        let size = range.map_or(0, |range| range.size);
        if let Some(range) = field(&mut short) {
            range.size -= 4;
        }
        let said = error(&all, &short, 4).unwrap_or_default();
        let start = format!("the buffer for {name}: {} bytes", size - 4);
        assert!(said.starts_with(&start), "{name}: {said}");
    }
    let overlap = Buffers {
        entropy: Some(part(7, 16)),
        ..given
    };
    assert_eq!(
        error(&all, &overlap, 4).as_deref(),
        Some("the buffers for correct and entropy overlap, and one of them is written")
    );
    assert_eq!(
        error(&all, &given, 3).as_deref(),
        Some(
            "the number of rows of a chunk is 3; it has to be a multiple of the 2 interleaved rows"
        )
    );
    assert_eq!(error(&all, &given, 2), None);
}

/// 64 threads with one engine: each prepares, binds, records, submits and reads on its own.
#[test]
fn threads_share_an_engine() {
    let engine = &sibling(gpu!());
    let case = |i: usize| {
        let shape = [Shape::Wide, Shape::Confident, Shape::Tied, Shape::Masked][i % 4];
        loss_grad(shape, 5 + i % 3, [3, 40, 300][i % 3])
    };
    let expected: Vec<_> = (0..64)
        .map(|i| bits(&case(i).run(engine, Strategy::RowPerInvocation)))
        .collect();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (i, expected) in expected.iter().enumerate() {
            let (done, case) = (&done, case(i));
            scope.spawn(move || {
                // `poll` of another thread may call this one's callbacks, so nobody waits alone.
                let kernel = Strategy::ALL[i % 2];
                for home in [Home::Apart(i % 5), Home::Pooled(i % 3)] {
                    let (found, _) = good(resident(engine, kernel, &case, home));
                    good(same_bits(&case.name, expected, &found));
                }
                let host = bits(&case.run(engine, kernel));
                good(same_bits(&case.name, expected, &host));
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(done.into_inner(), 64);
}

/// An own instance and device, as a caller has them.
fn own_device(features: wgpu::Features) -> (wgpu::Instance, wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).unwrap();
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: features & adapter.features(),
        ..Default::default()
    }))
    .unwrap();
    (instance, device, queue)
}

/// A device with nothing but WebGPU's default limits, and no features: the caller's choice.
#[test]
fn a_device_of_the_caller_serves_as_it_is() {
    let shared = gpu!();
    let faster = wgpu::Features::SUBGROUP | wgpu::Features::SHADER_INT64;
    for features in [wgpu::Features::empty(), wgpu::Features::SUBGROUP, faster] {
        let (_instance, device, queue) = own_device(features);
        let mut engine = Engine::from_device(device, queue);
        pollster::block_on(engine.self_test()).unwrap();
        assert_eq!(
            engine.profile().subgroup.is_some(),
            shared.profile().subgroup.is_some() && !features.is_empty()
        );
        for kernel in Strategy::ALL {
            let case = generate(Shape::Wide, Kind::Index, 9, 1030).want(ONE_PASS);
            let (found, _) = good(resident(&engine, kernel, &case, Home::Pooled(1)));
            good(same_bits(
                &case.name,
                &bits(&case.run(shared, kernel)),
                &found,
            ));
        }
    }
}

/// `record` creates no object of the device: the driver's own books say so.
#[test]
fn recording_creates_nothing() {
    let _ = gpu!();
    let (instance, device, queue) = own_device(wgpu::Features::SUBGROUP);
    let engine = Engine::from_device(device, queue);
    let case = loss_grad(Shape::Wide, 9, 1030);
    for kernel in Strategy::ALL {
        let guest = good(Guest::new(&engine, kernel, &case, Home::Pooled(1)));
        let books = || {
            let report = instance.generate_report().unwrap();
            let hub = report.hub_report();
            [
                &hub.buffers,
                &hub.bind_groups,
                &hub.bind_group_layouts,
                &hub.pipeline_layouts,
                &hub.compute_pipelines,
                &hub.shader_modules,
                &hub.query_sets,
                &hub.command_buffers,
                &hub.command_encoders,
            ]
            .map(|registry| registry.num_allocated)
        };
        let mut encoder = guest.encoder();
        let before = books();
        for _ in 0..100 {
            guest.bound.record(&mut encoder);
            guest.bound.record_rows(&mut encoder);
            guest.bound.record_reduce(&mut encoder);
        }
        assert_eq!(books(), before, "{}", kernel.name());
        // The books do tell.
        let one_more = guest.source(&[0]);
        assert_eq!(books()[0], before[0] + 1);
        drop(one_more);
        let copy = guest.record_copy(&mut encoder);
        engine.queue().submit([encoder.finish()]);
        let (found, _) = good(guest.results(&copy));
        good(same_bits(
            &case.name,
            &bits(&case.run(&engine, kernel)),
            &found,
        ));
    }
}

/// A device that is lost between recording and submission: no panic, and the next call says so.
#[test]
fn a_device_may_be_lost_between_record_and_submit() {
    let _ = gpu!();
    let (_instance, device, queue) = own_device(wgpu::Features::SUBGROUP);
    let lost = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&lost);
    // Callbacks are the owner's.
    device.set_device_lost_callback(move |_, _| {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    device.on_uncaptured_error(std::sync::Arc::new(|_| {}));
    let engine = Engine::from_device(device.clone(), queue.clone());
    let case = loss_grad(Shape::Wide, 9, 10);
    let guest = good(Guest::new(
        &engine,
        Strategy::RowPerInvocation,
        &case,
        Home::Apart(0),
    ));
    let mut encoder = guest.encoder();
    guest.bound.record(&mut encoder);
    device.destroy();
    queue.submit([encoder.finish()]);
    let _ = device.poll(wgpu::PollType::Poll);
    assert_eq!(lost.load(Ordering::Relaxed), 1, "the owner is told");
    // Recording on is harmless; binding and running are errors.
    let mut encoder = guest.encoder();
    guest.bound.record(&mut encoder);
    drop(encoder);
    let again = Guest::new(&engine, Strategy::RowPerInvocation, &case, Home::Apart(0));
    assert!(again.is_err());
    let run = case.try_run(&engine, Strategy::RowPerInvocation);
    assert!(run.is_err(), "{run:?}");
}

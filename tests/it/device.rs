//! Devices that are chosen, lost, or compute something else: typed errors, no panic, no hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use softxent::{
    Accuracy, AdapterChoice, Engine, Error, Fault, MathFunction, Operation, Strategy, adapters,
    wgpu,
};

use crate::cases::{Kind, Shape, generate};
use crate::checks::ONE_PASS;
use crate::common::{gpu, limited, report, sibling, small};

#[test]
fn adapters_are_chosen_by_place_or_by_a_part_of_the_name() {
    let engine = gpu!();
    let names: Vec<String> = pollster::block_on(adapters())
        .iter()
        .map(|one| one.get_info().name)
        .collect();
    assert!(names.contains(&engine.adapter_info().name));
    let first = Engine::new_blocking(&AdapterChoice::Index(0)).unwrap();
    assert_eq!(first.adapter_info().name, names[0]);
    assert_eq!(first.accuracy(), Accuracy::Full);
    // A part of the name, in any case.
    let part: String = names[0].to_uppercase().chars().take(6).collect();
    let named = Engine::new_blocking(&part.parse().unwrap()).unwrap();
    assert!(named.adapter_info().name.to_uppercase().contains(&part));

    let listed: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(i, name)| format!("{i} = {name}"))
        .collect();
    for wanted in ["no such adapter", "99"] {
        match Engine::new_blocking(&wanted.parse().unwrap()) {
            Err(error @ Error::AdapterNotFound { .. }) => assert_eq!(
                error.to_string(),
                format!(
                    "no adapter matches `{wanted}`; there is: {}",
                    listed.join(", ")
                )
            ),
            other => panic!("{wanted}: {other:?}"),
        }
    }
}

#[test]
fn what_a_choice_is_read_from() {
    for (text, choice) in [
        ("", AdapterChoice::Auto),
        ("auto", AdapterChoice::Auto),
        ("1", AdapterChoice::Index(1)),
        ("RTX", AdapterChoice::Name("RTX".to_owned())),
        ("-1", AdapterChoice::Name("-1".to_owned())),
    ] {
        assert_eq!(text.parse(), Ok(choice));
    }
}

/// exp and log1p of the shaders, asked for one by one: the same on a device with small buffers, which gives
/// them in parts.
#[test]
fn values_of_functions() {
    let engine = gpu!();
    let narrow = limited(engine, |profile| {
        small(profile);
        profile.max_binding = 1024;
    });
    let (first, step, count) = (1f32.to_bits(), 3 << 20, 700);
    for (function, sign, exact) in [
        (MathFunction::Exp, 1 << 31, f64::exp as fn(f64) -> f64),
        (MathFunction::Log1p, 0, f64::ln_1p),
    ] {
        let of = |engine: &Engine, count| {
            let values = engine.math_values(function, first | sign, step, count);
            pollster::block_on(values).unwrap()
        };
        // From 1 on in steps of 3/8 of a power of two; exp ends at −100.
        let values = of(engine, 18);
        for (i, &found) in values.iter().enumerate() {
            let x = f32::from_bits((first | sign) + step * i as u32);
            approx::assert_relative_eq!(
                f64::from(found),
                exact(f64::from(x)),
                max_relative = 2.4e-7
            );
        }
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let (many, parts) = (bits(of(engine, count)), bits(of(&narrow, count)));
        assert_eq!(many.len(), count as usize);
        assert_eq!(many, parts);
        assert_eq!(many[..18], bits(values));
        assert!(of(engine, 0).is_empty());
    }
}

/// Each call on a lost device says so; a new engine is none the worse for it.
#[test]
fn a_lost_device_is_an_error() {
    let shared = gpu!();
    let case = generate(Shape::Normal, Kind::Index, 8, 10).want(ONE_PASS);
    let kernel = Strategy::RowPerInvocation;
    let mut doomed = Engine::new_blocking(&AdapterChoice::Auto).unwrap();
    let expected = case.run(&doomed, kernel);
    doomed.device().destroy();
    for _ in 0..2 {
        for kernel in Strategy::ALL {
            match case.try_run(&doomed, kernel) {
                Err(error @ Error::DeviceLost { .. }) => {
                    assert!(
                        error
                            .to_string()
                            .contains("this engine is dead: make a new one"),
                        "{error}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let self_test = pollster::block_on(doomed.self_test());
    assert!(
        matches!(self_test, Err(Error::DeviceLost { .. })),
        "{self_test:?}"
    );
    // The caller's own mistakes come first.
    let mut wrong = case.clone();
    wrong.logits.pop();
    assert!(matches!(
        wrong.try_run(&doomed, kernel),
        Err(Error::Length { .. })
    ));
    let revived = Engine::new_blocking(&AdapterChoice::Auto).unwrap();
    assert_eq!(case.run(&revived, kernel), expected);
    assert_eq!(case.run(shared, kernel), expected);
}

/// A device that was borrowed has no handler of ours; its loss is an error all the same.
#[test]
fn a_lost_borrowed_device_is_an_error() {
    let _ = gpu!();
    let case = generate(Shape::Normal, Kind::Index, 8, 10).want(ONE_PASS);
    let owner = Engine::new_blocking(&AdapterChoice::Auto).unwrap();
    let guest = sibling(&owner);
    let problem = case.problem().unwrap();
    case.run(&guest, Strategy::RowPerInvocation);
    assert!(!guest.is_lost());
    owner.device().destroy();
    let lost = case.try_run(&guest, Strategy::RowPerInvocation);
    assert!(matches!(lost, Err(Error::DeviceLost { .. })), "{lost:?}");
    assert!(guest.is_lost());
    // Nor is there a pipeline any more.
    let prepared = pollster::block_on(sibling(&guest).prepare(&problem));
    assert!(
        matches!(prepared, Err(Error::DeviceLost { .. })),
        "{prepared:?}"
    );
}

/// In the place of a lost engine comes one on another device, with its settings and the same bits; a call
/// that asks for that runs once more.
#[test]
fn a_lost_device_is_renewed() {
    let shared = gpu!();
    let case = generate(Shape::Normal, Kind::Index, 8, 10).want(ONE_PASS);
    let kernel = Strategy::RowPerInvocation;
    let problem = case.problem().unwrap();
    let expected = case.with_batch(|batch| shared.run_blocking(&problem, batch).unwrap());

    let mut profile = shared.profile().clone();
    small(&mut profile);
    let lost = Engine::new_blocking(&AdapterChoice::Auto)
        .unwrap()
        .with_profile(profile.clone());
    let guest = sibling(&lost);
    lost.device().destroy();
    assert!(lost.is_lost());
    let renewed = pollster::block_on(lost.renewed()).unwrap();
    assert!(!renewed.is_lost());
    assert_eq!(renewed.profile(), &profile);
    assert_eq!(renewed.adapter_info(), lost.adapter_info());
    assert_eq!(case.run(&renewed, kernel), expected);
    // A borrowed device is the caller's to replace, but an engine of our own it can have.
    let own = pollster::block_on(guest.renewed()).unwrap();
    assert_eq!(case.run(&own, kernel), expected);
    // What the driver computes does not become better by it.
    let wrong = lost.with_edited_shaders(|_, text| {
        text.replace("let column = u32(label);", "let column = u32(label) + 1u;")
    });
    let wrong = pollster::block_on(wrong.renewed());
    assert!(matches!(wrong, Err(Error::SelfTest { .. })), "{wrong:?}");

    let mut engine = renewed;
    let old = sibling(&engine);
    engine.plant(Some((5, Fault::LostAfter)));
    let retried = |engine: &mut Engine| {
        case.with_batch(|batch| pollster::block_on(engine.run_retrying(&problem, batch)))
    };
    assert_eq!(retried(&mut engine).unwrap(), expected);
    assert!(old.is_lost() && !engine.is_lost());
    assert_eq!(engine.profile(), &profile);
    // Only a lost device is a reason.
    engine.plant(Some((5, Fault::Refused)));
    assert!(matches!(retried(&mut engine), Err(Error::Driver { .. })));
    assert_eq!(engine.plant(None).1, Some(Operation::Calls));
}

/// A wait ends when the patience of the engine does, and the engine is none the worse for it.
#[test]
fn waits_have_an_end() {
    let engine = gpu!();
    let case = generate(Shape::Normal, Kind::Index, 8, 10).want(ONE_PASS);
    let kernel = Strategy::RowPerInvocation;
    let limit = Duration::from_secs(2);
    let engine = sibling(engine).with_patience(limit);
    let expected = case.run(&engine, kernel);
    engine.plant(None);
    case.run(&engine, kernel);
    let (count, _) = engine.plant(None);
    let mut struck = Vec::new();
    for at in 0..count {
        engine.plant(Some((at, Fault::Late)));
        let start = Instant::now();
        let outcome = case.try_run(&engine, kernel);
        let (took, (_, operation)) = (start.elapsed(), engine.plant(None));
        match (operation, outcome) {
            (Some(operation @ (Operation::Wait | Operation::Mapping)), Err(error)) => {
                assert_eq!(
                    error.to_string(),
                    "the device did not finish the kernels within 2s"
                );
                assert!(operation == Operation::Wait || took >= limit, "{took:?}");
                assert!(took < 3 * limit, "{took:?}");
                if !struck.contains(&operation) {
                    struck.push(operation);
                }
                assert_eq!(case.run(&engine, kernel), expected);
            }
            (_, outcome) => assert_eq!(outcome.unwrap(), expected),
        }
        if struck.len() == 2 {
            return;
        }
    }
    panic!("of {count} operations only {struck:?} came late");
}

/// Devices that have the least that some promise, not only in their profile: the same bits, or what is
/// missing.
#[test]
fn a_device_with_the_least_limits() {
    let engine = gpu!();
    let all = pollster::block_on(adapters());
    let name = &engine.adapter_info().name;
    let adapter = all.iter().find(|one| one.get_info().name == *name).unwrap();
    let case = generate(Shape::Normal, Kind::Index, 300, 1100).want(ONE_PASS);
    let expected = case.run(engine, Strategy::RowPerInvocation);
    let with = |limits| pollster::block_on(Engine::untested(adapter, limits)).unwrap();

    let mut webgpu = with(wgpu::Limits::default());
    pollster::block_on(webgpu.self_test()).unwrap();
    for kernel in Strategy::ALL {
        assert_eq!(case.run(&webgpu, kernel), expected, "{}", kernel.name());
    }
    for (limits, missing) in [
        (wgpu::Limits::downlevel_defaults(), "storage buffers"),
        (wgpu::Limits::downlevel_webgl2_defaults(), ""),
        (
            wgpu::Limits {
                max_storage_buffer_binding_size: 4096,
                ..wgpu::Limits::default()
            },
            "bytes in a binding",
        ),
    ] {
        let mut least = with(limits);
        match pollster::block_on(least.self_test()) {
            Err(Error::DeviceTooSmall { limit, .. }) => {
                assert!(limit.contains(missing), "{limit} instead of {missing}");
            }
            other => panic!("{missing}: {other:?}"),
        }
        let run = case.try_run(&least, Strategy::RowPerInvocation);
        assert!(matches!(run, Err(Error::DeviceTooSmall { .. })), "{run:?}");
    }
}

/// A device that is lost while chunks are on their way to it and back: an error or the whole result, and
/// neither a panic nor a wait without end. With handlers of ours, and without.
#[test]
fn a_device_lost_between_chunks_is_an_error() {
    let engine = gpu!();
    let case = generate(Shape::Normal, Kind::Index, 400, 1100).want(ONE_PASS);
    let kernel = Strategy::RowPerInvocation;
    let expected = case.run(engine, kernel);
    let (mut lost, mut done) = (0, 0);
    for turn in 0..12 {
        let owner = Engine::new_blocking(&AdapterChoice::Auto).unwrap();
        let (mut profile, device) = (owner.profile().clone(), owner.device().clone());
        profile.software = turn % 2 == 0;
        profile.max_binding = 8192 + u64::from(profile.offset_alignment);
        let doomed = match turn % 4 < 2 {
            true => owner.with_profile(profile),
            false => sibling(&owner).with_profile(profile),
        };
        // The pipelines are there; 400 chunks take some tenths of a second.
        let few = case.select(&[0, 1, 2]);
        few.run(&doomed, kernel);
        let result = std::thread::scope(|scope| {
            let running = scope.spawn(|| case.try_run(&doomed, kernel));
            std::thread::sleep(Duration::from_millis(2 * turn * turn));
            device.destroy();
            running.join().expect("no panic")
        });
        match result {
            Ok(found) => {
                assert_eq!(found, expected);
                done += 1;
            }
            Err(Error::DeviceLost { .. } | Error::Driver { .. }) => lost += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    report(&format!(
        "destroyed between chunks: {lost} errors, {done} results"
    ));
    assert!(lost > 0);
}

/// What the self-test says of a driver.
#[derive(Debug)]
enum Said {
    /// Results would be wrong: the check that fails.
    Refused(&'static str),
    /// Fewer digits.
    Reduced,
    /// Nothing is amiss that matters.
    Full,
    /// It does without shuffles.
    NoShuffles,
}

/// Drivers that miscompute, each by the text that its compiler in effect makes of some of the shaders'.
const DRIVERS: &[(&str, &str, &str, Said)] = &[
    (
        "exp by a coarser polynomial",
        "vec4<f32>(0.5));",
        "vec4<f32>(0.499995));",
        Said::Reduced,
    ),
    (
        "rounds to an integer toward zero",
        "round((gap.high + gap.low) * LOG2_E)",
        "trunc((gap.high + gap.low) * LOG2_E)",
        Said::Reduced,
    ),
    (
        "log1p by a coarser polynomial",
        "0x1.99a54p-3f",
        "0x1.999p-3f",
        Said::Reduced,
    ),
    (
        "division by a table",
        "veil(1.0 / d.x)",
        "veil(1.0 / d.x * 1.003)",
        Said::Reduced,
    ),
    // Less accurate, and still of use.
    (
        "(a + b) - a is b",
        "return vec2<f32>(sum, (a - veil(sum - b_part)) + (b - b_part));",
        "return vec2<f32>(sum, 0.0);",
        Said::Reduced,
    ),
    (
        "subnormals are flushed",
        "return veil(parts.e.x * powers(parts.n + 127.0).x);",
        "let flushed = veil(parts.e.x * powers(parts.n + 127.0).x);
         return select(flushed, 0.0, flushed < 0x1p-126f);",
        Said::Full,
    ),
    (
        "classification by bits is optimised away",
        "return (bits & 0x7f800000u) != 0x7f800000u;",
        "return true;",
        Said::Refused("telling NaN and infinity by their bits"),
    ),
    (
        "NaN does not occur",
        "        seen |= POISONED;",
        "",
        Said::Refused("a row with NaN among others"),
    ),
    (
        "bits are converted",
        "return bitcast<f32>(bitcast<u32>(value) ^ params.zero);",
        "return f32(u32(value) ^ params.zero);",
        Said::Refused("the losses of known rows"),
    ),
    (
        "an invocation reads its own value for its neighbour's",
        "leaves[local] = leaves[local] + leaves[local + apart];",
        "leaves[local] = leaves[local] + leaves[local];",
        Said::Refused("a tree across a workgroup"),
    ),
    (
        "what is written to workgroup memory stays away",
        "totals_low[word] = low;",
        "totals_low[word] = 0u;",
        Said::Refused("the sums of the batch"),
    ),
    (
        "a shuffle gives back what it was given",
        "subgroupShuffleXor(local ^ params.zero, apart)",
        "(local ^ params.zero)",
        Said::NoShuffles,
    ),
    (
        "additions of a workgroup get lost",
        "let ticket = atomicAdd(&tickets, 1u);",
        "let ticket = atomicLoad(&tickets);
         atomicStore(&tickets, ticket + 1u);",
        Said::Refused("atomic additions"),
    ),
    (
        "additions to a buffer get lost",
        "atomicAdd(&accumulators[slot * SLOT_WORDS + word], 1u);",
        "let before = atomicLoad(&accumulators[slot * SLOT_WORDS + word]);
         atomicStore(&accumulators[slot * SLOT_WORDS + word], before + 1u);",
        Said::Refused("the sums of the batch"),
    ),
    (
        "carries get lost",
        "return select(0u, 1u, before + value < before);",
        "return 0u;",
        Said::Refused("the sum of the losses of known rows"),
    ),
    (
        "integers do not wrap around",
        "select(0u, 0x01000000u, large + small < large)",
        "select(0u, 0x01000000u, false)",
        Said::Refused("arithmetic of integers"),
    ),
    (
        "integers are divided as f32",
        "(large / small)",
        "u32(f32(large) / f32(small))",
        Said::Refused("arithmetic of integers"),
    ),
    (
        "signed integers are shifted as unsigned ones",
        "bitcast<u32>(bitcast<i32>(large) >> (2u ^ zero))",
        "(large >> (2u ^ zero))",
        Said::Refused("arithmetic of integers"),
    ),
    (
        "arrays are not indexed by run-time values",
        "at = pile[at];",
        "at = pile[0u];",
        Said::Refused("an array that is indexed by its values"),
    ),
    (
        "integers are off by one",
        "let column = u32(label);",
        "let column = u32(label) + 1u;",
        Said::Refused("the labels of known rows"),
    ),
    (
        "two invocations take the same row",
        "    let row = (workgroup.y * workgroups.x + workgroup.x) * WORKGROUP_SIZE + local;",
        "    let row = (workgroup.y * workgroups.x + workgroup.x) * WORKGROUP_SIZE + (local & 62u);",
        Said::Refused("the losses of known rows"),
    ),
    (
        "all workgroups are the first",
        "    let row = (workgroup.y * workgroups.x + workgroup.x) * WORKGROUP_SIZE + local;",
        "    let row = (workgroup.y * workgroups.x) * WORKGROUP_SIZE + local;",
        Said::Refused("the sums of the batch"),
    ),
];

#[test]
fn the_self_test_finds_a_driver_that_miscomputes() {
    let engine = gpu!();
    let mut sound = sibling(engine);
    let accuracy = pollster::block_on(sound.self_test());
    assert_eq!(accuracy.unwrap(), Accuracy::Full);
    let mut wrong = Vec::new();
    for (driver, from, to, said) in DRIVERS {
        let met = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&met);
        let mut engine = sibling(engine).with_edited_shaders(move |_, text| {
            count.fetch_add(text.matches(from).count(), Ordering::Relaxed);
            text.replace(from, to)
        });
        let subgroup = engine.profile().subgroup;
        let found = pollster::block_on(engine.self_test());
        let without_shuffles = engine.profile().subgroup.is_none() && subgroup.is_some();
        let same = match (said, &found) {
            (Said::Refused(expected), Err(error @ Error::SelfTest { adapter, check, .. })) => {
                let start = format!("the self-test failed on `{adapter}`: {check} gave ");
                assert!(error.to_string().starts_with(&start), "{error}");
                check == expected
            }
            (Said::Refused(expected), Err(Error::Driver { what, .. })) => what == expected,
            (Said::Reduced, Ok(Accuracy::Reduced)) => true,
            (Said::Full, Ok(Accuracy::Full)) => !without_shuffles,
            (Said::NoShuffles, Ok(Accuracy::Full)) => without_shuffles || subgroup.is_none(),
            _ => false,
        };
        if !same {
            wrong.push(format!("{driver}: {found:?} instead of {said:?}"));
        }
        let probed = subgroup.is_some() || !matches!(said, Said::NoShuffles);
        assert!(
            !probed || met.load(Ordering::Relaxed) > 0,
            "{driver}: no such text"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where arithmetic is rearranged, results are still close.
#[test]
fn results_of_reduced_accuracy_are_close() {
    let engine = gpu!();
    let reduced = sibling(engine).with_edited_shaders(|_, text| {
        text.replace(
            "return vec2<f32>(sum, (a - veil(sum - b_part)) + (b - b_part));",
            "return vec2<f32>(sum, 0.0);",
        )
    });
    let case = generate(Shape::Normal, Kind::Index, 8, 10).want(ONE_PASS);
    for kernel in Strategy::ALL {
        let (loss, exact) = (
            case.run(&reduced, kernel).loss.unwrap(),
            case.oracle().loss.unwrap(),
        );
        approx::assert_relative_eq!(f64::from(loss), exact, max_relative = 1e-5);
    }
}

/// Rows that a driver drops are missed in the count that the device keeps of them.
#[test]
fn rows_that_a_driver_drops_are_an_error() {
    let engine = gpu!();
    let dropping = sibling(engine).with_edited_shaders(|_, text| {
        text.replace(
            "count(slot, VALID_ROWS);",
            "if number != 3u { count(slot, VALID_ROWS); }",
        )
    });
    let case = generate(Shape::Normal, Kind::Index, 8, 10).want(ONE_PASS);
    match case.try_run(&dropping, Strategy::RowPerInvocation) {
        Err(Error::Driver { what, reason }) => {
            assert_eq!(what, "the sums of the batch");
            assert!(reason.starts_with("it counted "), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

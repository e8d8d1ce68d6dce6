//! Devices that are chosen, lost, or compute something else: typed errors, no panic, no hang.

use std::time::Duration;

use softxent::{Accuracy, AdapterChoice, Engine, Error, MathFunction, Strategy, adapters};

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
    case.run(&guest, Strategy::RowPerInvocation);
    owner.device().destroy();
    let lost = case.try_run(&guest, Strategy::RowPerInvocation);
    assert!(lost.is_err(), "{lost:?}");
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

/// A driver that miscomputes, as the shaders' text: what the self-test says of it.
#[test]
fn the_self_test_finds_a_driver_that_miscomputes() {
    let engine = gpu!();
    let edited = |from: &'static str, to: &'static str| {
        sibling(engine).with_edited_shaders(move |_, text| text.replace(from, to))
    };
    let test = |mut engine: Engine| pollster::block_on(engine.self_test());
    assert_eq!(test(sibling(engine)).unwrap(), Accuracy::Full);

    for (bug, from, to, check) in [
        (
            "classification by bits is optimised away",
            "return (bits & 0x7f800000u) != 0x7f800000u;",
            "return true;",
            "telling NaN and infinity by their bits",
        ),
        (
            "an invocation reads its own value for its neighbour's",
            "leaves[local] = leaves[local] + leaves[local + apart];",
            "leaves[local] = leaves[local] + leaves[local];",
            "a tree across a workgroup",
        ),
        (
            "integers are wrong",
            "let column = u32(label);",
            "let column = u32(label) + 1u;",
            "the loss and the gradient of a known row",
        ),
    ] {
        match test(edited(from, to)) {
            Err(error @ Error::SelfTest { check: found, .. }) => {
                assert_eq!(found, check, "{bug}");
                let adapter = &engine.adapter_info().name;
                let start = format!("the self-test failed on `{adapter}`: {check} gave ");
                assert!(error.to_string().starts_with(&start), "{error}");
            }
            other => panic!("{bug}: {other:?}"),
        }
    }

    // A driver that simplifies (a + b) − a: less accurate, and still of use.
    let two_sum = "return vec2<f32>(sum, (a - veil(sum - b_part)) + (b - b_part));";
    let one = "return vec2<f32>(sum, 0.0);";
    let reduced = edited(two_sum, one);
    assert_eq!(test(edited(two_sum, one)).unwrap(), Accuracy::Reduced);
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

//! A fault in each operation of whole calls, one after the other: out of memory, a refusal, a lost device,
//! a wait that runs out, an operation that a driver only says it has done. What comes back is the error
//! expected or the right bits, never a panic or a wait without end; then the engine gives the right bits
//! again, or says that it is lost and a new one gives them.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use softxent::plan::DeviceProfile;
use softxent::wgpu::{self, BufferUsages as Usage};
use softxent::{
    BufferRange, Buffers, Engine, Error, Fault, MathFunction, Operation, Plan, STATUS_SIZE,
    Strategy, Wanted, adapters,
};

use crate::cases::{Kind, Shape, generate};
use crate::common::{Case, bits, gpu, long, report};

/// Longer than any call of these tests takes.
const STUCK: Duration = Duration::from_secs(60);
/// What an engine waits where a fault is to come late.
const IMPATIENT: Duration = Duration::from_millis(100);

/// What an engine is asked for, and what it answers, to the bit.
type Job = fn(&mut Engine) -> softxent::Result<String>;

/// A job, and what becomes of the device for it.
struct Scenario {
    name: &'static str,
    change: fn(&mut DeviceProfile),
    job: Job,
    /// Whether each engine does it once only, so that pipelines are made.
    fresh: bool,
    /// Whether the library submits and waits, or leaves that to the caller.
    waits: bool,
    /// In the short form, one operation in so many is struck; then, where that takes a new device.
    one_in: (usize, usize),
}

const KEPT: fn(&mut DeviceProfile) = |_| {};

/// Rows of which some are ignored, with class weights, so that the device adds up a denominator.
fn weighted(rows: usize, k: usize) -> Case {
    let mut case = generate(Shape::Normal, Kind::Index, rows, k).want([
        Wanted::Softmax,
        Wanted::Grad,
        Wanted::Loss,
        Wanted::Losses,
        Wanted::Predictions,
    ]);
    case.class_weights = (0..k).map(|class| 0.5 + (class % 3) as f32).collect();
    if let Some(labels) = &mut case.index {
        labels[0] = case.ignore_index;
    }
    case
}

fn run(engine: &Engine, case: &Case) -> softxent::Result<String> {
    let results = case.try_run(engine, Strategy::SplitRow)?;
    Ok(format!("{:?}", bits(&results)))
}

/// Bindings as small as they can be, and staging buffers: rows of 600 go in chunks of three, and wide ones
/// in windows.
fn in_pieces(profile: &mut DeviceProfile) {
    profile.software = false;
    profile.max_binding = 8192 + u64::from(profile.offset_alignment);
}

/// Values come in parts.
fn in_parts(profile: &mut DeviceProfile) {
    profile.max_binding = 1024;
}

const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "self-test",
        change: KEPT,
        job: |engine| Ok(format!("{:?}", pollster::block_on(engine.self_test())?)),
        fresh: false,
        waits: true,
        one_in: (1, 9),
    },
    Scenario {
        name: "prepare",
        change: KEPT,
        job: |engine| {
            let problem = weighted(2, 5).problem()?;
            let prepared = pollster::block_on(engine.prepare_with(&problem, Strategy::SplitRow))?;
            Ok(prepared.plan().to_string())
        },
        fresh: true,
        waits: false,
        one_in: (1, 1),
    },
    Scenario {
        name: "run in one chunk",
        change: KEPT,
        job: |engine| run(engine, &weighted(2, 5)),
        fresh: false,
        waits: true,
        one_in: (1, 9),
    },
    Scenario {
        name: "run in chunks",
        change: in_pieces,
        job: |engine| {
            let case = weighted(12, 600);
            let plan = Plan::with_strategy(&case.problem()?, engine.profile(), Strategy::SplitRow)?;
            assert_eq!(plan.rows_per_chunk, 3);
            run(engine, &case)
        },
        fresh: false,
        waits: true,
        one_in: (7, 41),
    },
    Scenario {
        name: "run in windows",
        change: in_pieces,
        job: |engine| {
            let case = weighted(2, 5000);
            let plan = Plan::with_strategy(&case.problem()?, engine.profile(), Strategy::SplitRow)?;
            assert_eq!(plan.columns_per_chunk, 2048);
            run(engine, &case)
        },
        fresh: false,
        waits: true,
        one_in: (5, 83),
    },
    Scenario {
        name: "bind and record",
        change: KEPT,
        job: |engine| step(engine, &weighted(4, 10)),
        fresh: false,
        waits: false,
        one_in: (1, 1),
    },
    Scenario {
        name: "math values",
        change: in_parts,
        job: |engine| {
            let first = (-1f32).to_bits();
            let values = engine.math_values(MathFunction::Exp, first, 1 << 16, 600);
            let values = pollster::block_on(values)?;
            let bits: Vec<u32> = values.into_iter().map(f32::to_bits).collect();
            Ok(format!("{bits:x?}"))
        },
        fresh: false,
        waits: true,
        one_in: (1, 5),
    },
];

/// A step on buffers of a caller, who asks whether the device is there before it submits.
fn step(engine: &Engine, case: &Case) -> softxent::Result<String> {
    let problem = case.problem()?;
    let prepared = pollster::block_on(engine.prepare(&problem))?;
    let (device, queue) = (engine.device(), engine.queue());
    let array = |size| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC,
            mapped_at_creation: false,
        })
    };
    let (rows, matrix) = (4 * case.rows as u64, 4 * problem.elements() as u64);
    let (logits, labels) = (array(matrix), array(rows));
    let weights = array(4 * case.classes as u64);
    let (softmax, grad, losses) = (array(matrix), array(matrix), array(rows));
    let (predictions, loss, status) = (array(rows), array(4), array(STATUS_SIZE));
    let scratch = array(prepared.scratch_size(engine));
    let narrow = |&label: &i64| label as i32;
    let index: Vec<i32> = case.index.iter().flatten().map(narrow).collect();
    queue.write_buffer(&logits, 0, bytemuck::cast_slice(&case.logits));
    queue.write_buffer(&labels, 0, bytemuck::cast_slice(&index));
    queue.write_buffer(&weights, 0, bytemuck::cast_slice(&case.class_weights));
    let whole = BufferRange::whole;
    let buffers = Buffers {
        labels: Some(whole(&labels)),
        class_weights: Some(whole(&weights)),
        softmax: Some(whole(&softmax)),
        grad: Some(whole(&grad)),
        losses: Some(whole(&losses)),
        predictions: Some(whole(&predictions)),
        loss: Some(whole(&loss)),
        ..Buffers::new(whole(&logits), whole(&status), whole(&scratch))
    };
    let bound = pollster::block_on(prepared.bind(engine, &buffers))?;
    if engine.is_lost() {
        return Err(Error::DeviceLost {
            reason: "the caller asked".to_owned(),
        });
    }
    let outputs = [&softmax, &grad, &losses, &predictions, &loss, &status];
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: outputs.iter().map(|output| output.size()).sum(),
        usage: Usage::MAP_READ | Usage::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    bound.record(&mut encoder);
    let mut at = 0;
    for output in outputs {
        encoder.copy_buffer_to_buffer(output, 0, &staging, at, output.size());
        at += output.size();
    }
    queue.submit([encoder.finish()]);
    staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.unwrap());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let bytes = staging.get_mapped_range(..).unwrap();
    Ok(format!("{:x?}", bytemuck::cast_slice::<u8, u32>(&bytes)))
}

/// Whether an outcome is one that a fault may have. A device that is lost when all is done, and an
/// operation that is not carried out and not missed, leave the right bits.
fn is_expected(fault: Fault, struck: Operation, outcome: &softxent::Result<String>) -> bool {
    use Fault::{Late, LostAfter, LostBefore, OutOfMemory, Refused, Skipped};
    use Operation::{Bytes, Calls, Mapping, Wait};
    match (fault, struck, outcome) {
        (OutOfMemory, Calls, Err(Error::OutOfMemory { place, .. })) => *place == "device",
        (OutOfMemory, Wait, Err(Error::DeviceLost { .. })) => true,
        (OutOfMemory, Mapping | Bytes, Err(Error::Driver { .. })) => true,
        (Refused, _, Err(Error::Driver { .. })) => true,
        (LostBefore | LostAfter, _, Ok(_) | Err(Error::DeviceLost { .. })) => true,
        (Late, Wait | Mapping, Err(Error::Timeout { .. })) => true,
        // Of an engine with so little patience on a busy machine, a wait may run out by itself.
        (Late, Calls | Bytes, Ok(_) | Err(Error::Timeout { .. })) => true,
        (Skipped, Calls, Ok(_) | Err(Error::Driver { .. })) => true,
        (Skipped, Wait | Mapping | Bytes, Ok(_)) => true,
        _ => false,
    }
}

/// Plants each fault in each operation; says how many errors of each there were.
fn strike(scenario: &Scenario, engines: &dyn Fn() -> Engine, say: &Sender<String>) -> String {
    let job = scenario.job;
    let made = || {
        let engine = engines();
        let mut profile = engine.profile().clone();
        (scenario.change)(&mut profile);
        engine.with_profile(profile)
    };
    let warm = |mut engine: Engine| {
        if !scenario.fresh {
            let _ = job(&mut engine);
        }
        engine
    };
    let sibling = |engine: &Engine| {
        Engine::from_device(engine.device().clone(), engine.queue().clone())
            .with_profile(engine.profile().clone())
    };
    let mut sound = made();
    let expected = job(&mut sound).unwrap();
    let mut counted = warm(sibling(&sound));
    counted.plant(None);
    assert_eq!(job(&mut counted).unwrap(), expected);
    let (count, _) = counted.plant(None);
    let mut told = format!("{}: {count} operations, errors", scenario.name);
    let faults = [
        Fault::OutOfMemory,
        Fault::Refused,
        Fault::Late,
        Fault::Skipped,
        Fault::LostBefore,
        Fault::LostAfter,
    ];
    for (place, fault) in faults.into_iter().enumerate() {
        let loses = matches!(fault, Fault::LostBefore | Fault::LostAfter);
        let step = match (long(), loses) {
            (true, _) => 1,
            (_, false) => scenario.one_in.0,
            (_, true) => scenario.one_in.1,
        };
        // Other operations for another fault.
        let first = place % step;
        let mut struck_engine = None;
        let mut errors = 0;
        for at in (first as u64..count).step_by(step) {
            let what = format!("{}: {fault:?} at {at} of {count}", scenario.name);
            say.send(what.clone()).unwrap();
            if sound.is_lost() {
                sound = warm(made());
            }
            let mut engine = match struck_engine.take() {
                Some(engine) if !scenario.fresh => engine,
                _ if fault == Fault::Late => warm(sibling(&sound).with_patience(IMPATIENT)),
                _ if loses => warm(made()),
                _ => warm(sibling(&sound)),
            };
            engine.plant(Some((at, fault)));
            let outcome = job(&mut engine);
            let (_, struck) = engine.plant(None);
            let struck = struck.unwrap_or_else(|| panic!("{what}: nothing was struck"));
            assert!(
                is_expected(fault, struck, &outcome),
                "{what}, {struck:?}: {outcome:?}"
            );
            match outcome {
                Ok(found) => assert_eq!(found, expected, "{what}, {struck:?}"),
                Err(_) => errors += 1,
            }
            if engine.is_lost() {
                let dead = job(&mut engine);
                assert!(
                    matches!(dead, Err(Error::DeviceLost { .. })),
                    "{what}, {struck:?}, then {dead:?}"
                );
            } else {
                assert!(!loses, "{what}: not lost");
                // Nothing of it is left on the device, nor in the engine.
                assert_eq!(job(&mut sound).unwrap(), expected, "{what}, afterwards");
                if fault != Fault::Late {
                    assert_eq!(job(&mut engine).unwrap(), expected, "{what}, again");
                }
                struck_engine = Some(engine);
            }
        }
        let may_be_none = matches!(fault, Fault::Late | Fault::Skipped) && !scenario.waits;
        assert!(
            errors > 0 || may_be_none,
            "{}: {fault:?} is never an error",
            scenario.name
        );
        told += &format!(", {fault:?} {errors}");
    }
    told
}

/// All faults of a scenario, watched by another thread.
fn watched(test: &str) {
    let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == test) else {
        panic!("no scenario {test}");
    };
    let name = gpu!().adapter_info().name.clone();
    let (say, hear) = channel();
    let worker = std::thread::spawn(move || {
        let adapters = pollster::block_on(adapters());
        let adapter = adapters.iter().find(|one| one.get_info().name == name);
        let adapter = adapter.unwrap();
        let engines = || pollster::block_on(Engine::untested(adapter, adapter.limits())).unwrap();
        report(&strike(scenario, &engines, &say));
    });
    let mut last = String::new();
    loop {
        match hear.recv_timeout(STUCK) {
            Ok(what) => last = what,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("{last}: no end"),
        }
    }
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn in_the_self_test() {
    watched("self-test");
}

#[test]
fn in_preparing() {
    watched("prepare");
}

#[test]
fn in_one_chunk() {
    watched("run in one chunk");
}

#[test]
fn in_many_chunks() {
    watched("run in chunks");
}

#[test]
fn in_windows_of_rows() {
    watched("run in windows");
}

#[test]
fn in_binding() {
    watched("bind and record");
}

#[test]
fn in_math_values() {
    watched("math values");
}

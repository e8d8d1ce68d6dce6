//! Every error of the library, raised. That none is forgotten is a test of `src/error.rs`.

use std::ops::Range;
use std::process::Command;

use softxent::half::f16;
use softxent::wgpu::{self, BufferUsages as Usage};
use softxent::{
    AdapterChoice, Batch, BufferRange, Buffers, Chunk, Denominator, Engine, Error, Fault,
    MOST_CLASSES, Padding, Plan, Prepared, Problem, ProblemBuilder, Reduction, STATUS_SIZE, Sink,
    Source, StreamError, Upstream, Values, Wanted, adapters, reference,
};

use crate::common::{gpu, sibling};
use crate::plan::WEBGPU;

/// Demands an error of this kind.
macro_rules! raises {
    ($variant:ident, $result:expr) => {
        match $result.map(drop) {
            Err(error @ Error::$variant { .. }) => assert!(!error.to_string().is_empty()),
            other => panic!("{other:?} instead of {}", stringify!($variant)),
        }
    };
}

fn labelled(rows: usize, classes: usize) -> ProblemBuilder {
    Problem::of(rows, classes)
        .index_labels(-100)
        .want([Wanted::Loss, Wanted::Grad])
}

#[test]
fn of_problems() {
    let unlabelled = |rows, classes| Problem::of(rows, classes).want([Wanted::Softmax]);
    raises!(NoClasses, unlabelled(1, 0).build());
    raises!(TooManyClasses, unlabelled(1, MOST_CLASSES + 1).build());
    raises!(TooLarge, unlabelled(usize::MAX, 2).build());
    raises!(NothingWanted, Problem::of(1, 2).build());
    raises!(LabelsNeeded, Problem::of(1, 2).want([Wanted::Loss]).build());
    let short = unlabelled(1, 2).row_length(1, Padding::Masked);
    raises!(BadShape, short.build());
    raises!(BadOption, labelled(1, 2).label_smoothing(2.0).build());
    raises!(Conflict, labelled(1, 2).from_softmax().build());
    raises!(
        UpstreamPerRow,
        labelled(1, 2).upstream(Upstream::PerRow).build()
    );
    let sum = labelled(1, 2).reduction(Reduction::Sum);
    let divided = sum.denominator(Denominator::Number(2.0));
    raises!(DenominatorWithoutMean, divided.build());
    let by_nothing = labelled(1, 2).denominator(Denominator::Number(0.0));
    raises!(BadDenominator, by_nothing.build());
    let nan = labelled(1, 2).upstream(Upstream::Number(f32::NAN));
    raises!(UpstreamNotFinite, nan.build());
}

#[test]
fn of_batches() {
    let problem = labelled(1, 2).build().unwrap();
    let logits = [0.0, 1.0];
    raises!(Length, problem.check(&Batch::of(&[0.0]).index(&[0])));
    raises!(LabelKind, problem.check(&Batch::of(&logits)));
    let halves = [f16::ZERO; 2];
    raises!(LogitsDtype, problem.check(&Batch::of(&halves).index(&[0])));
    raises!(BadLabel, problem.check(&Batch::of(&logits).index(&[2])));
    let weighted = labelled(1, 2).class_weights().build().unwrap();
    let negative = Batch {
        class_weights: &[1.0, -1.0],
        ..Batch::of(&logits).index(&[0])
    };
    raises!(BadClassWeight, weighted.check(&negative));
    let on_device = labelled(1, 2).denominator(Denominator::Buffer);
    let batch = Batch::of(&logits).index(&[0]);
    raises!(
        OnlyOnDevice,
        reference::run(&on_device.build().unwrap(), &batch)
    );
}

#[test]
fn of_plans() {
    let problem = labelled(4, 3000).build().unwrap();
    let with = |change: fn(&mut softxent::plan::DeviceProfile)| {
        let mut profile = WEBGPU;
        change(&mut profile);
        Plan::new(&problem, &profile)
    };
    raises!(DeviceTooSmall, with(|profile| profile.max_binding = 1000));
    raises!(BudgetTooSmall, with(|profile| profile.memory = Some(1000)));
    let interleaved = labelled(4, 3000).inner(2).build().unwrap();
    let mut profile = WEBGPU;
    profile.max_binding = 9000;
    raises!(RowTooWide, Plan::new(&interleaved, &profile));
}

/// A step of four rows on buffers of a caller.
struct Bed {
    prepared: Prepared,
    logits: wgpu::Buffer,
    labels: wgpu::Buffer,
    grad: wgpu::Buffer,
    loss: wgpu::Buffer,
    status: wgpu::Buffer,
    scratch: wgpu::Buffer,
}

impl Bed {
    fn new(engine: &Engine) -> Bed {
        let problem = labelled(4, 8).build().unwrap();
        let prepared = pollster::block_on(engine.prepare(&problem)).unwrap();
        let array = |size| buffer(engine, size, Usage::STORAGE);
        Bed {
            logits: array(4 * 4 * 8),
            labels: array(4 * 4),
            grad: array(4 * 4 * 8),
            loss: array(4),
            status: array(STATUS_SIZE),
            scratch: array(prepared.scratch_size(engine)),
            prepared,
        }
    }

    fn buffers(&self) -> Buffers<'_> {
        let whole = BufferRange::whole;
        Buffers {
            labels: Some(whole(&self.labels)),
            grad: Some(whole(&self.grad)),
            loss: Some(whole(&self.loss)),
            ..Buffers::new(
                whole(&self.logits),
                whole(&self.status),
                whole(&self.scratch),
            )
        }
    }
}

fn buffer(engine: &Engine, size: u64, usage: Usage) -> wgpu::Buffer {
    engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage,
        mapped_at_creation: false,
    })
}

#[test]
fn of_buffers() {
    let engine = gpu!();
    let bed = Bed::new(engine);
    let bind = |buffers: Buffers<'_>| pollster::block_on(bed.prepared.bind(engine, &buffers));
    assert!(bind(bed.buffers()).is_ok());
    raises!(
        Buffer,
        bind(Buffers {
            labels: None,
            ..bed.buffers()
        })
    );
    let whole = BufferRange::whole;
    let small = Some(whole(&bed.loss));
    raises!(
        BufferRange,
        bind(Buffers {
            labels: small,
            ..bed.buffers()
        })
    );
    let uniform = buffer(engine, 16, Usage::UNIFORM);
    let labels = Some(whole(&uniform));
    raises!(
        BufferUsage,
        bind(Buffers {
            labels,
            ..bed.buffers()
        })
    );
    let grad = Some(whole(&bed.logits));
    raises!(
        BuffersOverlap,
        bind(Buffers {
            grad,
            ..bed.buffers()
        })
    );
    let chunk = Chunk {
        rows: 2,
        rows_before: 0,
    };
    let buffers = bed.buffers();
    let half = bed.prepared.bind_chunk(engine, &buffers, chunk);
    raises!(ChunkDenominator, pollster::block_on(half));
}

/// A source and a sink that cannot.
struct Broken;

impl Source for Broken {
    fn logits(&mut self, _: Range<usize>, _: &mut dyn FnMut(&[u8])) -> Result<(), StreamError> {
        Err("the disk is gone".into())
    }
}

impl Sink for Broken {
    fn take(&mut self, _: Wanted, _: usize, _: Values<'_>) -> Result<(), StreamError> {
        Err("the disk is full".into())
    }
}

#[test]
fn of_devices() {
    let engine = gpu!();
    let problem = labelled(1, 2).build().unwrap();
    let batch = Batch::of(&[0.0, 1.0]).index(&[0]);
    let run = |engine: &Engine| engine.run_blocking(&problem, &batch);
    raises!(
        Stream,
        pollster::block_on(engine.run_stream(&problem, &mut Broken, &mut Broken))
    );
    let nobody = AdapterChoice::Name("no such adapter".to_owned());
    raises!(AdapterNotFound, Engine::new_blocking(&nobody));
    let all = pollster::block_on(adapters());
    let too_much = wgpu::Limits {
        max_bind_groups: u32::MAX,
        ..wgpu::Limits::default()
    };
    raises!(
        DeviceRefused,
        pollster::block_on(Engine::untested(&all[0], too_much))
    );
    let wrong = sibling(engine).with_edited_shaders(|_, text| {
        text.replace("let column = u32(label);", "let column = u32(label) / 2u;")
    });
    raises!(SelfTest, pollster::block_on({ wrong }.self_test()));

    let with = |fault, at| {
        let engine = pollster::block_on(Engine::untested(&all[0], all[0].limits())).unwrap();
        run(&engine).unwrap();
        engine.plant(Some((at, fault)));
        engine
    };
    raises!(OutOfMemory, run(&with(Fault::OutOfMemory, 0)));
    raises!(Driver, run(&with(Fault::Refused, 0)));
    raises!(DeviceLost, run(&with(Fault::LostBefore, 0)));
    let late = (0..100).find_map(|at| run(&with(Fault::Late, at)).err());
    raises!(Timeout, late.map_or(Ok(()), Err));
}

/// In another process, which allows a backend that is not there.
#[test]
fn of_systems() {
    let _ = gpu!();
    let other = if cfg!(windows) { "metal" } else { "dx12" };
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["errors::without_an_adapter", "--exact", "--include-ignored"])
        .env("WGPU_BACKEND", other)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && out.contains("1 passed"), "{out}");
}

#[test]
#[ignore = "of_systems runs it where there is no adapter"]
fn without_an_adapter() {
    raises!(NoAdapter, Engine::new_blocking(&AdapterChoice::Auto));
}

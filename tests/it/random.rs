//! Random problems, shrunk where they fail: the oracle against the textbook, a device against the oracle.
//!
//! What failed goes to tests/proptest-regressions, and are tried first from then on. The tolerances
//! are those of `reference` and `judge`, whose arguments hold for any values.

use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use softxent::{Denominator, Dtype, EmptyMean, Padding, Reduction, Strategy as Kernel};

use crate::common::{Case, MASKED, gpu, long, report};
use crate::judge::{Worst, judge};
use crate::reference::{Job, Knobs, check_textbook};

/// A file of this module's own in tests/.
const REGRESSIONS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/proptest-regressions/random.txt"
);

/// Asks for so many cases, more of them where long grids are asked for.
fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig {
        cases: cases * if long() { 20 } else { 1 },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })
}

/// Where the numbers of a case come from: more than it needs, so that a smaller case is a part of a
/// larger one and shrinks to it.
#[derive(Debug, Clone)]
struct Numbers {
    logits: Vec<f32>,
    dense: Vec<f32>,
    weights: Vec<f32>,
    upstream: Vec<f32>,
    labels: Vec<u16>,
}

/// Multiples of 2⁻¹⁰ within ±`most`.
fn numbers(most: i32, count: usize) -> impl Strategy<Value = Vec<f32>> {
    vec(
        (-most << 10..=most << 10).prop_map(|x| x as f32 / 1024.0),
        count,
    )
}

const ROWS: usize = 9;
const CLASSES: usize = 20;
const PADDING: usize = 3;
const ELEMENTS: usize = ROWS * (CLASSES + PADDING);

prop_compose! {
    fn all_numbers(rows: usize, classes: usize, elements: usize)(
        logits in numbers(8, elements),
        dense in numbers(3, elements),
        weights in vec((0..=16u8).prop_map(|w| f32::from(w) / 4.0), classes),
        // Not 0: what is multiplied by it is divided by it again.
        upstream in vec(select(vec![1.0f32, -0.5, 3.0, 1e-3, 65_536.0]), rows),
        labels in vec(any::<u16>(), rows),
    ) -> Numbers {
        Numbers { logits, dense, weights, upstream, labels }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    None,
    Index,
    Dense,
    Vector,
}

/// Rows as `outer × inner`, classes, columns past them.
#[derive(Debug, Clone, Copy)]
struct Extents {
    outer: usize,
    inner: usize,
    classes: usize,
    past: usize,
    padding: Padding,
}

prop_compose! {
    fn extents()(
        outer in 0..=3usize,
        inner in 1..=3usize,
        classes in 1..=CLASSES,
        past in select(vec![0, 0, 1, PADDING]),
        padding in select(vec![Padding::Masked, Padding::Kept]),
    ) -> Extents {
        Extents { outer, inner, classes, past, padding }
    }
}

/// Values of options, each with and without.
#[derive(Debug, Clone, Copy)]
struct Options {
    weights: bool,
    smoothing: f32,
    z_loss: f32,
    scale: f32,
    cap: Option<f32>,
}

const PLAIN: Options = Options {
    weights: false,
    smoothing: 0.0,
    z_loss: 0.0,
    scale: 1.0,
    cap: None,
};

impl Options {
    /// Each that there is, with the value of another one where that is there too.
    fn with(self, values: Options) -> Options {
        let of = |own: f32, none: f32, value: f32| match own == none || value == none {
            true => own,
            false => value,
        };
        Options {
            weights: self.weights,
            smoothing: of(self.smoothing, 0.0, values.smoothing),
            z_loss: of(self.z_loss, 0.0, values.z_loss),
            scale: of(self.scale, 1.0, values.scale),
            cap: self.cap.and(values.cap).or(self.cap),
        }
    }
}

fn or<T: Clone + std::fmt::Debug + 'static>(
    none: T,
    some: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    prop_oneof![Just(none), some].boxed()
}

prop_compose! {
    fn options()(
        weights in any::<bool>(),
        smoothing in or(0.0, 1e-3..=1.0f32),
        z_loss in or(0.0, 1e-5..3.0f32),
        scale in or(1.0, 0.01..3.0f32),
        cap in or(None, (1.0..100.0f32).prop_map(Some)),
    ) -> Options {
        Options { weights, smoothing, z_loss, scale, cap }
    }
}

#[derive(Debug, Clone, Copy)]
struct Reduced {
    reduction: Reduction,
    denominator: Denominator,
    empty_mean: EmptyMean,
    per_row: bool,
    shared: bool,
}

prop_compose! {
    fn reduced()(
        reduction in select(vec![Reduction::Mean, Reduction::Sum, Reduction::None]),
        divided in 0..3usize,
        number in 0.5..100.0f32,
        empty_mean in select(vec![EmptyMean::Nan, EmptyMean::Zero]),
        per_row in any::<bool>(),
        shared in any::<bool>(),
    ) -> Reduced {
        let denominators =
            [Denominator::Weights, Denominator::ValidRows, Denominator::Number(number)];
        Reduced {
            reduction,
            denominator: match reduction {
                Reduction::Mean => denominators[divided],
                _ => Denominator::Weights,
            },
            empty_mean,
            per_row: per_row && reduction == Reduction::None,
            shared,
        }
    }
}

/// The case of all that, as far as its labels have it, and every output that it has.
fn case(
    kind: Kind,
    extents: Extents,
    options: Options,
    reduced: Reduced,
    dtype: Dtype,
    numbers: &Numbers,
) -> Case {
    let (rows, k) = (extents.outer * extents.inner, extents.classes);
    let take = |values: &[f32]| values[..rows * k].to_vec();
    let mut case = Case::new(format!("{kind:?}"), k, take(&numbers.logits));
    case.rows = rows;
    case.logit_scale = options.scale;
    case.softcap = options.cap;
    match kind {
        Kind::None => {}
        Kind::Index => {
            // A ninth of the rows is ignored.
            let label = |&label: &u16| match label % 9 {
                8 => case.ignore_index,
                _ => i64::from(label) % k as i64,
            };
            case.index = Some(numbers.labels[..rows].iter().map(label).collect());
        }
        Kind::Dense => case.dense = Some(take(&numbers.dense)),
        Kind::Vector => {
            case = case.vector(take(&numbers.dense), false);
        }
    }
    if matches!(kind, Kind::Index | Kind::Dense) {
        case.label_smoothing = options.smoothing;
        case.z_loss = options.z_loss;
        if options.weights {
            case.class_weights = numbers.weights[..k].to_vec();
        }
        case.reduction = reduced.reduction;
        case.denominator = reduced.denominator;
        case.empty_mean = reduced.empty_mean;
    }
    case.per_row = reduced.per_row && case.reduction == Reduction::None;
    case.shared = reduced.shared && !case.per_row;
    let upstream = if case.per_row { rows } else { 1 };
    case.upstream = numbers.upstream[..upstream].to_vec();
    let columns = if extents.past == 0 {
        0
    } else {
        k + extents.past
    };
    case.store(dtype)
        .want_everything()
        .laid_out(extents.inner, columns, extents.padding)
}

/// The oracle computes what the textbook does, whatever is asked for.
#[test]
fn the_oracle_agrees_with_the_textbook() {
    let kinds = select(vec![Kind::None, Kind::Index, Kind::Dense, Kind::Vector]);
    let dtypes = select(Dtype::ALL.to_vec());
    let parts = (
        kinds,
        extents(),
        options(),
        reduced(),
        dtypes,
        all_numbers(ROWS, CLASSES, ELEMENTS),
    );
    let result = runner(4000).run(
        &parts,
        |(kind, extents, options, reduced, dtype, numbers)| {
            let case = case(kind, extents, options, reduced, dtype, &numbers);
            let job = Job {
                name: format!("{case:?}"),
                knobs: Knobs {
                    name: "",
                    weights: &case.class_weights,
                    smoothing: case.label_smoothing,
                    z_loss: case.z_loss,
                    scale: case.logit_scale,
                    cap: case.softcap,
                },
                problem: case.problem().expect("a sound problem"),
                logits: case.logits.clone(),
                index: case.index.clone().unwrap_or(vec![0; case.rows]),
                dense: case
                    .dense
                    .clone()
                    .or(case.vector.clone())
                    .unwrap_or(vec![0.0; case.logits.len()]),
                upstream: case.upstream.clone(),
            };
            check_textbook(&job, &case.oracle()).map_err(TestCaseError::fail)
        },
    );
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

/// What pipelines are made for: a new one takes a software driver up to two seconds, so that there are
/// few, and values, shapes and numbers vary.
#[derive(Debug, Clone, Copy)]
struct Structure {
    kernel: Kernel,
    kind: Kind,
    options: Options,
    reduction: Reduction,
    dtype: Dtype,
    inner: usize,
    past: usize,
}

const FULL: Options = Options {
    weights: true,
    smoothing: 0.1,
    z_loss: 1e-3,
    scale: 0.7,
    cap: Some(30.0),
};

const STRUCTURES: [Structure; 6] = [
    Structure {
        kernel: Kernel::RowPerSubgroup,
        kind: Kind::Index,
        options: PLAIN,
        reduction: Reduction::Mean,
        dtype: Dtype::F32,
        inner: 1,
        past: 0,
    },
    Structure {
        kernel: Kernel::RowPerWorkgroup,
        kind: Kind::Index,
        options: FULL,
        reduction: Reduction::Mean,
        dtype: Dtype::F32,
        inner: 1,
        past: 3,
    },
    Structure {
        kernel: Kernel::SplitRow,
        kind: Kind::Dense,
        options: FULL,
        reduction: Reduction::Sum,
        dtype: Dtype::F16,
        inner: 1,
        past: 0,
    },
    Structure {
        kernel: Kernel::RowPerInvocation,
        kind: Kind::Dense,
        options: PLAIN,
        reduction: Reduction::None,
        dtype: Dtype::F32,
        inner: 3,
        past: 0,
    },
    Structure {
        kernel: Kernel::RowPerSubgroup,
        kind: Kind::None,
        options: PLAIN,
        reduction: Reduction::Mean,
        dtype: Dtype::Bf16,
        inner: 1,
        past: 0,
    },
    Structure {
        kernel: Kernel::RowPerWorkgroup,
        kind: Kind::Vector,
        options: PLAIN,
        reduction: Reduction::None,
        dtype: Dtype::F32,
        inner: 2,
        past: 1,
    },
];

/// Logits far from each other, masked, and now and then not finite.
fn wild(most: usize) -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        80 => -100.0..100.0f32,
        40 => -1.0..1.0f32,
        10 => Just(MASKED),
        5 => Just(0.0),
        1 => select(vec![f32::NAN, f32::INFINITY, 1e30, -1e30]),
    ];
    vec(logit, most)
}

/// A device computes what the oracle does, whatever the values.
#[test]
fn a_device_agrees_with_the_oracle() {
    const MOST_ROWS: usize = 12;
    const MOST_CLASSES: usize = 300;
    const CASES: u32 = 60;
    let engine = gpu!();
    let started = Instant::now();
    let parts = (
        select(STRUCTURES.to_vec()),
        0..=MOST_ROWS / 3,
        prop_oneof![1..=40usize, 1..=MOST_CLASSES],
        options(),
        reduced(),
        wild(MOST_ROWS * MOST_CLASSES),
        all_numbers(MOST_ROWS, MOST_CLASSES, MOST_ROWS * MOST_CLASSES),
    );
    let result = runner(CASES).run(
        &parts,
        |(structure, outer, classes, values, reduced, logits, numbers)| {
            let extents = Extents {
                outer,
                inner: structure.inner,
                classes,
                past: structure.past,
                padding: Padding::Masked,
            };
            let options = structure.options.with(values);
            let reduced = Reduced {
                reduction: structure.reduction,
                denominator: Denominator::Weights,
                ..reduced
            };
            let numbers = Numbers { logits, ..numbers };
            let (kind, dtype) = (structure.kind, structure.dtype);
            let case = case(kind, extents, options, reduced, dtype, &numbers);
            let found = case.run(engine, structure.kernel);
            let (kernel, worst) = (structure.kernel.name(), &mut Worst::default());
            judge(&case, kernel, &found, &case.oracle(), worst).map_err(TestCaseError::fail)
        },
    );
    result.unwrap_or_else(|failure| panic!("{failure}"));
    report(&format!(
        "random: {CASES} problems in {:.1?}",
        started.elapsed()
    ));
}

//! Batches that are never in one place: rows and windows of rows that pass through little memory, sources
//! and sinks of the caller's own. Every bit is that of a batch in memory on a device with room for it.

use std::ops::Range;

use softxent::half::f16;
use softxent::plan::Tuning;
use softxent::{
    Batch, Dtype, Engine, Error, Logits, Padding, Plan, Problem, Results, Sink, Source, Strategy,
    StreamError, Values, Wanted,
};

use crate::cases::{Kind, Shape, generate, with_options};
use crate::common::{Case, Rng, bits, gpu, limited, long, same_bits, web};

/// The plain batch in pieces of 1 to 5 values.
struct Trickle<'a> {
    batch: Batch<'a>,
    rng: Rng,
    /// Calls before one fails; none at all where it is never reached.
    calls_left: usize,
    /// Leaves out the last value of each answer, or adds one.
    short: bool,
    long: bool,
}

impl<'a> Trickle<'a> {
    fn of(batch: &Batch<'a>) -> Trickle<'a> {
        Trickle {
            batch: *batch,
            rng: Rng(7),
            calls_left: usize::MAX,
            short: false,
            long: false,
        }
    }

    fn call(&mut self) -> Result<(), StreamError> {
        self.calls_left = self.calls_left.checked_sub(1).ok_or("the well is dry")?;
        Ok(())
    }

    /// Hands over values in small parts.
    fn trickle<T: Copy>(&mut self, values: &[T], size: usize, put: &mut dyn FnMut(&[T])) {
        let mut left = values;
        if self.short {
            left = &left[..left.len() - size];
        }
        while !left.is_empty() {
            let count = (size * (1 + self.rng.below(5))).min(left.len());
            put(&left[..count]);
            left = &left[count..];
        }
        if self.long {
            put(&values[..size]);
        }
    }
}

/// All that one call of a source gives.
macro_rules! all_of {
    ($batch:expr, $call:ident, $range:expr) => {{
        let mut all = Vec::new();
        Source::$call(&mut $batch, $range, &mut |values| {
            all.extend_from_slice(values)
        })?;
        all
    }};
}

impl Source for Trickle<'_> {
    fn logits(
        &mut self,
        elements: Range<usize>,
        put: &mut dyn FnMut(&[u8]),
    ) -> Result<(), StreamError> {
        self.call()?;
        let bytes = all_of!(self.batch, logits, elements);
        let size = self.batch.logits.dtype().size();
        self.trickle(&bytes, size, put);
        Ok(())
    }

    fn labels(
        &mut self,
        rows: Range<usize>,
        put: &mut dyn FnMut(&[i64]),
    ) -> Result<(), StreamError> {
        self.call()?;
        let labels = all_of!(self.batch, labels, rows);
        self.trickle(&labels, 1, put);
        Ok(())
    }

    fn dense(
        &mut self,
        elements: Range<usize>,
        put: &mut dyn FnMut(&[f32]),
    ) -> Result<(), StreamError> {
        self.call()?;
        let values = all_of!(self.batch, dense, elements);
        self.trickle(&values, 1, put);
        Ok(())
    }

    fn upstream(
        &mut self,
        rows: Range<usize>,
        put: &mut dyn FnMut(&[f32]),
    ) -> Result<(), StreamError> {
        self.call()?;
        let values = all_of!(self.batch, upstream, rows);
        self.trickle(&values, 1, put);
        Ok(())
    }

    fn class_weights(&self) -> &[f32] {
        self.batch.class_weights
    }
}

/// Results as vectors, each value of which came once.
#[derive(Default)]
struct Bowl {
    results: Results,
    came: Vec<(Wanted, Vec<bool>)>,
    rows_done: usize,
    /// Calls before one fails.
    calls_left: Option<usize>,
}

impl Bowl {
    fn of(problem: &Problem) -> Bowl {
        let mut bowl = Bowl::default();
        for output in problem.outputs().iter() {
            let length = match output {
                _ if output.has_classes() => problem.elements(),
                Wanted::Loss | Wanted::ZLoss => 0,
                _ => problem.rows(),
            };
            bowl.came.push((output, vec![false; length]));
            let floats = || Some(vec![0.0; length]);
            let results = &mut bowl.results;
            match output {
                Wanted::Softmax => results.softmax = floats(),
                Wanted::LogSoftmax => results.log_softmax = floats(),
                Wanted::Grad => results.grad = floats(),
                Wanted::Losses => results.losses = floats(),
                Wanted::Lse => results.lse = floats(),
                Wanted::Entropy => results.entropy = floats(),
                Wanted::ZLosses => results.z_losses = floats(),
                Wanted::Predictions => results.predictions = Some(vec![0; length]),
                Wanted::Correct => results.correct_rows = Some(vec![false; length]),
                Wanted::Loss | Wanted::ZLoss => {}
            }
        }
        bowl
    }

    /// With the reduced numbers; all values but padding that is kept have come.
    fn results(self, problem: &Problem, totals: Results) -> Results {
        assert_eq!(self.rows_done, problem.rows());
        for (output, came) in &self.came {
            let kept = problem.padding() == Padding::Kept && output.has_classes();
            for (at, came) in came.iter().enumerate() {
                let class = at / problem.inner() % problem.row_length();
                let padding = kept && class >= problem.classes();
                assert_eq!(*came, !padding, "{output}[{at}]");
            }
        }
        Results {
            softmax: self.results.softmax,
            log_softmax: self.results.log_softmax,
            grad: self.results.grad,
            losses: self.results.losses,
            lse: self.results.lse,
            predictions: self.results.predictions,
            entropy: self.results.entropy,
            correct_rows: self.results.correct_rows,
            z_losses: self.results.z_losses,
            ..totals
        }
    }
}

impl Sink for Bowl {
    fn take(&mut self, output: Wanted, at: usize, values: Values<'_>) -> Result<(), StreamError> {
        if let Some(left) = &mut self.calls_left {
            *left = left.checked_sub(1).ok_or("the bowl is full")?;
        }
        let results = &mut self.results;
        let count = match values {
            Values::Floats(values) => {
                let all = match output {
                    Wanted::Softmax => &mut results.softmax,
                    Wanted::LogSoftmax => &mut results.log_softmax,
                    Wanted::Grad => &mut results.grad,
                    Wanted::Losses => &mut results.losses,
                    Wanted::Lse => &mut results.lse,
                    Wanted::Entropy => &mut results.entropy,
                    Wanted::ZLosses => &mut results.z_losses,
                    other => panic!("{other} are no floats"),
                };
                let all = all.as_mut().ok_or("nobody wants it")?;
                for i in 0..values.len() {
                    all[at + i] = values.get(i).ok_or("no value")?;
                }
                values.len()
            }
            Values::Classes(values) => {
                assert_eq!(output, Wanted::Predictions);
                let all = results.predictions.as_mut().ok_or("nobody wants it")?;
                for (to, &value) in all[at..].iter_mut().zip(values) {
                    *to = value.into();
                }
                values.len()
            }
            Values::Flags(values) => {
                assert_eq!(output, Wanted::Correct);
                let all = results.correct_rows.as_mut().ok_or("nobody wants it")?;
                for (to, &value) in all[at..].iter_mut().zip(values) {
                    *to = value == 1;
                }
                values.len()
            }
        };
        let came = self.came.iter_mut().find(|(of, _)| *of == output);
        let (_, came) = came.ok_or("nobody wants it")?;
        for came in &mut came[at..at + count] {
            assert!(!*came, "{output} from {at} on came twice");
            *came = true;
        }
        Ok(())
    }

    fn done(&mut self, rows: usize) {
        self.rows_done += rows;
    }
}

fn streamed(engine: &Engine, case: &Case) -> Results {
    let problem = case.problem().unwrap();
    case.with_batch(|batch| {
        let mut bowl = Bowl::of(&problem);
        let mut source = Trickle::of(batch);
        let run = engine.run_stream(&problem, &mut source, &mut bowl);
        let (totals, _) = pollster::block_on(run).unwrap_or_else(|error| {
            panic!("{}: {error}", case.name);
        });
        bowl.results(&problem, totals)
    })
}

/// So little memory that a chunk has some columns of a row, if it can be.
fn memory_for(problem: &Problem, engine: &Engine, columns: usize) -> u64 {
    let enough = |&memory: &u64| {
        let narrow = limited(engine, |profile| profile.memory = Some(memory));
        let plan = Plan::new(problem, narrow.profile());
        plan.is_ok_and(|plan| plan.columns_per_chunk >= columns)
    };
    (1..).map(|i| 4096 * i).find(enough).unwrap()
}

/// Rows in windows have the bits of whole rows, whatever the options, and whether row kernels finish their
/// rows or leave states.
#[test]
fn windows_of_rows_change_no_bit() {
    let engine = gpu!();
    let turns = if long() { 40 } else { 4 };
    for (i, (kind, k)) in [
        (Kind::Index, 5000),
        (Kind::Dense, 4100),
        (Kind::Index, 2100),
        (Kind::Vector, 3000),
        (Kind::Signed, 3072),
        (Kind::FromSoftmax, 2051),
    ]
    .into_iter()
    .cycle()
    .take(turns * 2)
    .enumerate()
    {
        let mut case = with_options(generate(Shape::Wide, kind, 8, k), 5 * i + 1);
        if case.inner > 1 {
            case = case.contiguous();
        }
        if kind == Kind::Index {
            // A row that is not the first is NaN.
            let columns = case.columns();
            case.logits[5 * columns + k - 2] = f32::NAN;
        }
        case.over_logits = i % 3 == 1 && case.problem().unwrap().dtype_out() == case.dtype;
        let problem = case.problem().unwrap();
        let memory = memory_for(&problem, engine, 1024 * (1 + i % 2).min(k / 1024));
        let plain = bits(&case.run(engine, Strategy::SplitRow));
        let narrow = limited(engine, |profile| {
            profile.memory = Some(memory);
            if i % 2 == 1 {
                web(profile);
            }
            // As few parts as windows allow.
            if i % 4 >= 2 {
                profile.tuning = Some(Tuning {
                    parts: 1,
                    ..profile.tuning()
                });
            }
        });
        let plan = Plan::new(&problem, narrow.profile()).unwrap();
        assert_eq!(plan.part, if i % 4 == 3 { 2048 } else { 1024 }, "{plan}");
        assert!(plan.columns_per_chunk < k, "{}: {plan}", case.name);
        let what = format!("{}, {} columns", case.name, plan.columns_per_chunk);
        same_bits(&what, &plain, &bits(&streamed(&narrow, &case))).unwrap();
        let host = case.with_batch(|batch| narrow.run_blocking(&problem, batch).unwrap());
        same_bits(&what, &plain, &bits(&host)).unwrap();
    }
}

/// Interleaved rows go in parts of a group where there is no room for all of it.
#[test]
fn parts_of_interleaved_rows_change_no_bit() {
    let engine = gpu!();
    for (i, kind) in [Kind::Index, Kind::Dense, Kind::Vector, Kind::Index]
        .into_iter()
        .enumerate()
    {
        let (inner, k) = ([40, 8, 40, 20][i], [7, 33, 100, 1][i]);
        let mut case = generate(Shape::Wide, kind, 80, k);
        if i == 3 {
            case = case.store(Dtype::F16);
            case.same_dtype_out = true;
        }
        let case = match i {
            0 => case.laid_out(inner, k + 2, Padding::Kept),
            1 => case.laid_out(inner, k + 2, Padding::Masked),
            _ => case.laid_out(inner, 0, Padding::Masked),
        };
        let problem = case.problem().unwrap();
        let plain = bits(&case.run(engine, Strategy::RowPerInvocation));
        for rows in [1, 3, 7, inner] {
            // The arrays of the shape of the logits are five at most, the vectors eight.
            let row = 5 * 4 * case.columns() + 8 * 4;
            let narrow = limited(engine, |profile| {
                profile.memory = Some((4 * rows * row) as u64);
            });
            let what = format!("{}, memory for {rows} rows", case.name);
            same_bits(&what, &plain, &bits(&streamed(&narrow, &case))).unwrap();
            let host = case.with_batch(|batch| narrow.run_blocking(&problem, batch).unwrap());
            same_bits(&what, &plain, &bits(&host)).unwrap();
        }
    }
}

/// What memory is allowed is what chunks take.
#[test]
fn memory_is_kept_to() {
    let engine = gpu!();
    let problem = Problem::of(10_000, 100)
        .index_labels(-100)
        .want([Wanted::Loss, Wanted::Grad]);
    let problem = problem.build().unwrap();
    for memory in [10_000, 100_000, 1 << 20, 1 << 30] {
        let narrow = limited(engine, |profile| profile.memory = Some(memory));
        let plan = Plan::new(&problem, narrow.profile()).unwrap();
        assert!(4 * plan.chunk_size() <= memory, "{plan}");
        // And no chunk is smaller than it has to be.
        let row = 804;
        let most = memory.min(4 * (16 << 20));
        assert!(
            4 * (plan.chunk_size() + row) > most.min(4 * 8_040_000),
            "{plan}"
        );
    }
    let too_little = limited(engine, |profile| profile.memory = Some(10));
    let run = Case::new("", 100, vec![0.0; 100]).with_batch(|batch| {
        let problem = Problem::of(1, 100).want([Wanted::Lse]).build().unwrap();
        too_little.run_blocking(&problem, batch)
    });
    let message = run.unwrap_err().to_string();
    assert!(
        message.starts_with("a memory budget of 10 bytes is too small"),
        "{message}"
    );
}

/// A source or a sink that fails, wherever it does, ends the run with its own words; and too few or too
/// many values are an error. The engine works on.
#[test]
fn sources_and_sinks_may_fail() {
    let engine = gpu!();
    let case = generate(Shape::Wide, Kind::Index, 24, 10).want_everything();
    let case = case.reduce(softxent::Reduction::None);
    let problem = case.problem().unwrap();
    let plain = bits(&case.run(engine, Strategy::RowPerInvocation));
    let narrow = limited(engine, |profile| profile.memory = Some(4 * 1200));
    case.with_batch(|batch| {
        let run = |source: &mut Trickle<'_>, calls: Option<usize>| {
            let mut bowl = Bowl::of(&problem);
            bowl.calls_left = calls;
            let run = narrow.run_stream(&problem, source, &mut bowl);
            pollster::block_on(run).map(|(totals, _)| bowl.results(&problem, totals))
        };
        let mut failures = [0, 0];
        for calls in 0.. {
            let mut source = Trickle::of(batch);
            source.calls_left = calls;
            match run(&mut source, None) {
                Err(error @ Error::Stream { .. }) => {
                    let message = error.to_string();
                    assert!(message.ends_with(": the well is dry"), "{message}");
                    failures[0] += 1;
                }
                Err(error) => panic!("{error}"),
                Ok(results) => {
                    same_bits("at last", &plain, &bits(&results)).unwrap();
                    break;
                }
            }
        }
        for calls in 0.. {
            match run(&mut Trickle::of(batch), Some(calls)) {
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.ends_with(": the bowl is full"), "{message}");
                    failures[1] += 1;
                }
                Ok(_) => break,
            }
        }
        // Labels twice, logits, of four chunks; eight outputs of each.
        assert!(failures[0] >= 9 && failures[1] >= 32, "{failures:?}");
        for (short, expected) in [(true, "23 values came"), (false, "25 values came")] {
            let mut source = Trickle::of(batch);
            (source.short, source.long) = (short, !short);
            let message = run(&mut source, None).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    });
}

/// A source whose answers are not always the same, and end inside a value.
struct Fickle {
    /// The label of the last row, of the first answer and of the others.
    labels: [i64; 2],
    asked: usize,
    /// Bytes of logits that are left out.
    missing: usize,
}

impl Source for Fickle {
    fn logits(
        &mut self,
        elements: Range<usize>,
        put: &mut dyn FnMut(&[u8]),
    ) -> Result<(), StreamError> {
        put(&vec![0; 2 * elements.len() - self.missing]);
        Ok(())
    }

    fn labels(
        &mut self,
        rows: Range<usize>,
        put: &mut dyn FnMut(&[i64]),
    ) -> Result<(), StreamError> {
        let mut labels = vec![1; rows.len()];
        labels[rows.len() - 1] = self.labels[self.asked.min(1)];
        self.asked += 1;
        put(&labels);
        Ok(())
    }
}

/// What has become no class since the labels were checked, or a row to ignore, is an error; so are logits of
/// which half a value is missing.
#[test]
fn sources_that_change_their_mind() {
    let engine = gpu!();
    let run = |labels, missing| {
        let mut source = Fickle {
            labels,
            asked: 0,
            missing,
        };
        let problem = Problem::of(5, 3).dtype(Dtype::F16).index_labels(-1);
        let problem = problem.want([Wanted::Losses]).build().unwrap();
        let mut bowl = Bowl::of(&problem);
        let run = engine.run_stream(&problem, &mut source, &mut bowl);
        pollster::block_on(run).map(|(totals, _)| totals.valid_rows)
    };
    assert_eq!(run([2, 2], 0).unwrap(), 5);
    let message = |labels, missing| run(labels, missing).unwrap_err().to_string();
    assert_eq!(
        message([2, 3], 0),
        "the driver refused the labels: that of row 4 is no class, and was one when they were read first"
    );
    assert!(message([2, -1], 0).contains("it counted 4 rows, and 5 when"));
    assert_eq!(
        message([2, 2], 1),
        "bytes of logits: 29 values came where 30 were asked for"
    );
    assert_eq!(run([2, 2], 0).unwrap(), 5);
}

/// No rows of a group that is too large to count are no rows.
#[test]
fn no_rows_of_more_than_there_can_be() {
    let problem = Problem::of(0, 128).inner(1 << 53).want([Wanted::Softmax]);
    let problem = problem.build().unwrap();
    let mut source = Fickle {
        labels: [0; 2],
        asked: 0,
        missing: 0,
    };
    let mut bowl = Bowl::of(&problem);
    let done = softxent::reference::run_stream(&problem, &mut source, &mut bowl, None);
    assert_eq!(done.unwrap().valid_rows, 0);
}

/// Rows of one logit after another that is computed when it is asked for.
struct Computed {
    logit: fn(usize) -> f32,
    label: fn(usize) -> i64,
}

impl Source for Computed {
    fn logits(
        &mut self,
        elements: Range<usize>,
        put: &mut dyn FnMut(&[u8]),
    ) -> Result<(), StreamError> {
        let mut some = [f16::ZERO; 4096];
        for start in elements.clone().step_by(some.len()) {
            let some = &mut some[..4096.min(elements.end - start)];
            for (at, logit) in (start..).zip(some.iter_mut()) {
                *logit = f16::from_f32((self.logit)(at));
            }
            put(bytemuck::cast_slice(some));
        }
        Ok(())
    }

    fn labels(
        &mut self,
        rows: Range<usize>,
        put: &mut dyn FnMut(&[i64]),
    ) -> Result<(), StreamError> {
        let labels: Vec<i64> = rows.map(self.label).collect();
        put(&labels);
        Ok(())
    }
}

/// Checks each value and keeps none.
struct Checked<F> {
    good: F,
    wrong: Option<(usize, f32)>,
    count: usize,
}

impl<F: Fn(usize, f32) -> bool + Send> Sink for Checked<F> {
    fn take(&mut self, _: Wanted, at: usize, values: Values<'_>) -> Result<(), StreamError> {
        let Values::Floats(Logits::F16(values)) = values else {
            return Err("f16 was asked for".into());
        };
        self.count += values.len();
        for (at, value) in (at..).zip(values) {
            if !(self.good)(at, value.to_f32()) {
                self.wrong = self.wrong.or(Some((at, value.to_f32())));
            }
        }
        Ok(())
    }
}

/// A row of 2²⁶ classes: a power of two of each logit, so that all results are known, with the label in the
/// last window.
#[test]
fn a_row_may_be_wider_than_a_binding() {
    const CLASSES: usize = 1 << 26;
    let engine = gpu!();
    let problem = Problem::of(1, CLASSES)
        .dtype(Dtype::F16)
        .same_dtype_out(true)
        .index_labels(-100)
        .want([Wanted::Loss, Wanted::Grad]);
    let problem = problem.build().unwrap();
    // What the software driver binds at once, on any adapter.
    let limit = (128 << 20).min(engine.profile().max_binding);
    let engine = limited(engine, |profile| profile.max_binding = limit);
    let plan = Plan::new(&problem, engine.profile()).unwrap();
    assert!(plan.chunks() > 1, "{plan}");
    let mut source = Computed {
        logit: |at| if at == CLASSES - 3 { 12.0 } else { 0.0 },
        label: |_| CLASSES as i64 - 3,
    };
    let sum = (CLASSES - 1) as f64 / 12f64.exp();
    let expected = [1.0 / (1.0 + sum) * (-12f64).exp(), -sum / (1.0 + sum)];
    let mut sink = Checked {
        good: |at, value: f32| {
            let expected = expected[usize::from(at == CLASSES - 3)];
            // A rounding of half a unit of f16, or of its subnormals, and 10 ULP of f32 before it.
            let half = (expected.abs() * f64::from(f16::EPSILON)).max(2f64.powi(-24)) / 2.0;
            (f64::from(value) - expected).abs() <= half * 1.01
        },
        wrong: None,
        count: 0,
    };
    let run = engine.run_stream(&problem, &mut source, &mut sink);
    let (totals, _) = pollster::block_on(run).unwrap();
    assert_eq!((sink.wrong, sink.count), (None, CLASSES));
    let loss = f64::from(totals.loss.unwrap());
    assert!(
        (loss / sum.ln_1p() - 1.0).abs() <= 4.0 * f64::from(f32::EPSILON),
        "{loss}"
    );
}

/// More rows than 32 bits can count: 2³² + 5, a NaN behind them all.
#[test]
#[ignore = "takes minutes: cargo test --release --test it -- --ignored more_rows_than_32_bits"]
fn more_rows_than_32_bits_can_count() {
    const ROWS: usize = (1 << 32) + 5;
    let engine = gpu!();
    let problem = Problem::of(ROWS, 1)
        .dtype(Dtype::F16)
        .index_labels(-100)
        .want([Wanted::Loss, Wanted::Correct]);
    let problem = problem.reduction(softxent::Reduction::Sum).build().unwrap();
    struct Counted(usize);
    impl Sink for Counted {
        fn take(&mut self, _: Wanted, _: usize, values: Values<'_>) -> Result<(), StreamError> {
            let Values::Flags(values) = values else {
                return Err("flags were asked for".into());
            };
            self.0 += values.iter().filter(|&&value| value == 1).count();
            Ok(())
        }
    }
    let mut source = Computed {
        logit: |at| if at == ROWS - 2 { f32::NAN } else { 1.0 },
        label: |row| if row == 77 { -100 } else { 0 },
    };
    let mut sink = Counted(0);
    let run = engine.run_stream(&problem, &mut source, &mut sink);
    let (totals, _) = pollster::block_on(run).unwrap();
    assert_eq!(totals.valid_rows, ROWS as u64 - 1);
    assert_eq!(totals.correct, Some(ROWS as u64 - 2));
    assert_eq!(sink.0, ROWS - 2);
    assert_eq!(
        (totals.nan_rows, totals.first_nan_row),
        (1, Some(ROWS as u64 - 2))
    );
    assert!(totals.loss.is_some_and(f32::is_nan));
}

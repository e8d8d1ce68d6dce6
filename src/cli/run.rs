//! `softxent run`: files in, files and a summary out.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use softxent::{
    Denominator, Dtype, Error, LabelKind, Problem, ProblemBuilder, Reduction, Sink, Source,
    StreamError, Upstream, Values, Wanted,
};

use super::args::{DtypeOutArg, GradOutput, ReductionArg, RunArgs};
use super::array::{self, Array, ArrayError};
use super::device::Device;
use super::layout::Layout;
use super::output::{self, Output, Outputs};
use super::progress::Progress;
use super::report::{Report, Written};
use super::{Failure, print, say};

pub fn run(args: &RunArgs) -> Result<(), Failure> {
    if let Some(conflict) = args.conflict() {
        return Err(Failure::Usage(conflict));
    }
    let started = Instant::now();
    let note = |message: &str| {
        if !args.quiet {
            say(message);
        }
    };

    if args.grad_output.is_some() && args.grad.is_none() {
        note("note: --grad-output changes nothing but --grad, which is not asked for");
    }
    let same = args.dtype_out == DtypeOutArg::Same;
    if same
        && !args
            .outputs()
            .iter()
            .any(|(wanted, _)| wanted.has_classes())
    {
        note(
            "note: --dtype-out changes nothing but --softmax, --log-softmax and --grad, none of which \
             is asked for",
        );
    }
    let files = Files::open(args)?;
    let problem = files.problem(args)?;
    for (wanted, path) in args.outputs() {
        if wanted.has_classes() {
            output::check(path, problem.dtype_out())?;
        }
    }
    if let Some(message) = files.rounded() {
        note(&message);
    }
    let named = |error| name_file(args, error);
    let layout = files.layout.clone();
    let outputs: Vec<Output> = args
        .outputs()
        .into_iter()
        .map(|(wanted, path)| to_write(&problem, &layout, wanted, path))
        .collect();
    let mut sink = Results::begin(&outputs, problem.rows(), args.quiet)?;
    let mut source = files.source()?;

    let device = Device::open(&args.device.device)?.with_memory(args.memory);
    if let Some(message) = &device.note {
        note(message);
    }
    let plan = match args.explain {
        true => Some(device.explain(&problem)?),
        false => None,
    };
    if let (Some(plan), true) = (&plan, args.json) {
        note(plan);
    }
    let outcome = device.run_stream(&problem, &mut source, &mut sink);
    sink.progress.clear();
    let outcome = outcome.map_err(named)?;
    if let Some(row) = outcome.results.first_nan_row {
        let rows = bad_rows(&problem, &outcome.results, row);
        if args.strict {
            return Err(Failure::Message(format!(
                "{rows}; nothing was written (--strict)"
            )));
        }
        note(&format!("warning: {rows}"));
    }
    sink.finish(&outcome.results)?;

    let written = args.outputs().into_iter().zip(outputs);
    let written = written.map(|((wanted, path), output)| Written {
        wanted,
        path: path.to_owned(),
        shape: output.shape,
    });
    let report = Report::new(
        &problem,
        layout.axis,
        source.weight,
        &outcome,
        &device,
        written.collect(),
        started.elapsed(),
    );
    match (args.json, args.quiet) {
        (true, _) => print(&report.json()),
        (false, true) => Ok(()),
        (false, false) => print(&report.summary(plan.as_deref())),
    }
}

/// Where the results of a run go: to files, and how far it is to the eyes of whoever waits.
struct Results {
    outputs: Outputs,
    progress: Progress,
    started: Instant,
    rows: usize,
    done: usize,
}

impl Results {
    fn begin(outputs: &[Output<'_>], rows: usize, quiet: bool) -> Result<Results, Failure> {
        Ok(Results {
            outputs: Outputs::create(outputs)?,
            progress: Progress::on_terminals(quiet),
            started: Instant::now(),
            rows,
            done: 0,
        })
    }

    /// Writes the reduced losses and puts all files in their places.
    fn finish(mut self, totals: &softxent::Results) -> Result<(), Failure> {
        for (wanted, value) in [(Wanted::Loss, totals.loss), (Wanted::ZLoss, totals.z_loss)] {
            if let Some(value) = value {
                self.outputs
                    .put(wanted, 0, Values::Floats((&[value]).into()))?;
            }
        }
        Ok(self.outputs.commit()?)
    }
}

impl Sink for Results {
    fn take(&mut self, output: Wanted, at: usize, values: Values<'_>) -> Result<(), StreamError> {
        self.outputs.take(output, at, values)
    }

    fn done(&mut self, rows: usize) {
        self.done += rows;
        let seconds = self.started.elapsed().as_secs_f64();
        self.progress.rate(self.done, self.rows, seconds);
    }
}

/// Puts the name of the file before what is wrong with its values.
fn name_file(args: &RunArgs, error: Error) -> Failure {
    let error = match error {
        // It names its file.
        Error::Stream { what, source } => match source.downcast::<ArrayError>() {
            Ok(error) => return (*error).into(),
            Err(source) => Error::Stream { what, source },
        },
        error => error,
    };
    let file = match (&error, &args.grad_output) {
        (Error::BadLabel { .. }, _) => args.labels.as_deref(),
        (Error::BadClassWeight { .. }, _) => args.class_weights.as_deref(),
        (Error::UpstreamNotFinite { .. }, Some(GradOutput::File(path))) => Some(path.as_path()),
        _ => None,
    };
    match file {
        Some(path) => in_file(path, error),
        None => error.into(),
    }
}

fn in_file(path: &Path, error: Error) -> Failure {
    Failure::Message(format!("{}: {error}", path.display()))
}

fn bad_rows(problem: &Problem, results: &softxent::Results, first: u64) -> String {
    let count = match results.nan_rows {
        1 => format!("row {first} is NaN: its"),
        rows => format!("{rows} rows are NaN, the first is row {first}: their"),
    };
    let labels = match problem.labels() {
        LabelKind::Dense => ", or the labels a NaN or inf",
        LabelKind::Index { .. } | LabelKind::None | LabelKind::Vector => "",
    };
    format!("{count} logits hold a NaN, +inf or nothing but -inf{labels}")
}

fn to_write<'a>(problem: &Problem, layout: &Layout, wanted: Wanted, path: &'a Path) -> Output<'a> {
    let reduced = problem.reduction() != Reduction::None;
    let (of, shape) = match wanted {
        _ if wanted.has_classes() => (wanted, layout.shape.clone()),
        Wanted::Loss | Wanted::ZLoss if reduced => (wanted, vec![]),
        Wanted::Loss => (Wanted::Losses, layout.row_shape.clone()),
        Wanted::ZLoss => (Wanted::ZLosses, layout.row_shape.clone()),
        _ => (wanted, layout.row_shape.clone()),
    };
    Output {
        path,
        name: wanted.to_string(),
        of,
        shape,
        dtype: match wanted {
            Wanted::Predictions => array::Dtype::I64,
            Wanted::Correct => array::Dtype::Bool,
            _ if wanted.has_classes() => output::stored(problem.dtype_out()),
            _ => array::Dtype::F32,
        },
    }
}

/// The input files, whose headers agree with each other.
struct Files {
    layout: Layout,
    logits: Array,
    labels: Option<Array>,
    class_weights: Option<Array>,
    upstream: Option<Array>,
    ignore_index: i64,
}

impl Files {
    fn open(args: &RunArgs) -> Result<Files, Failure> {
        let logits = array::open(&args.logits)?;
        let labels = args.labels.as_deref().map(array::open).transpose()?;
        let class_weights = args.class_weights.as_deref().map(array::open).transpose()?;
        let upstream = match &args.grad_output {
            Some(GradOutput::File(path)) => Some(array::open(path)?),
            _ => None,
        };

        let layout = Layout::of(&logits, labels.as_ref(), args.axis)?;
        if let Some(labels) = &labels {
            check_labels(labels, &layout, args)?;
        }
        let needed = |array: &Array, shape: &[usize], what: &str| {
            Failure::Message(format!(
                "{}: shape {:?}, where {shape:?} is needed: one number per {what} of the logits",
                array.path.display(),
                array.shape
            ))
        };
        if let Some(weights) = &class_weights {
            if weights.shape != [layout.classes] {
                return Err(needed(weights, &[layout.classes], "class"));
            }
        }
        if let Some(upstream) = &upstream {
            if !layout.is_per_row(&upstream.shape) {
                return Err(needed(upstream, &layout.row_shape, "row"));
            }
        }
        Ok(Files {
            layout,
            logits,
            labels,
            class_weights,
            upstream,
            ignore_index: args.ignore_index.unwrap_or(-100),
        })
    }

    /// What is wanted is what files are asked for, and what the labels allow the summary to say.
    fn problem(&self, args: &RunArgs) -> Result<Problem, Failure> {
        let mut builder = Problem::of(self.layout.rows, self.layout.classes)
            .inner(self.layout.inner)
            .dtype(match self.logits.dtype {
                array::Dtype::F16 => Dtype::F16,
                array::Dtype::Bf16 => Dtype::Bf16,
                _ => Dtype::F32,
            })
            .same_dtype_out(args.dtype_out == DtypeOutArg::Same)
            .label_smoothing(args.label_smoothing.unwrap_or(0.0))
            .z_loss(args.z_loss.unwrap_or(0.0))
            .logit_scale(args.logit_scale.unwrap_or(1.0))
            .reduction(args.reduction.into())
            .empty_mean(args.empty_mean.unwrap_or_default().into())
            .want(args.outputs().into_iter().map(|(wanted, _)| wanted))
            .upstream(match args.grad_output {
                None => Upstream::Number(1.0),
                Some(GradOutput::Number(number)) => Upstream::Number(number),
                Some(GradOutput::File(_)) => Upstream::PerRow,
            });
        if let Some(cap) = args.softcap {
            builder = builder.softcap(cap);
        }
        if let Some(number) = args.denominator {
            builder = builder.denominator(Denominator::Number(number));
        }
        if self.class_weights.is_some() {
            builder = builder.class_weights();
        }
        let reduces = args.reduction != ReductionArg::None;
        if reduces && args.z_loss.is_some_and(|factor| factor > 0.0) {
            builder = builder.want([Wanted::ZLoss]);
        }
        builder = match &self.labels {
            None => builder,
            Some(labels) if labels.dtype.is_float() => builder.dense_labels().want([Wanted::Loss]),
            Some(_) => builder
                .index_labels(self.ignore_index)
                .want([Wanted::Loss, Wanted::Predictions]),
        };
        ProblemBuilder::build(builder).map_err(|error| match error {
            Error::UpstreamNotFinite { .. } => Failure::Usage(format!("--grad-output: {error}")),
            Error::BadDenominator { .. } => Failure::Usage(format!("--denominator: {error}")),
            Error::BadOption { option, .. } => {
                Failure::Usage(format!("--{}: {error}", option.replace(' ', "-")))
            }
            error => in_file(&args.logits, error),
        })
    }

    /// What has digits that are not used.
    fn rounded(&self) -> Option<String> {
        let all = [
            Some(&self.logits),
            self.labels.as_ref(),
            self.class_weights.as_ref(),
            self.upstream.as_ref(),
        ];
        let wide: Vec<String> = all
            .into_iter()
            .flatten()
            .filter(|array| array.dtype == array::Dtype::F64)
            .map(|array| array.path.display().to_string())
            .collect();
        match wide.is_empty() {
            true => None,
            false => Some(format!(
                "note: rounded from float64 to float32: {}",
                wide.join(", ")
            )),
        }
    }

    /// Their values, as they are asked for.
    fn source(self) -> Result<Input, Failure> {
        let class_weights = match self.class_weights {
            None => Vec::new(),
            Some(array) => array.read_f32()?,
        };
        Ok(Input {
            logits: self.logits,
            labels: self.labels,
            upstream: self.upstream,
            weight: (!class_weights.is_empty()).then_some(0.0),
            class_weights,
            ignore_index: self.ignore_index,
            weighed: 0,
        })
    }
}

/// The values of the input files.
struct Input {
    logits: Array,
    labels: Option<Array>,
    upstream: Option<Array>,
    class_weights: Vec<f32>,
    ignore_index: i64,
    /// The class weights of the labels that are not ignored, added up.
    weight: Option<f64>,
    /// Rows whose labels have been.
    weighed: usize,
}

impl Source for Input {
    fn logits(
        &mut self,
        elements: Range<usize>,
        put: &mut dyn FnMut(&[u8]),
    ) -> Result<(), StreamError> {
        Ok(self.logits.floats(elements, put)?)
    }

    fn labels(
        &mut self,
        rows: Range<usize>,
        put: &mut dyn FnMut(&[i64]),
    ) -> Result<(), StreamError> {
        let labels = self.labels.as_mut().ok_or("there are no labels")?;
        let first = rows.start == self.weighed;
        let (weights, ignore_index) = (&self.class_weights, self.ignore_index);
        if let (Some(sum), true) = (&mut self.weight, first) {
            self.weighed = rows.end;
            labels.i64s(rows, &mut |some| {
                let counted = some.iter().filter(|&&label| label != ignore_index);
                let weights =
                    counted.filter_map(|&label| weights.get(usize::try_from(label).ok()?));
                *sum += weights.map(|&weight| f64::from(weight)).sum::<f64>();
                put(some);
            })?;
        } else {
            labels.i64s(rows, put)?;
        }
        Ok(())
    }

    fn dense(
        &mut self,
        elements: Range<usize>,
        put: &mut dyn FnMut(&[f32]),
    ) -> Result<(), StreamError> {
        let labels = self.labels.as_mut().ok_or("there are no labels")?;
        Ok(labels.f32s(elements, put)?)
    }

    fn upstream(
        &mut self,
        rows: Range<usize>,
        put: &mut dyn FnMut(&[f32]),
    ) -> Result<(), StreamError> {
        let upstream = self.upstream.as_mut();
        let upstream = upstream.ok_or("there is no upstream gradient")?;
        Ok(upstream.f32s(rows, put)?)
    }

    fn class_weights(&self) -> &[f32] {
        &self.class_weights
    }
}

/// Refuses labels whose type and shape say different things about what they are.
fn check_labels(labels: &Array, layout: &Layout, args: &RunArgs) -> Result<(), Failure> {
    let float = labels.dtype.is_float();
    let (per_row, whole) = (&layout.row_shape, &layout.shape);
    if !float && layout.is_per_row(&labels.shape) {
        return Ok(());
    }
    if float && labels.shape == *whole {
        let for_indices = match (args.ignore_index, &args.correct) {
            (Some(0..), _) => ("--ignore-index", "leave it out: all rows count"),
            (_, Some(_)) => (
                "--correct",
                "leave it out, and compare --predictions with what you hold for right",
            ),
            _ => return Ok(()),
        };
        let (flag, instead) = for_indices;
        return Err(Failure::Usage(format!(
            "{flag} is for labels that are integers; these are floats {whole:?}, label weights: {instead}"
        )));
    }
    let expected = match float {
        true if layout.is_per_row(&labels.shape) || labels.shape.len() < whole.len() => format!(
            "where floats are label weights {whole:?}; if they are class indices, save \
             labels.astype('int64')"
        ),
        false if labels.shape.len() == whole.len() => format!(
            "where integers are class indices {per_row:?}; if they are label weights, such as \
             one-hot, save labels.astype('float32')"
        ),
        false => format!("where {per_row:?} is needed: one class index per row of the logits"),
        true => format!("where {whole:?} is needed: one label weight per logit"),
    };
    Err(Failure::Message(format!(
        "{}: {}, shape {:?}, {expected}",
        labels.path.display(),
        labels.dtype,
        labels.shape
    )))
}

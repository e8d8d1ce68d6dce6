//! `softxent run`: files in, files and a summary out.

use std::path::Path;
use std::time::Instant;

use softxent::{
    Batch, Denominator, Dtype, Error, LabelKind, Labels, Problem, ProblemBuilder, Reduction,
    Results, Upstream, Wanted,
};

use super::args::{DtypeOutArg, GradOutput, ReductionArg, RunArgs};
use super::array::{self, Array, Floats};
use super::device::{self, Device};
use super::layout::Layout;
use super::output::{self, Output, Pending, Values};
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
    let (layout, input) = files.read()?;
    let batch = input.batch();
    let named = |error| name_file(args, error);
    // Before any device is asked for.
    problem.check(&batch).map_err(named)?;

    let device = Device::open(&args.device.device)?;
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
    let outcome = device.run(&problem, &batch).map_err(named)?;
    if let Some(row) = outcome.results.first_nan_row {
        let rows = bad_rows(&problem, &outcome.results, row);
        if args.strict {
            return Err(Failure::Message(format!(
                "{rows}; nothing was written (--strict)"
            )));
        }
        note(&format!("warning: {rows}"));
    }

    let outputs: Vec<Output> = args
        .outputs()
        .into_iter()
        .map(|(wanted, path)| to_write(&problem, &layout, &outcome.results, wanted, path))
        .collect();
    let staged = output::stage(&outputs)?;
    staged.into_iter().try_for_each(Pending::commit)?;

    let written = args.outputs().into_iter().zip(outputs);
    let written = written.map(|((wanted, path), output)| Written {
        wanted,
        path: path.to_owned(),
        shape: output.shape,
    });
    let report = Report::new(
        &problem,
        layout.axis,
        input.weight(&problem),
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

/// Puts the name of the file before what is wrong with its values.
fn name_file(args: &RunArgs, error: Error) -> Failure {
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

fn bad_rows(problem: &Problem, results: &Results, first: u64) -> String {
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

fn to_write<'a>(
    problem: &Problem,
    layout: &Layout,
    results: &'a Results,
    wanted: Wanted,
    path: &'a Path,
) -> Output<'a> {
    let shape = match wanted {
        _ if wanted.has_classes() => layout.shape.clone(),
        Wanted::Loss | Wanted::ZLoss if problem.reduction() != Reduction::None => vec![],
        _ => layout.row_shape.clone(),
    };
    let dtype = match wanted.has_classes() {
        true => problem.dtype_out(),
        false => Dtype::F32,
    };
    let values = match wanted {
        Wanted::Predictions => Values::Integers(results.predictions.as_deref().unwrap_or_default()),
        Wanted::Correct => Values::Bools(results.correct_rows.as_deref().unwrap_or_default()),
        _ => Values::Floats(device::floats(results, wanted).unwrap_or_default(), dtype),
    };
    Output {
        path,
        name: wanted.to_string(),
        shape,
        values,
    }
}

/// The input files, whose headers agree with each other.
struct Files {
    layout: Layout,
    logits: Array,
    labels: Option<Array>,
    class_weights: Option<Array>,
    upstream: Option<Array>,
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
                .index_labels(args.ignore_index.unwrap_or(-100))
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

    /// All values.
    fn read(self) -> Result<(Layout, Input), Failure> {
        let floats = |array: Option<Array>| match array {
            None => Ok(Vec::new()),
            Some(array) => array.read_f32(),
        };
        let input = Input {
            logits: self.logits.read_floats()?,
            labels: match self.labels {
                None => LabelValues::None,
                Some(labels) if labels.dtype.is_float() => LabelValues::Dense(labels.read_f32()?),
                Some(labels) => LabelValues::Index(labels.read_i64()?),
            },
            class_weights: floats(self.class_weights)?,
            upstream: floats(self.upstream)?,
        };
        Ok((self.layout, input))
    }
}

/// The values of the input files.
struct Input {
    logits: Floats,
    labels: LabelValues,
    class_weights: Vec<f32>,
    upstream: Vec<f32>,
}

enum LabelValues {
    None,
    Index(Vec<i64>),
    Dense(Vec<f32>),
}

impl Input {
    fn batch(&self) -> Batch<'_> {
        Batch {
            logits: match &self.logits {
                Floats::F32(values) => values.into(),
                Floats::F16(values) => values.into(),
                Floats::Bf16(values) => values.into(),
            },
            labels: match &self.labels {
                LabelValues::None => Labels::None,
                LabelValues::Index(labels) => Labels::Index(labels),
                LabelValues::Dense(labels) => Labels::Dense(labels),
            },
            upstream: &self.upstream,
            class_weights: &self.class_weights,
        }
    }

    /// The class weights of the labels that are not ignored, if there are any, added up.
    fn weight(&self, problem: &Problem) -> Option<f64> {
        let (LabelKind::Index { ignore_index }, LabelValues::Index(labels), true) =
            (problem.labels(), &self.labels, problem.class_weights())
        else {
            return None;
        };
        let counted = labels.iter().filter(|&&label| label != ignore_index);
        let weight = |&label: &i64| self.class_weights.get(usize::try_from(label).ok()?);
        Some(counted.filter_map(weight).map(|&w| f64::from(w)).sum())
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

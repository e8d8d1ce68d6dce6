//! `softxent run`: files in, files and a summary out.

use std::path::Path;
use std::time::Instant;

use softxent::{
    Batch, Error, LabelKind, Labels, Problem, ProblemBuilder, Results, Upstream, Wanted,
};

use super::args::{GradOutput, RunArgs};
use super::device::{self, Device};
use super::npy::{self, Npy, Pending};
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
    let input = Input::read(args, note)?;
    let problem = input.problem(args)?;
    let batch = input.batch();
    let in_labels = |error| match (error, &args.labels) {
        (error @ Error::BadLabel { .. }, Some(labels)) => in_file(labels, error),
        (error, _) => error.into(),
    };
    // Before any device is asked for.
    problem.check(&batch).map_err(in_labels)?;

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
    let strategy = device.strategy(&problem)?;
    let outcome = device.run(&problem, &batch).map_err(in_labels)?;
    if let Some(row) = outcome.results.first_nan_row {
        let rows = bad_rows(&problem, &outcome.results, row);
        if args.strict {
            return Err(Failure::Message(format!(
                "{rows}; nothing was written (--strict)"
            )));
        }
        note(&format!("warning: {rows}"));
    }

    let (staged, written): (Vec<Pending>, Vec<Written>) = args
        .outputs()
        .into_iter()
        .map(|(wanted, path)| stage(&problem, &outcome.results, wanted, path))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .unzip();
    staged.into_iter().try_for_each(Pending::commit)?;

    let report = Report::new(
        &problem,
        &outcome,
        &device,
        strategy,
        written,
        started.elapsed(),
    );
    match (args.json, args.quiet) {
        (true, _) => print(&report.json()),
        (false, true) => Ok(()),
        (false, false) => print(&report.summary(plan.as_deref())),
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

/// Writes one output beside its target.
fn stage(
    problem: &Problem,
    results: &Results,
    wanted: Wanted,
    path: &Path,
) -> Result<(Pending, Written), Failure> {
    let shape = match wanted {
        Wanted::Softmax | Wanted::LogSoftmax | Wanted::Grad => {
            vec![problem.rows(), problem.classes()]
        }
        Wanted::Loss if results.loss.is_some() => vec![],
        _ => vec![problem.rows()],
    };
    let pending = match &results.predictions {
        Some(predictions) if wanted == Wanted::Predictions => {
            npy::stage_i64(path, &shape, predictions)?
        }
        _ => npy::stage_f32(
            path,
            &shape,
            device::floats(results, wanted).unwrap_or_default(),
        )?,
    };
    let path = path.to_owned();
    Ok((
        pending,
        Written {
            wanted,
            path,
            shape,
        },
    ))
}

/// The arrays of the input files.
struct Input {
    rows: usize,
    classes: usize,
    logits: Vec<f32>,
    labels: LabelValues,
    upstream: Vec<f32>,
}

enum LabelValues {
    None,
    Index(Vec<i64>),
    Dense(Vec<f32>),
}

impl Input {
    /// Checks all headers, then reads all values.
    fn read(args: &RunArgs, note: impl Fn(&str)) -> Result<Input, Failure> {
        let logits = npy::open(&args.logits)?;
        let labels = args.labels.as_deref().map(npy::open).transpose()?;
        let upstream = match &args.grad_output {
            Some(GradOutput::File(path)) => Some(npy::open(path)?),
            _ => None,
        };

        let [rows, classes] = matrix(&logits, labels.as_ref())?;
        if let Some(labels) = &labels {
            check_labels(labels, rows, classes, args)?;
        }
        if let Some(upstream) = upstream.as_ref().filter(|array| array.shape != [rows]) {
            return Err(Failure::Message(format!(
                "{}: shape {:?}, where [{rows}] is needed: one number per row of the logits",
                upstream.path.display(),
                upstream.shape
            )));
        }

        let wide: Vec<String> = [Some(&logits), labels.as_ref(), upstream.as_ref()]
            .into_iter()
            .flatten()
            .filter(|array| array.dtype == npy::Dtype::F64)
            .map(|array| array.path.display().to_string())
            .collect();
        if !wide.is_empty() {
            note(&format!(
                "note: rounded from float64 to float32: {}",
                wide.join(", ")
            ));
        }

        Ok(Input {
            rows,
            classes,
            logits: logits.read_f32()?,
            labels: match labels {
                None => LabelValues::None,
                Some(labels) if labels.dtype.is_float() => LabelValues::Dense(labels.read_f32()?),
                Some(labels) => LabelValues::Index(labels.read_i64()?),
            },
            upstream: match upstream {
                None => Vec::new(),
                Some(upstream) => upstream.read_f32()?,
            },
        })
    }

    /// What is wanted is what files are asked for, and what the labels allow the summary to say.
    fn problem(&self, args: &RunArgs) -> Result<Problem, Failure> {
        let builder = Problem::of(self.rows, self.classes)
            .reduction(args.reduction.into())
            .want(args.outputs().into_iter().map(|(wanted, _)| wanted))
            .upstream(match args.grad_output {
                None => Upstream::Number(1.0),
                Some(GradOutput::Number(number)) => Upstream::Number(number),
                Some(GradOutput::File(_)) => Upstream::PerRow,
            });
        let builder = match self.labels {
            LabelValues::None => builder,
            LabelValues::Index(_) => builder
                .index_labels(args.ignore_index.unwrap_or(-100))
                .want([Wanted::Loss, Wanted::Predictions]),
            LabelValues::Dense(_) => builder.dense_labels().want([Wanted::Loss]),
        };
        ProblemBuilder::build(builder).map_err(|error| match error {
            Error::UpstreamNotFinite { .. } => Failure::Usage(format!("--grad-output: {error}")),
            error => in_file(&args.logits, error),
        })
    }

    fn batch(&self) -> Batch<'_> {
        Batch {
            logits: (&self.logits).into(),
            labels: match &self.labels {
                LabelValues::None => Labels::None,
                LabelValues::Index(labels) => Labels::Index(labels),
                LabelValues::Dense(labels) => Labels::Dense(labels),
            },
            upstream: &self.upstream,
            class_weights: &[],
        }
    }
}

/// Rows and classes of the logits.
fn matrix(logits: &Npy, labels: Option<&Npy>) -> Result<[usize; 2], Failure> {
    if let [rows, classes] = logits.shape[..] {
        return Ok([rows, classes]);
    }
    let what_to_do =
        if labels.is_some_and(|labels| labels.shape.len() == 2 && !logits.dtype.is_float()) {
            "are LOGITS and LABELS swapped?"
        } else if logits.shape.len() < 2 {
            "for a single row save logits.reshape(1, -1)"
        } else {
            "with the class axis last, save logits.reshape(-1, logits.shape[-1])"
        };
    Err(Failure::Message(format!(
        "{}: shape {:?}, where [N, K] is needed, rows × classes; {what_to_do}",
        logits.path.display(),
        logits.shape
    )))
}

/// Refuses labels whose type and shape say different things about what they are.
fn check_labels(labels: &Npy, rows: usize, classes: usize, args: &RunArgs) -> Result<(), Failure> {
    let expected = match (labels.dtype.is_float(), &labels.shape[..]) {
        (false, &[found] | &[found, 1]) if found == rows => return Ok(()),
        (true, &[found, across]) if [found, across] == [rows, classes] => {
            return match args.ignore_index {
                Some(0..) => Err(Failure::Usage(
                    "--ignore-index is for labels that are integers; these are floats [N, K], whose \
                     rows all count"
                        .to_owned(),
                )),
                _ => Ok(()),
            };
        }
        (true, &[_] | &[_, 1]) => format!(
            "where floats are label weights [{rows}, {classes}]; if they are class indices, save \
             labels.astype('int64')"
        ),
        (false, &[_, across]) if across > 1 => format!(
            "where integers are class indices [{rows}]; if they are label weights, such as one-hot, \
             save labels.astype('float32')"
        ),
        (false, _) => format!("where [{rows}] is needed: one class index per row of the logits"),
        (true, _) => {
            format!("where [{rows}, {classes}] is needed: one label weight per logit")
        }
    };
    Err(Failure::Message(format!(
        "{}: {}, shape {:?}, {expected}",
        labels.path.display(),
        labels.dtype,
        labels.shape
    )))
}

//! `softxent demo`: a real data set, and what to type for one's own.

use std::time::Instant;

use softxent::{Batch, Problem, Wanted};

use super::args::DemoArgs;
use super::device::Device;
use super::npy;
use super::report::{Report, Table, accuracy, digits, plural};
use super::{Failure, print, say};

const LOGITS: &[u8] = include_bytes!("../../tests/data/digits_logits.npy");
const LABELS: &[u8] = include_bytes!("../../tests/data/digits_labels.npy");

pub fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let logits = npy::embedded("digits_logits.npy", LOGITS)?;
    let labels = npy::embedded("digits_labels.npy", LABELS)?.read_i64()?;
    let classes = logits.shape.last().copied().unwrap_or(0);
    let logits = logits.read_f32()?;
    let problem = Problem::of(labels.len(), classes)
        .index_labels(-100)
        .want([
            Wanted::Loss,
            Wanted::Losses,
            Wanted::Grad,
            Wanted::Predictions,
        ])
        .build()?;
    let batch = Batch::of(&logits).index(&labels);

    let device = Device::open(&args.device.device)?;
    if let Some(note) = &device.note {
        say(note);
    }
    let outcome = device.run(&problem, &batch)?;
    let report = Report::new(
        &problem,
        1,
        None,
        &outcome,
        &device,
        vec![],
        started.elapsed(),
    );

    let results = &outcome.results;
    let losses = results.losses.as_deref().unwrap_or_default();
    let smallest = (0..losses.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b]));
    let lost = (0..losses.len())
        .filter(|&row| {
            let logits = &logits[row * classes..][..classes];
            losses[row] > 0.0 && usual_loss(logits, labels[row] as usize) == 0.0
        })
        .count();

    let mut table = Table::default();
    let rows = plural(labels.len() as u64, "row");
    table.line("logits", format!("{rows} × {classes} classes"));
    table.line(
        "loss",
        format!(
            "{}, the mean over {rows}",
            digits(results.loss.unwrap_or(f32::NAN))
        ),
    );
    table.line(
        "accuracy",
        accuracy(results.correct.unwrap_or(0), results.valid_rows),
    );
    if let Some(row) = smallest {
        table.line(
            "smallest",
            format!("{}, the loss of row {row}", digits(losses[row])),
        );
        table.line(
            "usual f32",
            format!("lse − z_y is 0 there and in {lost} rows in all"),
        );
    }
    table.line("adapter", device.describe());
    table.line("strategy", outcome.strategy);
    table.line("time", report.times());
    print(&format!(
        "UCI handwritten digits (CC BY 4.0), the logits of a softmax regression\n\
         \n\
         {}\n\
         Your own, from Python:\n\
         \n    \
             numpy.save('logits.npy', logits.astype('float32'))\n    \
             numpy.save('labels.npy', labels.astype('int64'))\n\
         \n\
         and then:\n\
         \n    \
             softxent run logits.npy labels.npy --grad grad.npy\n",
        table.finish()
    ))
}

/// The loss as it is usually computed.
fn usual_loss(logits: &[f32], label: usize) -> f32 {
    let m = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|z| (z - m).exp()).sum();
    m + sum.ln() - logits[label]
}

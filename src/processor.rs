//! A batch from a source to a sink on the processor: the [`reference`](crate::reference), some rows at a
//! time.

use std::ops::Range;

use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::problem::{Batch, Dtype, LabelKind, Labels, Logits, Problem, Results, Upstream, Wanted};
use crate::reference::{Denominators, Sums, label_weights, run_rows, sum};
use crate::source::{self, Sink, Source, StreamError, Values, expect, failed};

/// Bytes that the rows of a chunk take where nobody says how many they may.
const MEMORY: u64 = 256 << 20;
/// Values that are rounded at once.
const ROUNDED: usize = 1 << 16;

/// [`reference::run`](crate::reference::run) on a batch of any size, of which some rows at a time are in
/// memory: values come from a [`Source`], and results go to a [`Sink`], rounded to f32 or as the problem
/// stores them. What is returned are the reduced losses and the counts.
///
/// At least one row is in memory, or as many as are interleaved; more as far as `memory` bytes go.
///
/// # Errors
/// As [`reference::run`](crate::reference::run), and [`Error::Stream`].
pub fn run_stream(
    problem: &Problem,
    source: &mut dyn Source,
    sink: &mut dyn Sink,
    memory: Option<u64>,
) -> Result<Results<f64>> {
    let valid = source::check(problem, source)?;
    let rows = chunk_rows(problem, memory.unwrap_or(MEMORY));
    let mut chunk = Chunk::default();

    let mut weights = Vec::new();
    if problem.sums_weights() {
        for rows in chunks(problem, rows) {
            let part = problem.with_rows(rows.len());
            chunk.read_index(source, rows)?;
            weights.push(label_weights(
                &part,
                &chunk.batch(&part, source.class_weights()),
            ));
        }
    }
    let denominators = Denominators::new(problem, sum(weights.into_iter()), valid as usize);

    // What of the results of no rows is a number, is so of all.
    let none = problem.with_rows(0);
    let empty = Chunk::default();
    let batch = empty.batch(&none, source.class_weights());
    let (mut totals, _) = run_rows(&none, &batch, denominators)?;
    let (mut losses, mut z_losses) = (Vec::new(), Vec::new());
    for rows in chunks(problem, rows) {
        let part = problem.with_rows(rows.len());
        chunk.read(&part, source, rows.clone())?;
        let (results, sums) = run_rows(
            &part,
            &chunk.batch(&part, source.class_weights()),
            denominators,
        )?;
        losses.push(sums.cross_entropy);
        z_losses.extend(sums.z_loss);
        give(problem, &results, rows.start, sink)?;
        totals.nan_rows += results.nan_rows;
        let first = results.first_nan_row.map(|row| rows.start as u64 + row);
        totals.first_nan_row = totals.first_nan_row.or(first);
        let correct = results.correct.unwrap_or_default();
        totals.correct = totals.correct.map(|before| before + correct);
        sink.done(rows.len());
    }
    let z_loss = (problem.z_loss() != 0.0).then(|| sum(z_losses.into_iter()));
    let [loss, z_loss] = denominators.means(Sums {
        cross_entropy: sum(losses.into_iter()),
        z_loss,
    });
    totals.loss = totals.loss.map(|_| loss + z_loss);
    totals.z_loss = totals.z_loss.map(|_| z_loss);
    totals.valid_rows = valid;
    Ok(Results {
        loss: totals.loss,
        z_loss: totals.z_loss,
        correct: totals.correct,
        valid_rows: totals.valid_rows,
        nan_rows: totals.nan_rows,
        first_nan_row: totals.first_nan_row,
        ..Results::default()
    })
}

/// Rows of a chunk: whole groups of those that are interleaved.
fn chunk_rows(problem: &Problem, memory: u64) -> usize {
    let dense = matches!(problem.labels(), LabelKind::Dense | LabelKind::Vector);
    let outputs = problem.outputs().iter();
    let matrices = outputs.filter(|output| output.has_classes()).count();
    // Inputs, and outputs in f64; what is kept of a row, with its numbers.
    let column = problem.dtype().size() + 4 * usize::from(dense) + 8 * matrices;
    let row = column as u64 * problem.row_length() as u64 + 512;
    let groups = memory / row.saturating_mul(problem.inner() as u64);
    usize::try_from(groups).map_or(usize::MAX, |groups| {
        groups.max(1).saturating_mul(problem.inner())
    })
}

fn chunks(problem: &Problem, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let all = problem.rows();
    (0..all)
        .step_by(rows)
        .map(move |start| start..all.min(start.saturating_add(rows)))
}

/// The values of some rows.
#[derive(Default)]
struct Chunk {
    /// The logits, in whatever type they have.
    words: Vec<u32>,
    elements: usize,
    index: Vec<i64>,
    dense: Vec<f32>,
    upstream: Vec<f32>,
}

impl Chunk {
    fn read(
        &mut self,
        problem: &Problem,
        source: &mut dyn Source,
        rows: Range<usize>,
    ) -> Result<()> {
        let elements = rows.start * problem.row_length()..rows.end * problem.row_length();
        self.elements = elements.len();
        let size = elements.len() * problem.dtype().size();
        self.words.clear();
        reserve(&mut self.words, size.div_ceil(4))?;
        self.words.resize(size.div_ceil(4), 0);
        let room: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words);
        let mut came = 0;
        source
            .logits(elements.clone(), &mut |bytes| {
                if let Some(room) = room.get_mut(came..came + bytes.len()) {
                    room.copy_from_slice(bytes);
                }
                came += bytes.len();
            })
            .map_err(failed("logits"))?;
        expect("bytes of logits", size, came)?;
        match problem.labels() {
            LabelKind::Dense | LabelKind::Vector => {
                let read = |put: &mut dyn FnMut(&[f32])| source.dense(elements.clone(), put);
                fill(&mut self.dense, "labels", elements.len(), read)?;
            }
            LabelKind::Index { .. } => self.read_index(source, rows.clone())?,
            LabelKind::None => {}
        }
        let upstream = match problem.upstream() {
            Upstream::Number(_) => return Ok(()),
            Upstream::Shared => 0..1,
            Upstream::PerRow => rows,
        };
        let read = |put: &mut dyn FnMut(&[f32])| source.upstream(upstream.clone(), put);
        fill(&mut self.upstream, "upstream", upstream.len(), read)
    }

    fn read_index(&mut self, source: &mut dyn Source, rows: Range<usize>) -> Result<()> {
        let read = |put: &mut dyn FnMut(&[i64])| source.labels(rows.clone(), put);
        fill(&mut self.index, "labels", rows.len(), read)
    }

    fn batch<'a>(&'a self, problem: &Problem, class_weights: &'a [f32]) -> Batch<'a> {
        let (words, elements) = (&self.words[..], self.elements);
        Batch {
            logits: match problem.dtype() {
                Dtype::F32 => Logits::F32(&bytemuck::cast_slice(words)[..elements]),
                Dtype::F16 => Logits::F16(&bytemuck::cast_slice(words)[..elements]),
                Dtype::Bf16 => Logits::Bf16(&bytemuck::cast_slice(words)[..elements]),
            },
            labels: match problem.labels() {
                LabelKind::None => Labels::None,
                LabelKind::Index { .. } => Labels::Index(&self.index),
                LabelKind::Dense => Labels::Dense(&self.dense),
                LabelKind::Vector => Labels::Vector(&self.dense),
            },
            upstream: &self.upstream,
            class_weights,
        }
    }
}

/// Replaces values by as many as there are to be.
fn fill<T: Copy>(
    values: &mut Vec<T>,
    what: &'static str,
    count: usize,
    read: impl FnOnce(&mut dyn FnMut(&[T])) -> std::result::Result<(), StreamError>,
) -> Result<()> {
    values.clear();
    reserve(values, count)?;
    let mut came = 0;
    read(&mut |given| {
        came += given.len();
        if came <= count {
            values.extend(given);
        }
    })
    .map_err(failed(what))?;
    expect(what, count, came)
}

fn reserve<T>(values: &mut Vec<T>, count: usize) -> Result<()> {
    values
        .try_reserve_exact(count)
        .map_err(|_| Error::no_room::<T>("a chunk", count))
}

/// Hands over the vectors of the rows from `row` on.
fn give(problem: &Problem, results: &Results<f64>, row: usize, sink: &mut dyn Sink) -> Result<()> {
    let element = row * problem.row_length();
    for (output, values) in [
        (Wanted::Softmax, &results.softmax),
        (Wanted::LogSoftmax, &results.log_softmax),
        (Wanted::Grad, &results.grad),
        (Wanted::Losses, &results.losses),
        (Wanted::Lse, &results.lse),
        (Wanted::Entropy, &results.entropy),
        (Wanted::ZLosses, &results.z_losses),
    ] {
        let Some(values) = values else { continue };
        let at = if output.has_classes() { element } else { row };
        for (i, values) in values.chunks(ROUNDED).enumerate() {
            let at = at + i * ROUNDED;
            let values = values.iter().map(|&value| value as f32);
            let dtype = match output.has_classes() {
                true => problem.dtype_out(),
                false => Dtype::F32,
            };
            let taken = match dtype {
                Dtype::F32 => {
                    let values: Vec<f32> = values.collect();
                    sink.take(output, at, Values::Floats(Logits::F32(&values)))
                }
                Dtype::F16 => {
                    let values: Vec<f16> = values.map(f16::from_f32).collect();
                    sink.take(output, at, Values::Floats(Logits::F16(&values)))
                }
                Dtype::Bf16 => {
                    let values: Vec<bf16> = values.map(bf16::from_f32).collect();
                    sink.take(output, at, Values::Floats(Logits::Bf16(&values)))
                }
            };
            taken.map_err(failed("results"))?;
        }
    }
    let predictions = results
        .predictions
        .iter()
        .flat_map(|all| all.chunks(ROUNDED));
    for (i, some) in predictions.enumerate() {
        let classes: Vec<i32> = some.iter().map(|&class| class as i32).collect();
        sink.take(
            Wanted::Predictions,
            row + i * ROUNDED,
            Values::Classes(&classes),
        )
        .map_err(failed("predictions"))?;
    }
    let correct = results
        .correct_rows
        .iter()
        .flat_map(|all| all.chunks(ROUNDED));
    for (i, some) in correct.enumerate() {
        let flags: Vec<u32> = some.iter().map(|&flag| flag.into()).collect();
        sink.take(Wanted::Correct, row + i * ROUNDED, Values::Flags(&flags))
            .map_err(failed("correct"))?;
    }
    Ok(())
}

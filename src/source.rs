//! Where the values of a batch come from and its results go, a few rows at a time: slices and vectors,
//! or whatever a caller makes a [`Source`] and a [`Sink`] of.

use std::ops::Range;

use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::problem::{Batch, LabelKind, Labels, Logits, Problem, Results, Upstream, Wanted};
use crate::threads;

/// Why a [`Source`] or a [`Sink`] failed; comes back as [`Error::Stream`](crate::Error::Stream).
pub type StreamError = Box<dyn std::error::Error + Send + Sync>;

/// Where the values of a batch come from.
///
/// Values are asked for in pieces, mostly in order, some of them twice: what is the same both times gives
/// results. An answer comes in calls of `put`, one or several, that together have exactly the values asked
/// for.
pub trait Source: Send {
    /// Logits in the shape that the problem has given them, counted from the first, padding included: their
    /// bytes in the dtype of the problem and the byte order of this machine.
    ///
    /// # Errors
    /// The source's own.
    fn logits(
        &mut self,
        elements: Range<usize>,
        put: &mut dyn FnMut(&[u8]),
    ) -> std::result::Result<(), StreamError>;

    /// One class index per row.
    ///
    /// # Errors
    /// The source's own.
    fn labels(
        &mut self,
        _: Range<usize>,
        _: &mut dyn FnMut(&[i64]),
    ) -> std::result::Result<(), StreamError> {
        Err("there are no labels".into())
    }

    /// Dense labels or vectors, in the shape of the logits.
    ///
    /// # Errors
    /// The source's own.
    fn dense(
        &mut self,
        _: Range<usize>,
        _: &mut dyn FnMut(&[f32]),
    ) -> std::result::Result<(), StreamError> {
        Err("there are no dense labels".into())
    }

    /// An upstream gradient for each row, or one for all.
    ///
    /// # Errors
    /// The source's own.
    fn upstream(
        &mut self,
        _: Range<usize>,
        _: &mut dyn FnMut(&[f32]),
    ) -> std::result::Result<(), StreamError> {
        Err("there is no upstream gradient".into())
    }

    /// One weight per class; none where the problem has none.
    fn class_weights(&self) -> &[f32] {
        &[]
    }
}

/// Some values of an output.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Of [`Wanted::Softmax`], [`Wanted::LogSoftmax`] and [`Wanted::Grad`] in their dtype; of the others
    /// f32.
    Floats(Logits<'a>),
    /// Of [`Wanted::Predictions`].
    Classes(&'a [i32]),
    /// Of [`Wanted::Correct`], 0 or 1.
    Flags(&'a [u32]),
}

/// Where results go.
pub trait Sink: Send {
    /// Takes values of an output, from number `at` on: of elements in the shape of the logits, or of rows.
    /// Each comes once, mostly in order; padding that is [kept](crate::Padding::Kept) never comes. Losses
    /// that are not reduced are [`Wanted::Losses`] and [`Wanted::ZLosses`].
    ///
    /// # Errors
    /// The sink's own.
    fn take(
        &mut self,
        output: Wanted,
        at: usize,
        values: Values<'_>,
    ) -> std::result::Result<(), StreamError>;

    /// So many rows are done.
    fn done(&mut self, _rows: usize) {}
}

/// A batch in memory.
impl Source for Batch<'_> {
    fn logits(
        &mut self,
        elements: Range<usize>,
        put: &mut dyn FnMut(&[u8]),
    ) -> std::result::Result<(), StreamError> {
        put(self.logits.bytes(elements));
        Ok(())
    }

    fn labels(
        &mut self,
        rows: Range<usize>,
        put: &mut dyn FnMut(&[i64]),
    ) -> std::result::Result<(), StreamError> {
        let Labels::Index(labels) = self.labels else {
            return Err("there are no labels".into());
        };
        let mut some = [0; 256];
        let mut at = rows.start;
        while at < rows.end {
            let count = some.len().min(rows.end - at);
            for (row, label) in (at..).zip(&mut some[..count]) {
                // All that have been checked fit.
                *label = i64::try_from(labels.label(row))?;
            }
            put(&some[..count]);
            at += count;
        }
        Ok(())
    }

    fn dense(
        &mut self,
        elements: Range<usize>,
        put: &mut dyn FnMut(&[f32]),
    ) -> std::result::Result<(), StreamError> {
        if let Labels::Dense(values) | Labels::Vector(values) = self.labels {
            put(&values[elements]);
        }
        Ok(())
    }

    fn upstream(
        &mut self,
        rows: Range<usize>,
        put: &mut dyn FnMut(&[f32]),
    ) -> std::result::Result<(), StreamError> {
        put(&self.upstream[rows]);
        Ok(())
    }

    fn class_weights(&self) -> &[f32] {
        self.class_weights
    }
}

/// Values that one thread takes at a time.
const PART: usize = 1 << 19;

/// Results in memory.
pub(crate) struct Collected {
    pub results: Results,
    /// Threads that copy.
    pub threads: usize,
}

impl Sink for Collected {
    fn take(
        &mut self,
        output: Wanted,
        at: usize,
        values: Values<'_>,
    ) -> std::result::Result<(), StreamError> {
        let results = &mut self.results;
        let floats = match output {
            Wanted::Softmax => &mut results.softmax,
            Wanted::LogSoftmax => &mut results.log_softmax,
            Wanted::Grad => &mut results.grad,
            Wanted::Losses => &mut results.losses,
            Wanted::Lse => &mut results.lse,
            Wanted::Entropy => &mut results.entropy,
            Wanted::ZLosses => &mut results.z_losses,
            Wanted::Predictions | Wanted::Correct | Wanted::Loss | Wanted::ZLoss => &mut None,
        };
        match values {
            Values::Floats(values) => {
                let Some(all) = floats else { return Ok(()) };
                let all = &mut all[at..at + values.len()];
                match values {
                    Logits::F32(values) => copy(self.threads, all, values, |value| value),
                    Logits::F16(values) => copy(self.threads, all, values, f16::to_f32),
                    Logits::Bf16(values) => copy(self.threads, all, values, bf16::to_f32),
                }
            }
            Values::Classes(values) => {
                let all = results
                    .predictions
                    .iter_mut()
                    .flat_map(|all| &mut all[at..]);
                all.zip(values).for_each(|(to, &value)| *to = value.into());
            }
            Values::Flags(values) => {
                let all = results
                    .correct_rows
                    .iter_mut()
                    .flat_map(|all| &mut all[at..]);
                all.zip(values).for_each(|(to, &value)| *to = value != 0);
            }
        }
        Ok(())
    }
}

fn copy<T: Copy + Sync>(threads: usize, all: &mut [f32], values: &[T], change: fn(T) -> f32) {
    let parts = all.chunks_mut(PART).zip(values.chunks(PART));
    threads::in_parallel(threads, parts.collect(), |(all, values)| {
        for (to, &value) in all.iter_mut().zip(values) {
            *to = change(value);
        }
    });
}

/// Rows that are looked at at once.
const ROWS: usize = 1 << 16;

/// Checks what a source gives beside the logits, as [`Problem::check`] does, and counts the rows that are
/// not ignored.
pub(crate) fn check(problem: &Problem, source: &mut dyn Source) -> Result<u64> {
    problem.check_constants(source.class_weights())?;
    let rows = problem.rows();
    let blocks = |rows: usize| {
        let block = move |start: usize| start..rows.min(start + ROWS);
        (0..rows).step_by(ROWS).map(block)
    };
    let upstream = match problem.upstream() {
        Upstream::PerRow => rows,
        Upstream::Shared => 1,
        Upstream::Number(_) => 0,
    };
    for block in blocks(upstream) {
        let mut row = block.start;
        let mut bad = Ok(());
        let given = source.upstream(block.clone(), &mut |values| {
            if bad.is_ok() {
                bad = problem.check_upstream(row, values);
            }
            row += values.len();
        });
        given.map_err(failed("the upstream gradient"))?;
        bad?;
        expect("the upstream gradient", block.len(), row - block.start)?;
    }
    let LabelKind::Index { .. } = problem.labels() else {
        return Ok(rows as u64);
    };
    let mut valid = 0;
    for block in blocks(rows) {
        let mut row = block.start;
        let mut bad = Ok(());
        let given = source.labels(block.clone(), &mut |labels| {
            for &label in labels {
                match problem.check_label(row, label.into()) {
                    Ok(counts) => valid += u64::from(counts),
                    Err(error) if bad.is_ok() => bad = Err(error),
                    Err(_) => {}
                }
                row += 1;
            }
        });
        given.map_err(failed("the labels"))?;
        bad?;
        expect("the labels", block.len(), row - block.start)?;
    }
    Ok(valid)
}

/// What a source failed to give, or a sink to take.
pub(crate) fn failed(what: &'static str) -> impl FnOnce(StreamError) -> Error {
    move |source| Error::Stream { what, source }
}

/// Refuses more or fewer values than were asked for.
pub(crate) fn expect(what: &'static str, asked: usize, given: usize) -> Result<()> {
    if asked == given {
        return Ok(());
    }
    let source = format!("{given} values came where {asked} were asked for").into();
    Err(Error::Stream { what, source })
}

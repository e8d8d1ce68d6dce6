//! Slices in, results out: a stream of one or more chunks of rows.

use std::time::Duration;

use crate::engine::{Engine, Prepared};
use crate::error::{Error, Result};
use crate::kernel::Strategy;
use crate::plan::Plan;
use crate::problem::{
    Batch, Denominator, EmptyMean, LabelKind, Problem, Reduction, Results, Wanted,
};
use crate::record::{Piece, Work};
use crate::source::{self, Collected, Sink, Source};
use crate::stream::{Stream, copying_threads};

/// Where the time of a host call went: what the host did, one after the other, so that the parts add
/// up. While it uploads and downloads chunks, the device works on others: a batch of several chunks is
/// limited by the device where `waiting` is most of it, else by the host. On a software driver both
/// share the processor, and uploads and downloads take longer for it. All 0 in a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// Planning, pipelines, buffers.
    pub setup: Duration,
    /// Writing the inputs where the device reads them, and submitting its work.
    pub upload: Duration,
    /// Waiting for the device: copies and kernels, as far as they outlast what goes on beside them.
    pub waiting: Duration,
    /// Taking the results from where the device wrote them.
    pub download: Duration,
}

/// A clock that has been started. There is none in a browser.
#[derive(Clone, Copy)]
pub(crate) struct Watch(#[cfg(not(target_arch = "wasm32"))] std::time::Instant);

impl Watch {
    pub(crate) fn start() -> Watch {
        Watch(
            #[cfg(not(target_arch = "wasm32"))]
            std::time::Instant::now(),
        )
    }

    pub(crate) fn elapsed(self) -> Duration {
        #[cfg(not(target_arch = "wasm32"))]
        return self.0.elapsed();
        #[cfg(target_arch = "wasm32")]
        Duration::ZERO
    }
}

impl Engine {
    /// Runs a problem on a batch.
    ///
    /// # Errors
    /// Those of [`Problem::check`] before anything is dispatched, those of [`Plan::new`] and of the
    /// pipelines that it needs, and device faults. No partial result is ever returned.
    pub async fn run(&self, problem: &Problem, batch: &Batch<'_>) -> Result<Results> {
        Ok(self.run_timed(problem, batch).await?.0)
    }

    /// [`Engine::run`], waiting for it.
    ///
    /// # Errors
    /// As [`Engine::run`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run_blocking(&self, problem: &Problem, batch: &Batch<'_>) -> Result<Results> {
        pollster::block_on(self.run(problem, batch))
    }

    /// [`Engine::run`], and where the time went.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub async fn run_timed(
        &self,
        problem: &Problem,
        batch: &Batch<'_>,
    ) -> Result<(Results, Times)> {
        let watch = Watch::start();
        let valid = problem.check(batch)?;
        let plan = Plan::new(problem, self.profile())?;
        self.run_batch(problem, plan, batch, valid, watch).await
    }

    /// [`Engine::run`] with a strategy of the caller's choice; results have the same bits.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub async fn run_with(
        &self,
        problem: &Problem,
        batch: &Batch<'_>,
        strategy: Strategy,
    ) -> Result<Results> {
        let watch = Watch::start();
        let valid = problem.check(batch)?;
        let plan = Plan::with_strategy(problem, self.profile(), strategy)?;
        Ok(self.run_batch(problem, plan, batch, valid, watch).await?.0)
    }

    /// [`Engine::run`] on a batch of any size, of which a few rows at a time are in memory, or windows of
    /// one row: values come from a [`Source`], and results go to a [`Sink`]. What is returned are the
    /// reduced losses and the counts. The bits are those of [`Engine::run`].
    ///
    /// ```no_run
    /// use std::ops::Range;
    /// use softxent::{Logits, Problem, Sink, Source, StreamError, Values, Wanted};
    ///
    /// /// Rows whose logits are 0, 1, 2, … again and again.
    /// struct Steps;
    ///
    /// impl Source for Steps {
    ///     fn logits(
    ///         &mut self,
    ///         elements: Range<usize>,
    ///         put: &mut dyn FnMut(&[u8]),
    ///     ) -> Result<(), StreamError> {
    ///         elements.for_each(|at| put(&((at % 10) as f32).to_ne_bytes()));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// /// The smallest of what comes.
    /// struct Smallest(f32);
    ///
    /// impl Sink for Smallest {
    ///     fn take(&mut self, _: Wanted, _: usize, values: Values<'_>) -> Result<(), StreamError> {
    ///         if let Values::Floats(Logits::F32(lse)) = values {
    ///             self.0 = lse.iter().copied().fold(self.0, f32::min);
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # async fn example(engine: softxent::Engine) -> softxent::Result<()> {
    /// let problem = Problem::of(1_000_000_000, 10).want([Wanted::Lse]).build()?;
    /// let mut smallest = Smallest(f32::MAX);
    /// let engine = engine.with_memory(64 << 20);
    /// engine.run_stream(&problem, &mut Steps, &mut smallest).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Chunks take the memory that [`Engine::with_memory`] allows. A source is asked for all labels and
    /// upstream gradients once before anything is dispatched, and again with the rows.
    ///
    /// # Errors
    /// As [`Engine::run`]; [`Error::Stream`] with what the source or the sink failed with. The sink may have
    /// taken a part of the results by then.
    pub async fn run_stream(
        &self,
        problem: &Problem,
        source: &mut dyn Source,
        sink: &mut dyn Sink,
    ) -> Result<(Results, Times)> {
        let watch = Watch::start();
        let valid = source::check(problem, source)?;
        let plan = Plan::new(problem, self.profile())?;
        self.run_steps(problem, plan, source, sink, valid, watch)
            .await
    }

    async fn run_batch(
        &self,
        problem: &Problem,
        plan: Plan,
        batch: &Batch<'_>,
        valid: usize,
        watch: Watch,
    ) -> Result<(Results, Times)> {
        let mut collected = Collected {
            results: empty_results(problem)?,
            threads: copying_threads(self),
        };
        let mut source = *batch;
        let steps = self.run_steps(
            problem,
            plan,
            &mut source,
            &mut collected,
            valid as u64,
            watch,
        );
        let (totals, times) = steps.await?;
        let results = Results {
            loss: totals.loss,
            z_loss: totals.z_loss,
            correct: totals.correct,
            valid_rows: totals.valid_rows,
            nan_rows: totals.nan_rows,
            first_nan_row: totals.first_nan_row,
            ..collected.results
        };
        Ok((results, times))
    }

    async fn run_steps(
        &self,
        problem: &Problem,
        plan: Plan,
        source: &mut dyn Source,
        sink: &mut dyn Sink,
        valid: u64,
        watch: Watch,
    ) -> Result<(Results, Times)> {
        let plan = plan.counted_by_host(problem);
        let prepared = self.prepare_plan(problem, plan).await?;
        let mut results = empty_totals(problem);
        results.valid_rows = valid;
        if problem.rows() == 0 {
            let empty = matches!(
                problem.denominator(),
                Denominator::Weights | Denominator::ValidRows
            ) && problem.reduction() == Reduction::Mean
                && problem.empty_mean() == EmptyMean::Nan;
            let of_nothing = if empty { f32::NAN } else { 0.0 };
            results.loss = results.loss.map(|_| of_nothing);
            results.z_loss = results.z_loss.map(|_| of_nothing);
            return Ok((results, Times::default()));
        }
        self.alive()?;
        // Weights are counted by 32 bits on the device, and exact sums have room for so many rows.
        let (limit, bits) = match problem.sums_weights() {
            true => ("rows whose weights a mean divides by", 32),
            false => ("rows of a batch", 36),
        };
        if problem.rows() as u64 >> bits != 0 {
            return Err(Error::DeviceTooSmall {
                limit,
                found: (1 << bits) - 1,
                needed: problem.rows() as u64,
            });
        }
        let mut stream = Stream::new(self, &prepared, source, sink, results).await?;
        let setup = watch.elapsed();
        let windows = prepared.plan().has_windows(problem);
        if problem.sums_weights() && prepared.plan().count.is_some() {
            for mut piece in pieces(&prepared) {
                let is_last = piece.rows.end == problem.rows();
                if windows {
                    piece = stream.label_window(piece.rows.start)?;
                }
                stream.send(Work::Count, piece, is_last).await?;
            }
        }
        for piece in pieces(&prepared) {
            let is_last = piece.rows.end == problem.rows();
            if !windows {
                stream.send(Work::Rows, piece, is_last).await?;
                continue;
            }
            let row = piece.rows.start;
            for piece in row_windows(&prepared, row, problem.classes()) {
                stream.send(Work::States, piece, false).await?;
            }
            // Where nothing is written there is nothing to see of the row either.
            let writes = problem.outputs().iter().any(Wanted::has_classes);
            let columns = if writes { problem.row_length() } else { 1 };
            let mut work = Work::Finish;
            for piece in row_windows(&prepared, row, columns) {
                let is_last = is_last && piece.columns.end == columns;
                stream.send(work, piece, is_last).await?;
                work = Work::Write;
            }
        }
        let (results, mut times) = stream.finish().await?;
        times.setup += setup;
        Ok((results, times))
    }
}

/// All rows of a batch, cut into pieces: of interleaved rows some or all.
fn pieces(prepared: &Prepared) -> impl Iterator<Item = Piece> {
    let (problem, plan) = (prepared.problem(), prepared.plan());
    let (rows, inner, most) = (problem.rows(), problem.inner(), plan.rows_per_chunk);
    let columns = 0..problem.row_length();
    let from = move |start: usize| {
        let end = match most < inner {
            true => (start / inner + 1) * inner,
            false => rows,
        };
        (start < rows).then(|| start..end.min(start + most))
    };
    std::iter::successors(from(0), move |rows| from(rows.end)).map(move |rows| Piece {
        rows,
        columns: columns.clone(),
    })
}

/// So many columns of a row, cut into windows.
fn row_windows(prepared: &Prepared, row: usize, columns: usize) -> impl Iterator<Item = Piece> {
    let step = prepared.plan().columns_per_chunk;
    (0..columns).step_by(step).map(move |start| Piece {
        rows: row..row + 1,
        columns: start..columns.min(start + step),
    })
}

/// A vector of `len` zeros, or an error where the host has no room for it. Untouched memory of a large
/// one costs nothing until it is written.
fn zeros<T: bytemuck::Zeroable>(what: &str, len: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(len).map_err(|()| Error::no_room::<T>(what, len))
}

/// Results of the right lengths, all zeros.
fn empty_results(problem: &Problem) -> Result<Results> {
    let (rows, elements) = (problem.rows(), problem.elements());
    let vector = |wanted: Wanted, len| {
        problem
            .wants(wanted)
            .then(|| zeros(&wanted.to_string(), len))
            .transpose()
    };
    Ok(Results {
        softmax: vector(Wanted::Softmax, elements)?,
        log_softmax: vector(Wanted::LogSoftmax, elements)?,
        grad: vector(Wanted::Grad, elements)?,
        losses: vector(Wanted::Losses, rows)?,
        lse: vector(Wanted::Lse, rows)?,
        predictions: problem
            .wants(Wanted::Predictions)
            .then(|| zeros("predictions", rows))
            .transpose()?,
        entropy: vector(Wanted::Entropy, rows)?,
        correct_rows: problem
            .wants(Wanted::Correct)
            .then(|| zeros("correct", rows))
            .transpose()?,
        z_losses: vector(Wanted::ZLosses, rows)?,
        ..Results::default()
    })
}

/// Results that have no vectors, with 0 for each number that will be one.
fn empty_totals(problem: &Problem) -> Results {
    let reduced =
        |wanted| (problem.wants(wanted) && problem.reduction() != Reduction::None).then_some(0.0);
    let index_labels = matches!(problem.labels(), LabelKind::Index { .. });
    let compared = problem.wants(Wanted::Predictions) || problem.wants(Wanted::Correct);
    Results {
        loss: reduced(Wanted::Loss),
        z_loss: reduced(Wanted::ZLoss),
        correct: (index_labels && compared).then_some(0),
        ..Results::default()
    }
}

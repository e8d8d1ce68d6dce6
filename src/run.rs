//! Slices in, results out: a stream of one or more chunks of rows.

use std::time::Duration;

use crate::engine::{Engine, Prepared};
use crate::error::{Error, Result};
use crate::kernel::Strategy;
use crate::plan::Plan;
use crate::problem::{
    Batch, Denominator, EmptyMean, LabelKind, Problem, Reduction, Results, Wanted,
};
use crate::record::Chunk;
use crate::stream::{Stream, Work};

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
    /// Those of [`Problem::check`] before anything is dispatched, those of
    /// [`Engine::prepare`], and device faults. No partial result is ever returned.
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
        let plan = Plan::new(problem, self.profile())?.counted_by_host(problem);
        let prepared = self.prepare_plan(problem, plan).await?;
        self.run_chunks(&prepared, batch, valid, watch).await
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
        let plan = plan.counted_by_host(problem);
        let prepared = self.prepare_plan(problem, plan).await?;
        Ok(self.run_chunks(&prepared, batch, valid, watch).await?.0)
    }

    async fn run_chunks(
        &self,
        prepared: &Prepared,
        batch: &Batch<'_>,
        valid: usize,
        watch: Watch,
    ) -> Result<(Results, Times)> {
        let problem = prepared.problem();
        let mut results = empty_results(problem)?;
        results.valid_rows = valid as u64;
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
        if u32::try_from(valid).is_err() {
            return Err(Error::TooLarge {
                rows: problem.rows(),
                classes: problem.classes(),
            });
        }
        let mut stream = Stream::new(self, prepared, batch, results).await?;
        let setup = watch.elapsed();
        let chunk_at = |rows_before: usize| {
            let left = problem.rows() - rows_before;
            let rows = left.min(prepared.plan().rows_per_chunk);
            (rows > 0).then_some(Chunk { rows, rows_before })
        };
        let chunks = || {
            let after = |chunk: &Chunk| chunk_at(chunk.rows_before + chunk.rows);
            std::iter::successors(chunk_at(0), after)
        };
        if problem.sums_weights() && !prepared.plan().count.is_empty() {
            for chunk in chunks() {
                stream.send(Work::Count, chunk).await?;
            }
        }
        for chunk in chunks() {
            stream.send(Work::Rows, chunk).await?;
        }
        let (results, mut times) = stream.finish().await?;
        times.setup += setup;
        Ok((results, times))
    }
}

/// A vector of `len` zeros, or an error where the host has no room for it. Untouched memory of a large
/// one costs nothing until it is written.
fn zeros<T: bytemuck::Zeroable>(what: &str, len: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(len).map_err(|()| Error::OutOfMemory {
        place: "host",
        what: what.to_owned(),
        bytes: (len as u64).saturating_mul(size_of::<T>() as u64),
    })
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
    let reduced =
        |wanted| (problem.wants(wanted) && problem.reduction() != Reduction::None).then_some(0.0);
    let index_labels = matches!(problem.labels(), LabelKind::Index { .. });
    let compared = problem.wants(Wanted::Predictions) || problem.wants(Wanted::Correct);
    Ok(Results {
        softmax: vector(Wanted::Softmax, elements)?,
        log_softmax: vector(Wanted::LogSoftmax, elements)?,
        grad: vector(Wanted::Grad, elements)?,
        losses: vector(Wanted::Losses, rows)?,
        lse: vector(Wanted::Lse, rows)?,
        loss: reduced(Wanted::Loss),
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
        z_loss: reduced(Wanted::ZLoss),
        correct: (index_labels && compared).then_some(0),
        ..Results::default()
    })
}

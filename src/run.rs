//! Slices in, results out: a stream of one or more chunks of rows.

use std::time::{Duration, Instant};

use crate::engine::{Engine, Prepared};
use crate::error::{Error, Result};
use half::{bf16, f16};

use crate::kernel::{STATUS_WORDS, Slot, Strategy, device_ignore_index};
use crate::problem::{
    Batch, Denominator, Dtype, EmptyMean, LabelKind, Labels, Padding, Problem, Reduction, Results,
    Upstream, Wanted,
};
use crate::record::{BufferRange, Buffers, Chunk, STATUS_SIZE, Status};

/// Where the time of a host call went. Chunks come one after the other, so the parts add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// Planning, pipelines, buffers.
    pub setup: Duration,
    /// Handing the inputs to the driver.
    pub upload: Duration,
    /// From submission to the end of the work, with the copies on the device.
    pub kernels: Duration,
    /// Mapping and copying the results.
    pub download: Duration,
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
        let started = Instant::now();
        let valid = problem.check(batch)?;
        let prepared = self.prepare(problem).await?;
        self.run_chunks(&prepared, batch, valid, started).await
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
        let started = Instant::now();
        let valid = problem.check(batch)?;
        let prepared = self.prepare_with(problem, strategy).await?;
        Ok(self.run_chunks(&prepared, batch, valid, started).await?.0)
    }

    async fn run_chunks(
        &self,
        prepared: &Prepared,
        batch: &Batch<'_>,
        valid: usize,
        started: Instant,
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
        let device = ChunkBuffers::new(self, prepared).await?;
        let mut times = Times {
            setup: started.elapsed(),
            ..Times::default()
        };
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
                device
                    .count(self, prepared, batch, chunk, &mut times)
                    .await?;
            }
        }
        for chunk in chunks() {
            device
                .run(self, prepared, batch, chunk, &mut results, &mut times)
                .await?;
        }
        Ok((results, times))
    }
}

/// A vector of `len` zeros, or an error where the host has no room for it.
fn zeros<T: Clone + Default>(what: &str, len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(len)
        .map_err(|_| Error::OutOfMemory {
            place: "host",
            what: what.to_owned(),
            bytes: (len as u64).saturating_mul(size_of::<T>() as u64),
        })?;
    values.resize(len, T::default());
    Ok(values)
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

/// The buffers of one chunk, used for every chunk of a call.
struct ChunkBuffers {
    logits: wgpu::Buffer,
    /// The other arrays of the problem.
    arrays: Vec<(Slot, wgpu::Buffer)>,
    /// The status, and the reduced losses behind it.
    totals: wgpu::Buffer,
    scratch: wgpu::Buffer,
    staging: wgpu::Buffer,
}

/// Bytes before the loss, and again before the z-loss, among the totals: a multiple of every alignment
/// that a binding may need.
const LOSS_OFFSET: u64 = 256;
/// Bytes of the totals.
const TOTALS_SIZE: u64 = 2 * LOSS_OFFSET + 4;

impl ChunkBuffers {
    async fn new(engine: &Engine, prepared: &Prepared) -> Result<Self> {
        use wgpu::BufferUsages as Usage;
        let problem = prepared.problem();
        let chunk_rows = prepared.plan().rows_per_chunk.min(problem.rows());
        let size_of = |slot| problem.size_of(slot, chunk_rows as u64);
        let input = Usage::STORAGE | Usage::COPY_DST;
        let output = Usage::STORAGE | Usage::COPY_SRC;
        let mut arrays = Vec::new();
        let mut largest = TOTALS_SIZE;
        for (slot, usage) in [
            (Slot::Labels, input),
            (Slot::ClassWeights, input),
            (Slot::Upstream, input),
            (Slot::Softmax, output),
            (Slot::LogSoftmax, output),
            (Slot::Grad, output),
            (Slot::Losses, output),
            (Slot::Lse, output),
            (Slot::Predictions, output),
            (Slot::Entropy, output),
            (Slot::Correct, output),
            (Slot::ZLosses, output),
        ] {
            if let Some(size) = size_of(slot) {
                largest = largest.max(size);
                arrays.push((slot, engine.buffer(slot.name(), size, usage).await?));
            }
        }
        let logits = size_of(Slot::Logits).unwrap_or_default();
        let scratch = prepared.scratch_size_for(engine, chunk_rows);
        Ok(ChunkBuffers {
            logits: engine
                .buffer("logits", logits, input | Usage::COPY_SRC)
                .await?,
            arrays,
            totals: engine.buffer("totals", TOTALS_SIZE, output).await?,
            scratch: engine.buffer("scratch", scratch, Usage::STORAGE).await?,
            staging: engine
                .buffer(
                    "staging",
                    largest.max(logits),
                    Usage::MAP_READ | Usage::COPY_DST,
                )
                .await?,
        })
    }

    fn array(&self, slot: Slot) -> Option<&wgpu::Buffer> {
        let found = self.arrays.iter().find(|(of, _)| *of == slot);
        found.map(|(_, buffer)| buffer)
    }

    fn views(&self, problem: &Problem) -> Buffers<'_> {
        let whole = |slot| self.array(slot).map(BufferRange::whole);
        let total = |offset, size| BufferRange {
            buffer: &self.totals,
            offset,
            size,
        };
        let reduced = |wanted, offset| {
            (problem.wants(wanted) && problem.reduction() != Reduction::None)
                .then_some(total(offset, 4))
        };
        Buffers {
            labels: whole(Slot::Labels),
            class_weights: whole(Slot::ClassWeights),
            upstream: whole(Slot::Upstream),
            softmax: whole(Slot::Softmax),
            log_softmax: whole(Slot::LogSoftmax),
            grad: whole(Slot::Grad),
            losses: whole(Slot::Losses),
            lse: whole(Slot::Lse),
            predictions: whole(Slot::Predictions),
            entropy: whole(Slot::Entropy),
            correct: whole(Slot::Correct),
            z_losses: whole(Slot::ZLosses),
            loss: reduced(Wanted::Loss, LOSS_OFFSET),
            z_loss: reduced(Wanted::ZLoss, 2 * LOSS_OFFSET),
            ..Buffers::new(
                BufferRange::whole(&self.logits),
                total(0, STATUS_SIZE),
                BufferRange::whole(&self.scratch),
            )
        }
    }

    /// Hands the driver what the rows of a chunk need but the logits.
    async fn upload_labels(
        &self,
        engine: &Engine,
        problem: &Problem,
        batch: &Batch<'_>,
        chunk: Chunk,
    ) -> Result<()> {
        let rows = chunk.rows_before..chunk.rows_before + chunk.rows;
        let cells = rows.start * problem.row_length()..rows.end * problem.row_length();
        let labels = device_labels(problem, batch.labels, rows.clone())?;
        let labels: &[u8] = match batch.labels {
            Labels::None => &[],
            Labels::Index(_) => bytemuck::cast_slice(&labels),
            Labels::Dense(values) | Labels::Vector(values) => bytemuck::cast_slice(&values[cells]),
        };
        let upstream = match problem.upstream() {
            Upstream::Number(_) => &[],
            Upstream::Shared => batch.upstream,
            Upstream::PerRow => &batch.upstream[rows],
        };
        engine
            .guarded("the upload", labels.len() as u64, |_| {
                for (slot, bytes) in [
                    (Slot::Labels, labels),
                    (
                        Slot::ClassWeights,
                        bytemuck::cast_slice(batch.class_weights),
                    ),
                    (Slot::Upstream, bytemuck::cast_slice(upstream)),
                ] {
                    if let Some(buffer) = self.array(slot) {
                        engine.queue().write_buffer(buffer, 0, bytes);
                    }
                }
            })
            .await
    }

    /// Adds what the labels of a chunk add to the denominator.
    async fn count(
        &self,
        engine: &Engine,
        prepared: &Prepared,
        batch: &Batch<'_>,
        chunk: Chunk,
        times: &mut Times,
    ) -> Result<()> {
        let started = Instant::now();
        let problem = prepared.problem();
        self.upload_labels(engine, problem, batch, chunk).await?;
        let bound = prepared
            .bind_counted(engine, &self.views(problem), chunk, 0)
            .await?;
        let last = chunk.rows_before + chunk.rows == problem.rows();
        engine
            .guarded("the count", 0, |device| {
                let mut encoder = device.create_command_encoder(&Default::default());
                bound.record_count(&mut encoder, last);
                engine.queue().submit([encoder.finish()]);
            })
            .await?;
        times.upload += started.elapsed();
        Ok(())
    }

    async fn run(
        &self,
        engine: &Engine,
        prepared: &Prepared,
        batch: &Batch<'_>,
        chunk: Chunk,
        results: &mut Results,
        times: &mut Times,
    ) -> Result<()> {
        let problem = prepared.problem();
        let rows = chunk.rows_before..chunk.rows_before + chunk.rows;
        let cells = rows.start * problem.row_length()..rows.end * problem.row_length();
        let last = rows.end == problem.rows();

        let started = Instant::now();
        self.upload_labels(engine, problem, batch, chunk).await?;
        let logits = batch.logits.bytes(cells.clone());
        engine
            .guarded("the upload", logits.len() as u64, |_| {
                // A write has to be whole words.
                let (words, rest) = logits.split_at(logits.len() / 4 * 4);
                engine.queue().write_buffer(&self.logits, 0, words);
                if !rest.is_empty() {
                    let mut word = [0; 4];
                    word[..rest.len()].copy_from_slice(rest);
                    let end = words.len() as u64;
                    engine.queue().write_buffer(&self.logits, end, &word);
                }
            })
            .await?;
        let valid_rows = results.valid_rows as u32;
        let bound = prepared
            .bind_counted(engine, &self.views(problem), chunk, valid_rows)
            .await?;
        times.upload += started.elapsed();

        let started = Instant::now();
        let submission = engine
            .guarded("the dispatch", 0, |device| {
                let mut encoder = device.create_command_encoder(&Default::default());
                bound.record_counted_rows(&mut encoder);
                if last {
                    bound.record_reduce(&mut encoder);
                }
                engine.queue().submit([encoder.finish()])
            })
            .await?;
        engine.wait("the kernels", Some(submission))?;
        times.kernels += started.elapsed();

        let started = Instant::now();
        let grad = match problem.grad_over_logits() {
            true => Some(&self.logits),
            false => self.array(Slot::Grad),
        };
        for (buffer, values) in [
            (self.array(Slot::Softmax), results.softmax.as_mut()),
            (self.array(Slot::LogSoftmax), results.log_softmax.as_mut()),
            (grad, results.grad.as_mut()),
        ] {
            if let (Some(buffer), Some(values)) = (buffer, values) {
                self.fetch_floats(
                    engine,
                    buffer,
                    problem.dtype_out(),
                    &mut values[cells.clone()],
                )
                .await?;
            }
        }
        if let (true, Some(grad)) = (problem.grad_over_logits(), results.grad.as_mut()) {
            clear_kept_padding(problem, &mut grad[cells]);
        }
        for (slot, values) in [
            (Slot::Losses, results.losses.as_mut()),
            (Slot::Lse, results.lse.as_mut()),
            (Slot::Entropy, results.entropy.as_mut()),
            (Slot::ZLosses, results.z_losses.as_mut()),
        ] {
            if let (Some(buffer), Some(values)) = (self.array(slot), values) {
                self.fetch_floats(engine, buffer, Dtype::F32, &mut values[rows.clone()])
                    .await?;
            }
        }
        let words = 4 * rows.len() as u64;
        if let (Some(buffer), Some(values)) =
            (self.array(Slot::Predictions), results.predictions.as_mut())
        {
            self.fetch(engine, buffer, words, |bytes| {
                for (value, word) in values[rows.clone()].iter_mut().zip(bytes.chunks_exact(4)) {
                    *value = i64::from(bytemuck::pod_read_unaligned::<i32>(word));
                }
            })
            .await?;
        }
        if let (Some(buffer), Some(values)) =
            (self.array(Slot::Correct), results.correct_rows.as_mut())
        {
            self.fetch(engine, buffer, words, |bytes| {
                for (value, word) in values[rows].iter_mut().zip(bytes.chunks_exact(4)) {
                    *value = word[0] != 0;
                }
            })
            .await?;
        }
        if last {
            self.fetch_totals(engine, results).await?;
        }
        times.download += started.elapsed();
        Ok(())
    }

    /// The reduced losses and what the device counted.
    async fn fetch_totals(&self, engine: &Engine, results: &mut Results) -> Result<()> {
        let mut words = [0; STATUS_WORDS];
        let (mut loss, mut z_loss) = (0.0, 0.0);
        self.fetch(engine, &self.totals, TOTALS_SIZE, |bytes| {
            let (status, rest) = bytes.split_at(STATUS_SIZE as usize);
            bytemuck::cast_slice_mut(&mut words).copy_from_slice(status);
            let number = |offset: u64| {
                let at = (offset - STATUS_SIZE) as usize;
                bytemuck::pod_read_unaligned::<f32>(&rest[at..at + 4])
            };
            (loss, z_loss) = (number(LOSS_OFFSET), number(2 * LOSS_OFFSET));
        })
        .await?;
        let status = Status::from_words(&words);
        if u64::from(status.valid_rows) != results.valid_rows {
            return Err(Error::Driver {
                what: "the sums of the batch".to_owned(),
                reason: format!(
                    "it counted {} rows, there are {}",
                    status.valid_rows, results.valid_rows
                ),
            });
        }
        results.nan_rows = u64::from(status.nan_rows);
        results.first_nan_row = status.first_nan_row.map(u64::from);
        results.correct = results.correct.map(|_| u64::from(status.correct));
        results.loss = results.loss.map(|_| loss);
        results.z_loss = results.z_loss.map(|_| z_loss);
        Ok(())
    }

    /// Copies the first numbers of a buffer to the host.
    async fn fetch_floats(
        &self,
        engine: &Engine,
        buffer: &wgpu::Buffer,
        dtype: Dtype,
        values: &mut [f32],
    ) -> Result<()> {
        let size = (dtype.size() * values.len()) as u64;
        self.fetch(engine, buffer, size.next_multiple_of(4), |bytes| {
            let widen: fn(&[u8]) -> f32 = match dtype {
                Dtype::F32 => return bytemuck::cast_slice_mut(values).copy_from_slice(bytes),
                Dtype::F16 => |half| bytemuck::pod_read_unaligned::<f16>(half).to_f32(),
                Dtype::Bf16 => |half| bytemuck::pod_read_unaligned::<bf16>(half).to_f32(),
            };
            for (value, half) in values.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = widen(half);
            }
        })
        .await
    }

    /// Copies the first bytes of a buffer to the host.
    async fn fetch(
        &self,
        engine: &Engine,
        buffer: &wgpu::Buffer,
        size: u64,
        read: impl FnOnce(&[u8]),
    ) -> Result<()> {
        engine
            .guarded("the read-back", size, |device| {
                let mut encoder = device.create_command_encoder(&Default::default());
                encoder.copy_buffer_to_buffer(buffer, 0, &self.staging, 0, size);
                engine.queue().submit([encoder.finish()]);
            })
            .await?;
        engine.read_back(&self.staging, size, read).await
    }
}

/// Where the gradient went over the logits, padding that nobody wrote holds what the batch did.
fn clear_kept_padding(problem: &Problem, values: &mut [f32]) {
    if problem.padding() == Padding::Kept {
        let inner = problem.inner();
        for group in values.chunks_exact_mut(problem.row_length() * inner) {
            group[problem.classes() * inner..].fill(0.0);
        }
    }
}

/// Index labels as the device reads them; every one has been checked.
fn device_labels(
    problem: &Problem,
    labels: Labels<'_>,
    rows: std::ops::Range<usize>,
) -> Result<Vec<i32>> {
    let (LabelKind::Index { ignore_index }, Labels::Index(labels)) = (problem.labels(), labels)
    else {
        return Ok(Vec::new());
    };
    let mut narrowed: Vec<i32> = zeros("labels", rows.len())?;
    for (narrow, row) in narrowed.iter_mut().zip(rows) {
        let label = labels.label(row);
        *narrow = if label == i128::from(ignore_index) {
            device_ignore_index(ignore_index)
        } else {
            label as i32
        };
    }
    Ok(narrowed)
}

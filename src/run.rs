//! Slices in, results out: a stream of one or more chunks of rows.

use std::time::{Duration, Instant};

use crate::engine::{Engine, Prepared};
use crate::error::{Error, Result};
use crate::kernel::{STATUS_WORDS, Strategy};
use crate::problem::{
    Batch, Denominator, LabelKind, Labels, Problem, Reduction, Results, Upstream, Wanted,
};
use crate::record::{BufferRange, Buffers, Chunk, STATUS_SIZE, Status, device_ignore_index};

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
            results.loss = results.loss.map(|_| match problem.denominator() {
                Denominator::Weights if problem.reduction() == Reduction::Mean => f32::NAN,
                _ => 0.0,
            });
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
        let mut rows_before = 0;
        while rows_before < problem.rows() {
            let rows = prepared
                .plan()
                .rows_per_chunk
                .min(problem.rows() - rows_before);
            let chunk = Chunk { rows, rows_before };
            device
                .run(self, prepared, batch, chunk, &mut results, &mut times)
                .await?;
            rows_before += rows;
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
    let (rows, classes) = (problem.rows(), problem.classes());
    let vector = |wanted: Wanted, len| {
        problem
            .wants(wanted)
            .then(|| zeros(&wanted.to_string(), len))
            .transpose()
    };
    let index_labels = matches!(problem.labels(), LabelKind::Index { .. });
    Ok(Results {
        softmax: vector(Wanted::Softmax, rows * classes)?,
        log_softmax: vector(Wanted::LogSoftmax, rows * classes)?,
        grad: vector(Wanted::Grad, rows * classes)?,
        losses: vector(Wanted::Losses, rows)?,
        lse: vector(Wanted::Lse, rows)?,
        loss: (problem.wants(Wanted::Loss) && problem.reduction() != Reduction::None)
            .then_some(0.0),
        predictions: problem
            .wants(Wanted::Predictions)
            .then(|| zeros("predictions", rows))
            .transpose()?,
        correct: (index_labels && problem.wants(Wanted::Predictions)).then_some(0),
        ..Results::default()
    })
}

/// The buffers of one chunk, used for every chunk of a call.
struct ChunkBuffers {
    logits: wgpu::Buffer,
    labels: Option<wgpu::Buffer>,
    upstream: Option<wgpu::Buffer>,
    softmax: Option<wgpu::Buffer>,
    log_softmax: Option<wgpu::Buffer>,
    grad: Option<wgpu::Buffer>,
    losses: Option<wgpu::Buffer>,
    lse: Option<wgpu::Buffer>,
    predictions: Option<wgpu::Buffer>,
    /// The status, and the loss at [`LOSS_OFFSET`].
    totals: wgpu::Buffer,
    scratch: wgpu::Buffer,
    staging: wgpu::Buffer,
}

/// Bytes before the loss among the totals: a multiple of every alignment that a binding may need.
const LOSS_OFFSET: u64 = 256;

impl ChunkBuffers {
    async fn new(engine: &Engine, prepared: &Prepared) -> Result<Self> {
        use wgpu::BufferUsages as Usage;
        let problem = prepared.problem();
        let chunk_rows = prepared.plan().rows_per_chunk.min(problem.rows());
        let rows = chunk_rows as u64;
        let matrix = 4 * rows * problem.classes() as u64;
        let input = Usage::STORAGE | Usage::COPY_DST;
        let output = Usage::STORAGE | Usage::COPY_SRC;
        let some = |what: &'static str, size: Option<u64>, usage| async move {
            match size {
                Some(size) => engine.buffer(what, size, usage).await.map(Some),
                None => Ok(None),
            }
        };
        let when = |wanted: bool, size: u64| wanted.then_some(size);
        let (wants_grad, over_logits) = (problem.wants(Wanted::Grad), problem.grad_over_logits());
        let softmax = when(problem.wants(Wanted::Softmax), matrix);
        let log_softmax = when(problem.wants(Wanted::LogSoftmax), matrix);
        let losses = when(problem.wants(Wanted::Losses), 4 * rows);
        let lse = when(problem.wants(Wanted::Lse), 4 * rows);
        let predictions = when(problem.wants(Wanted::Predictions), 4 * rows);
        let labels = match problem.labels() {
            LabelKind::None => None,
            LabelKind::Index { .. } => Some(4 * rows),
            LabelKind::Dense | LabelKind::Vector => Some(matrix),
        };
        let upstream = match problem.upstream() {
            Upstream::Number(_) => None,
            Upstream::Shared => when(wants_grad, 4),
            Upstream::PerRow => when(wants_grad, 4 * rows),
        };
        let totals = LOSS_OFFSET + 4;
        let scratch = prepared.scratch_size_for(engine, chunk_rows);
        Ok(ChunkBuffers {
            logits: engine
                .buffer("logits", matrix, input | Usage::COPY_SRC)
                .await?,
            labels: some("labels", labels, input).await?,
            upstream: some("upstream", upstream, input).await?,
            softmax: some("softmax", softmax, output).await?,
            log_softmax: some("log_softmax", log_softmax, output).await?,
            grad: some("grad", when(wants_grad && !over_logits, matrix), output).await?,
            losses: some("losses", losses, output).await?,
            lse: some("lse", lse, output).await?,
            predictions: some("predictions", predictions, output).await?,
            totals: engine.buffer("totals", totals, output).await?,
            scratch: engine.buffer("scratch", scratch, Usage::STORAGE).await?,
            staging: engine
                .buffer(
                    "staging",
                    matrix.max(4 * rows).max(totals),
                    Usage::MAP_READ | Usage::COPY_DST,
                )
                .await?,
        })
    }

    fn views(&self, problem: &Problem) -> Buffers<'_> {
        let part = |offset, size| BufferRange {
            buffer: &self.totals,
            offset,
            size,
        };
        let reduced = problem.wants(Wanted::Loss) && problem.reduction() != Reduction::None;
        Buffers {
            labels: self.labels.as_ref().map(BufferRange::whole),
            upstream: self.upstream.as_ref().map(BufferRange::whole),
            softmax: self.softmax.as_ref().map(BufferRange::whole),
            log_softmax: self.log_softmax.as_ref().map(BufferRange::whole),
            grad: self.grad.as_ref().map(BufferRange::whole),
            losses: self.losses.as_ref().map(BufferRange::whole),
            lse: self.lse.as_ref().map(BufferRange::whole),
            predictions: self.predictions.as_ref().map(BufferRange::whole),
            loss: reduced.then_some(part(LOSS_OFFSET, 4)),
            ..Buffers::new(
                BufferRange::whole(&self.logits),
                part(0, STATUS_SIZE),
                BufferRange::whole(&self.scratch),
            )
        }
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
        let classes = problem.classes();
        let rows = chunk.rows_before..chunk.rows_before + chunk.rows;
        let cells = rows.start * classes..rows.end * classes;
        let last = rows.end == problem.rows();

        let started = Instant::now();
        let labels = device_labels(problem, batch.labels, rows.clone())?;
        engine
            .guarded("the upload", 4 * cells.len() as u64, |_| {
                let write = |buffer: Option<&wgpu::Buffer>, data: &[u8]| {
                    if let Some(buffer) = buffer {
                        engine.queue().write_buffer(buffer, 0, data);
                    }
                };
                write(Some(&self.logits), batch.logits.bytes(cells.clone()));
                match batch.labels {
                    Labels::None => {}
                    Labels::Index(_) => {
                        write(self.labels.as_ref(), bytemuck::cast_slice(&labels));
                    }
                    Labels::Dense(dense) | Labels::Vector(dense) => write(
                        self.labels.as_ref(),
                        bytemuck::cast_slice(&dense[cells.clone()]),
                    ),
                }
                match problem.upstream() {
                    Upstream::Number(_) => {}
                    Upstream::Shared => {
                        write(self.upstream.as_ref(), bytemuck::cast_slice(batch.upstream))
                    }
                    Upstream::PerRow => write(
                        self.upstream.as_ref(),
                        bytemuck::cast_slice(&batch.upstream[rows.clone()]),
                    ),
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
                bound.record_rows(&mut encoder);
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
            false => self.grad.as_ref(),
        };
        for (buffer, values) in [
            (self.softmax.as_ref(), results.softmax.as_mut()),
            (self.log_softmax.as_ref(), results.log_softmax.as_mut()),
            (grad, results.grad.as_mut()),
        ] {
            if let (Some(buffer), Some(values)) = (buffer, values) {
                let values = &mut values[cells.clone()];
                self.fetch(engine, buffer, 4 * values.len() as u64, |bytes| {
                    bytemuck::cast_slice_mut(values).copy_from_slice(bytes);
                })
                .await?;
            }
        }
        for (buffer, values) in [
            (&self.losses, results.losses.as_mut()),
            (&self.lse, results.lse.as_mut()),
        ] {
            if let (Some(buffer), Some(values)) = (buffer, values) {
                let values = &mut values[rows.clone()];
                self.fetch(engine, buffer, 4 * rows.len() as u64, |bytes| {
                    bytemuck::cast_slice_mut(values).copy_from_slice(bytes);
                })
                .await?;
            }
        }
        if let (Some(buffer), Some(values)) = (&self.predictions, results.predictions.as_mut()) {
            self.fetch(engine, buffer, 4 * rows.len() as u64, |bytes| {
                for (value, word) in values[rows.clone()].iter_mut().zip(bytes.chunks_exact(4)) {
                    *value = i64::from(bytemuck::pod_read_unaligned::<i32>(word));
                }
            })
            .await?;
        }
        if last {
            let mut words = [0; STATUS_WORDS];
            let mut loss = 0.0;
            self.fetch(engine, &self.totals, LOSS_OFFSET + 4, |bytes| {
                let (status, rest) = bytes.split_at(STATUS_SIZE as usize);
                bytemuck::cast_slice_mut(&mut words).copy_from_slice(status);
                loss = bytemuck::pod_read_unaligned(&rest[rest.len() - 4..]);
            })
            .await?;
            let status = Status::from_words(&words);
            if status.valid_rows != valid_rows {
                return Err(Error::Driver {
                    what: "the sums of the batch".to_owned(),
                    reason: format!(
                        "it counted {} rows, there are {valid_rows}",
                        status.valid_rows
                    ),
                });
            }
            results.nan_rows = u64::from(status.nan_rows);
            results.first_nan_row = status.first_nan_row.map(u64::from);
            results.correct = results.correct.map(|_| u64::from(status.correct));
            results.loss = results.loss.map(|_| loss);
        }
        times.download += started.elapsed();
        Ok(())
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

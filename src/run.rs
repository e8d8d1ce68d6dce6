//! Slices in, results out: a stream of one or more chunks of rows.

use std::time::{Duration, Instant};

use crate::engine::{Engine, Prepared};
use crate::error::{Error, Result};
use crate::kernel::{ROW_STATE_WORDS, STATUS_WORDS, Strategy, status};
use crate::problem::{Batch, LabelKind, Labels, Problem, Reduction, Results, Upstream, Wanted};
use crate::record::{BufferRange, Buffers, Chunk, accumulators_size, device_ignore_index};

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
            results.loss = results.loss.map(|_| match problem.reduction() {
                Reduction::Mean => f32::NAN,
                Reduction::None | Reduction::Sum => 0.0,
            });
            return Ok((results, Times::default()));
        }
        self.alive()?;
        let denominator = match problem.reduction() {
            Reduction::Mean => u32::try_from(valid).map_err(|_| Error::TooLarge {
                rows: problem.rows(),
                classes: problem.classes(),
            })?,
            Reduction::None | Reduction::Sum => 1,
        };
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
            let chunk = Chunk {
                rows,
                rows_before,
                denominator,
            };
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
    row_outputs: wgpu::Buffer,
    row_states: wgpu::Buffer,
    accumulators: wgpu::Buffer,
    staging: wgpu::Buffer,
}

impl ChunkBuffers {
    async fn new(engine: &Engine, prepared: &Prepared) -> Result<Self> {
        use wgpu::BufferUsages as Usage;
        let problem = prepared.problem();
        let rows = prepared.plan().rows_per_chunk.min(problem.rows()) as u64;
        let matrix = 4 * rows * problem.classes() as u64;
        let input = Usage::STORAGE | Usage::COPY_DST;
        let output = Usage::STORAGE | Usage::COPY_SRC;
        let buffer = |what: Wanted, wanted: bool| async move {
            match wanted {
                true => engine
                    .buffer(&what.to_string(), matrix, output)
                    .await
                    .map(Some),
                false => Ok(None),
            }
        };
        let over_logits = problem.grad_over_logits();
        let labels = match problem.labels() {
            LabelKind::None => None,
            LabelKind::Index { .. } => Some(4 * rows),
            LabelKind::Dense => Some(matrix),
        };
        let upstream = match problem.upstream() {
            Upstream::Number(_) => 4,
            Upstream::PerRow => 4 * rows,
        };
        Ok(ChunkBuffers {
            logits: engine
                .buffer("logits", matrix, input | Usage::COPY_SRC)
                .await?,
            labels: match labels {
                Some(size) => Some(engine.buffer("labels", size, input).await?),
                None => None,
            },
            upstream: match problem.wants(Wanted::Grad) {
                true => Some(engine.buffer("upstream", upstream, input).await?),
                false => None,
            },
            softmax: buffer(Wanted::Softmax, problem.wants(Wanted::Softmax)).await?,
            log_softmax: buffer(Wanted::LogSoftmax, problem.wants(Wanted::LogSoftmax)).await?,
            grad: buffer(Wanted::Grad, problem.wants(Wanted::Grad) && !over_logits).await?,
            row_outputs: engine
                .buffer(
                    "row outputs",
                    4 * rows * prepared.row_outputs_words() as u64,
                    output,
                )
                .await?,
            row_states: engine
                .buffer(
                    "row states",
                    4 * rows * ROW_STATE_WORDS as u64,
                    Usage::STORAGE,
                )
                .await?,
            accumulators: engine
                .buffer(
                    "accumulators",
                    accumulators_size(),
                    output | Usage::COPY_DST,
                )
                .await?,
            staging: engine
                .buffer(
                    "staging",
                    matrix
                        .max(4 * rows * prepared.row_outputs_words() as u64)
                        .max(4 * STATUS_WORDS as u64),
                    Usage::MAP_READ | Usage::COPY_DST,
                )
                .await?,
        })
    }

    fn views(&self) -> Buffers<'_> {
        Buffers {
            logits: BufferRange::whole(&self.logits),
            labels: self.labels.as_ref().map(BufferRange::whole),
            upstream: self.upstream.as_ref().map(BufferRange::whole),
            softmax: self.softmax.as_ref().map(BufferRange::whole),
            log_softmax: self.log_softmax.as_ref().map(BufferRange::whole),
            grad: self.grad.as_ref().map(BufferRange::whole),
            row_outputs: BufferRange::whole(&self.row_outputs),
            row_states: BufferRange::whole(&self.row_states),
            accumulators: BufferRange::whole(&self.accumulators),
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
                write(
                    Some(&self.logits),
                    bytemuck::cast_slice(&batch.logits[cells.clone()]),
                );
                match batch.labels {
                    Labels::None => {}
                    Labels::Index(_) => {
                        write(self.labels.as_ref(), bytemuck::cast_slice(&labels));
                    }
                    Labels::Dense(dense) => write(
                        self.labels.as_ref(),
                        bytemuck::cast_slice(&dense[cells.clone()]),
                    ),
                }
                match problem.upstream() {
                    Upstream::Number(number) => {
                        write(self.upstream.as_ref(), bytemuck::bytes_of(&number));
                    }
                    Upstream::PerRow => write(
                        self.upstream.as_ref(),
                        bytemuck::cast_slice(&batch.upstream[rows.clone()]),
                    ),
                }
            })
            .await?;
        let bound = prepared.bind(engine, &self.views(), chunk).await?;
        times.upload += started.elapsed();

        let started = Instant::now();
        let submission = engine
            .guarded("the dispatch", 0, |device| {
                let mut encoder = device.create_command_encoder(&Default::default());
                if chunk.rows_before == 0 {
                    encoder.clear_buffer(&self.accumulators, 0, None);
                }
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
        let sections: Vec<Wanted> = prepared.row_sections().collect();
        if !sections.is_empty() {
            let size = 4 * (sections.len() * rows.len()) as u64;
            self.fetch(engine, &self.row_outputs, size, |bytes| {
                for (wanted, section) in sections.iter().zip(bytes.chunks_exact(4 * rows.len())) {
                    let words = section.chunks_exact(4);
                    let floats = match wanted {
                        Wanted::Losses => results.losses.as_mut(),
                        Wanted::Lse => results.lse.as_mut(),
                        _ => None,
                    };
                    if let Some(floats) = floats {
                        for (value, word) in floats[rows.clone()].iter_mut().zip(words) {
                            *value = bytemuck::pod_read_unaligned(word);
                        }
                    } else if let Some(predictions) = results.predictions.as_mut() {
                        for (value, word) in predictions[rows.clone()].iter_mut().zip(words) {
                            *value = i64::from(bytemuck::pod_read_unaligned::<i32>(word));
                        }
                    }
                }
            })
            .await?;
        }
        if last {
            let mut words = [0u32; STATUS_WORDS];
            let size = 4 * STATUS_WORDS as u64;
            self.fetch(engine, &self.accumulators, size, |bytes| {
                bytemuck::cast_slice_mut(&mut words).copy_from_slice(bytes);
            })
            .await?;
            if words[status::VALID_ROWS] != results.valid_rows as u32 {
                return Err(Error::Driver {
                    what: "the sums of the batch".to_owned(),
                    reason: format!(
                        "it counted {} rows, there are {}",
                        words[status::VALID_ROWS],
                        results.valid_rows
                    ),
                });
            }
            results.nan_rows = u64::from(words[status::NAN_ROWS]);
            results.first_nan_row =
                (results.nan_rows > 0).then(|| u64::from(!words[status::FIRST_NAN_ROW]));
            results.correct = results
                .correct
                .map(|_| u64::from(words[status::CORRECT_ROWS]));
            results.loss = results.loss.map(|_| f32::from_bits(words[status::LOSS]));
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

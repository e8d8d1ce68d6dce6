//! Chunks of rows on their way through the device, several at once: while it works on one, the host
//! writes the next into memory that the device reads, and takes the results of the last from memory
//! that it wrote.
//!
//! A chunk travels in a [`Lane`]: its arrays on the device, each with a staging buffer of the same size
//! that the host maps; on a software driver, whose memory is the host's, they are one. All that a chunk
//! needs is one submission: copies in, kernels, copies out. When the device is done with it, the lane
//! takes another chunk. Memory is that of [`LANES`] chunks, on the device and again for staging.

use std::collections::VecDeque;
use std::ops::Range;

use half::{bf16, f16};

use crate::engine::{Engine, Prepared};
use crate::error::{Error, Result};
use crate::kernel::{STATUS_WORDS, Slot, device_ignore_index};
use crate::problem::{
    Batch, Dtype, LabelKind, Labels, Padding, Problem, Reduction, Results, Upstream, Wanted,
};
use crate::record::{BufferRange, Buffers, Chunk, STATUS_SIZE, Status};
use crate::run::{Times, Watch};
use crate::threads;
use crate::transfer::Mapping;

/// Chunks on their way at once: one that the device works on, one that the host does.
const LANES: usize = 2;
/// Bytes before the loss, and again before the z-loss, among the totals: a multiple of every alignment
/// that a binding may need.
const LOSS_OFFSET: u64 = 256;
/// Bytes of the totals.
const TOTALS_SIZE: u64 = 2 * LOSS_OFFSET + 4;

/// What is done with the rows of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Their labels are added to the denominator.
    Count,
    /// All else.
    Rows,
}

/// Bytes that one thread copies at a time.
const PART: usize = 2 << 20;

/// An array of a chunk.
struct Array {
    slot: Slot,
    device: wgpu::Buffer,
    /// Where the host gets at it, unless that is on the device.
    staging: Option<wgpu::Buffer>,
}

impl Array {
    /// The buffer that the host maps.
    fn host(&self) -> &wgpu::Buffer {
        self.staging.as_ref().unwrap_or(&self.device)
    }
}

/// What one chunk travels in.
struct Lane {
    /// Mapped until they are sent, and again when they have landed.
    inputs: Vec<Array>,
    outputs: Vec<Array>,
}

/// A chunk that the device has.
struct Flight {
    lane: Lane,
    work: Work,
    chunk: Chunk,
    submission: wgpu::SubmissionIndex,
    mappings: Vec<Mapping>,
}

/// A batch on its way.
pub(crate) struct Stream<'a> {
    engine: &'a Engine,
    prepared: &'a Prepared,
    batch: &'a Batch<'a>,
    results: Results,
    times: Times,
    /// What every chunk reads: the class weights, an upstream gradient for all.
    constants: Vec<(Slot, wgpu::Buffer)>,
    /// The status, and the reduced losses behind it.
    totals: Array,
    scratch: wgpu::Buffer,
    /// Threads that copy.
    threads: usize,
    /// The first of them was sent first.
    in_flight: VecDeque<Flight>,
}

impl<'a> Stream<'a> {
    /// `results` has the lengths that it will be returned with, and the number of valid rows.
    pub(crate) async fn new(
        engine: &'a Engine,
        prepared: &'a Prepared,
        batch: &'a Batch<'a>,
        results: Results,
    ) -> Result<Stream<'a>> {
        use wgpu::BufferUsages as Usage;
        let problem = prepared.problem();
        let mut constants = Vec::new();
        for (slot, values) in [
            (Slot::ClassWeights, batch.class_weights),
            (Slot::Upstream, batch.upstream),
        ] {
            if let (true, Some(size)) = (is_constant(problem, slot), problem.size_of(slot, 0)) {
                let usage = Usage::STORAGE | Usage::COPY_DST;
                let buffer = engine.buffer(slot.name(), size, usage).await?;
                engine
                    .guarded("the upload", size, |_| {
                        let bytes = bytemuck::cast_slice(values);
                        engine.queue().write_buffer(&buffer, 0, bytes);
                    })
                    .await?;
                constants.push((slot, buffer));
            }
        }
        let scratch = prepared.scratch_size_for(engine, chunk_rows(prepared));
        Ok(Stream {
            engine,
            prepared,
            batch,
            results,
            times: Times::default(),
            constants,
            totals: output(engine, Slot::Status, TOTALS_SIZE, None).await?,
            scratch: engine.buffer("scratch", scratch, Usage::STORAGE).await?,
            // A software driver has its own use for them.
            threads: match engine.profile().software {
                true => 1,
                false => threads::available(),
            },
            in_flight: VecDeque::new(),
        })
    }

    /// Sends a chunk to the device; where [`LANES`] are on their way, once the first of them has landed.
    pub(crate) async fn send(&mut self, work: Work, chunk: Chunk) -> Result<()> {
        let first = match self.in_flight.len() < LANES {
            true => None,
            false => self.in_flight.pop_front(),
        };
        let lane = match first {
            Some(flight) => self.land(flight).await?,
            None => {
                let watch = Watch::start();
                let lane = Lane::new(self.engine, self.prepared).await?;
                self.times.setup += watch.elapsed();
                lane
            }
        };
        let watch = Watch::start();
        let flight = self.launch(lane, work, chunk).await?;
        self.in_flight.push_back(flight);
        self.times.upload += watch.elapsed();
        Ok(())
    }

    /// Waits for all chunks.
    pub(crate) async fn finish(mut self) -> Result<(Results, Times)> {
        while let Some(flight) = self.in_flight.pop_front() {
            self.land(flight).await?;
        }
        Ok((self.results, self.times))
    }

    /// Writes a chunk where the device reads it, and submits all its work.
    async fn launch(&self, lane: Lane, work: Work, chunk: Chunk) -> Result<Flight> {
        let problem = self.prepared.problem();
        let rows = rows_of(chunk);
        let is_last = rows.end == problem.rows();
        let mut copies_in = Vec::new();
        for input in &lane.inputs {
            if work == Work::Rows || input.slot == Slot::Labels {
                let size = self.size(input, chunk);
                self.fill(input, size, rows.clone())?;
                copies_in.push((input, size));
            }
        }
        let copies_out: Vec<(&Array, u64)> = self
            .outputs(&lane, work, chunk)
            .map(|output| (output, self.size(output, chunk)))
            .collect();
        let valid_rows = self.results.valid_rows as u32;
        let bound = self
            .prepared
            .bind_counted(self.engine, &self.buffers(&lane), chunk, valid_rows)
            .await?;
        let (submission, mappings) = self
            .engine
            .guarded("the dispatch", 0, |device| {
                let mut encoder = device.create_command_encoder(&Default::default());
                for (input, size) in &copies_in {
                    input.host().unmap();
                    if let Some(staging) = &input.staging {
                        encoder.copy_buffer_to_buffer(staging, 0, &input.device, 0, *size);
                    }
                }
                match work {
                    Work::Count => bound.record_count(&mut encoder, is_last),
                    Work::Rows => {
                        bound.record_counted_rows(&mut encoder);
                        if is_last {
                            bound.record_reduce(&mut encoder);
                        }
                    }
                }
                for (output, size) in &copies_out {
                    if let Some(staging) = &output.staging {
                        encoder.copy_buffer_to_buffer(&output.device, 0, staging, 0, *size);
                    }
                }
                let submission = self.engine.queue().submit([encoder.finish()]);
                let writable = |(input, _): &(&Array, u64)| {
                    Mapping::ask(input.host(), wgpu::MapMode::Write, input.host().size())
                };
                let readable = |(output, size): &(&Array, u64)| {
                    Mapping::ask(output.host(), wgpu::MapMode::Read, *size)
                };
                let mappings = copies_in.iter().map(writable);
                let mappings = mappings.chain(copies_out.iter().map(readable));
                (submission, mappings.collect())
            })
            .await?;
        Ok(Flight {
            lane,
            work,
            chunk,
            submission,
            mappings,
        })
    }

    /// Waits for a chunk, takes its results, and gives its lane back.
    async fn land(&mut self, flight: Flight) -> Result<Lane> {
        let Flight {
            lane, work, chunk, ..
        } = flight;
        let watch = Watch::start();
        self.engine
            .landed("the kernels", Some(flight.submission), flight.mappings)
            .await?;
        self.times.waiting += watch.elapsed();

        let watch = Watch::start();
        let mut results = std::mem::take(&mut self.results);
        let outputs: Vec<&Array> = self.outputs(&lane, work, chunk).collect();
        for output in &outputs {
            let bytes = self.engine.bytes(output.host(), self.size(output, chunk))?;
            match output.slot {
                Slot::Status => take_totals(&bytes, &mut results)?,
                slot => self.take(slot, &bytes, rows_of(chunk), &mut results),
            }
        }
        self.engine
            .guarded("the read-back", 0, |_| {
                outputs.iter().for_each(|output| output.host().unmap());
            })
            .await?;
        self.results = results;
        self.times.download += watch.elapsed();
        Ok(lane)
    }

    /// What comes back of a chunk.
    fn outputs<'b>(
        &'b self,
        lane: &'b Lane,
        work: Work,
        chunk: Chunk,
    ) -> impl Iterator<Item = &'b Array> {
        let is_last = rows_of(chunk).end == self.prepared.problem().rows();
        let totals = is_last.then_some(&self.totals);
        let outputs = lane.outputs.iter().chain(totals);
        outputs.filter(move |_| work == Work::Rows)
    }

    /// Bytes of an array that the rows of a chunk fill.
    fn size(&self, array: &Array, chunk: Chunk) -> u64 {
        match array.slot {
            Slot::Status => TOTALS_SIZE,
            // Where it goes over the logits the problem has no array for it.
            Slot::Grad => matrix_size(self.prepared.problem(), chunk.rows),
            slot => {
                let size = self.prepared.problem().size_of(slot, chunk.rows as u64);
                size.unwrap_or_default()
            }
        }
    }

    fn buffers<'b>(&'b self, lane: &'b Lane) -> Buffers<'b> {
        let problem = self.prepared.problem();
        let arrays = lane.inputs.iter().chain(&lane.outputs);
        let arrays = arrays.map(|array| (array.slot, &array.device));
        let constants = self.constants.iter().map(|(slot, buffer)| (*slot, buffer));
        let all: Vec<(Slot, &wgpu::Buffer)> = arrays.chain(constants).collect();
        let whole = |slot| {
            let found = all.iter().find(|(of, _)| *of == slot);
            found.map(|(_, buffer)| BufferRange::whole(buffer))
        };
        let total = |offset, size| BufferRange {
            buffer: &self.totals.device,
            offset,
            size,
        };
        let reduced = |wanted, offset| {
            (problem.wants(wanted) && problem.reduction() != Reduction::None)
                .then_some(total(offset, 4))
        };
        let status = total(0, STATUS_SIZE);
        Buffers {
            labels: whole(Slot::Labels),
            class_weights: whole(Slot::ClassWeights),
            upstream: whole(Slot::Upstream),
            softmax: whole(Slot::Softmax),
            log_softmax: whole(Slot::LogSoftmax),
            grad: whole(Slot::Grad).filter(|_| !problem.grad_over_logits()),
            losses: whole(Slot::Losses),
            lse: whole(Slot::Lse),
            predictions: whole(Slot::Predictions),
            entropy: whole(Slot::Entropy),
            correct: whole(Slot::Correct),
            z_losses: whole(Slot::ZLosses),
            loss: reduced(Wanted::Loss, LOSS_OFFSET),
            z_loss: reduced(Wanted::ZLoss, 2 * LOSS_OFFSET),
            ..Buffers::new(
                whole(Slot::Logits).unwrap_or(status),
                status,
                BufferRange::whole(&self.scratch),
            )
        }
    }

    /// Writes the rows of an input where the device reads them, whole words.
    fn fill(&self, input: &Array, size: u64, rows: Range<usize>) -> Result<()> {
        let problem = self.prepared.problem();
        let cells = cells_of(problem, &rows);
        let bytes: &[u8] = match (input.slot, self.batch.labels) {
            (Slot::Logits, _) => self.batch.logits.bytes(cells),
            (Slot::Upstream, _) => bytemuck::cast_slice(&self.batch.upstream[rows]),
            (_, Labels::Dense(values) | Labels::Vector(values)) => {
                bytemuck::cast_slice(&values[cells])
            }
            (_, Labels::Index(labels)) => {
                let narrowed = rows.map(|row| device_label(problem, labels.label(row)));
                let mut words = self.engine.bytes_mut(input.host(), 0..size)?;
                let (words, _) = words.slice(..).into_chunks();
                words.write_iter(narrowed.map(i32::to_ne_bytes));
                return Ok(());
            }
            (_, Labels::None) => &[],
        };
        let mut parts = Vec::new();
        for (bytes, start) in bytes.chunks(PART).zip((0..size).step_by(PART)) {
            let words = start..size.min(start + PART as u64);
            parts.push((self.engine.bytes_mut(input.host(), words)?, bytes));
        }
        threads::in_parallel(self.threads, parts, |(mut words, bytes)| {
            words.slice(..bytes.len()).copy_from_slice(bytes);
            words.slice(bytes.len()..).fill(0);
        });
        Ok(())
    }

    /// Takes the rows of an output from the bytes that the device wrote.
    fn take(&self, slot: Slot, bytes: &[u8], rows: Range<usize>, results: &mut Results) {
        let problem = self.prepared.problem();
        let cells = cells_of(problem, &rows);
        let words = bytes.chunks_exact(4);
        let words = words.map(bytemuck::pod_read_unaligned::<i32>);
        let (values, place, dtype) = match slot {
            Slot::Softmax => (&mut results.softmax, cells, problem.dtype_out()),
            Slot::LogSoftmax => (&mut results.log_softmax, cells, problem.dtype_out()),
            Slot::Grad => (&mut results.grad, cells, problem.dtype_out()),
            Slot::Losses => (&mut results.losses, rows, Dtype::F32),
            Slot::Lse => (&mut results.lse, rows, Dtype::F32),
            Slot::Entropy => (&mut results.entropy, rows, Dtype::F32),
            Slot::ZLosses => (&mut results.z_losses, rows, Dtype::F32),
            Slot::Predictions => {
                let values = results
                    .predictions
                    .iter_mut()
                    .flat_map(|all| &mut all[rows.clone()]);
                values
                    .zip(words)
                    .for_each(|(value, word)| *value = i64::from(word));
                return;
            }
            Slot::Correct => {
                let values = results
                    .correct_rows
                    .iter_mut()
                    .flat_map(|all| &mut all[rows.clone()]);
                values
                    .zip(words)
                    .for_each(|(value, word)| *value = word != 0);
                return;
            }
            _ => return,
        };
        let Some(values) = values else { return };
        let values = &mut values[place];
        let part = PART / size_of::<f32>();
        let parts = values
            .chunks_mut(part)
            .zip(bytes.chunks(part * dtype.size()));
        threads::in_parallel(
            self.threads,
            parts.collect(),
            |(values, bytes)| match dtype {
                Dtype::F32 => bytemuck::cast_slice_mut(values).copy_from_slice(bytes),
                Dtype::F16 => widen(values, bytes, f16::to_f32),
                Dtype::Bf16 => widen(values, bytes, bf16::to_f32),
            },
        );
        if slot == Slot::Grad && problem.grad_over_logits() {
            clear_kept_padding(problem, values);
        }
    }
}

impl Lane {
    async fn new(engine: &Engine, prepared: &Prepared) -> Result<Lane> {
        use wgpu::BufferUsages as Usage;
        let problem = prepared.problem();
        let rows = chunk_rows(prepared);
        let size_of = |slot| problem.size_of(slot, rows as u64);
        let mut inputs = Vec::new();
        for slot in [Slot::Logits, Slot::Labels, Slot::Upstream] {
            if let (false, Some(size)) = (is_constant(problem, slot), size_of(slot)) {
                let on_device = Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC;
                let mapped = Usage::MAP_WRITE | Usage::COPY_SRC;
                let buffer = async |usage| engine.buffer(slot.name(), size, usage).await;
                let (device, staging) = match maps_all(engine) {
                    true => (buffer(on_device | mapped).await?, None),
                    false => (buffer(on_device).await?, Some(buffer(mapped).await?)),
                };
                inputs.push(Array {
                    slot,
                    device,
                    staging,
                });
            }
        }
        let mut outputs = Vec::new();
        for slot in [
            Slot::Softmax,
            Slot::LogSoftmax,
            Slot::Grad,
            Slot::Losses,
            Slot::Lse,
            Slot::Predictions,
            Slot::Entropy,
            Slot::Correct,
            Slot::ZLosses,
        ] {
            let over = slot == Slot::Grad && problem.grad_over_logits();
            if let (true, Some(logits)) = (over, inputs.first()) {
                let size = matrix_size(problem, rows);
                outputs.push(output(engine, slot, size, Some(logits.device.clone())).await?);
            } else if let Some(size) = size_of(slot) {
                outputs.push(output(engine, slot, size, None).await?);
            }
        }
        Ok(Lane { inputs, outputs })
    }
}

/// An array that comes back, on the device in a buffer of its own or where another one was.
async fn output(
    engine: &Engine,
    slot: Slot,
    size: u64,
    over: Option<wgpu::Buffer>,
) -> Result<Array> {
    use wgpu::BufferUsages as Usage;
    let on_device = Usage::STORAGE | Usage::COPY_SRC;
    let mapped = Usage::MAP_READ | Usage::COPY_DST;
    let buffer = async |usage| engine.buffer(slot.name(), size, usage).await;
    let (device, staging) = match over {
        Some(device) => (device, Some(buffer(mapped).await?)),
        None if maps_all(engine) => (buffer(on_device | mapped).await?, None),
        None => (buffer(on_device).await?, Some(buffer(mapped).await?)),
    };
    Ok(Array {
        slot,
        device,
        staging,
    })
}

/// Whether the host gets at all memory of the device, as fast as at its own.
fn maps_all(engine: &Engine) -> bool {
    let features = engine.device().features();
    engine.profile().software && features.contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS)
}

/// Rows of the largest chunk.
fn chunk_rows(prepared: &Prepared) -> usize {
    prepared
        .plan()
        .rows_per_chunk
        .min(prepared.problem().rows())
}

fn rows_of(chunk: Chunk) -> Range<usize> {
    chunk.rows_before..chunk.rows_before + chunk.rows
}

fn cells_of(problem: &Problem, rows: &Range<usize>) -> Range<usize> {
    rows.start * problem.row_length()..rows.end * problem.row_length()
}

/// Whether an input is the same for all rows.
fn is_constant(problem: &Problem, slot: Slot) -> bool {
    match slot {
        Slot::ClassWeights => true,
        Slot::Upstream => problem.upstream() == Upstream::Shared,
        _ => false,
    }
}

/// Bytes of an output in the shape of the logits.
fn matrix_size(problem: &Problem, rows: usize) -> u64 {
    let size = problem.dtype_out().size() * rows * problem.row_length();
    (size as u64).next_multiple_of(4)
}

/// An index label as the device reads it; every one has been checked.
fn device_label(problem: &Problem, label: i128) -> i32 {
    match problem.labels() {
        LabelKind::Index { ignore_index } if label == i128::from(ignore_index) => {
            device_ignore_index(ignore_index)
        }
        _ => label as i32,
    }
}

fn widen<T: bytemuck::AnyBitPattern>(values: &mut [f32], bytes: &[u8], widen: fn(T) -> f32) {
    for (value, half) in values.iter_mut().zip(bytes.chunks_exact(size_of::<T>())) {
        *value = widen(bytemuck::pod_read_unaligned(half));
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

/// Takes the reduced losses and what the device counted.
fn take_totals(bytes: &[u8], results: &mut Results) -> Result<()> {
    let number = |offset: u64| {
        let at = offset as usize;
        bytemuck::pod_read_unaligned::<f32>(&bytes[at..at + 4])
    };
    let mut words = [0; STATUS_WORDS];
    bytemuck::cast_slice_mut(&mut words).copy_from_slice(&bytes[..STATUS_SIZE as usize]);
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
    results.loss = results.loss.map(|_| number(LOSS_OFFSET));
    results.z_loss = results.z_loss.map(|_| number(2 * LOSS_OFFSET));
    Ok(())
}

//! Pieces of a batch on their way through the device, several at once: while it works on one, the host
//! writes the next into memory that the device reads, and takes the results of the last from memory
//! that it wrote.
//!
//! A piece travels in a [`Lane`]: its arrays on the device, each with a staging buffer of the same size
//! that the host maps; on a software driver, whose memory is the host's, they are one. All that a piece
//! needs is one submission: copies in, kernels, copies out. When the device is done with it, the lane
//! takes another piece. Memory is that of [`LANES`] pieces, on the device and again for staging.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use half::{bf16, f16};

use crate::engine::{Engine, Prepared};
use crate::error::{Error, Result};
use crate::kernel::{PART, STATUS_WORDS, Slot, device_ignore_index};
use crate::problem::{
    Dtype, LabelKind, Logits, Padding, Problem, Reduction, Results, Upstream, Wanted,
};
use crate::record::{BufferRange, Buffers, Piece, STATUS_SIZE, Status, Work};
use crate::run::{Times, Watch};
use crate::source::{Sink, Source, Values, expect, failed};
use crate::threads;
use crate::transfer::Mapping;

/// Pieces on their way at once: one that the device works on, one that the host does.
const LANES: usize = 2;
/// Bytes before the loss, and again before the z-loss, among the totals: a multiple of every alignment
/// that a binding may need.
const LOSS_OFFSET: u64 = 256;
/// Bytes before the number of the submission that wrote the totals.
const SERIAL_OFFSET: u64 = STATUS_SIZE;
/// Submissions with numbers of their own, more than are on their way at once.
const SERIALS: u32 = 7;
/// Bytes of the totals.
const TOTALS_SIZE: u64 = 2 * LOSS_OFFSET + 4;
/// Bytes that one thread copies at a time.
const COPIED: usize = 2 << 20;
/// Bytes that are copied as they come; fewer are held until there are more.
const HELD: usize = 1 << 16;
/// Labels that are narrowed at once.
const LABELS: usize = 256;
/// What a driver refuses that takes a label for none.
pub(crate) const BAD_LABELS: &str = "the labels";
/// What mapped parts of a buffer begin at a multiple of.
const ALIGNMENT: usize = wgpu::MAP_ALIGNMENT as usize;

/// An array of a piece.
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

/// What one piece travels in.
struct Lane {
    /// Mapped until they are sent, and again when they have landed.
    inputs: Vec<Array>,
    /// The last is the status, with the reduced losses behind it.
    outputs: Vec<Array>,
}

impl Lane {
    /// What comes back after some work.
    fn outputs(&self, work: Work) -> impl DoubleEndedIterator<Item = &Array> {
        self.outputs.iter().filter(move |output| {
            let is_matrix = matches!(output.slot, Slot::Softmax | Slot::LogSoftmax | Slot::Grad);
            match work {
                Work::Count | Work::States => output.slot == Slot::Status,
                Work::Rows | Work::Finish => true,
                Work::Write => is_matrix || output.slot == Slot::Status,
            }
        })
    }
}

/// A step of the way through a batch.
struct Step {
    work: Work,
    piece: Piece,
    /// Whether no other follows of its kind: all labels are counted, or all is done.
    is_last: bool,
}

/// A step that the device has.
struct Flight {
    lane: Lane,
    step: Step,
    /// The number that it brings back.
    serial: u32,
    submission: wgpu::SubmissionIndex,
    mappings: Vec<Mapping>,
}

/// A batch on its way.
pub(crate) struct Stream<'a> {
    engine: &'a Engine,
    prepared: &'a Prepared,
    source: &'a mut dyn Source,
    sink: &'a mut dyn Sink,
    /// All but the vectors.
    results: Results,
    times: Times,
    /// What every piece reads: the class weights, an upstream gradient for all.
    constants: Vec<(Slot, wgpu::Buffer)>,
    scratch: wgpu::Buffer,
    /// Numbers for submissions, from 1 on.
    serials: wgpu::Buffer,
    /// The place of the next one's number among them.
    sent: u32,
    /// Threads that copy.
    threads: usize,
    /// The first of them was sent first.
    in_flight: VecDeque<Flight>,
}

impl<'a> Stream<'a> {
    /// `results` has the reduced losses that are wanted, and the number of valid rows.
    pub(crate) async fn new(
        engine: &'a Engine,
        prepared: &'a Prepared,
        source: &'a mut dyn Source,
        sink: &'a mut dyn Sink,
        results: Results,
    ) -> Result<Stream<'a>> {
        use wgpu::BufferUsages as Usage;
        let problem = prepared.problem();
        let mut constants = Vec::new();
        for slot in [Slot::ClassWeights, Slot::Upstream] {
            let size = size_of(problem, slot, &whole(prepared));
            if let (true, Some(size)) = (is_constant(prepared, slot), size) {
                let mut one: Vec<f32> = Vec::new();
                let values = match slot {
                    Slot::ClassWeights => source.class_weights(),
                    _ => {
                        source
                            .upstream(0..1, &mut |given| one.extend(given))
                            .map_err(failed("the upstream gradient"))?;
                        &one
                    }
                };
                expect(slot.name(), size as usize / 4, values.len())?;
                let bytes = bytemuck::cast_slice(values);
                let buffer = engine.buffer_with(slot.name(), bytes, Usage::STORAGE);
                constants.push((slot, buffer.await?));
            }
        }
        let scratch = prepared.scratch_size_for(engine, whole(prepared).rows.len());
        let serials: Vec<u32> = (1..=SERIALS).collect();
        let serials = bytemuck::cast_slice(&serials);
        Ok(Stream {
            engine,
            prepared,
            source,
            sink,
            results,
            times: Times::default(),
            constants,
            scratch: engine.buffer("scratch", scratch, Usage::STORAGE).await?,
            serials: engine
                .buffer_with("serials", serials, Usage::COPY_SRC)
                .await?,
            sent: 0,
            threads: copying_threads(engine),
            in_flight: VecDeque::new(),
        })
    }

    /// Sends a piece to the device, `is_last` where no other follows for such work; where [`LANES`] are on their way, once the first of them has landed.
    pub(crate) async fn send(&mut self, work: Work, piece: Piece, is_last: bool) -> Result<()> {
        let step = Step {
            work,
            piece,
            is_last,
        };
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
        let flight = self.launch(lane, step).await?;
        self.in_flight.push_back(flight);
        self.times.upload += watch.elapsed();
        Ok(())
    }

    /// A window of a row that its label is in: one part.
    pub(crate) fn label_window(&mut self, row: usize) -> Result<Piece> {
        let problem = self.prepared.problem();
        let mut label = 0;
        if let LabelKind::Index { .. } = problem.labels() {
            self.source
                .labels(row..row + 1, &mut |given| {
                    label = given.first().copied().unwrap_or_default();
                })
                .map_err(failed("the labels"))?;
        }
        let class = usize::try_from(label).unwrap_or_default();
        let start = class.min(problem.classes() - 1) / PART * PART;
        Ok(Piece {
            rows: row..row + 1,
            columns: start..problem.row_length().min(start + PART),
        })
    }

    /// Waits for all pieces.
    pub(crate) async fn finish(mut self) -> Result<(Results, Times)> {
        while let Some(flight) = self.in_flight.pop_front() {
            self.land(flight).await?;
        }
        Ok((std::mem::take(&mut self.results), self.times))
    }

    /// Writes a piece where the device reads it, and submits all its work.
    async fn launch(&mut self, lane: Lane, step: Step) -> Result<Flight> {
        let problem = self.prepared.problem();
        let Step { work, piece, .. } = &step;
        let work = *work;
        let size = |array: &Array| size_of(problem, array.slot, piece).unwrap_or_default();
        let mut copies_in = Vec::new();
        for input in &lane.inputs {
            let counted = matches!(input.slot, Slot::Labels | Slot::ClassWeights);
            if work != Work::Count || counted {
                self.fill(input, size(input), piece)?;
                copies_in.push((input, size(input)));
            }
        }
        let copies_out: Vec<(&Array, u64)> = lane
            .outputs(work)
            .map(|output| (output, size(output)))
            .collect();
        let bound = self
            .prepared
            .bind_piece(
                self.engine,
                &self.buffers(&lane),
                piece,
                work,
                self.results.valid_rows,
            )
            .await?;
        let serial = self.sent;
        self.sent = (serial + 1) % SERIALS;
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
                // What this piece finds, not the last one in this lane.
                if let Some(status) = lane.outputs.last() {
                    encoder.clear_buffer(&status.device, 0, Some(STATUS_SIZE));
                }
                match work {
                    Work::Count => bound.record_count(&mut encoder),
                    _ => bound.record_counted(&mut encoder),
                }
                if work != Work::Count && step.is_last {
                    bound.record_reduce(&mut encoder);
                }
                if let Some(status) = lane.outputs.last() {
                    let (from, to) = (&self.serials, &status.device);
                    let at = u64::from(4 * serial);
                    encoder.copy_buffer_to_buffer(from, at, to, SERIAL_OFFSET, 4);
                }
                for (output, size) in &copies_out {
                    if let Some(staging) = &output.staging {
                        encoder.copy_buffer_to_buffer(&output.device, 0, staging, 0, *size);
                    }
                }
                let submission = device.submit(encoder);
                let writable = |(input, _): &(&Array, u64)| {
                    device.map(input.host(), wgpu::MapMode::Write, input.host().size())
                };
                let readable = |(output, size): &(&Array, u64)| {
                    device.map(output.host(), wgpu::MapMode::Read, *size)
                };
                let mappings = copies_in.iter().map(writable);
                let mappings = mappings.chain(copies_out.iter().map(readable));
                (submission, mappings.collect())
            })
            .await?;
        Ok(Flight {
            lane,
            step,
            serial: serial + 1,
            submission,
            mappings,
        })
    }

    /// Waits for a piece, hands its results over, and gives its lane back.
    async fn land(&mut self, flight: Flight) -> Result<Lane> {
        let Flight {
            lane, step, serial, ..
        } = flight;
        let watch = Watch::start();
        self.engine
            .landed("the kernels", Some(flight.submission), flight.mappings)
            .await?;
        self.times.waiting += watch.elapsed();

        let watch = Watch::start();
        let problem = self.prepared.problem();
        let Step { work, piece, .. } = &step;
        // The status first: what is not of this submission goes nowhere.
        for output in lane.outputs(*work).rev() {
            let size = size_of(problem, output.slot, piece).unwrap_or_default();
            let bytes = self.engine.bytes(output.host(), size)?;
            match output.slot {
                Slot::Status => take_status(&bytes, &step, serial, &mut self.results)?,
                slot => take(self.sink, problem, slot, &bytes, piece)?,
            }
        }
        self.engine
            .guarded("the read-back", 0, |_| {
                lane.outputs(*work).for_each(|output| output.host().unmap());
            })
            .await?;
        let has_outputs = problem.outputs().iter().any(Wanted::has_classes);
        match work {
            Work::Rows => self.sink.done(piece.rows.len()),
            Work::Finish if !has_outputs => self.sink.done(1),
            Work::Finish | Work::Write if piece.columns.end == problem.row_length() => {
                self.sink.done(1)
            }
            _ => {}
        }
        self.times.download += watch.elapsed();
        Ok(lane)
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
        let total = |offset, size| {
            let status = lane.outputs.last();
            // A lane always has one.
            let buffer = status.map_or(&self.scratch, |array| &array.device);
            BufferRange {
                buffer,
                offset,
                size,
            }
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

    /// Writes a piece of an input where the device reads it, whole words.
    fn fill(&mut self, input: &Array, size: u64, piece: &Piece) -> Result<()> {
        let problem = self.prepared.problem();
        let mut filling = Filling {
            engine: self.engine,
            buffer: input.host(),
            size,
            threads: self.threads,
            done: 0,
            held: Vec::new(),
            came: 0,
            failure: None,
        };
        let (what, rows) = (input.slot.name(), piece.rows.clone());
        let given = match input.slot {
            Slot::Logits => {
                // By bytes, as half a value may be missing; run by run, as one may have what another lacks.
                for run in runs(problem, piece, problem.row_length()) {
                    let asked = run.elements.len() * problem.dtype().size();
                    let before = filling.came;
                    let put = &mut |bytes: &[u8]| filling.put(bytes);
                    let given = self.source.logits(run.elements, put);
                    given.map_err(failed(what))?;
                    expect("bytes of logits", asked, (filling.came - before) as usize)?;
                }
                return filling.finish().map(|_| ());
            }
            Slot::ClassWeights => {
                let classes = piece.classes(problem);
                let weights = self.source.class_weights().get(classes);
                filling.put(bytemuck::cast_slice(weights.unwrap_or_default()));
                Ok(())
            }
            Slot::Upstream => {
                let put = &mut |values: &[f32]| filling.put(bytemuck::cast_slice(values));
                self.source.upstream(rows, put)
            }
            _ if matches!(problem.labels(), LabelKind::Index { .. }) => {
                let put = &mut |labels: &[i64]| {
                    for labels in labels.chunks(LABELS) {
                        let mut words = [0; LABELS];
                        for (word, &label) in words.iter_mut().zip(labels) {
                            *word = device_label(problem, label);
                        }
                        filling.put(bytemuck::cast_slice(&words[..labels.len()]));
                    }
                };
                self.source.labels(rows, put)
            }
            _ => {
                let put = &mut |values: &[f32]| filling.put(bytemuck::cast_slice(values));
                let mut runs = runs(problem, piece, problem.row_length());
                runs.try_for_each(|run| self.source.dense(run.elements, put))
            }
        };
        given.map_err(failed(what))?;
        expect(what, size as usize / 4, filling.finish()? as usize / 4)
    }
}

impl Drop for Stream<'_> {
    /// What is on its way after an error is waited for, but not without end, as who drops a queue would.
    fn drop(&mut self) {
        if !self.in_flight.is_empty() {
            let _ = self.engine.wait("the kernels", None, self.engine.patience);
        }
    }
}

/// Mapped memory that is being filled from its start.
struct Filling<'a> {
    engine: &'a Engine,
    buffer: &'a wgpu::Buffer,
    size: u64,
    threads: usize,
    /// Bytes that are there.
    done: u64,
    /// Bytes that are to follow them.
    held: Vec<u8>,
    /// Bytes that came, be there room or not.
    came: u64,
    failure: Option<Error>,
}

impl Filling<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.came += bytes.len() as u64;
        if self.came > self.size || self.failure.is_some() {
            return;
        }
        let to_aligned = self.held.len().next_multiple_of(ALIGNMENT) - self.held.len();
        let (first, rest) = bytes.split_at(to_aligned.min(bytes.len()));
        self.held.extend(first);
        let direct = match rest.len() >= HELD {
            true => rest.len() / ALIGNMENT * ALIGNMENT,
            false => 0,
        };
        if direct > 0 || self.held.len() + rest.len() > HELD {
            self.flush();
        }
        self.copy(&rest[..direct]);
        self.held.extend(&rest[direct..]);
    }

    /// Copies as much of what is held as can begin or end a mapping.
    fn flush(&mut self) {
        let held = std::mem::take(&mut self.held);
        let whole = held.len() / ALIGNMENT * ALIGNMENT;
        self.copy(&held[..whole]);
        self.held.extend(&held[whole..]);
    }

    fn copy(&mut self, bytes: &[u8]) {
        let mut parts = Vec::new();
        for bytes in bytes.chunks(COPIED) {
            let range = self.done..self.done + bytes.len() as u64;
            self.done = range.end;
            match self.engine.bytes_mut(self.buffer, range) {
                Ok(words) => parts.push((words, bytes)),
                Err(error) => self.failure = Some(error),
            }
        }
        threads::in_parallel(self.threads, parts, |(mut words, bytes)| {
            words.slice(..).copy_from_slice(bytes);
        });
    }

    /// Bytes that came. The rest of the last word is nobody's.
    fn finish(mut self) -> Result<u64> {
        if self.came <= self.size {
            self.flush();
            let word = self.held.len().next_multiple_of(4);
            self.held.resize(word, 0);
            let rest = std::mem::take(&mut self.held);
            self.copy(&rest);
        }
        match self.failure {
            Some(error) => Err(error),
            None => Ok(self.came),
        }
    }
}

/// Elements that are neighbours in the batch and in a piece of it.
struct Run {
    /// In an array of the shape of the logits.
    elements: Range<usize>,
    /// The first of them in the array of the piece.
    place: usize,
}

/// The columns before `end` of a piece, in runs that are as long as can be.
fn runs(problem: &Problem, piece: &Piece, end: usize) -> impl Iterator<Item = Run> {
    let (inner, length) = (problem.inner(), problem.row_length());
    let Piece { rows, columns } = piece.clone();
    let here = columns.len();
    let used = columns.end.min(end).saturating_sub(columns.start);
    // Interleaved rows that the piece has, and whether it has whole groups of them.
    let together = rows.len().min(inner);
    let groups = together == inner;
    let (outer, first) = (rows.start / inner, rows.start % inner);
    // So many runs, so far apart in the batch and in the piece.
    let (count, step, local_step, size) = if used == 0 {
        (0, 0, 0, 0)
    } else if !groups {
        (used, inner, together, together)
    } else if used == length {
        (1, 0, 0, rows.len() * length)
    } else {
        let groups = rows.len() / inner;
        (groups, length * inner, here * inner, used * inner)
    };
    let start = (outer * length + columns.start) * inner + first;
    (0..count).map(move |i| {
        let from = start + i * step;
        Run {
            elements: from..from + size,
            place: i * local_step,
        }
    })
}

/// Hands over what the device wrote of an output.
fn take(
    sink: &mut dyn Sink,
    problem: &Problem,
    slot: Slot,
    bytes: &[u8],
    piece: &Piece,
) -> Result<()> {
    let output = match slot {
        Slot::Softmax => Wanted::Softmax,
        Slot::LogSoftmax => Wanted::LogSoftmax,
        Slot::Grad => Wanted::Grad,
        Slot::Losses => Wanted::Losses,
        Slot::Lse => Wanted::Lse,
        Slot::Predictions => Wanted::Predictions,
        Slot::Entropy => Wanted::Entropy,
        Slot::Correct => Wanted::Correct,
        Slot::ZLosses => Wanted::ZLosses,
        _ => return Ok(()),
    };
    let row = piece.rows.start;
    let taken = match output {
        Wanted::Predictions => sink.take(output, row, Values::Classes(&cast(bytes))),
        Wanted::Correct => sink.take(output, row, Values::Flags(&cast(bytes))),
        _ if !output.has_classes() => {
            let values = cast(bytes);
            sink.take(output, row, Values::Floats(Logits::F32(&values)))
        }
        _ => {
            // Padding that nobody wrote holds anything.
            let end = match problem.padding() {
                Padding::Kept => problem.classes(),
                Padding::Masked => problem.row_length(),
            };
            let size = problem.dtype_out().size();
            runs(problem, piece, end).try_for_each(|run| {
                let start = run.place * size;
                let bytes = &bytes[start..start + run.elements.len() * size];
                let at = run.elements.start;
                match problem.dtype_out() {
                    Dtype::F32 => {
                        let values = cast::<f32>(bytes);
                        sink.take(output, at, Values::Floats(Logits::F32(&values)))
                    }
                    Dtype::F16 => {
                        let values = cast::<f16>(bytes);
                        sink.take(output, at, Values::Floats(Logits::F16(&values)))
                    }
                    Dtype::Bf16 => {
                        let values = cast::<bf16>(bytes);
                        sink.take(output, at, Values::Floats(Logits::Bf16(&values)))
                    }
                }
            })
        }
    };
    taken.map_err(failed(slot.name()))
}

/// Values in the bytes that a device wrote, which lie where the host can use them as they are, as a rule.
fn cast<T: bytemuck::Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(values) => Cow::Borrowed(values),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    }
}

impl Lane {
    async fn new(engine: &Engine, prepared: &Prepared) -> Result<Lane> {
        use wgpu::BufferUsages as Usage;
        let problem = prepared.problem();
        let piece = whole(prepared);
        let mut inputs = Vec::new();
        for slot in [
            Slot::Logits,
            Slot::Labels,
            Slot::ClassWeights,
            Slot::Upstream,
        ] {
            let size = size_of(problem, slot, &piece);
            if let (false, Some(size)) = (is_constant(prepared, slot), size) {
                let size = size.next_multiple_of(VECTOR);
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
            Slot::Status,
        ] {
            let over = slot == Slot::Grad && problem.grad_over_logits();
            let logits = inputs.first().filter(|_| over);
            let logits = logits.map(|logits| logits.device.clone());
            if let Some(size) = size_of(problem, slot, &piece) {
                outputs.push(output(engine, slot, size, logits).await?);
            }
        }
        Ok(Lane { inputs, outputs })
    }
}

/// Bytes of a vector of four words: arrays have room for their last one, so that rows are read and written by
/// vectors wherever they begin.
const VECTOR: u64 = 16;

/// An array that comes back, on the device in a buffer of its own or where another one was.
async fn output(
    engine: &Engine,
    slot: Slot,
    size: u64,
    over: Option<wgpu::Buffer>,
) -> Result<Array> {
    use wgpu::BufferUsages as Usage;
    let on_device = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
    let mapped = Usage::MAP_READ | Usage::COPY_DST;
    let size = size.next_multiple_of(VECTOR);
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

/// Threads that copy for an engine. A software driver has its own use for them.
pub(crate) fn copying_threads(engine: &Engine) -> usize {
    match engine.profile().software {
        true => 1,
        false => threads::available(),
    }
}

/// A piece as large as any.
fn whole(prepared: &Prepared) -> Piece {
    let (plan, problem) = (prepared.plan(), prepared.problem());
    Piece {
        rows: 0..plan.rows_per_chunk.min(problem.rows()),
        columns: 0..plan.columns_per_chunk,
    }
}

/// Bytes of an array that a piece fills.
fn size_of(problem: &Problem, slot: Slot, piece: &Piece) -> Option<u64> {
    let (rows, columns) = (piece.rows.len() as u64, piece.columns.len() as u64);
    match slot {
        Slot::Status => Some(TOTALS_SIZE),
        Slot::ClassWeights => {
            let classes = piece.classes(problem).len() as u64;
            problem.class_weights().then_some(4 * classes)
        }
        // Where it goes over the logits the problem has no array for it.
        Slot::Grad if problem.grad_over_logits() && problem.wants(Wanted::Grad) => {
            problem.size_of(Slot::Logits, rows, columns)
        }
        slot => problem.size_of(slot, rows, columns),
    }
}

/// Whether an input is the same for all pieces.
fn is_constant(prepared: &Prepared, slot: Slot) -> bool {
    let problem = prepared.problem();
    match slot {
        Slot::ClassWeights => !prepared.plan().has_windows(problem),
        Slot::Upstream => problem.upstream() == Upstream::Shared,
        _ => false,
    }
}

/// An index label as the device reads it; every one has been checked.
fn device_label(problem: &Problem, label: i64) -> i32 {
    match problem.labels() {
        LabelKind::Index { ignore_index } if label == ignore_index => {
            device_ignore_index(ignore_index)
        }
        // What is no class after all, the device finds out.
        _ => i32::try_from(label).unwrap_or(i32::MAX),
    }
}

/// Takes what the device counted, and after the last piece the reduced losses.
fn take_status(bytes: &[u8], step: &Step, serial: u32, results: &mut Results) -> Result<()> {
    let at = SERIAL_OFFSET as usize;
    if bytes[at..at + 4] != serial.to_ne_bytes() {
        return Err(Error::Driver {
            what: "the dispatch".to_owned(),
            reason: "it said that it was done, and did not do it".to_owned(),
        });
    }
    let mut words = [0; STATUS_WORDS];
    bytemuck::cast_slice_mut(&mut words).copy_from_slice(&bytes[..STATUS_SIZE as usize]);
    let status = Status::from_words(&words);
    if let Some(row) = status.first_bad_label {
        let row = step.piece.rows.start as u64 + u64::from(row);
        return Err(Error::Driver {
            what: BAD_LABELS.to_owned(),
            reason: format!("that of row {row} is no class, and was one when they were read first"),
        });
    }
    results.nan_rows += u64::from(status.nan_rows);
    let first = status.first_nan_row.map(u64::from);
    let first = first.map(|row| step.piece.rows.start as u64 + row);
    results.first_nan_row = results.first_nan_row.or(first);
    if !step.is_last || step.work == Work::Count {
        return Ok(());
    }
    if status.valid_rows != results.valid_rows {
        return Err(Error::Driver {
            what: "the sums of the batch".to_owned(),
            reason: format!(
                "it counted {} rows, and {} when the labels were read first",
                status.valid_rows, results.valid_rows
            ),
        });
    }
    let number = |offset: u64| {
        let at = offset as usize;
        bytemuck::pod_read_unaligned::<f32>(&bytes[at..at + 4])
    };
    results.correct = results.correct.map(|_| status.correct);
    results.loss = results.loss.map(|_| number(LOSS_OFFSET));
    results.z_loss = results.z_loss.map(|_| number(2 * LOSS_OFFSET));
    Ok(())
}

//! Binds a prepared problem to buffers and records its dispatches into the caller's encoder.
//! Never submits; recording creates nothing.

use std::sync::Arc;

use crate::engine::{Engine, Pipeline, Prepared};
use crate::error::{Error, Result};
use crate::kernel::{
    ACCUMULATOR_WORDS, Access, DENOMINATOR_IN_BUFFER, DENOMINATOR_IS_COUNT, NOT_WANTED, Params,
    STATUS_WORDS, Slot, status,
};
use crate::plan::Pass;
use crate::problem::{Denominator, LabelKind, Problem, Reduction, Upstream, Wanted};

/// A part of a buffer.
#[derive(Debug, Clone, Copy)]
pub struct BufferRange<'a> {
    /// The buffer, with the usage `STORAGE`.
    pub buffer: &'a wgpu::Buffer,
    /// Where the part begins, in bytes: any multiple of 4.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
}

impl<'a> BufferRange<'a> {
    /// All of a buffer.
    pub fn whole(buffer: &'a wgpu::Buffer) -> Self {
        BufferRange {
            buffer,
            offset: 0,
            size: buffer.size(),
        }
    }

    fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.size)
    }

    fn overlaps(&self, other: &BufferRange<'_>) -> bool {
        self.buffer == other.buffer
            && self.end().is_some_and(|end| other.offset < end)
            && other.end().is_some_and(|end| self.offset < end)
    }
}

/// Where the arrays of one problem are. What the problem neither reads nor writes is `None`.
///
/// All may be parts of one buffer, as long as nothing overlaps what is written. Shaders of your own that
/// work on such a buffer declare all their parts of it as `read_write`: wgpu takes no buffer that one
/// dispatch reads here and writes there. Problems that are recorded one after the other may share
/// scratch and status.
#[derive(Debug, Clone, Copy)]
pub struct Buffers<'a> {
    /// f32 `[rows, classes]`.
    pub logits: BufferRange<'a>,
    /// i32 `[rows]`, or f32 `[rows, classes]`.
    pub labels: Option<BufferRange<'a>>,
    /// f32 `[1]` with [`Upstream::Shared`], `[rows]` with [`Upstream::PerRow`].
    pub upstream: Option<BufferRange<'a>>,
    /// f32 `[1]` with [`Denominator::Buffer`].
    pub denominator: Option<BufferRange<'a>>,
    /// f32 `[rows, classes]`.
    pub softmax: Option<BufferRange<'a>>,
    /// f32 `[rows, classes]`.
    pub log_softmax: Option<BufferRange<'a>>,
    /// f32 `[rows, classes]`; `None` where the gradient goes over the logits.
    pub grad: Option<BufferRange<'a>>,
    /// f32 `[rows]`.
    pub losses: Option<BufferRange<'a>>,
    /// f32 `[rows]`.
    pub lse: Option<BufferRange<'a>>,
    /// i32 `[rows]`.
    pub predictions: Option<BufferRange<'a>>,
    /// f32 `[1]`; `None` with [`Reduction::None`].
    pub loss: Option<BufferRange<'a>>,
    /// u32 `[6]`, see [`Status::from_words`]; [`STATUS_SIZE`] bytes.
    pub status: BufferRange<'a>,
    /// Room to work in, [`Prepared::scratch_size`] bytes. Zero before it is used for the first time,
    /// as a new buffer is; see [`Bound::record_reset`] for one that is not.
    pub scratch: BufferRange<'a>,
}

impl<'a> Buffers<'a> {
    /// The arrays that every problem has; name the others with `..Buffers::new(…)`.
    pub fn new(
        logits: BufferRange<'a>,
        status: BufferRange<'a>,
        scratch: BufferRange<'a>,
    ) -> Buffers<'a> {
        Buffers {
            logits,
            labels: None,
            upstream: None,
            denominator: None,
            softmax: None,
            log_softmax: None,
            grad: None,
            losses: None,
            lse: None,
            predictions: None,
            loss: None,
            status,
            scratch,
        }
    }
}

/// Bytes of [`Buffers::status`].
pub const STATUS_SIZE: u64 = 4 * STATUS_WORDS as u64;

/// What a device found in the batches since its status was cleared; the last two, in the last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// Rows that are not ignored and came out NaN.
    pub nan_rows: u32,
    /// The smallest number of such a row.
    pub first_nan_row: Option<u32>,
    /// Rows whose label is no class and not `ignore_index`: their loss and gradient are NaN.
    pub bad_labels: u32,
    /// The smallest number of such a row.
    pub first_bad_label: Option<u32>,
    /// Rows that are not ignored.
    pub valid_rows: u32,
    /// Rows whose prediction is their label, where predictions are wanted.
    pub correct: u32,
}

impl Status {
    /// From the words of [`Buffers::status`].
    pub fn from_words(words: &[u32; STATUS_WORDS]) -> Status {
        let first = |word: usize| (words[word] != 0).then_some(!words[word]);
        Status {
            nan_rows: words[status::NAN_ROWS],
            first_nan_row: first(status::FIRST_NAN_ROW),
            bad_labels: words[status::BAD_LABELS],
            first_bad_label: first(status::FIRST_BAD_LABEL),
            valid_rows: words[status::VALID],
            correct: words[status::CORRECT],
        }
    }
}

/// Some rows of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Rows in the buffers.
    pub rows: usize,
    /// Rows of the batch before them.
    pub rows_before: usize,
}

/// Places in the scratch buffer, from its first aligned byte on.
struct Scratch {
    alignment: u64,
}

impl Scratch {
    /// A count of labels, and small bindings for arrays that nobody gave.
    const PLACES: u64 = 4;
    const ACCUMULATORS: u64 = 4 * ACCUMULATOR_WORDS as u64;

    fn new(engine: &Engine) -> Scratch {
        Scratch {
            alignment: u64::from(engine.profile().offset_alignment).max(16),
        }
    }

    fn size(&self, state_words: u64) -> u64 {
        // Up to one alignment is lost at the start, and one after the accumulators.
        (Self::PLACES + 2) * self.alignment + Self::ACCUMULATORS + 4 * state_words
    }

    fn part<'a>(&self, scratch: BufferRange<'a>, offset: u64, size: u64) -> BufferRange<'a> {
        BufferRange {
            buffer: scratch.buffer,
            offset: scratch.offset.next_multiple_of(self.alignment) + offset,
            size,
        }
    }

    /// Where a slot is that the caller gave nothing for.
    fn place<'a>(&self, scratch: BufferRange<'a>, slot: Slot, state_words: u64) -> BufferRange<'a> {
        let accumulators = Self::PLACES * self.alignment;
        let states = (accumulators + Self::ACCUMULATORS).next_multiple_of(self.alignment);
        let (offset, size) = match slot {
            Slot::Denominator => (0, 4),
            Slot::Accumulators => (accumulators, Self::ACCUMULATORS),
            Slot::States => (states, 4 * state_words),
            // No shader has two of one line, and none of them is ever read or written.
            Slot::Lse => (2 * self.alignment, 4),
            Slot::Predictions => (3 * self.alignment, 4),
            _ => (self.alignment, 4),
        };
        self.part(scratch, offset, size)
    }
}

impl Problem {
    /// Bytes of the array of a slot for so many rows, and whether the caller gives it; `None` where
    /// the problem does without.
    fn size_of(&self, slot: Slot, rows: u64) -> Option<u64> {
        let row_vector = 4 * rows;
        let matrix = row_vector * self.classes() as u64;
        let when = |wanted: Wanted, size: u64| self.wants(wanted).then_some(size);
        let wants_grad = self.wants(Wanted::Grad);
        match slot {
            Slot::Logits => Some(matrix),
            Slot::Labels => match self.labels() {
                LabelKind::None => None,
                LabelKind::Index { .. } => Some(row_vector),
                LabelKind::Dense | LabelKind::Vector => Some(matrix),
            },
            Slot::Upstream => match self.upstream() {
                _ if !wants_grad => None,
                Upstream::Number(_) => None,
                Upstream::Shared => Some(4),
                Upstream::PerRow => Some(row_vector),
            },
            Slot::Denominator => (self.denominator() == Denominator::Buffer).then_some(4),
            Slot::Softmax => when(Wanted::Softmax, matrix),
            Slot::LogSoftmax => when(Wanted::LogSoftmax, matrix),
            Slot::Grad => (wants_grad && !self.grad_over_logits()).then_some(matrix),
            Slot::Losses => when(Wanted::Losses, row_vector),
            Slot::Lse => when(Wanted::Lse, row_vector),
            Slot::Predictions => when(Wanted::Predictions, row_vector),
            Slot::Loss => match self.reduction() {
                Reduction::None => None,
                Reduction::Sum | Reduction::Mean => when(Wanted::Loss, 4),
            },
            Slot::Status => Some(STATUS_SIZE),
            Slot::Params | Slot::States | Slot::Accumulators | Slot::Probes => None,
        }
    }
}

/// The arrays that a caller gives or that the scratch buffer holds.
const ARRAYS: [Slot; 12] = [
    Slot::Logits,
    Slot::Labels,
    Slot::Upstream,
    Slot::Denominator,
    Slot::Softmax,
    Slot::LogSoftmax,
    Slot::Grad,
    Slot::Losses,
    Slot::Lse,
    Slot::Predictions,
    Slot::Loss,
    Slot::Status,
];

impl<'a> Buffers<'a> {
    fn of(&self, slot: Slot) -> Option<BufferRange<'a>> {
        match slot {
            Slot::Logits => Some(self.logits),
            Slot::Labels => self.labels,
            Slot::Upstream => self.upstream,
            Slot::Denominator => self.denominator,
            Slot::Softmax => self.softmax,
            Slot::LogSoftmax => self.log_softmax,
            Slot::Grad => self.grad,
            Slot::Losses => self.losses,
            Slot::Lse => self.lse,
            Slot::Predictions => self.predictions,
            Slot::Loss => self.loss,
            Slot::Status => Some(self.status),
            Slot::Params | Slot::States | Slot::Accumulators | Slot::Probes => None,
        }
    }
}

/// The part of a range that is needed, or why it does not serve.
fn checked<'a>(what: &'static str, range: BufferRange<'a>, needed: u64) -> Result<BufferRange<'a>> {
    let inside = range.end().is_some_and(|end| end <= range.buffer.size());
    if range.size < needed || !range.offset.is_multiple_of(4) || !inside {
        return Err(Error::BufferRange {
            what,
            size: range.size,
            offset: range.offset,
            needed,
        });
    }
    if !range.buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        return Err(Error::BufferUsage { what });
    }
    Ok(BufferRange {
        size: needed,
        ..range
    })
}

impl Prepared {
    /// Bytes of [`Buffers::scratch`], for all rows of the problem.
    pub fn scratch_size(&self, engine: &Engine) -> u64 {
        self.scratch_size_for(engine, self.problem().rows())
    }

    /// Bytes of [`Buffers::scratch`] for [`Prepared::bind_chunk`].
    pub fn scratch_size_for(&self, engine: &Engine, rows: usize) -> u64 {
        Scratch::new(engine).size(self.plan().state_words(rows as u64))
    }

    /// Makes the parameters and bind groups for these buffers. The first one of its kind also makes
    /// what pipelines are still missing: those for logits that share their buffer with another
    /// array, and the one that counts labels.
    ///
    /// # Errors
    /// [`Error::Buffer`], [`Error::BufferRange`], [`Error::BufferUsage`],
    /// [`Error::BuffersOverlap`]; [`Error::RowTooWide`] where a part is larger than the device binds
    /// at once; what the driver refuses.
    pub async fn bind(&self, engine: &Engine, buffers: &Buffers<'_>) -> Result<Bound> {
        let chunk = Chunk {
            rows: self.problem().rows(),
            rows_before: 0,
        };
        self.bind_chunk(engine, buffers, chunk).await
    }

    /// [`Prepared::bind`] for some of the rows. Record the rows of every chunk, with the same scratch
    /// and status, then the reduction of one of them.
    ///
    /// # Errors
    /// As [`Prepared::bind`]; [`Error::ChunkDenominator`] where the rows that are not ignored would
    /// have to be counted, and these are not all.
    pub async fn bind_chunk(
        &self,
        engine: &Engine,
        buffers: &Buffers<'_>,
        chunk: Chunk,
    ) -> Result<Bound> {
        let problem = self.problem();
        let (denominator, denominator_flags) = match (problem.reduction(), problem.denominator()) {
            (Reduction::None | Reduction::Sum, _) => (1, DENOMINATOR_IS_COUNT),
            (Reduction::Mean, Denominator::Number(number)) => (number.to_bits(), 0),
            (Reduction::Mean, Denominator::Buffer) => (0, DENOMINATOR_IN_BUFFER),
            (Reduction::Mean, Denominator::Weights | Denominator::ValidRows)
                if self.plan().count.is_none() =>
            {
                (problem.rows() as u32, DENOMINATOR_IS_COUNT)
            }
            (Reduction::Mean, Denominator::Weights | Denominator::ValidRows)
                if chunk.rows != problem.rows() =>
            {
                return Err(Error::ChunkDenominator {
                    rows: chunk.rows,
                    of: problem.rows(),
                });
            }
            (Reduction::Mean, Denominator::Weights | Denominator::ValidRows) => {
                (0, DENOMINATOR_IN_BUFFER | DENOMINATOR_IS_COUNT)
            }
        };
        let params = Params {
            denominator,
            denominator_flags,
            ..Params::default()
        };
        let counts = denominator_flags == (DENOMINATOR_IN_BUFFER | DENOMINATOR_IS_COUNT);
        let count = self.plan().count.filter(|_| counts);
        self.bind_with(engine, buffers, chunk, params, count).await
    }

    /// [`Prepared::bind_chunk`], the rows that are not ignored having been counted.
    pub(crate) async fn bind_counted(
        &self,
        engine: &Engine,
        buffers: &Buffers<'_>,
        chunk: Chunk,
        valid_rows: u32,
    ) -> Result<Bound> {
        let problem = self.problem();
        if self.plan().count.is_none() {
            return self.bind_chunk(engine, buffers, chunk).await;
        }
        debug_assert_eq!(problem.reduction(), Reduction::Mean);
        let params = Params {
            denominator: valid_rows,
            denominator_flags: DENOMINATOR_IS_COUNT,
            ..Params::default()
        };
        self.bind_with(engine, buffers, chunk, params, None).await
    }

    async fn bind_with(
        &self,
        engine: &Engine,
        buffers: &Buffers<'_>,
        chunk: Chunk,
        denominator: Params,
        count: Option<Pass>,
    ) -> Result<Bound> {
        let problem = self.problem();
        let rows = chunk.rows as u64;
        let alignment = u64::from(engine.profile().offset_alignment);
        let scratch = Scratch::new(engine);
        let state_words = self.plan().state_words(rows);
        let scratch_range = checked("scratch", buffers.scratch, scratch.size(state_words))?;

        let mut arrays = Vec::new();
        for slot in ARRAYS {
            match (problem.size_of(slot, rows), buffers.of(slot)) {
                (None, None) => {}
                (Some(needed), Some(range)) => {
                    arrays.push((slot, checked(slot.name(), range, needed)?));
                }
                (needed, _) => {
                    return Err(Error::Buffer {
                        what: slot.name(),
                        needed: needed.is_some(),
                    });
                }
            }
        }
        no_overlap(&arrays, scratch_range)?;
        let given = |slot| arrays.iter().find(|(of, _)| *of == slot).map(|(_, r)| *r);
        let range =
            |slot| given(slot).unwrap_or_else(|| scratch.place(scratch_range, slot, state_words));
        let start = |slot| ((range(slot).offset % alignment) / 4) as u32;
        let wanted = |slot| given(slot).map_or(NOT_WANTED, |_| start(slot));
        let (upstream_stride, upstream) = match problem.upstream() {
            Upstream::Number(number) => (NOT_WANTED, number),
            Upstream::Shared => (0, 0.0),
            Upstream::PerRow => (1, 0.0),
        };
        let params = Params {
            rows: chunk.rows as u32,
            classes: problem.classes() as u32,
            // Whatever the label of ignored rows is on the host, no class has it on the device.
            ignore_index: match problem.labels() {
                LabelKind::Index { ignore_index } => device_ignore_index(ignore_index),
                LabelKind::None | LabelKind::Dense | LabelKind::Vector => 0,
            },
            logits_start: start(Slot::Logits),
            labels_start: start(Slot::Labels),
            upstream_start: start(Slot::Upstream),
            denominator_start: start(Slot::Denominator),
            softmax_start: start(Slot::Softmax),
            log_softmax_start: start(Slot::LogSoftmax),
            grad_start: start(Slot::Grad),
            losses_start: wanted(Slot::Losses),
            lse_start: wanted(Slot::Lse),
            predictions_start: wanted(Slot::Predictions),
            loss_start: wanted(Slot::Loss),
            status_start: start(Slot::Status),
            rows_before: chunk.rows_before as u32,
            upstream_stride,
            upstream,
            ..denominator
        };

        // Bindings cannot be empty, and no rows have nothing but a reduction.
        let rows_passes = count.iter().chain(&self.plan().passes);
        let rows_passes = rows_passes.filter(|_| chunk.rows > 0);
        let mut steps = Vec::new();
        for pass in rows_passes.chain([&self.plan().reduce]) {
            let slots = pass.variant.slots();
            let storage = slots
                .iter()
                .filter(|(_, access)| *access != Access::Uniform);
            let bindings = storage
                .map(|&(slot, _)| Ok((slot, binding(slot, range(slot), alignment, engine)?)))
                .collect::<Result<Bindings<'_>>>()?;
            // One dispatch may not read a buffer and write it, be it in different places.
            let of_logits = |(slot, binding): &(Slot, wgpu::BufferBinding<'_>)| {
                *slot != Slot::Logits && binding.buffer == buffers.logits.buffer
            };
            let pooled = bindings.iter().any(of_logits);
            let pass = if pooled { pass.pooled() } else { *pass };
            steps.push((engine.pipeline(pass).await?, bindings));
        }
        let most = engine.profile().max_workgroups;
        let mut steps = engine
            .guarded("the bind groups", size_of::<Params>() as u64, |device| {
                make_steps(device, &params, steps, most)
            })
            .await?;
        let reduce = steps.pop();
        Ok(Bound { steps, reduce })
    }
}

/// Nothing that is written may lie where something else is.
fn no_overlap(arrays: &[(Slot, BufferRange<'_>)], scratch: BufferRange<'_>) -> Result<()> {
    let is_input = |slot| {
        matches!(
            slot,
            Slot::Logits | Slot::Labels | Slot::Upstream | Slot::Denominator
        )
    };
    for (i, (slot, range)) in arrays.iter().enumerate() {
        let others = arrays[..i]
            .iter()
            .filter(|(other, _)| !(is_input(*slot) && is_input(*other)))
            .map(|(other, range)| (other.name(), range))
            .chain([("scratch", &scratch)]);
        for (other, other_range) in others {
            if range.overlaps(other_range) {
                return Err(Error::BuffersOverlap {
                    one: slot.name(),
                    other,
                });
            }
        }
    }
    Ok(())
}

/// The label of ignored rows on the device, where labels are 32 bits wide.
pub(crate) fn device_ignore_index(ignore_index: i64) -> i32 {
    i32::try_from(ignore_index).unwrap_or(-1)
}

/// A binding that begins at the last aligned offset before the range.
fn binding<'a>(
    slot: Slot,
    range: BufferRange<'a>,
    alignment: u64,
    engine: &Engine,
) -> Result<wgpu::BufferBinding<'a>> {
    let lead = range.offset % alignment;
    let size = lead + range.size;
    if size > engine.profile().max_binding {
        return Err(Error::RowTooWide {
            what: slot.name(),
            needed: size,
            limit: engine.profile().max_binding,
        });
    }
    Ok(wgpu::BufferBinding {
        buffer: range.buffer,
        offset: range.offset - lead,
        size: wgpu::BufferSize::new(size),
    })
}

type Bindings<'a> = Vec<(Slot, wgpu::BufferBinding<'a>)>;

fn make_steps(
    device: &wgpu::Device,
    params: &Params,
    steps: Vec<(Arc<Pipeline>, Bindings<'_>)>,
    most: u32,
) -> Vec<Step> {
    let uniform = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("params"),
        size: size_of::<Params>() as u64,
        usage: wgpu::BufferUsages::UNIFORM,
        mapped_at_creation: true,
    });
    if let Ok(mut view) = uniform.get_mapped_range_mut(..) {
        view.copy_from_slice(bytemuck::bytes_of(params));
    }
    uniform.unmap();
    let step = |(pipeline, bindings): (Arc<Pipeline>, Bindings<'_>)| {
        let mut entries = vec![wgpu::BindGroupEntry {
            binding: Slot::Params as u32,
            resource: uniform.as_entire_binding(),
        }];
        entries.extend(
            bindings
                .into_iter()
                .map(|(slot, binding)| wgpu::BindGroupEntry {
                    binding: slot as u32,
                    resource: wgpu::BindingResource::Buffer(binding),
                }),
        );
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(pipeline.pass.variant.entry_point()),
            layout: &pipeline.layout,
            entries: &entries,
        });
        let workgroups = pipeline.pass.workgroups(params.rows, params.classes, most);
        Step {
            pipeline,
            bind_group,
            workgroups,
        }
    };
    steps.into_iter().map(step).collect()
}

struct Step {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 2],
}

/// A problem bound to buffers. Keeps them alive.
pub struct Bound {
    steps: Vec<Step>,
    reduce: Option<Step>,
}

impl Bound {
    /// Records the whole job: the rows, then the reduction. As often as wanted, also within one
    /// submission: everything is read from the buffers when the device gets there.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        record(encoder, self.steps.iter().chain(&self.reduce));
    }

    /// Records the rows: their outputs, and their share of the sums of the batch.
    pub fn record_rows(&self, encoder: &mut wgpu::CommandEncoder) {
        record(encoder, &self.steps);
    }

    /// Records the reduction of what all rows since the last one have added up.
    pub fn record_reduce(&self, encoder: &mut wgpu::CommandEncoder) {
        record(encoder, &self.reduce);
    }

    /// Records what makes scratch ready that is a part of a pooled buffer, whatever it holds. Leaves
    /// anything in the loss and in the counts of the last batch.
    pub fn record_reset(&self, encoder: &mut wgpu::CommandEncoder) {
        self.record_reduce(encoder);
    }
}

fn record<'a>(encoder: &mut wgpu::CommandEncoder, steps: impl IntoIterator<Item = &'a Step>) {
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
        label: Some("softxent"),
        timestamp_writes: None,
    });
    for step in steps {
        pass.set_pipeline(&step.pipeline.pipeline);
        pass.set_bind_group(0, &step.bind_group, &[]);
        pass.dispatch_workgroups(step.workgroups[0], step.workgroups[1], 1);
    }
}

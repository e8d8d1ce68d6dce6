//! Binds a prepared problem to buffers and records its dispatches into the caller's encoder.
//! Never submits; recording creates nothing.

use std::ops::Range;
use std::sync::Arc;

use crate::engine::{Engine, Pipeline, Prepared};
use crate::error::{Error, Result};
use crate::guard::Guarded;
use crate::kernel::{
    ACCUMULATOR_WORDS, Access, COUNTED_WORDS, DENOMINATOR_IN_BUFFER, DENOMINATOR_IS_COUNT,
    DENOMINATOR_IS_WEIGHTS, EMPTY_IS_ZERO, NOT_WANTED, Params, RowKernel, SLOT, STATUS_WORDS, Slot,
    Variant, Width, status,
};
use crate::plan::{DeviceProfile, Pass, Placement, Plan, in_vector};
use crate::problem::{
    Denominator, Dtype, EmptyMean, LabelKind, Problem, Reduction, Upstream, Wanted,
};

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
    /// `[rows, classes]` in the logits' dtype; in 16 bits the last word may be half used.
    pub logits: BufferRange<'a>,
    /// i32 `[rows]`; or f32 `[rows, classes]`, label weights or vectors.
    pub labels: Option<BufferRange<'a>>,
    /// f32 `[classes]`. What is no weight, negative or not finite, makes the rows NaN that it counts in.
    pub class_weights: Option<BufferRange<'a>>,
    /// f32 `[1]` with [`Upstream::Shared`], `[rows]` with [`Upstream::PerRow`].
    pub upstream: Option<BufferRange<'a>>,
    /// f32 `[1]` with [`Denominator::Buffer`].
    pub denominator: Option<BufferRange<'a>>,
    /// `[rows, classes]`, f32 or in the logits' dtype.
    pub softmax: Option<BufferRange<'a>>,
    /// `[rows, classes]`, f32 or in the logits' dtype.
    pub log_softmax: Option<BufferRange<'a>>,
    /// `[rows, classes]`, f32 or in the logits' dtype; `None` where the gradient goes over the logits.
    pub grad: Option<BufferRange<'a>>,
    /// f32 `[rows]`.
    pub losses: Option<BufferRange<'a>>,
    /// f32 `[rows]`.
    pub lse: Option<BufferRange<'a>>,
    /// i32 `[rows]`.
    pub predictions: Option<BufferRange<'a>>,
    /// f32 `[rows]`.
    pub entropy: Option<BufferRange<'a>>,
    /// u32 `[rows]`, 0 or 1.
    pub correct: Option<BufferRange<'a>>,
    /// f32 `[rows]`.
    pub z_losses: Option<BufferRange<'a>>,
    /// f32 `[1]`; `None` with [`Reduction::None`].
    pub loss: Option<BufferRange<'a>>,
    /// f32 `[1]`; `None` with [`Reduction::None`].
    pub z_loss: Option<BufferRange<'a>>,
    /// u32 `[8]`, see [`Status::from_words`]; [`STATUS_SIZE`] bytes.
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
            class_weights: None,
            upstream: None,
            denominator: None,
            softmax: None,
            log_softmax: None,
            grad: None,
            losses: None,
            lse: None,
            predictions: None,
            entropy: None,
            correct: None,
            z_losses: None,
            loss: None,
            z_loss: None,
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
    pub valid_rows: u64,
    /// Rows whose prediction is their label, where predictions are wanted.
    pub correct: u64,
}

impl Status {
    /// From the words of [`Buffers::status`].
    pub fn from_words(words: &[u32; STATUS_WORDS]) -> Status {
        let first = |word: usize| (words[word] != 0).then_some(!words[word]);
        let wide = |low: usize, high: usize| u64::from(words[high]) << 32 | u64::from(words[low]);
        Status {
            nan_rows: words[status::NAN_ROWS],
            first_nan_row: first(status::FIRST_NAN_ROW),
            bad_labels: words[status::BAD_LABELS],
            first_bad_label: first(status::FIRST_BAD_LABEL),
            valid_rows: wide(status::VALID, status::VALID_HIGH),
            correct: wide(status::CORRECT, status::CORRECT_HIGH),
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

/// What of a batch is on the device at once: some rows, or a window of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Rows of the batch. Fewer than are interleaved are some that are.
    pub rows: Range<usize>,
    /// Columns of the rows; those of a window begin a part.
    pub columns: Range<usize>,
}

impl Piece {
    /// The class weights of a window: its columns, as far as they are classes; the last class, where none
    /// is.
    pub fn classes(&self, problem: &Problem) -> Range<usize> {
        let classes = problem.classes();
        self.columns.start.min(classes - 1)..self.columns.end.min(classes)
    }
}

/// What is done with a piece of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Its labels are added to the denominator.
    Count,
    /// All else, of whole rows.
    Rows,
    /// The states of the parts of a window.
    States,
    /// What follows from the states of all parts of a row, and the outputs of its first window.
    Finish,
    /// The outputs of another window.
    Write,
}

impl Work {
    /// Whether a pass of a plan belongs to it.
    fn has(self, pass: &Pass) -> bool {
        let kernel = match pass.variant {
            Variant::Row { kernel, .. } => Some(kernel),
            _ => None,
        };
        match self {
            Work::Count => false,
            Work::Rows => true,
            Work::States => kernel == Some(RowKernel::SplitStates),
            Work::Finish => kernel != Some(RowKernel::SplitStates),
            Work::Write => kernel == Some(RowKernel::SplitFinish),
        }
    }
}

/// Places in the scratch buffer, from its first aligned byte on.
struct Scratch {
    alignment: u64,
}

impl Scratch {
    /// One line for each slot: the denominator, and small bindings for arrays that nobody gave.
    const PLACES: u64 = Slot::Probes as u64;
    const ACCUMULATORS: u64 = 4 * ACCUMULATOR_WORDS as u64;
    /// Bytes of a line: room for what is counted of labels.
    const LINE: u64 = (4 * COUNTED_WORDS as u64).next_power_of_two();

    fn new(device: &DeviceProfile) -> Scratch {
        Scratch {
            alignment: u64::from(device.offset_alignment).max(Self::LINE),
        }
    }

    fn size(&self, state_words: u64) -> u64 {
        // Up to one alignment is lost at the start, and one after the accumulators.
        (Self::PLACES + 2) * self.alignment + Self::ACCUMULATORS + 4 * state_words
    }

    /// Where a slot is that the caller gave nothing for.
    fn place<'a>(&self, scratch: BufferRange<'a>, slot: Slot, state_words: u64) -> BufferRange<'a> {
        let accumulators = Self::PLACES * self.alignment;
        let states = (accumulators + Self::ACCUMULATORS).next_multiple_of(self.alignment);
        let (offset, size) = match slot {
            Slot::Accumulators => (accumulators, Self::ACCUMULATORS),
            Slot::States => (states, 4 * state_words),
            slot => (slot as u64 * self.alignment, Self::LINE),
        };
        BufferRange {
            buffer: scratch.buffer,
            offset: scratch.offset.next_multiple_of(self.alignment) + offset,
            size,
        }
    }
}

impl Problem {
    /// Bytes of the array of a slot for so many rows and columns, where the caller gives it; `None` where
    /// the problem does without.
    pub(crate) fn size_of(&self, slot: Slot, rows: u64, columns: u64) -> Option<u64> {
        let row_vector = 4 * rows;
        let matrix = |dtype: Dtype| (dtype.size() as u64 * rows * columns).next_multiple_of(4);
        let when = |wanted: Wanted, size: u64| self.wants(wanted).then_some(size);
        let out = matrix(self.dtype_out());
        let wants_grad = self.wants(Wanted::Grad);
        let reduced = self.reduction() != Reduction::None;
        match slot {
            Slot::Logits => Some(matrix(self.dtype())),
            Slot::Labels => match self.labels() {
                LabelKind::None => None,
                LabelKind::Index { .. } => Some(row_vector),
                LabelKind::Dense | LabelKind::Vector => Some(matrix(Dtype::F32)),
            },
            Slot::ClassWeights => {
                let classes = columns.min(self.classes() as u64);
                self.class_weights().then_some(4 * classes)
            }
            Slot::Upstream => match self.upstream() {
                _ if !wants_grad => None,
                Upstream::Number(_) => None,
                Upstream::Shared => Some(4),
                Upstream::PerRow => Some(row_vector),
            },
            Slot::Denominator => (self.denominator() == Denominator::Buffer).then_some(4),
            Slot::Softmax => when(Wanted::Softmax, out),
            Slot::LogSoftmax => when(Wanted::LogSoftmax, out),
            Slot::Grad => (wants_grad && !self.grad_over_logits()).then_some(out),
            Slot::Losses => when(Wanted::Losses, row_vector),
            Slot::Lse => when(Wanted::Lse, row_vector),
            Slot::Predictions => when(Wanted::Predictions, row_vector),
            Slot::Entropy => when(Wanted::Entropy, row_vector),
            Slot::Correct => when(Wanted::Correct, row_vector),
            Slot::ZLosses => when(Wanted::ZLosses, row_vector),
            Slot::Loss => when(Wanted::Loss, 4).filter(|_| reduced),
            Slot::ZLoss => when(Wanted::ZLoss, 4).filter(|_| reduced),
            Slot::Status => Some(STATUS_SIZE),
            Slot::Params | Slot::States | Slot::Accumulators | Slot::Probes => None,
        }
    }
}

/// The arrays that a caller gives or that the scratch buffer holds.
const ARRAYS: [Slot; 17] = [
    Slot::Logits,
    Slot::Labels,
    Slot::ClassWeights,
    Slot::Upstream,
    Slot::Denominator,
    Slot::Softmax,
    Slot::LogSoftmax,
    Slot::Grad,
    Slot::Losses,
    Slot::Lse,
    Slot::Predictions,
    Slot::Entropy,
    Slot::Correct,
    Slot::ZLosses,
    Slot::Loss,
    Slot::ZLoss,
    Slot::Status,
];

impl<'a> Buffers<'a> {
    fn of(&self, slot: Slot) -> Option<BufferRange<'a>> {
        match slot {
            Slot::Logits => Some(self.logits),
            Slot::Labels => self.labels,
            Slot::ClassWeights => self.class_weights,
            Slot::Upstream => self.upstream,
            Slot::Denominator => self.denominator,
            Slot::Softmax => self.softmax,
            Slot::LogSoftmax => self.log_softmax,
            Slot::Grad => self.grad,
            Slot::Losses => self.losses,
            Slot::Lse => self.lse,
            Slot::Predictions => self.predictions,
            Slot::Entropy => self.entropy,
            Slot::Correct => self.correct,
            Slot::ZLosses => self.z_losses,
            Slot::Loss => self.loss,
            Slot::ZLoss => self.z_loss,
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

impl Plan {
    /// Bytes of [`Buffers::scratch`] for so many rows on this device.
    pub fn scratch_size(&self, device: &DeviceProfile, rows: usize) -> u64 {
        Scratch::new(device).size(self.state_words(rows as u64))
    }
}

impl Prepared {
    /// Bytes of [`Buffers::scratch`], for all rows of the problem.
    pub fn scratch_size(&self, engine: &Engine) -> u64 {
        self.scratch_size_for(engine, self.problem().rows())
    }

    /// Bytes of [`Buffers::scratch`] for [`Prepared::bind_chunk`].
    pub fn scratch_size_for(&self, engine: &Engine, rows: usize) -> u64 {
        self.plan().scratch_size(engine.profile(), rows)
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
        if !chunk.rows.is_multiple_of(problem.inner()) {
            return Err(Error::BadShape {
                what: "the number of rows of a chunk",
                value: chunk.rows,
                needed: format!("a multiple of the {} interleaved rows", problem.inner()),
            });
        }
        let counted = self.plan().count.is_some();
        if counted && chunk.rows != self.problem().rows() {
            return Err(Error::ChunkDenominator {
                rows: chunk.rows,
                of: self.problem().rows(),
            });
        }
        let denominator = match counted {
            true => InUse::Counted,
            false => InUse::Known(problem.rows() as u64),
        };
        let piece = Piece {
            rows: 0..chunk.rows,
            columns: 0..problem.row_length(),
        };
        let rows_before = chunk.rows_before as u32;
        self.bind_with(
            engine,
            buffers,
            &piece,
            rows_before,
            denominator,
            Work::Rows,
        )
        .await
    }

    /// [`Prepared::bind_chunk`] for a piece of a batch, whose rows the device numbers from 0, the host
    /// having counted the rows that are not ignored, or recording the count of all pieces before the rows
    /// of the first.
    pub(crate) async fn bind_piece(
        &self,
        engine: &Engine,
        buffers: &Buffers<'_>,
        piece: &Piece,
        work: Work,
        valid_rows: u64,
    ) -> Result<Bound> {
        let denominator = match self.problem().sums_weights() && self.plan().count.is_some() {
            true => InUse::Counted,
            false => InUse::Known(valid_rows),
        };
        self.bind_with(engine, buffers, piece, 0, denominator, work)
            .await
    }

    async fn bind_with(
        &self,
        engine: &Engine,
        buffers: &Buffers<'_>,
        piece: &Piece,
        rows_before: u32,
        denominator: InUse,
        work: Work,
    ) -> Result<Bound> {
        let problem = self.problem();
        let (rows, columns) = (piece.rows.len() as u64, piece.columns.len() as u64);
        let alignment = u64::from(engine.profile().offset_alignment);
        let scratch = Scratch::new(engine.profile());
        let state_words = self.plan().state_words(rows);
        let scratch_range = checked("scratch", buffers.scratch, scratch.size(state_words))?;

        let mut arrays = Vec::new();
        for slot in ARRAYS {
            match (problem.size_of(slot, rows, columns), buffers.of(slot)) {
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
        let start = |slot| {
            let dtype = match slot {
                Slot::Logits => problem.dtype(),
                Slot::Softmax | Slot::LogSoftmax | Slot::Grad => problem.dtype_out(),
                _ => Dtype::F32,
            };
            // What begins with a later column is addressed from where the first one would be.
            let dense = matches!(problem.labels(), LabelKind::Dense | LabelKind::Vector);
            let before = match slot {
                Slot::Logits | Slot::Softmax | Slot::LogSoftmax | Slot::Grad => piece.columns.start,
                Slot::Labels if dense => piece.columns.start,
                Slot::ClassWeights => piece.classes(problem).start,
                _ => 0,
            };
            let at = (range(slot).offset % alignment) / dtype.size() as u64;
            (at as u32).wrapping_sub(before as u32)
        };
        let wanted = |slot| given(slot).map_or(NOT_WANTED, |_| start(slot));
        let (upstream_stride, upstream) = match problem.upstream() {
            Upstream::Number(number) => (0, number),
            Upstream::Shared => (0, 0.0),
            Upstream::PerRow => (1, 0.0),
        };
        let (denominator_word, denominator_flags) = denominator.of(problem);
        let params = Params {
            rows: rows as u32,
            inner: problem.inner().min(piece.rows.len().max(1)) as u32,
            first_column: piece.columns.start as u32,
            end_column: piece.columns.end as u32,
            logits_start: start(Slot::Logits),
            labels_start: start(Slot::Labels),
            class_weights_start: start(Slot::ClassWeights),
            upstream_start: start(Slot::Upstream),
            denominator_start: start(Slot::Denominator),
            softmax_start: start(Slot::Softmax),
            log_softmax_start: start(Slot::LogSoftmax),
            grad_start: start(Slot::Grad),
            losses_start: wanted(Slot::Losses),
            lse_start: wanted(Slot::Lse),
            predictions_start: wanted(Slot::Predictions),
            entropy_start: wanted(Slot::Entropy),
            correct_start: wanted(Slot::Correct),
            z_losses_start: wanted(Slot::ZLosses),
            loss_start: wanted(Slot::Loss),
            z_loss_start: wanted(Slot::ZLoss),
            status_start: start(Slot::Status),
            part: self.plan().part as u32,
            span: self.plan().span as u32,
            rows_before,
            upstream_stride,
            upstream,
            denominator: denominator_word,
            denominator_flags,
            ..Params::of(problem)
        };

        // Bindings cannot be empty, and no rows have nothing but a reduction.
        let with_rows = rows > 0;
        let counts = with_rows && matches!(denominator, InUse::Counted);
        let counts = self.plan().count.iter().filter(|_| counts);
        let rows_passes = &self.plan().passes[..];
        let rows_passes = if with_rows { rows_passes } else { &[] };
        let rows_passes = rows_passes.iter().filter(|pass| work.has(pass));
        let mut steps = Vec::new();
        let count = counts.clone().count();
        for pass in counts.chain(rows_passes).chain([&self.plan().reduce]) {
            let mut bindings = Vec::new();
            for (slot, access) in pass.variant.slots() {
                if access == Access::Uniform {
                    continue;
                }
                let place = match pass.uses(slot) {
                    true => range(pass.array(slot)),
                    false => scratch.place(scratch_range, slot, state_words),
                };
                bindings.push((slot, binding(slot, place, alignment, engine)?));
            }
            // One dispatch may not read a buffer and write it, be it in different places.
            let of_logits = |(slot, binding): &(Slot, wgpu::BufferBinding<'_>)| {
                *slot != Slot::Logits && binding.buffer == buffers.logits.buffer
            };
            let pooled = bindings.iter().any(of_logits);
            let pass = if pooled { pass.pooled() } else { *pass };
            let with_classes = [
                Slot::ClassWeights,
                Slot::Softmax,
                Slot::LogSoftmax,
                Slot::Grad,
            ];
            let whole = with_classes
                .into_iter()
                .all(|slot| start(slot).is_multiple_of(SLOT as u32))
                && start(Slot::Logits).is_multiple_of(in_vector(problem.dtype()) as u32);
            let room = |slot| whole_vectors(range(slot), alignment, engine);
            let alike = |slot| {
                let apart = start(slot).wrapping_sub(start(Slot::Logits));
                apart.is_multiple_of(SLOT as u32) && room(slot).is_some()
            };
            let pass = pass.placed(Placement {
                whole,
                alike: [Slot::Softmax, Slot::Grad]
                    .into_iter()
                    .filter(|&slot| pass.uses(slot))
                    .all(|slot| alike(pass.array(slot))),
                room: room(Slot::Logits).is_some(),
            });
            let width = match pass.variant {
                Variant::Row { width, .. } => width,
                _ => Width::Words,
            };
            for (slot, binding) in &mut bindings {
                let vectors = match slot {
                    Slot::Logits => matches!(width, Width::Shifted | Width::Alike),
                    Slot::Softmax | Slot::Grad => width == Width::Alike && pass.uses(*slot),
                    _ => false,
                };
                if vectors && let Some(size) = room(pass.array(*slot)) {
                    binding.size = wgpu::BufferSize::new(size);
                }
            }
            let in_buffer = denominator_flags & DENOMINATOR_IN_BUFFER != 0;
            let pass = if in_buffer { pass } else { pass.known() };
            steps.push((engine.pipeline(pass).await?, bindings));
        }
        let most = engine.profile().max_workgroups;
        let mut steps = engine
            .guarded("the bind groups", size_of::<Params>() as u64, |device| {
                make_steps(device, &params, steps, most)
            })
            .await?
            .map_err(|error| engine.refused("the parameters", &error))?;
        let reduce = steps.pop();
        let rows = steps.split_off(count);
        Ok(Bound {
            count: steps.pop(),
            rows,
            reduce,
        })
    }
}

/// Where the denominator of a bound problem comes from.
#[derive(Debug, Clone, Copy)]
enum InUse {
    /// From the labels, on the device.
    Counted,
    /// From the problem, or this number of rows.
    Known(u64),
}

impl InUse {
    /// The denominator of the parameters, and its flags.
    fn of(self, problem: &Problem) -> (u32, u32) {
        let empty = match problem.empty_mean() {
            EmptyMean::Nan => 0,
            EmptyMean::Zero => EMPTY_IS_ZERO,
        };
        let (word, flags) = match (problem.reduction(), problem.denominator(), self) {
            (Reduction::None | Reduction::Sum, ..) => (1, DENOMINATOR_IS_COUNT),
            (Reduction::Mean, Denominator::Number(number), _) => (number.to_bits(), 0),
            (Reduction::Mean, Denominator::Buffer, _) => (0, DENOMINATOR_IN_BUFFER),
            (Reduction::Mean, _, InUse::Counted) if problem.sums_weights() => {
                (0, DENOMINATOR_IN_BUFFER | DENOMINATOR_IS_WEIGHTS)
            }
            (Reduction::Mean, _, InUse::Counted) => {
                (0, DENOMINATOR_IN_BUFFER | DENOMINATOR_IS_COUNT)
            }
            (Reduction::Mean, _, InUse::Known(rows)) => match u32::try_from(rows) {
                Ok(rows) => (rows, DENOMINATOR_IS_COUNT),
                // The nearest f32, which is one half of a unit in the last place off, at most.
                Err(_) => ((rows as f32).to_bits(), 0),
            },
        };
        (word, flags | empty)
    }
}

/// Nothing that is written may lie where something else is.
fn no_overlap(arrays: &[(Slot, BufferRange<'_>)], scratch: BufferRange<'_>) -> Result<()> {
    let is_input = |slot| {
        matches!(
            slot,
            Slot::Logits | Slot::Labels | Slot::ClassWeights | Slot::Upstream | Slot::Denominator
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

/// The size of a binding in whole vectors of four, if the buffer goes on for so long.
fn whole_vectors(range: BufferRange<'_>, alignment: u64, engine: &Engine) -> Option<u64> {
    let lead = range.offset % alignment;
    let size = (lead + range.size).next_multiple_of(4 * SLOT as u64);
    let fits = range.offset - lead + size <= range.buffer.size();
    (fits && size <= engine.profile().max_binding).then_some(size)
}

type Bindings<'a> = Vec<(Slot, wgpu::BufferBinding<'a>)>;

fn make_steps(
    device: &Guarded<'_>,
    params: &Params,
    steps: Vec<(Arc<Pipeline>, Bindings<'_>)>,
    most: u32,
) -> std::result::Result<Vec<Step>, wgpu::MapRangeError> {
    let usage = wgpu::BufferUsages::UNIFORM;
    let uniform = device.buffer_with("params", bytemuck::bytes_of(params), usage)?;
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
        let workgroups = pipeline.pass.workgroups(params, most);
        Step {
            pipeline,
            bind_group,
            workgroups,
        }
    };
    Ok(steps.into_iter().map(step).collect())
}

struct Step {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 2],
}

/// A problem bound to buffers. Keeps them alive.
pub struct Bound {
    count: Option<Step>,
    rows: Vec<Step>,
    reduce: Option<Step>,
}

impl Bound {
    /// Records the whole job: the rows, then the reduction. As often as wanted, also within one
    /// submission: everything is read from the buffers when the device gets there.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        record(
            encoder,
            self.count.iter().chain(&self.rows).chain(&self.reduce),
        );
    }

    /// Records the rows: their outputs, and their share of the sums of the batch.
    pub fn record_rows(&self, encoder: &mut wgpu::CommandEncoder) {
        record(encoder, self.count.iter().chain(&self.rows));
    }

    /// Records what the labels of these rows add to the denominator.
    pub(crate) fn record_count(&self, encoder: &mut wgpu::CommandEncoder) {
        record(encoder, &self.count);
    }

    /// Records what follows where the denominator is known.
    pub(crate) fn record_counted(&self, encoder: &mut wgpu::CommandEncoder) {
        record(encoder, &self.rows);
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

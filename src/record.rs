//! Binds a prepared problem to buffers and records its dispatches into the caller's encoder.
//! Never submits; recording creates nothing.

use std::sync::Arc;

use crate::engine::{Engine, Pipeline, Prepared};
use crate::error::{Error, Result};
use crate::kernel::{ACCUMULATOR_WORDS, Access, NOT_WANTED, Params, ROW_STATE_WORDS, Slot};
use crate::plan::fold;
use crate::problem::{LabelKind, Upstream, Wanted};

/// A part of a buffer.
#[derive(Debug, Clone, Copy)]
pub struct BufferRange<'a> {
    /// The buffer.
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
}

/// The buffers of one problem; all with the usage `STORAGE`. What the problem neither reads nor
/// writes is `None`.
#[derive(Debug, Clone, Copy)]
pub struct Buffers<'a> {
    /// f32 `[rows, classes]`.
    pub logits: BufferRange<'a>,
    /// i32 `[rows]`, or f32 `[rows, classes]`.
    pub labels: Option<BufferRange<'a>>,
    /// f32 `[1]`, or `[rows]` with [`Upstream::PerRow`].
    pub upstream: Option<BufferRange<'a>>,
    /// f32 `[rows, classes]`.
    pub softmax: Option<BufferRange<'a>>,
    /// f32 `[rows, classes]`.
    pub log_softmax: Option<BufferRange<'a>>,
    /// f32 `[rows, classes]`; `None` where the gradient goes over the logits.
    pub grad: Option<BufferRange<'a>>,
    /// [`Prepared::row_outputs_words`] per row: losses, lse, predictions (i32), those that are
    /// wanted, one section of `rows` values after the other.
    pub row_outputs: BufferRange<'a>,
    /// 32 bytes per row of scratch.
    pub row_states: BufferRange<'a>,
    /// Counters and exact sums, [`accumulators_size`] bytes, zero before the first rows are added.
    pub accumulators: BufferRange<'a>,
}

/// Bytes of [`Buffers::accumulators`].
pub const fn accumulators_size() -> u64 {
    4 * ACCUMULATOR_WORDS as u64
}

/// What changes from one chunk of a batch to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chunk {
    /// Rows in the buffers.
    pub rows: usize,
    /// Rows of the batch before them.
    pub rows_before: usize,
    /// What the loss and the gradient are divided by: 1, or the rows of the whole batch that are not
    /// ignored for [`crate::Reduction::Mean`]. 0 makes the loss NaN and the gradient zero.
    pub denominator: u32,
}

impl Prepared {
    /// The per-row outputs that are wanted, in the order of their sections.
    pub fn row_sections(&self) -> impl Iterator<Item = Wanted> {
        let outputs = self.problem().outputs();
        [Wanted::Losses, Wanted::Lse, Wanted::Predictions]
            .into_iter()
            .filter(move |&wanted| outputs.has(wanted))
    }

    /// 4-byte values per row of [`Buffers::row_outputs`], at least 1.
    pub fn row_outputs_words(&self) -> usize {
        self.row_sections().count().max(1)
    }

    /// Makes the parameters and bind groups for these buffers.
    ///
    /// # Errors
    /// [`Error::Buffer`], [`Error::BufferRange`]; [`Error::RowTooWide`] where a part is larger than
    /// the device binds at once; what the driver refuses.
    pub async fn bind(
        &self,
        engine: &Engine,
        buffers: &Buffers<'_>,
        chunk: Chunk,
    ) -> Result<Bound> {
        let alignment = u64::from(engine.profile().offset_alignment);
        let range = |slot| self.range(slot, buffers, chunk.rows);
        let start = |slot| -> Result<u32> {
            Ok(range(slot)?.map_or(0, |range| ((range.offset % alignment) / 4) as u32))
        };
        let rows = chunk.rows as u32;
        let mut params = Params {
            rows,
            classes: self.problem().classes() as u32,
            // Whatever the label of ignored rows is on the host, no class has it on the device.
            ignore_index: match self.problem().labels() {
                LabelKind::Index { ignore_index } => device_ignore_index(ignore_index),
                LabelKind::None | LabelKind::Dense => 0,
            },
            logits_start: start(Slot::Logits)?,
            labels_start: start(Slot::Labels)?,
            upstream_start: start(Slot::Upstream)?,
            softmax_start: start(Slot::Softmax)?,
            log_softmax_start: start(Slot::LogSoftmax)?,
            grad_start: start(Slot::Grad)?,
            losses_start: NOT_WANTED,
            lse_start: NOT_WANTED,
            predictions_start: NOT_WANTED,
            row_states_start: start(Slot::RowStates)?,
            accumulators_start: start(Slot::Accumulators)?,
            upstream_stride: u32::from(self.problem().upstream() == Upstream::PerRow),
            gradient_scale: match chunk.denominator {
                0 => 0.0,
                denominator => (1.0 / f64::from(denominator)) as f32,
            },
            denominator: chunk.denominator,
            rows_before: chunk.rows_before as u32,
            ..Params::default()
        };
        let outputs_start = start(Slot::RowOutputs)?;
        for (section, wanted) in self.row_sections().enumerate() {
            let start = outputs_start + section as u32 * rows;
            match wanted {
                Wanted::Losses => params.losses_start = start,
                Wanted::Lse => params.lse_start = start,
                _ => params.predictions_start = start,
            }
        }
        let mut bindings = Vec::new();
        for pipeline in self.pipelines.iter().chain([&self.reduce]) {
            let mut entries = Vec::new();
            for (slot, access) in pipeline.pass.variant.slots() {
                if access != Access::Uniform {
                    let range = range(slot)?.ok_or(Error::Buffer {
                        what: slot.name(),
                        needed: true,
                    })?;
                    entries.push((slot, checked_binding(slot, range, alignment, engine)?));
                }
            }
            bindings.push((Arc::clone(pipeline), entries));
        }
        let most = engine.profile().max_workgroups;
        let mut steps = engine
            .guarded("the bind groups", size_of::<Params>() as u64, |device| {
                make_steps(device, &params, bindings, most)
            })
            .await?;
        let reduce = steps.pop();
        Ok(Bound { steps, reduce })
    }

    /// The part of a buffer that a slot needs, checked against the buffers given.
    fn range<'a>(
        &self,
        slot: Slot,
        buffers: &Buffers<'a>,
        rows: usize,
    ) -> Result<Option<BufferRange<'a>>> {
        let rows = rows as u64;
        let matrix = 4 * rows * self.problem().classes() as u64;
        let needs = |wanted: bool, size: u64| wanted.then_some(size);
        let wants_grad = self.problem().wants(Wanted::Grad);
        let (needed, given) = match slot {
            Slot::Params => return Ok(None),
            Slot::Logits => (Some(matrix), Some(buffers.logits)),
            Slot::Labels => (
                match self.problem().labels() {
                    LabelKind::None => None,
                    LabelKind::Index { .. } => Some(4 * rows),
                    LabelKind::Dense => Some(matrix),
                },
                buffers.labels,
            ),
            Slot::Upstream => {
                let values = match self.problem().upstream() {
                    Upstream::Number(_) => 1,
                    Upstream::PerRow => rows,
                };
                (needs(wants_grad, 4 * values), buffers.upstream)
            }
            Slot::Softmax => (
                needs(self.problem().wants(Wanted::Softmax), matrix),
                buffers.softmax,
            ),
            Slot::LogSoftmax => (
                needs(self.problem().wants(Wanted::LogSoftmax), matrix),
                buffers.log_softmax,
            ),
            Slot::Grad => {
                let own = wants_grad && !self.problem().grad_over_logits();
                (needs(own, matrix), buffers.grad)
            }
            Slot::RowStates => (
                Some(4 * ROW_STATE_WORDS as u64 * rows),
                Some(buffers.row_states),
            ),
            Slot::RowOutputs => (
                Some(4 * self.row_outputs_words() as u64 * rows),
                Some(buffers.row_outputs),
            ),
            Slot::Accumulators => (Some(accumulators_size()), Some(buffers.accumulators)),
        };
        match (needed, given) {
            (None, None) => Ok(None),
            (Some(needed), Some(range)) => {
                let end = range.offset.checked_add(range.size);
                let inside = end.is_some_and(|end| end <= range.buffer.size());
                if range.size < needed || range.offset % 4 != 0 || !inside {
                    return Err(Error::BufferRange {
                        what: slot.name(),
                        size: range.size,
                        offset: range.offset,
                        needed,
                    });
                }
                Ok(Some(BufferRange {
                    size: needed,
                    ..range
                }))
            }
            (needed, _) => Err(Error::Buffer {
                what: slot.name(),
                needed: needed.is_some(),
            }),
        }
    }
}

/// The label of ignored rows on the device, where labels are 32 bits wide.
pub(crate) fn device_ignore_index(ignore_index: i64) -> i32 {
    i32::try_from(ignore_index).unwrap_or(-1)
}

/// A binding that begins at the last aligned offset before the range.
fn checked_binding<'a>(
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
    bindings: Vec<(Arc<Pipeline>, Bindings<'_>)>,
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
    let step = |(pipeline, entries): (Arc<Pipeline>, Bindings<'_>)| {
        let mut all = vec![wgpu::BindGroupEntry {
            binding: Slot::Params as u32,
            resource: uniform.as_entire_binding(),
        }];
        all.extend(
            entries
                .into_iter()
                .map(|(slot, binding)| wgpu::BindGroupEntry {
                    binding: slot as u32,
                    resource: wgpu::BindingResource::Buffer(binding),
                }),
        );
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(pipeline.pass.variant.entry_point()),
            layout: &pipeline.layout,
            entries: &all,
        });
        let workgroups = match pipeline.pass.rows_per_workgroup() {
            Some(rows) => fold(params.rows.div_ceil(rows), most),
            None => [1, 1],
        };
        Step {
            pipeline,
            bind_group,
            workgroups,
        }
    };
    bindings.into_iter().map(step).collect()
}

struct Step {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 2],
}

impl Step {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.workgroups[0], self.workgroups[1], 1);
    }
}

/// A problem bound to buffers.
pub struct Bound {
    steps: Vec<Step>,
    reduce: Option<Step>,
}

impl Bound {
    /// Records the rows: their outputs, and their share of the sums of the batch.
    pub fn record_rows(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("softxent rows"),
            timestamp_writes: None,
        });
        for step in &self.steps {
            step.record(&mut pass);
        }
    }

    /// Records the reduction of what all rows so far have added up.
    pub fn record_reduce(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("softxent reduce"),
            timestamp_writes: None,
        });
        if let Some(step) = &self.reduce {
            step.record(&mut pass);
        }
    }
}

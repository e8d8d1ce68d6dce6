//! From a problem and what a device allows to a plan: which shaders, of what size, on how many rows
//! at once. Pure, and the only place with thresholds ([`Tuning`]); none of them changes a bit of a result.

use std::fmt;

use crate::error::{Error, Result};
use crate::kernel::{
    ACCUMULATOR_WORDS, Access, BLOCK, Curve, Exchange, GradOutput, LANES, LabelInput, Options,
    PART, Params, ROWS_EACH, RowKernel, SLOT, STATE_WORDS, Slot, SoftmaxOutput, Strategy, Sums,
    Variant, Width,
};
use crate::problem::{
    Denominator, Dtype, LabelKind, Padding, Problem, Reduction, Upstream, Wanted,
};

/// Logits of one chunk of a host call, in bytes: enough to keep a device busy, small enough that the
/// first chunk's way in and the last one's way out, which nothing goes on beside, are short, and that
/// the memory of two chunks never matters. On the software driver 4 to 16 MiB are equally fast, 64 MiB
/// take a fifth longer.
const CHUNK_BYTES: u64 = 16 << 20;
/// Invocations of a workgroup that counts labels or finishes rows, one each: two subgroups of the widest
/// kind. By reasoning, not measured.
const WORKGROUP: u32 = 64;

/// What a plan is chosen by, where a choice changes no bit of a result: where one strategy ends and the
/// next begins, and the sizes of workgroups. [`Tuning::GPU`] and [`Tuning::SOFTWARE`] say for each value
/// what speaks for it.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Up to this many classes one invocation takes a row: a team would mostly idle.
    pub narrow: usize,
    /// From this many rows on one invocation takes a row of any width.
    pub many: usize,
    /// Up to this many classes a subgroup does, else a workgroup.
    pub subgroup: usize,
    /// From this many classes on, and up to so many rows, rows are split: there are too few of them to
    /// keep the device busy.
    pub split_classes: usize,
    /// See `split_classes`.
    pub split_rows: usize,
    /// Invocations of a workgroup that holds several rows, or parts of rows, or merges the parts of one.
    pub workgroup: u32,
    /// Below this many rows a team has a workgroup of its own.
    pub alone: usize,
    /// Invocations of a workgroup that owns a row, at most.
    pub row_workgroup: u32,
    /// Invocations of a workgroup that finishes a span of a split row.
    pub span_workgroup: u32,
    /// So many spans are wanted: rows are cut into shorter ones until then.
    pub spans: usize,
    /// Parts that a split row is to have, at most: who finishes a span of it reads the states of all.
    pub parts: usize,
    /// Whether rows are read and written by vectors of four words, where they may be: see [`Width`].
    pub vectors: bool,
    /// Whether the loops of a kernel fit its rows, and a row that fits into a kernel stays in it from
    /// its state to its outputs.
    pub keeps: bool,
}

impl Tuning {
    /// GPUs: all of it by reasoning, not measured.
    pub const GPU: Tuning = Tuning {
        // By reasoning, not measured: half the lanes of a block are idle below that.
        narrow: 16,
        // By reasoning, not measured: neighbours that read rows far apart share no cache line.
        many: usize::MAX,
        // By reasoning, not measured: 16 blocks one after the other; from there on there are as many
        // teams to a row.
        subgroup: 4096,
        // By reasoning, not measured: 64 rows are workgroups for as many multiprocessors, and 16 parts of
        // each pay for one more dispatch.
        split_classes: 16_384,
        split_rows: 64,
        // By reasoning, not measured: two subgroups of the widest kind.
        workgroup: 64,
        alone: 0,
        // By reasoning, not measured: 32 teams, and what WebGPU promises.
        row_workgroup: 256,
        // By reasoning, not measured: an invocation for each part of a row of 262144 classes.
        span_workgroup: 256,
        // By reasoning, not measured: some for each multiprocessor.
        spans: 1024,
        // By reasoning, not measured: blocks enough on their way for all of the bandwidth, and states of a
        // fifth of what a span reads.
        parts: 2048,
        // By reasoning, not measured: loads of 16 bytes.
        vectors: true,
        // By reasoning, not measured: the logits are read once, not twice.
        keeps: true,
    };

    /// Drivers on the processor, llvmpipe: `benches/results/2026-11-26_llvmpipe_kernels.csv`, but for
    /// what says otherwise.
    pub const SOFTWARE: Tuning = Tuning {
        // Measured there: one invocation a row is the fastest of all up to here with any number of rows,
        narrow: 256,
        // and with enough rows for the lanes of all cores at any width.
        many: 32,
        // Measured there: a workgroup a row is never the fastest.
        subgroup: usize::MAX,
        // Measured there: a single row is all that is too few for two cores, and a long one.
        split_classes: 65_536,
        split_rows: 1,
        // Measured there: a workgroup is run by one core, so it is so small that all cores have some;
        workgroup: 16,
        // of few rows, as small as it can be.
        alone: 32,
        // By reasoning, not measured, as no plan has it but by name.
        row_workgroup: 256,
        // Measured there: a workgroup with a barrier is as fast as its subgroups are few, and one has none.
        span_workgroup: 8,
        // By reasoning, not measured: some for each core; and states that are short work for one of them.
        spans: 8,
        parts: 64,
        // Measured there.
        vectors: true,
        keeps: true,
    };
}

/// Columns of a row that one invocation can go through on a software driver. llvmpipe (Mesa 22.3.6)
/// ends an invocation without a word after 65535 loop iterations, whatever the loops, and the end of a loop
/// counts as one. Of a block of 256 columns a kernel has up to 23 for its state. At each of these numbers
/// a test compares all bits with those of rows that are split.
const SOFTWARE_COLUMNS_PER_INVOCATION: usize = 524_288;
/// The same where outputs of the shape of the logits are written, 80 iterations of a block more.
const SOFTWARE_COLUMNS_WITH_OUTPUTS: usize = 131_072;
/// The same where predictions are looked for, up to 65 for the slots of a block.
const SOFTWARE_COLUMNS_WITH_PREDICTIONS: usize = 131_072;
/// The same where both are.
const SOFTWARE_COLUMNS_WITH_BOTH: usize = 65_536;
/// The same where the columns of a slot have loops of their own.
const SOFTWARE_COLUMNS_WITH_SLOT_LOOPS: usize = 7680;
/// The same for invocations that share a row, for each of them.
const SOFTWARE_COLUMNS_PER_SHARE: usize = 32_768;
/// By how much fewer they are where slots have loops, two at most.
const SOFTWARE_SLOT_LOOPS: usize = 8;
/// Columns of a span of a split row, at least. By reasoning, not measured.
const SHORTEST_SPAN: usize = 2048;
/// Invocations that add up the sums of a batch.
const ADDERS: u32 = 32;
/// Fewest invocations that share one.
const FEWEST: u32 = 4;

/// What the planner knows of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceProfile {
    /// Whether the driver computes on the processor.
    pub software: bool,
    /// Largest storage binding, bytes.
    pub max_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Multiple that the offset of a binding has to be, bytes.
    pub offset_alignment: u32,
    /// Invocations of a workgroup, at most.
    pub max_invocations: u32,
    /// Workgroups of a dispatch in one dimension, at most.
    pub max_workgroups: u32,
    /// Memory of a workgroup, bytes.
    pub workgroup_memory: u32,
    /// Storage buffers of a shader, at most.
    pub max_storage_buffers: u32,
    /// Whether a store to one component of a vector leaves the others alone, which WGSL does not promise.
    pub stores_components: bool,
    /// Whether vectors of four words are read and written as two numbers of 64 bits.
    pub pairs: bool,
    /// Invocations of a subgroup, where it is always the same number and shuffles are to be used.
    pub subgroup: Option<u32>,
    /// Bytes that the chunks of a host call may take, on the device and for staging, where that is less
    /// than their usual size: see [`Plan::chunk_size`].
    pub memory: Option<u64>,
    /// What plans are chosen by, where it is not what suits the kind of device.
    #[doc(hidden)]
    pub tuning: Option<Tuning>,
}

impl DeviceProfile {
    /// From a device.
    pub fn new(device: &wgpu::Device) -> Self {
        let (limits, info) = (device.limits(), device.adapter_info());
        let features = device.features();
        let fixed = info.subgroup_min_size == info.subgroup_max_size
            && features.contains(wgpu::Features::SUBGROUP);
        let software = info.device_type == wgpu::DeviceType::Cpu;
        DeviceProfile {
            software,
            subgroup: Some(info.subgroup_min_size).filter(|&size| fixed && size >= FEWEST),
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            offset_alignment: limits.min_storage_buffer_offset_alignment,
            max_invocations: limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x),
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            // SPIR-V says so of every store, and what naga writes for DX12 stores words. In Metal's language, and so
            // in a browser, it may be a store of the whole.
            stores_components: matches!(info.backend, wgpu::Backend::Vulkan | wgpu::Backend::Dx12),
            pairs: software && features.contains(wgpu::Features::SHADER_INT64),
            memory: None,
            tuning: None,
        }
    }
}

/// Storage buffers of a row kernel that finishes its rows itself.
const FUSED_BUFFERS: u32 = 16;

impl DeviceProfile {
    /// Whether row kernels finish their rows themselves, for which they need more buffers than every
    /// device has.
    pub fn fuses(&self) -> bool {
        self.max_storage_buffers >= FUSED_BUFFERS
    }

    /// What plans are chosen by.
    #[doc(hidden)]
    pub fn tuning(&self) -> Tuning {
        self.tuning.unwrap_or(match self.software {
            true => Tuning::SOFTWARE,
            false => Tuning::GPU,
        })
    }
}

/// Where the arrays of the shape of the logits are in their bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// All begin where a vector of four words does.
    pub whole: bool,
    /// All begin in the same place of a vector, and those that are written have room for their last as a whole.
    pub alike: bool,
    /// The logits have room for their last vector as a whole.
    pub room: bool,
}

/// One shader with its compile-time values: what a pipeline is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pass {
    /// The shader.
    pub variant: Variant,
    /// Invocations of a workgroup.
    pub workgroup_size: u32,
    /// Invocations that share a block; where they need not exchange anything, this says nothing.
    pub team: u32,
    /// What a row kernel holds of a row: slots of a stripe, or stripes of a block.
    pub held: u32,
    /// Whether that is the whole row, which then need not be read again.
    pub resident: bool,
    /// Whether the row is a block at most.
    pub one_block: bool,
    /// What else is known when it is compiled.
    pub options: Options,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.variant, self.options)
    }
}

impl Pass {
    /// A pass that shares nothing among invocations and holds nothing of a row.
    pub fn new(variant: Variant, workgroup_size: u32, options: Options) -> Pass {
        Pass {
            variant,
            workgroup_size,
            team: 1,
            held: 1,
            resident: false,
            one_block: false,
            options,
        }
    }

    /// Workgroups in two dimensions, where one dimension has at most `most`.
    pub fn workgroups(&self, params: &Params, most: u32) -> [u32; 2] {
        let rows = params.rows;
        let here = |columns: u32| {
            let end = columns.min(params.end_column);
            end.saturating_sub(params.first_column)
        };
        let written = if self.options.padded {
            params.row_length
        } else {
            params.classes
        };
        let of = |units: u32, invocations: u32| units.div_ceil(self.workgroup_size / invocations);
        let groups = match self.variant {
            Variant::Row { kernel, .. } => match kernel {
                RowKernel::PerInvocation => of(rows, 1),
                RowKernel::PerSubgroup => of(rows, self.team),
                RowKernel::PerWorkgroup => rows,
                RowKernel::SplitStates => {
                    of(rows * here(params.classes).div_ceil(params.part), self.team)
                }
                RowKernel::SplitFinish if self.options.writes() => {
                    rows * here(written).div_ceil(params.span)
                }
                RowKernel::SplitFinish => rows,
            },
            Variant::CountLabels => of(rows.div_ceil(ROWS_EACH), 1),
            Variant::FinishRows(_) | Variant::MoreRows(_) | Variant::MathTest => of(rows, 1),
            Variant::Reduce | Variant::SelfTest | Variant::ShuffleTest => 1,
        };
        fold(groups, most)
    }

    /// The values of its `override` constants.
    pub fn constants(&self) -> Vec<(&'static str, f64)> {
        let size = ("WORKGROUP_SIZE", f64::from(self.workgroup_size));
        let team = ("TEAM", f64::from(self.team));
        let options = self.options;
        let flag = |name, on: bool| (name, f64::from(u8::from(on)));
        let number = |name, value: u32| (name, f64::from(value));
        let labels = number("LABELS", options.labels as u32);
        let class_weights = flag("CLASS_WEIGHTS", options.class_weights);
        let smoothed = flag("SMOOTHED", options.smoothed);
        let z_loss = flag("Z_LOSS", options.z_loss);
        let losses = flag("WITH_LOSSES", options.losses);
        let lse = flag("WITH_LSE", options.lse);
        let predictions = flag("WITH_PREDICTIONS", options.predictions);
        let known = flag("DENOMINATOR_KNOWN", options.denominator_known);
        let low_cap = |curve| (curve == Curve::Capped).then(|| flag("LOW_CAP", options.low_cap));
        match self.variant {
            Variant::Row {
                kernel,
                exchange,
                curve,
                sums,
                finishes,
                ..
            } => {
                let softmax = options.softmax;
                let mut constants = vec![
                    size,
                    labels,
                    class_weights,
                    z_loss,
                    number("DTYPE", options.dtype as u32),
                    smoothed,
                    flag("FROM_SOFTMAX", options.from_softmax),
                    flag("STRIDED", options.strided),
                    flag("PADDED", options.padded),
                    losses,
                    lse,
                    predictions,
                    known,
                    flag("UPSTREAM_GIVEN", options.upstream),
                    flag("WRITES_SOFTMAX", softmax == SoftmaxOutput::Softmax),
                    flag("WRITES_LOG_SOFTMAX", softmax == SoftmaxOutput::LogSoftmax),
                    flag("WRITES_GRAD", options.grad != GradOutput::None),
                    flag("GRAD_OVER_LOGITS", options.grad == GradOutput::OverLogits),
                ];
                constants.extend(low_cap(curve));
                if sums == Sums::Full {
                    constants.push(flag("WITH_ENTROPY", options.entropy));
                }
                if exchange == Exchange::Shuffle {
                    constants.push(team);
                }
                if kernel.has_teams() {
                    constants.push(number("HELD_STRIPES", self.held));
                }
                if kernel == RowKernel::PerInvocation {
                    constants.push(number("SLOTS", self.held));
                }
                if kernel.is_whole() {
                    constants.push(flag("RESIDENT", self.resident));
                }
                if matches!(kernel, RowKernel::PerInvocation | RowKernel::PerSubgroup) {
                    constants.push(flag("ONE_BLOCK", self.one_block));
                }
                if finishes {
                    constants.push(flag("WITH_MORE", options.more));
                }
                constants
            }
            Variant::CountLabels => vec![size, class_weights],
            Variant::FinishRows(curve) => {
                let mut constants = vec![
                    size,
                    labels,
                    class_weights,
                    smoothed,
                    z_loss,
                    losses,
                    lse,
                    predictions,
                ];
                constants.extend(low_cap(curve));
                constants
            }
            Variant::MoreRows(curve) => [size].into_iter().chain(low_cap(curve)).collect(),
            Variant::ShuffleTest => vec![team],
            Variant::MathTest => vec![size],
            Variant::Reduce => vec![class_weights, known],
            Variant::SelfTest => Vec::new(),
        }
    }

    /// The array that this pass has in the place of a slot.
    pub fn array(&self, slot: Slot) -> Slot {
        match (slot, self.options.softmax) {
            (Slot::Softmax, SoftmaxOutput::LogSoftmax) => Slot::LogSoftmax,
            _ => slot,
        }
    }

    /// Whether this pass reads or writes a slot that it binds.
    pub fn uses(&self, slot: Slot) -> bool {
        let options = self.options;
        let is_row = matches!(self.variant, Variant::Row { .. });
        match slot {
            Slot::Labels if is_row => options.labels != LabelInput::None,
            Slot::ClassWeights => options.class_weights,
            Slot::Upstream | Slot::Denominator if is_row => options.grad != GradOutput::None,
            Slot::Softmax => options.softmax != SoftmaxOutput::None,
            Slot::Grad => options.grad == GradOutput::Own,
            _ => true,
        }
    }

    /// The same pass where the denominator is known after all.
    #[must_use]
    pub fn known(mut self) -> Pass {
        self.options.denominator_known |= matches!(self.variant, Variant::Row { .. });
        self
    }

    /// The same pass for arrays that are placed so.
    #[must_use]
    pub fn placed(mut self, placement: Placement) -> Pass {
        if let Variant::Row {
            width,
            logits,
            halves,
            ..
        } = &mut self.variant
        {
            let f32_only = self.options.dtype == Dtype::F32 && !*halves;
            let shifts = placement.room && *logits == Access::Read && f32_only;
            *width = match *width {
                Width::Vectors if placement.whole => Width::Vectors,
                Width::Alike if shifts && placement.alike => Width::Alike,
                Width::Words => Width::Words,
                _ if shifts => Width::Shifted,
                _ => Width::Words,
            };
        }
        self
    }

    /// The same pass for logits that share a buffer with another array.
    #[must_use]
    pub fn pooled(mut self) -> Pass {
        let f32_only = self.options.dtype == Dtype::F32;
        if let Variant::Row {
            logits,
            width,
            halves,
            ..
        } = &mut self.variant
        {
            *logits = Access::ReadWrite;
            if matches!(*width, Width::Shifted | Width::Alike) || !f32_only || *halves {
                *width = Width::Words;
            }
        }
        self
    }

    /// Columns of a row that are held at once.
    fn capacity(&self) -> usize {
        let held = self.held as usize;
        match self.variant {
            Variant::Row {
                kernel: RowKernel::PerInvocation,
                ..
            } => SLOT * held,
            Variant::Row {
                kernel: RowKernel::PerWorkgroup,
                ..
            } => BLOCK * (self.workgroup_size / self.team) as usize,
            _ => SLOT * LANES * held,
        }
    }

    /// Bytes of workgroup memory, at most.
    #[doc(hidden)]
    pub fn memory(&self) -> u32 {
        let Variant::Row {
            kernel,
            exchange,
            sums,
            ..
        } = self.variant
        else {
            return 0;
        };
        // A word and the sums an invocation; a state.
        let (exchanged, state) = match sums {
            Sums::Plain => (12, 24),
            Sums::Full => (36, 48),
        };
        let exchanged = match exchange {
            Exchange::Memory => exchanged * self.workgroup_size,
            Exchange::None | Exchange::Shuffle => 0,
        };
        let states = match kernel {
            RowKernel::PerWorkgroup => self.workgroup_size / self.team + 1,
            RowKernel::SplitFinish => self.workgroup_size,
            _ => 0,
        };
        exchanged + state * states + 16
    }

    /// The pass with the largest workgroup that the device has room for, halving it until then.
    fn fit(mut self, device: &DeviceProfile) -> Result<Pass> {
        let least = match self.variant {
            Variant::Row { exchange, .. } if exchange != Exchange::None => self.team,
            Variant::Reduce => ADDERS,
            _ => 1,
        };
        while self.workgroup_size > least
            && (self.workgroup_size > device.max_invocations
                || self.memory() > device.workgroup_memory)
        {
            self.workgroup_size /= 2;
        }
        let buffers = self.variant.slots().len() as u32 - 1;
        for (limit, found, needed) in [
            (
                "storage buffers per shader",
                device.max_storage_buffers,
                buffers,
            ),
            (
                "invocations per workgroup",
                device.max_invocations,
                self.workgroup_size,
            ),
            (
                "bytes of workgroup memory",
                device.workgroup_memory,
                self.memory(),
            ),
        ] {
            if found < needed {
                return Err(Error::DeviceTooSmall {
                    limit,
                    found: u64::from(found),
                    needed: u64::from(needed),
                });
            }
        }
        Ok(self)
    }
}

/// What will be run for a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Who owns a row.
    pub strategy: Strategy,
    /// The pass that gives the denominator of a mean, where labels have to be counted or weighed.
    pub count: Option<Pass>,
    /// The passes over the logits, then those over the row states; `reduce` follows the last chunk.
    pub passes: Vec<Pass>,
    /// The pass after the last chunk.
    pub reduce: Pass,
    /// Rows of the batch.
    pub rows: usize,
    /// Classes of a row.
    pub classes: usize,
    /// Rows in one chunk of a host call, at most. Where fewer than are interleaved, a chunk has rows that
    /// are.
    pub rows_per_chunk: usize,
    /// Columns in one chunk of a host call, at most; where fewer than a row has, a chunk is a window of
    /// one row.
    pub columns_per_chunk: usize,
    /// Columns of a part of a split row.
    pub part: usize,
    /// Columns of a split row that one workgroup finishes.
    pub span: usize,
    chunks: usize,
    chunk_size: u64,
}

impl Plan {
    /// Plans with the strategy that suits the problem and the device.
    ///
    /// # Errors
    /// [`Error::RowTooWide`], [`Error::DeviceTooSmall`], [`Error::BudgetTooSmall`].
    pub fn new(problem: &Problem, device: &DeviceProfile) -> Result<Plan> {
        let best = suitable(problem, device);
        match Plan::with_strategy(problem, device, best) {
            // One invocation a row needs next to nothing.
            Err(Error::DeviceTooSmall { .. }) if best != Strategy::RowPerInvocation => {
                Plan::with_strategy(problem, device, Strategy::RowPerInvocation)
            }
            // Windows of a row are split rows.
            Err(Error::RowTooWide { .. }) if best != Strategy::SplitRow && problem.inner() == 1 => {
                Plan::with_strategy(problem, device, Strategy::SplitRow)
            }
            plan => plan,
        }
    }

    /// Plans with a given strategy.
    ///
    /// # Errors
    /// [`Error::RowTooWide`], [`Error::DeviceTooSmall`], [`Error::BudgetTooSmall`].
    pub fn with_strategy(
        problem: &Problem,
        device: &DeviceProfile,
        strategy: Strategy,
    ) -> Result<Plan> {
        let passes: Vec<Pass> = passes(problem, device, strategy)
            .into_iter()
            .map(|pass| {
                let mut pass = pass.fit(device)?;
                pass.resident &= problem.classes() <= pass.capacity();
                if let Variant::Row { kernel, width, .. } = &mut pass.variant
                    && *width == Width::Shifted
                    && kernel.writes()
                    && device.stores_components
                    && pass.options.writes()
                    && !pass.resident
                {
                    *width = Width::Alike;
                }
                Ok(pass)
            })
            .collect::<Result<_>>()?;
        let columns = software_columns(problem, device, strategy);
        if device.software && looped_columns(problem) > columns {
            return Err(Error::RowTooWide {
                what: "what a software driver can loop over",
                needed: 4 * looped_columns(problem) as u64,
                limit: 4 * columns as u64,
            });
        }
        let all = options(problem, device);
        // Only what a shader knows makes pipelines differ.
        let other = |variant, workgroup_size| {
            let plain = Options::PLAIN;
            let options = match variant {
                Variant::CountLabels | Variant::Reduce => Options {
                    class_weights: problem.sums_weights(),
                    ..plain
                },
                Variant::FinishRows(_) => Options {
                    losses: all.losses,
                    lse: all.lse,
                    predictions: all.predictions,
                    labels: all.labels,
                    class_weights: all.class_weights,
                    smoothed: all.smoothed,
                    z_loss: all.z_loss,
                    ..plain
                },
                _ => plain,
            };
            Pass::new(variant, workgroup_size, options).fit(device)
        };
        let count = counts(problem).then(|| other(Variant::CountLabels, WORKGROUP));
        let mut passes = passes;
        if !device.fuses() {
            passes.push(other(Variant::FinishRows(curve(problem)), WORKGROUP)?);
            if wants_more(problem) {
                passes.push(other(Variant::MoreRows(curve(problem)), WORKGROUP)?);
            }
        }
        let [rows_per_chunk, columns_per_chunk] = chunk_shape(problem, device, strategy)?;
        let chunk = rows_per_chunk.min(problem.rows()) as u64;
        Ok(Plan {
            strategy,
            count: count.transpose()?,
            passes,
            reduce: other(Variant::Reduce, ADDERS)?,
            rows: problem.rows(),
            classes: problem.classes(),
            rows_per_chunk,
            columns_per_chunk,
            part: part(problem, device),
            span: span(
                problem,
                device,
                rows_per_chunk.min(problem.rows()) * columns_per_chunk,
            ),
            chunks: chunks(problem, rows_per_chunk, columns_per_chunk),
            chunk_size: chunk * Footprint::of(problem).row(columns_per_chunk),
        })
    }

    /// The same plan where the host knows how many rows are not ignored.
    #[must_use]
    pub(crate) fn counted_by_host(mut self, problem: &Problem) -> Plan {
        if !problem.sums_weights() {
            self.count = None;
            for pass in &mut self.passes {
                *pass = pass.known();
            }
        }
        self
    }

    /// Words of [`Slot::States`] for so many rows.
    pub(crate) fn state_words(&self, rows: u64) -> u64 {
        let slots = self.passes.iter().flat_map(|pass| pass.variant.slots());
        match slots.into_iter().any(|(slot, _)| slot == Slot::States) {
            true => state_words(rows, self.classes, self.strategy, self.part),
            false => 0,
        }
    }

    /// Chunks of a host call.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Bytes of the arrays of one chunk. A host call has two on the device, and, but on a software driver,
    /// as much again for staging.
    pub fn chunk_size(&self) -> u64 {
        self.chunk_size
    }

    /// Whether rows come in windows of their columns.
    pub(crate) fn has_windows(&self, problem: &Problem) -> bool {
        self.columns_per_chunk < problem.row_length()
    }
}

/// Whether the columns past the last class are written.
fn writes_padding(problem: &Problem) -> bool {
    problem.row_length() > problem.classes()
        && problem.padding() == Padding::Masked
        && problem.outputs().iter().any(Wanted::has_classes)
}

/// Columns of a row that a kernel loops over.
fn looped_columns(problem: &Problem) -> usize {
    match writes_padding(problem) {
        true => problem.row_length(),
        false => problem.classes(),
    }
}

/// Columns that a software driver can loop over: what one invocation does grows with the row, unless
/// rows are split.
fn software_columns(problem: &Problem, device: &DeviceProfile, strategy: Strategy) -> usize {
    let team = device.subgroup.unwrap_or(u32::MAX).min(LANES as u32) as usize;
    let writes = problem.outputs().iter().any(Wanted::has_classes);
    // `tanh_pair` takes one column after the other, and so do halves that share words.
    let slot_loops = (curve(problem) == Curve::Capped && !has_low_cap(problem))
        || (writes && problem.dtype_out() != Dtype::F32);
    let share = if slot_loops { SOFTWARE_SLOT_LOOPS } else { 1 };
    match strategy {
        Strategy::RowPerInvocation if slot_loops => SOFTWARE_COLUMNS_WITH_SLOT_LOOPS,
        Strategy::RowPerInvocation => match (writes, options(problem, device).predictions) {
            (false, false) => SOFTWARE_COLUMNS_PER_INVOCATION,
            (true, false) => SOFTWARE_COLUMNS_WITH_OUTPUTS,
            (false, true) => SOFTWARE_COLUMNS_WITH_PREDICTIONS,
            (true, true) => SOFTWARE_COLUMNS_WITH_BOTH,
        },
        Strategy::RowPerSubgroup => SOFTWARE_COLUMNS_PER_SHARE / share * team,
        Strategy::RowPerWorkgroup => SOFTWARE_COLUMNS_PER_SHARE / share * LANES,
        Strategy::SplitRow => usize::MAX,
    }
}

/// Whether what is seldom wanted of rows is.
fn wants_more(problem: &Problem) -> bool {
    let more = [Wanted::Entropy, Wanted::Correct, Wanted::ZLosses];
    more.into_iter().any(|wanted| problem.wants(wanted))
}

/// The strategy that suits a problem.
fn suitable(problem: &Problem, device: &DeviceProfile) -> Strategy {
    let (rows, classes) = (problem.rows(), problem.classes());
    let best = device.tuning();
    let fits = |strategy| {
        !device.software || looped_columns(problem) <= software_columns(problem, device, strategy)
    };
    if !fits(Strategy::RowPerSubgroup) {
        return Strategy::SplitRow;
    }
    let alone = classes <= best.narrow || rows >= best.many || problem.inner() > 1;
    if alone && fits(Strategy::RowPerInvocation) {
        // Neighbouring invocations read neighbouring rows, which is what lies together where rows are
        // interleaved.
        Strategy::RowPerInvocation
    } else if classes >= best.split_classes && rows <= best.split_rows {
        Strategy::SplitRow
    } else if classes <= best.subgroup {
        Strategy::RowPerSubgroup
    } else {
        Strategy::RowPerWorkgroup
    }
}

/// Whether labels have to be counted or weighed before a mean can be taken.
fn counts(problem: &Problem) -> bool {
    let by_labels = matches!(
        problem.denominator(),
        Denominator::Weights | Denominator::ValidRows
    );
    let divided = [Wanted::Loss, Wanted::Grad, Wanted::ZLoss];
    problem.reduction() == Reduction::Mean
        && by_labels
        && matches!(problem.labels(), LabelKind::Index { .. })
        && divided.into_iter().any(|wanted| problem.wants(wanted))
}

/// The way from x to z.
fn curve(problem: &Problem) -> Curve {
    match (problem.softcap(), problem.logit_scale()) {
        (Some(_), _) => Curve::Capped,
        (None, scale) if scale != 1.0 => Curve::Scaled,
        _ => Curve::Plain,
    }
}

/// Whether `low_points` of `shaders/curve/capped.wgsl` will do: errors of z are 2⁻³¹ of the cap, and s/c and its
/// rest are normal numbers.
fn has_low_cap(problem: &Problem) -> bool {
    const LARGEST: f32 = 64.0;
    problem.softcap().is_some_and(|cap| {
        let per_cap = f64::from(problem.logit_scale()) / f64::from(cap);
        cap <= LARGEST && (1e-30..1e30).contains(&per_cap)
    })
}

/// What the options of a problem are when its shaders are compiled; no outputs yet.
fn options(problem: &Problem, device: &DeviceProfile) -> Options {
    Options {
        labels: match problem.labels() {
            LabelKind::None => LabelInput::None,
            LabelKind::Index { .. } => LabelInput::Index,
            LabelKind::Dense => LabelInput::Dense,
            LabelKind::Vector => LabelInput::Vector,
        },
        dtype: problem.dtype(),
        losses: problem.wants(Wanted::Losses),
        lse: problem.wants(Wanted::Lse),
        predictions: problem.wants(Wanted::Predictions) || problem.wants(Wanted::Correct),
        entropy: problem.wants(Wanted::Entropy),
        more: wants_more(problem) && device.fuses(),
        class_weights: problem.class_weights(),
        smoothed: problem.label_smoothing() != 0.0,
        z_loss: problem.z_loss() != 0.0,
        low_cap: has_low_cap(problem),
        upstream: !matches!(problem.upstream(), Upstream::Number(_)),
        denominator_known: !counts(problem) && problem.denominator() != Denominator::Buffer,
        from_softmax: problem.from_softmax(),
        strided: problem.inner() > 1,
        padded: false,
        ..Options::PLAIN
    }
}

/// The passes over the logits, their workgroups as large as one would like them.
fn passes(problem: &Problem, device: &DeviceProfile, strategy: Strategy) -> Vec<Pass> {
    let all = options(problem, device);
    let tuning = device.tuning();
    let row_pass = |kernel: RowKernel, options: Options| {
        let exchange = match (kernel.has_teams(), device.subgroup) {
            (false, _) => Exchange::None,
            (true, None) => Exchange::Memory,
            (true, Some(_)) => Exchange::Shuffle,
        };
        let weighs =
            options.smoothed || matches!(options.labels, LabelInput::Dense | LabelInput::Vector);
        let padded = writes_padding(problem) && options.writes();
        let halves = problem.dtype_out() != Dtype::F32 && options.writes();
        let vector = in_vector(problem.dtype());
        let whole =
            problem.classes().is_multiple_of(vector) && problem.row_length().is_multiple_of(vector);
        let f32_only = problem.dtype() == Dtype::F32 && !halves;
        let over_logits = options.grad == GradOutput::OverLogits;
        let team = match (exchange, device.subgroup) {
            (Exchange::Shuffle, Some(size)) => size.min(LANES as u32),
            _ => LANES as u32,
        };
        let workgroup_size = match kernel {
            RowKernel::PerWorkgroup => tuning.row_workgroup,
            RowKernel::SplitFinish => tuning.span_workgroup,
            RowKernel::PerSubgroup if problem.rows() < tuning.alone => team,
            _ => tuning.workgroup,
        };
        // Slots of a stripe, or stripes of a block: both are eight.
        let unit = match kernel {
            RowKernel::PerInvocation => SLOT,
            _ => SLOT * LANES,
        };
        let held = match tuning.keeps {
            true => problem.classes().div_ceil(unit).next_power_of_two(),
            false => LANES,
        };
        Pass {
            variant: Variant::Row {
                kernel,
                exchange,
                curve: curve(problem),
                sums: match weighs || options.entropy {
                    true => Sums::Full,
                    false => Sums::Plain,
                },
                logits: match options.grad {
                    GradOutput::OverLogits => Access::ReadWrite,
                    GradOutput::None | GradOutput::Own => Access::Read,
                },
                width: match problem.inner() {
                    _ if !tuning.vectors => Width::Words,
                    1 if whole && (!over_logits || f32_only) => Width::Vectors,
                    1 if !over_logits && f32_only => Width::Shifted,
                    _ => Width::Words,
                },
                halves,
                finishes: device.fuses() && kernel.can_finish(),
            },
            workgroup_size,
            team,
            held: held.min(LANES) as u32,
            resident: tuning.keeps && kernel.is_whole() && options.writes() && !padded,
            one_block: tuning.keeps && problem.classes() <= BLOCK,
            options: Options { padded, ..options },
        }
    };
    let softmax = match problem.wants(Wanted::Softmax) {
        true => SoftmaxOutput::Softmax,
        false => SoftmaxOutput::None,
    };
    let log_softmax = problem.wants(Wanted::LogSoftmax);
    let grad = match (problem.wants(Wanted::Grad), problem.grad_over_logits()) {
        (false, _) => GradOutput::None,
        (true, false) => GradOutput::Own,
        (true, true) => GradOutput::OverLogits,
    };
    let others = softmax != SoftmaxOutput::None || grad != GradOutput::None;
    // A pass writes softmax or log-softmax: where both are wanted, or log-softmax and the gradient, a
    // bare pass writes log-softmax. It goes first, as the gradient may overwrite the logits, and as
    // `finish_rows` reads the states of the last pass.
    let mut writes = Vec::new();
    if log_softmax && others {
        writes.push(Options {
            softmax: SoftmaxOutput::LogSoftmax,
            ..bare(all)
        });
    }
    writes.push(Options {
        softmax: match log_softmax && !others {
            true => SoftmaxOutput::LogSoftmax,
            false => softmax,
        },
        grad,
        ..all
    });
    let mut passes = Vec::new();
    let kernel = match strategy {
        Strategy::RowPerInvocation => RowKernel::PerInvocation,
        Strategy::RowPerSubgroup => RowKernel::PerSubgroup,
        Strategy::RowPerWorkgroup => RowKernel::PerWorkgroup,
        Strategy::SplitRow => {
            // One set of states serves all outputs.
            passes.push(row_pass(RowKernel::SplitStates, all));
            RowKernel::SplitFinish
        }
    };
    let states = passes.first().map(|states| states.variant);
    let last = writes.len() - 1;
    for (i, options) in writes.into_iter().enumerate() {
        let mut pass = row_pass(kernel, options);
        if let Variant::Row { finishes, sums, .. } = &mut pass.variant {
            *finishes &= i == last;
            // What reads states reads those that were summed up for all outputs.
            if let Some(Variant::Row { sums: all, .. }) = states {
                *sums = all;
            }
        }
        passes.push(pass);
    }
    passes
}

/// What a pass without labels needs to know.
fn bare(options: Options) -> Options {
    Options {
        labels: LabelInput::None,
        class_weights: false,
        smoothed: false,
        z_loss: false,
        losses: false,
        lse: false,
        predictions: false,
        entropy: false,
        more: false,
        ..options
    }
}

fn state_words(rows: u64, classes: usize, strategy: Strategy, part: usize) -> u64 {
    let parts = match strategy {
        Strategy::SplitRow => classes.div_ceil(part) as u64,
        _ => 0,
    };
    STATE_WORDS as u64 * rows * (1 + parts)
}

/// Bytes that a host call needs on the device.
struct Footprint {
    /// Of one number in the widest of the arrays of the shape of the logits.
    widest: u64,
    /// Of one number in each of them.
    matrices: u64,
    /// Of a class weight in a window, which has its own.
    weights: u64,
    /// Of a row in all others.
    vectors: u64,
}

impl Footprint {
    fn of(problem: &Problem) -> Footprint {
        let out = problem.dtype_out().size() as u64;
        let dense = matches!(problem.labels(), LabelKind::Dense | LabelKind::Vector);
        let index = matches!(problem.labels(), LabelKind::Index { .. });
        let in_place = problem.grad_over_logits();
        let mut matrices = vec![problem.dtype().size() as u64];
        matrices.extend(dense.then_some(4));
        let mut vectors = 4 * u64::from(index);
        vectors += 4 * u64::from(problem.upstream() == Upstream::PerRow);
        for wanted in problem.outputs().iter() {
            match wanted {
                // Of the two that an array counts for, one on the device and one in staging, the latter.
                Wanted::Grad if in_place => matrices.push(problem.dtype().size() as u64 / 2),
                Wanted::Loss | Wanted::ZLoss => {}
                _ if wanted.has_classes() => matrices.push(out),
                _ => vectors += 4,
            }
        }
        Footprint {
            widest: matrices.iter().copied().max().unwrap_or_default(),
            matrices: matrices.iter().sum(),
            weights: 4 * u64::from(problem.class_weights()),
            vectors,
        }
    }

    /// Bytes of so many columns of a row.
    fn row(&self, columns: usize) -> u64 {
        self.matrices * columns as u64 + self.vectors
    }
}

/// Rows and columns of a chunk of a host call, at most.
fn chunk_shape(
    problem: &Problem,
    device: &DeviceProfile,
    strategy: Strategy,
) -> Result<[usize; 2]> {
    let usable = usable(device);
    if usable < 4 * ACCUMULATOR_WORDS as u64 {
        return Err(Error::DeviceTooSmall {
            limit: "bytes in a binding",
            found: device.max_binding.min(device.max_buffer),
            needed: 4 * ACCUMULATOR_WORDS as u64 + u64::from(device.offset_alignment),
        });
    }
    let footprint = Footprint::of(problem);
    let share = share(device);
    let part = part(problem, device);
    let state_bytes = 4 * state_words(1, problem.classes(), strategy, part);
    let (inner, columns) = (problem.inner() as u64, problem.row_length());
    let row_bytes = footprint.widest.max(footprint.weights) * columns as u64;
    if state_bytes > usable {
        return Err(Error::RowTooWide {
            what: Slot::States.name(),
            needed: state_bytes,
            limit: usable,
        });
    }
    let fits = (usable / row_bytes.max(state_bytes)).min(share / footprint.row(columns));
    if fits == 0 {
        return window(problem, device, strategy);
    }
    // Interleaved rows go together where they can.
    let group = if fits >= inner { inner } else { 1 };
    // One workgroup per row in two dimensions; element numbers of 32 bits hold for any binding.
    let dispatch = u64::from(device.max_workgroups).pow(2);
    let rows = fits.min((CHUNK_BYTES / row_bytes).max(group)).min(dispatch);
    let rows = (rows / group).max(1) * group;
    Ok([usize::try_from(rows).unwrap_or(usize::MAX), columns])
}

/// Bytes that the arrays of a chunk may take: there are two, each on the device and in staging.
fn share(device: &DeviceProfile) -> u64 {
    device.memory.map_or(u64::MAX, |memory| memory / 4)
}

/// Bytes of a binding: it may have to begin up to one alignment before its data.
fn usable(device: &DeviceProfile) -> u64 {
    let most = device.max_binding.min(device.max_buffer);
    most.saturating_sub(u64::from(device.offset_alignment))
}

/// Columns of a window of a row, at most.
fn window_columns(problem: &Problem, device: &DeviceProfile) -> u64 {
    let footprint = Footprint::of(problem);
    let widest = footprint.widest.max(footprint.weights);
    let by_memory =
        share(device).saturating_sub(footprint.vectors) / (footprint.matrices + footprint.weights);
    by_memory.min(usable(device) / widest)
}

/// Columns of a part of a split row: no more than a window has, and a team can go through on a software driver.
fn part(problem: &Problem, device: &DeviceProfile) -> usize {
    let most = software_columns(problem, device, Strategy::RowPerSubgroup) as u64;
    let most = most.min(window_columns(problem, device));
    let mut part = PART;
    while problem.classes() > device.tuning().parts * part && 2 * part as u64 <= most {
        part *= 2;
    }
    part
}

/// Columns of a span of split rows: of so many columns as many spans as are wanted, but no more than a workgroup
/// can go through on a software driver.
fn span(problem: &Problem, device: &DeviceProfile, columns: usize) -> usize {
    let tuning = device.tuning();
    let each = software_columns(problem, device, Strategy::RowPerInvocation) / 2;
    let span = columns.div_ceil(tuning.spans.max(1)).next_power_of_two();
    span.clamp(SHORTEST_SPAN, each * tuning.span_workgroup as usize)
}

/// A part of a row as a chunk, where a row is too much.
fn window(problem: &Problem, device: &DeviceProfile, strategy: Strategy) -> Result<[usize; 2]> {
    let footprint = Footprint::of(problem);
    let usable = usable(device);
    let widest = footprint.widest.max(footprint.weights);
    let row_bytes = widest * problem.row_length() as u64;
    let part = part(problem, device) as u64;
    let columns = window_columns(problem, device) / part * part;
    match (problem.inner(), strategy) {
        (1, Strategy::SplitRow) if columns > 0 => Ok([1, columns as usize]),
        (1, Strategy::SplitRow) => Err(Error::BudgetTooSmall {
            given: device.memory.unwrap_or(usable),
            needed: 4 * (footprint.row(PART) + footprint.weights * PART as u64),
        }),
        (1, _) => Err(Error::RowTooWide {
            what: Slot::Logits.name(),
            needed: row_bytes,
            limit: usable,
        }),
        _ if row_bytes <= usable => Err(Error::BudgetTooSmall {
            given: device.memory.unwrap_or(usable),
            needed: 4 * footprint.row(problem.row_length()),
        }),
        _ => Err(Error::RowTooWide {
            what: "logits, whose rows are interleaved",
            needed: row_bytes,
            limit: usable,
        }),
    }
}

/// Chunks of so many rows and columns.
fn chunks(problem: &Problem, rows: usize, columns: usize) -> usize {
    let windows = problem.row_length().div_ceil(columns);
    match problem.inner() {
        inner if rows < inner => problem.rows() / inner * inner.div_ceil(rows),
        _ => problem.rows().div_ceil(rows) * windows,
    }
}

/// Numbers of a vector of four words.
pub(crate) fn in_vector(dtype: Dtype) -> usize {
    16 / dtype.size()
}

/// Workgroups in two dimensions that make at least `groups`, where one dimension has at most `most`.
pub fn fold(groups: u32, most: u32) -> [u32; 2] {
    let height = groups.div_ceil(most).max(1);
    [groups.div_ceil(height), height]
}

fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} × {} in {} of at most {}",
            count(self.rows, "row", "rows"),
            count(self.classes, "class", "classes"),
            count(self.chunks(), "chunk", "chunks"),
            match self.columns_per_chunk < self.classes {
                true => count(self.columns_per_chunk, "column", "columns"),
                false => count(self.rows_per_chunk, "row", "rows"),
            },
        )?;
        for pass in &self.passes {
            writeln!(
                f,
                "  each chunk  {pass}, workgroups of {}",
                pass.workgroup_size
            )?;
        }
        write!(
            f,
            "  at the end  {}, one workgroup of {}",
            self.reduce.variant, self.reduce.workgroup_size
        )
    }
}

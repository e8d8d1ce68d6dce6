//! From a problem and what a device allows to a plan: which shaders, of what size, on how many rows
//! at once. Pure, and the only place with thresholds; none of them changes a bit of a result.

use std::fmt;

use crate::error::{Error, Result};
use crate::kernel::{
    ACCUMULATOR_WORDS, Access, BLOCK, Exchange, GradOutput, LabelInput, RowKernel, STATE_WORDS,
    Slot, Strategy, Variant,
};
use crate::problem::{Denominator, LabelKind, Problem, Reduction, Wanted};

/// Logits of one chunk of a host call, in bytes: enough to keep a device busy, small enough that
/// the device's copies of a chunk never matter beside the batch.
const CHUNK_BYTES: u64 = 64 << 20;
/// Where one strategy ends and the next begins, for a class of devices.
struct Thresholds {
    /// Up to this many classes one invocation takes a row: a team would mostly idle.
    narrow: usize,
    /// Up to this many classes a subgroup does.
    subgroup: usize,
    /// From this many classes on, and up to so many rows, rows are split: there are too few of them to
    /// keep the device busy.
    split_classes: usize,
    split_rows: usize,
}

/// GPUs: by reasoning, not by measurement yet.
const GPU: Thresholds = Thresholds {
    narrow: 16,
    subgroup: 4096,
    split_classes: 16_384,
    split_rows: 64,
};
/// Drivers on the processor: `benches/results/2026-11-24_llvmpipe_throughput.csv`. A workgroup a row
/// is never the fastest there.
const SOFTWARE: Thresholds = Thresholds {
    narrow: 512,
    subgroup: usize::MAX,
    split_classes: 16_384,
    split_rows: 16,
};
/// The same without shuffles, where every exchange is two barriers:
/// `benches/results/2026-11-24_llvmpipe_no_subgroups.csv`.
const SOFTWARE_WITHOUT_SUBGROUPS: Thresholds = Thresholds {
    narrow: 16_384,
    subgroup: 0,
    split_classes: 16_385,
    split_rows: usize::MAX,
};
/// Invocations of a workgroup that holds several rows, or blocks of several.
const WORKGROUP: u32 = 64;
/// Invocations of a workgroup that owns a row, at most.
const ROW_WORKGROUP: u32 = 256;
/// Loop iterations after which llvmpipe ends an invocation without a word, whatever the loops. Seen
/// with Mesa 22.3.6: of rows of 1024 columns and more, the gradient goes wrong from 153 blocks on
/// for one invocation.
const SOFTWARE_COLUMNS_PER_INVOCATION: usize = 131_072;
/// The same for invocations that share a row, for each of them.
const SOFTWARE_COLUMNS_PER_SHARE: usize = 32_768;
/// Lanes of the canonical tree: most invocations that can share a block.
const LANES: u32 = 32;
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
    /// Invocations of a subgroup, where it is always the same number and shuffles are to be used.
    pub subgroup: Option<u32>,
}

impl DeviceProfile {
    /// From a device.
    pub fn new(device: &wgpu::Device) -> Self {
        let (limits, info) = (device.limits(), device.adapter_info());
        let fixed = info.subgroup_min_size == info.subgroup_max_size
            && device.features().contains(wgpu::Features::SUBGROUP);
        DeviceProfile {
            software: info.device_type == wgpu::DeviceType::Cpu,
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
        }
    }
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
    /// A row kernel: whether it finds the first column of the maximum. `finish_rows`: whether there
    /// are labels.
    pub option: bool,
}

impl Pass {
    /// Workgroups in two dimensions, where one dimension has at most `most`.
    pub fn workgroups(&self, rows: u32, classes: u32, most: u32) -> [u32; 2] {
        let blocks = || rows * classes.div_ceil(BLOCK as u32);
        let of = |units: u32, invocations: u32| units.div_ceil(self.workgroup_size / invocations);
        let groups = match self.variant {
            Variant::Row { kernel, .. } => match kernel {
                RowKernel::PerInvocation => of(rows, 1),
                RowKernel::PerSubgroup => of(rows, self.team),
                RowKernel::PerWorkgroup | RowKernel::SplitMerge => rows,
                RowKernel::SplitStates => of(blocks(), self.team),
                RowKernel::SplitApply => of(blocks(), LANES),
            },
            Variant::CountLabels | Variant::FinishRows => of(rows, 1),
            Variant::Reduce | Variant::SelfTest | Variant::ShuffleTest => 1,
        };
        fold(groups, most)
    }

    /// The values of its `override` constants.
    pub fn constants(&self) -> Vec<(&'static str, f64)> {
        let size = ("WORKGROUP_SIZE", f64::from(self.workgroup_size));
        let option = f64::from(u8::from(self.option));
        let team = ("TEAM", f64::from(self.team));
        match self.variant {
            Variant::Row { exchange, .. } => {
                let mut constants = vec![size, ("WITH_PREDICTIONS", option)];
                if exchange == Exchange::Shuffle {
                    constants.push(team);
                }
                constants
            }
            Variant::CountLabels => vec![size],
            Variant::FinishRows => vec![size, ("HAS_LABELS", option)],
            Variant::ShuffleTest => vec![team],
            Variant::Reduce | Variant::SelfTest => Vec::new(),
        }
    }

    /// The same pass for logits that share a buffer with another array.
    #[must_use]
    pub fn pooled(mut self) -> Pass {
        if let Variant::Row { logits, .. } = &mut self.variant {
            *logits = Access::ReadWrite;
        }
        self
    }

    /// Bytes of workgroup memory.
    fn memory(&self) -> u32 {
        let Variant::Row {
            kernel, exchange, ..
        } = self.variant
        else {
            return 0;
        };
        // A word and four sums an invocation; a state is 32 bytes.
        let exchanged = match exchange {
            Exchange::Memory => 20 * self.workgroup_size,
            Exchange::None | Exchange::Shuffle => 0,
        };
        let states = match kernel {
            RowKernel::PerWorkgroup => self.workgroup_size / self.team + 1,
            RowKernel::SplitMerge => self.workgroup_size,
            _ => 0,
        };
        exchanged + 32 * states + 16
    }

    /// The pass with the largest workgroup that the device has room for, halving it until then.
    fn fit(mut self, device: &DeviceProfile) -> Result<Pass> {
        let least = match self.variant {
            Variant::Row { exchange, .. } if exchange != Exchange::None => self.team,
            Variant::Row {
                kernel: RowKernel::SplitApply,
                ..
            }
            | Variant::Reduce => LANES,
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
    /// The pass that counts the rows that are not ignored, where the host does not know them.
    pub count: Option<Pass>,
    /// The passes over the logits, then the pass over the row states; `reduce` follows the last chunk.
    pub passes: Vec<Pass>,
    /// The pass after the last chunk.
    pub reduce: Pass,
    /// Rows of the batch.
    pub rows: usize,
    /// Classes of a row.
    pub classes: usize,
    /// Rows in one chunk of a host call, at most.
    pub rows_per_chunk: usize,
}

impl Plan {
    /// Plans with the strategy that suits the problem and the device.
    ///
    /// # Errors
    /// [`Error::RowTooWide`], [`Error::DeviceTooSmall`].
    pub fn new(problem: &Problem, device: &DeviceProfile) -> Result<Plan> {
        let best = suitable(problem, device);
        match Plan::with_strategy(problem, device, best) {
            // One invocation a row needs next to nothing.
            Err(Error::DeviceTooSmall { .. }) if best != Strategy::RowPerInvocation => {
                Plan::with_strategy(problem, device, Strategy::RowPerInvocation)
            }
            plan => plan,
        }
    }

    /// Plans with a given strategy.
    ///
    /// # Errors
    /// [`Error::RowTooWide`], [`Error::DeviceTooSmall`].
    pub fn with_strategy(
        problem: &Problem,
        device: &DeviceProfile,
        strategy: Strategy,
    ) -> Result<Plan> {
        let passes: Vec<Pass> = passes(problem, device, strategy)
            .into_iter()
            .map(|pass| pass.fit(device))
            .collect::<Result<_>>()?;
        let columns = software_columns(device, strategy);
        if device.software && problem.classes() > columns {
            return Err(Error::RowTooWide {
                what: "what a software driver can loop over",
                needed: 4 * problem.classes() as u64,
                limit: 4 * columns as u64,
            });
        }
        let counts = problem.reduction() == Reduction::Mean
            && matches!(
                problem.denominator(),
                Denominator::Weights | Denominator::ValidRows
            )
            && matches!(problem.labels(), LabelKind::Index { .. })
            && (problem.wants(Wanted::Loss) || problem.wants(Wanted::Grad));
        let other = |variant, workgroup_size| {
            Pass {
                variant,
                workgroup_size,
                team: 1,
                option: problem.labels() != LabelKind::None,
            }
            .fit(device)
        };
        Ok(Plan {
            strategy,
            count: match counts {
                true => Some(other(Variant::CountLabels, WORKGROUP)?),
                false => None,
            },
            passes: passes
                .into_iter()
                .chain([other(Variant::FinishRows, WORKGROUP)?])
                .collect(),
            reduce: other(Variant::Reduce, LANES)?,
            rows: problem.rows(),
            classes: problem.classes(),
            rows_per_chunk: rows_per_chunk(problem, device, strategy)?,
        })
    }

    /// Words of [`Slot::States`] for so many rows.
    pub(crate) fn state_words(&self, rows: u64) -> u64 {
        state_words(rows, self.classes, self.strategy)
    }

    /// Chunks of a host call.
    pub fn chunks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_chunk)
    }
}

/// Columns that a software driver can loop over: what one invocation does grows with the row, unless
/// rows are split.
fn software_columns(device: &DeviceProfile, strategy: Strategy) -> usize {
    let team = device.subgroup.unwrap_or(LANES).min(LANES) as usize;
    match strategy {
        Strategy::RowPerInvocation => SOFTWARE_COLUMNS_PER_INVOCATION,
        Strategy::RowPerSubgroup => SOFTWARE_COLUMNS_PER_SHARE * team,
        Strategy::RowPerWorkgroup => SOFTWARE_COLUMNS_PER_SHARE * LANES as usize,
        Strategy::SplitRow => usize::MAX,
    }
}

/// The strategy that suits a problem.
fn suitable(problem: &Problem, device: &DeviceProfile) -> Strategy {
    let (rows, classes) = (problem.rows(), problem.classes());
    let best = match (device.software, device.subgroup) {
        (false, _) => GPU,
        (true, Some(_)) => SOFTWARE,
        (true, None) => SOFTWARE_WITHOUT_SUBGROUPS,
    };
    if device.software && classes > software_columns(device, Strategy::RowPerSubgroup) {
        return Strategy::SplitRow;
    }
    if classes <= best.narrow {
        Strategy::RowPerInvocation
    } else if classes >= best.split_classes && rows <= best.split_rows {
        Strategy::SplitRow
    } else if classes <= best.subgroup {
        Strategy::RowPerSubgroup
    } else {
        Strategy::RowPerWorkgroup
    }
}

/// The passes over the logits, their workgroups as large as one would like them.
fn passes(problem: &Problem, device: &DeviceProfile, strategy: Strategy) -> Vec<Pass> {
    let labels = match problem.labels() {
        LabelKind::None => LabelInput::None,
        LabelKind::Index { .. } => LabelInput::Index,
        LabelKind::Dense | LabelKind::Vector => LabelInput::Dense,
    };
    let row_pass = |kernel: RowKernel, labels, softmax, log_softmax, grad| {
        let exchange = match (kernel.has_teams(), device.subgroup) {
            (false, _) => Exchange::None,
            (true, None) => Exchange::Memory,
            (true, Some(_)) => Exchange::Shuffle,
        };
        let over_logits = grad == GradOutput::OverLogits;
        Pass {
            variant: Variant::Row {
                kernel,
                exchange,
                labels,
                logits: if over_logits {
                    Access::ReadWrite
                } else {
                    Access::Read
                },
                softmax,
                log_softmax,
                grad,
            },
            workgroup_size: match kernel {
                RowKernel::PerWorkgroup => ROW_WORKGROUP,
                _ => WORKGROUP,
            },
            team: match (exchange, device.subgroup) {
                // As many as have a slot of four columns to read.
                (Exchange::Shuffle, Some(size)) => {
                    let slots = problem.classes().div_ceil(4).next_power_of_two();
                    (slots.min(LANES as usize) as u32).clamp(FEWEST, size.min(LANES))
                }
                _ => LANES,
            },
            option: problem.wants(Wanted::Predictions),
        }
    };
    let softmax = problem.wants(Wanted::Softmax);
    let log_softmax = problem.wants(Wanted::LogSoftmax);
    let grad = match (problem.wants(Wanted::Grad), problem.grad_over_logits()) {
        (false, _) => GradOutput::None,
        (true, false) => GradOutput::Own,
        (true, true) => GradOutput::OverLogits,
    };
    let others = softmax || grad != GradOutput::None;
    // Log-softmax goes first and alone. The gradient comes last, as it may overwrite the logits, and
    // so do the labels: `finish_rows` reads the states of the last pass.
    let mut writes = Vec::new();
    if log_softmax && others {
        writes.push((LabelInput::None, false, true, GradOutput::None));
    }
    writes.push((labels, softmax, log_softmax && !others, grad));
    let kernel = match strategy {
        Strategy::RowPerInvocation => RowKernel::PerInvocation,
        Strategy::RowPerSubgroup => RowKernel::PerSubgroup,
        Strategy::RowPerWorkgroup => RowKernel::PerWorkgroup,
        Strategy::SplitRow => {
            // One set of states serves all outputs.
            let summed = match labels {
                LabelInput::Dense => LabelInput::Dense,
                LabelInput::None | LabelInput::Index => LabelInput::None,
            };
            let bare = |kernel, labels| row_pass(kernel, labels, false, false, GradOutput::None);
            let mut passes = vec![
                bare(RowKernel::SplitStates, summed),
                bare(RowKernel::SplitMerge, labels),
            ];
            passes.extend(
                writes
                    .into_iter()
                    .filter(|&(_, softmax, log_softmax, grad)| {
                        softmax || log_softmax || grad != GradOutput::None
                    })
                    .map(|(labels, softmax, log_softmax, grad)| {
                        row_pass(RowKernel::SplitApply, labels, softmax, log_softmax, grad)
                    }),
            );
            return passes;
        }
    };
    writes
        .into_iter()
        .map(|(labels, softmax, log_softmax, grad)| {
            row_pass(kernel, labels, softmax, log_softmax, grad)
        })
        .collect()
}

fn state_words(rows: u64, classes: usize, strategy: Strategy) -> u64 {
    let blocks = match strategy {
        Strategy::SplitRow => classes.div_ceil(BLOCK) as u64,
        _ => 0,
    };
    STATE_WORDS as u64 * rows * (1 + blocks)
}

fn rows_per_chunk(problem: &Problem, device: &DeviceProfile, strategy: Strategy) -> Result<usize> {
    // A binding may have to begin up to one alignment before its data.
    let most = device.max_binding.min(device.max_buffer);
    let usable = most.saturating_sub(u64::from(device.offset_alignment));
    if usable < 4 * ACCUMULATOR_WORDS as u64 {
        return Err(Error::DeviceTooSmall {
            limit: "bytes in a binding",
            found: most,
            needed: 4 * ACCUMULATOR_WORDS as u64 + u64::from(device.offset_alignment),
        });
    }
    let row_bytes = 4 * problem.classes() as u64;
    if row_bytes > usable {
        return Err(Error::RowTooWide {
            what: Slot::Logits.name(),
            needed: row_bytes,
            limit: usable,
        });
    }
    let widest_row = row_bytes.max(4 * state_words(1, problem.classes(), strategy));
    let fits = (usable / widest_row).min((CHUNK_BYTES / row_bytes).max(1));
    // One workgroup per row in two dimensions; element numbers of 32 bits hold for any binding.
    let dispatch = u64::from(device.max_workgroups).pow(2);
    Ok(usize::try_from(fits.min(dispatch).max(1)).unwrap_or(usize::MAX))
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
            count(self.rows_per_chunk, "row", "rows"),
        )?;
        for pass in &self.passes {
            writeln!(
                f,
                "  each chunk  {}, workgroups of {}",
                pass.variant, pass.workgroup_size
            )?;
        }
        write!(
            f,
            "  at the end  {}, one workgroup of {}",
            self.reduce.variant, self.reduce.workgroup_size
        )
    }
}

//! From a problem and what a device allows to a plan: which shaders, of what size, on how many rows
//! at once. Pure, and the only place with thresholds; none of them changes a bit of a result.

use std::fmt;

use crate::error::{Error, Result};
use crate::kernel::{GradOutput, LabelInput, ROW_STATE_WORDS, Slot, Strategy, Variant};
use crate::problem::{LabelKind, Problem, Wanted};

/// Logits of one chunk of a host call, in bytes: enough to keep a device busy, small enough that
/// the device's copies of a chunk never matter beside the batch.
const CHUNK_BYTES: u64 = 64 << 20;
/// Up to this many classes a GPU gives a row to one invocation: a workgroup would mostly idle.
const NARROW_ROW: usize = 64;
/// Invocations of a workgroup where each owns a row.
const ROWS_PER_WORKGROUP: u32 = 64;
/// Invocations of a workgroup that owns a row, at most.
const ROW_WORKGROUP: u32 = 256;
/// Loop iterations after which llvmpipe ends an invocation without a word, whatever the loops. Seen
/// with Mesa 22.3.6: of rows of 1024 columns and more, the gradient goes wrong from 153 blocks on
/// for one invocation, and not yet at 2192 for a workgroup of 256.
const SOFTWARE_COLUMNS_PER_INVOCATION: usize = 131_072;
/// The same for a workgroup, per invocation of it.
const SOFTWARE_COLUMNS_PER_SHARE: usize = 8192;
/// Invocations that share a block of columns: the lanes of the canonical tree.
const LANES: u32 = 32;

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
}

impl DeviceProfile {
    /// From the limits of a device.
    pub fn new(limits: &wgpu::Limits, software: bool) -> Self {
        DeviceProfile {
            software,
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
    /// A row kernel: whether it finds the first column of the maximum. `finish_rows`: whether there
    /// are labels.
    pub option: bool,
}

impl Pass {
    /// Rows that one workgroup deals with; `None` where one workgroup does everything.
    pub fn rows_per_workgroup(&self) -> Option<u32> {
        match self.variant {
            Variant::Row {
                strategy: Strategy::RowPerWorkgroup,
                ..
            } => Some(1),
            Variant::Row { .. } | Variant::FinishRows => Some(self.workgroup_size),
            Variant::Reduce | Variant::SelfTest => None,
        }
    }

    /// The values of its `override` constants.
    pub fn constants(&self) -> Vec<(&'static str, f64)> {
        let size = ("WORKGROUP_SIZE", f64::from(self.workgroup_size));
        let option = f64::from(u8::from(self.option));
        match self.variant {
            Variant::Row { .. } => vec![size, ("WITH_PREDICTIONS", option)],
            Variant::FinishRows => vec![size, ("HAS_LABELS", option)],
            Variant::Reduce | Variant::SelfTest => Vec::new(),
        }
    }
}

/// What will be run for a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The loop over the rows.
    pub strategy: Strategy,
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
        let one_each = if device.software {
            SOFTWARE_COLUMNS_PER_INVOCATION
        } else {
            NARROW_ROW
        };
        let alone = row_workgroup_size(device).is_err();
        let strategy = if problem.classes() <= one_each || alone {
            Strategy::RowPerInvocation
        } else {
            Strategy::RowPerWorkgroup
        };
        Plan::with_strategy(problem, device, strategy)
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
        let few = ROWS_PER_WORKGROUP.min(device.max_invocations);
        let row_workgroup = match strategy {
            Strategy::RowPerInvocation => few,
            Strategy::RowPerWorkgroup => row_workgroup_size(device)?,
        };
        let columns = match strategy {
            Strategy::RowPerInvocation => SOFTWARE_COLUMNS_PER_INVOCATION,
            Strategy::RowPerWorkgroup => SOFTWARE_COLUMNS_PER_SHARE * row_workgroup as usize,
        };
        if device.software && problem.classes() > columns {
            return Err(Error::RowTooWide {
                what: "what a software driver can loop over",
                needed: 4 * problem.classes() as u64,
                limit: 4 * columns as u64,
            });
        }
        let labels = match problem.labels() {
            LabelKind::None => LabelInput::None,
            LabelKind::Index { .. } => LabelInput::Index,
            LabelKind::Dense => LabelInput::Dense,
        };
        let row_pass = |labels, softmax, log_softmax, grad| Pass {
            variant: Variant::Row {
                strategy,
                labels,
                softmax,
                log_softmax,
                grad,
            },
            workgroup_size: row_workgroup,
            option: problem.wants(Wanted::Predictions),
        };
        let (softmax, log_softmax) = (
            problem.wants(Wanted::Softmax),
            problem.wants(Wanted::LogSoftmax),
        );
        let grad = match (problem.wants(Wanted::Grad), problem.grad_over_logits()) {
            (false, _) => GradOutput::None,
            (true, false) => GradOutput::Own,
            (true, true) => GradOutput::OverLogits,
        };
        // At most two outputs of the shape of the logits in one pass. The gradient comes last, as it
        // may overwrite the logits, and so do the labels: `finish_rows` reads the last pass's states.
        let mut passes = Vec::new();
        if softmax && log_softmax && grad != GradOutput::None {
            passes.push(row_pass(LabelInput::None, true, true, GradOutput::None));
            passes.push(row_pass(labels, false, false, grad));
        } else {
            passes.push(row_pass(labels, softmax, log_softmax, grad));
        }
        passes.push(Pass {
            variant: Variant::FinishRows,
            workgroup_size: few,
            option: labels != LabelInput::None,
        });
        let reduce = Pass {
            variant: Variant::Reduce,
            workgroup_size: LANES,
            option: true,
        };
        for pass in passes.iter().chain([&reduce]) {
            let needed = pass.variant.slots().len() as u64 - 1;
            if needed > u64::from(device.max_storage_buffers) {
                return Err(Error::DeviceTooSmall {
                    limit: "storage buffers per shader",
                    found: u64::from(device.max_storage_buffers),
                    needed,
                });
            }
        }
        if device.max_invocations < LANES {
            return Err(Error::DeviceTooSmall {
                limit: "invocations per workgroup",
                found: u64::from(device.max_invocations),
                needed: u64::from(LANES),
            });
        }
        Ok(Plan {
            strategy,
            passes,
            reduce,
            rows: problem.rows(),
            classes: problem.classes(),
            rows_per_chunk: rows_per_chunk(problem, device)?,
        })
    }

    /// Chunks of a host call.
    pub fn chunks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_chunk)
    }
}

/// Invocations for one row: a power of two of [`LANES`], as far as the device goes.
fn row_workgroup_size(device: &DeviceProfile) -> Result<u32> {
    // Per invocation a key, a first column and four sums; per block of LANES a state.
    let memory = |size: u32| size * 24 + size / LANES * 48 + 64;
    let mut size = ROW_WORKGROUP;
    while size > device.max_invocations || memory(size) > device.workgroup_memory {
        size /= 2;
    }
    if size >= LANES {
        return Ok(size);
    }
    let (limit, found, needed) = match device.max_invocations < LANES {
        true => ("invocations per workgroup", device.max_invocations, LANES),
        false => (
            "bytes of workgroup memory",
            device.workgroup_memory,
            memory(LANES),
        ),
    };
    Err(Error::DeviceTooSmall {
        limit,
        found: u64::from(found),
        needed: u64::from(needed),
    })
}

fn rows_per_chunk(problem: &Problem, device: &DeviceProfile) -> Result<usize> {
    // A binding may have to begin up to one alignment before its data.
    let usable = device.max_binding.min(device.max_buffer) - u64::from(device.offset_alignment);
    let row_bytes = 4 * problem.classes() as u64;
    if row_bytes > usable {
        return Err(Error::RowTooWide {
            what: Slot::Logits.name(),
            needed: row_bytes,
            limit: usable,
        });
    }
    let widest_row = row_bytes.max(4 * ROW_STATE_WORDS as u64);
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

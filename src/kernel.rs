//! From a [`Variant`] to its WGSL text, its bindings and its parameters. No device in sight.

use std::fmt;

/// Which loop over the rows, one file of `shaders/kernels/` each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Strategy {
    /// One invocation owns a row.
    RowPerInvocation,
    /// One workgroup owns a row.
    RowPerWorkgroup,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Strategy; 2] = [Strategy::RowPerInvocation, Strategy::RowPerWorkgroup];

    /// The name of the file, of the entry point, and of the strategy in every report.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::RowPerInvocation => "row_per_invocation",
            Strategy::RowPerWorkgroup => "row_per_workgroup",
        }
    }
}

/// What a row kernel reads as labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LabelInput {
    /// Nothing.
    None,
    /// `[rows]` i32.
    Index,
    /// `[rows, classes]` f32.
    Dense,
}

/// Where a row kernel writes the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GradOutput {
    /// Nowhere.
    None,
    /// Into a buffer of its own.
    Own,
    /// Over the logits.
    OverLogits,
}

/// One kind of shader: the key of the pipeline cache, the label in the driver, the id in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// Reads rows, leaves their states, writes up to two outputs of the shape of the logits.
    Row {
        /// The loop.
        strategy: Strategy,
        /// The labels.
        labels: LabelInput,
        /// Whether softmax is written.
        softmax: bool,
        /// Whether log-softmax is written.
        log_softmax: bool,
        /// The gradient.
        grad: GradOutput,
    },
    /// From row states to per-row outputs and the sums of the batch.
    FinishRows,
    /// From the sums of the batch to the loss.
    Reduce,
    /// Known answers.
    SelfTest,
}

/// A binding, the same number in every shader that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Slot {
    /// [`Params`], uniform.
    Params,
    /// `[rows, classes]`.
    Logits,
    /// `[rows]` i32 or `[rows, classes]` f32.
    Labels,
    /// `[1]` or `[rows]` f32.
    Upstream,
    /// `[rows, classes]`.
    Softmax,
    /// `[rows, classes]`.
    LogSoftmax,
    /// `[rows, classes]`.
    Grad,
    /// [`ROW_STATE_WORDS`] a row.
    RowStates,
    /// Losses, lse and predictions, one after the other.
    RowOutputs,
    /// [`ACCUMULATOR_WORDS`].
    Accumulators,
}

impl Slot {
    /// The name of the variable in WGSL.
    pub fn name(self) -> &'static str {
        match self {
            Slot::Params => "params",
            Slot::Logits => "logits",
            Slot::Labels => "labels",
            Slot::Upstream => "upstream",
            Slot::Softmax => "softmax",
            Slot::LogSoftmax => "log_softmax",
            Slot::Grad => "grad",
            Slot::RowStates => "row_states",
            Slot::RowOutputs => "row_outputs",
            Slot::Accumulators => "accumulators",
        }
    }
}

/// How a shader uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A uniform.
    Uniform,
    /// A storage buffer, read only.
    Read,
    /// A storage buffer, read and written.
    ReadWrite,
}

/// Words of one row in [`Slot::RowStates`].
pub const ROW_STATE_WORDS: usize = 8;
/// Words of counters at the start of [`Slot::Accumulators`].
pub const STATUS_WORDS: usize = 16;
/// Where each counter is among the first [`STATUS_WORDS`] words of [`Slot::Accumulators`].
pub mod status {
    /// Rows that are not ignored and came out NaN.
    pub const NAN_ROWS: usize = 0;
    /// The complement of the number of the first of them.
    pub const FIRST_NAN_ROW: usize = 1;
    /// Rows whose label is no class and not `ignore_index`.
    pub const BAD_LABELS: usize = 2;
    /// The complement of the number of the first of them.
    pub const FIRST_BAD_LABEL: usize = 3;
    /// Rows whose prediction is their label.
    pub const CORRECT_ROWS: usize = 4;
    /// Rows that are not ignored.
    pub const VALID_ROWS: usize = 5;
    /// The bits of the reduced loss.
    pub const LOSS: usize = 9;
}
/// Words of [`Slot::Accumulators`]: the counters, then 32 exact sums of 2 × 10 limbs.
pub const ACCUMULATOR_WORDS: usize = STATUS_WORDS + 32 * 20;
/// A start that says that nobody wants the output.
pub const NOT_WANTED: u32 = u32::MAX;

/// The uniform of `shaders/params.wgsl`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[allow(missing_docs)] // The shader's file documents them; a test compares names and offsets.
pub struct Params {
    pub rows: u32,
    pub classes: u32,
    pub zero: u32,
    pub ignore_index: i32,
    pub logits_start: u32,
    pub labels_start: u32,
    pub upstream_start: u32,
    pub softmax_start: u32,
    pub log_softmax_start: u32,
    pub grad_start: u32,
    pub losses_start: u32,
    pub lse_start: u32,
    pub predictions_start: u32,
    pub row_states_start: u32,
    pub accumulators_start: u32,
    pub upstream_stride: u32,
    pub gradient_scale: f32,
    pub denominator: u32,
    pub rows_before: u32,
    pub reserved: u32,
}

macro_rules! shader {
    ($name:literal) => {
        include_str!(concat!("../shaders/", $name, ".wgsl"))
    };
}

impl Variant {
    /// Every variant there is.
    pub fn all() -> Vec<Variant> {
        let mut all = vec![Variant::FinishRows, Variant::Reduce, Variant::SelfTest];
        for strategy in Strategy::ALL {
            for labels in [LabelInput::None, LabelInput::Index, LabelInput::Dense] {
                for grad in [GradOutput::None, GradOutput::Own, GradOutput::OverLogits] {
                    for (softmax, log_softmax) in
                        [(false, false), (true, false), (false, true), (true, true)]
                    {
                        let wanted = Variant::Row {
                            strategy,
                            labels,
                            softmax,
                            log_softmax,
                            grad,
                        };
                        let has_grad = grad != GradOutput::None;
                        let matrices =
                            usize::from(softmax) + usize::from(log_softmax) + usize::from(has_grad);
                        if matrices <= 2 && !(has_grad && labels == LabelInput::None) {
                            all.push(wanted);
                        }
                    }
                }
            }
        }
        all
    }

    /// The entry point, which is also the name of the kernel's file.
    pub fn entry_point(self) -> &'static str {
        match self {
            Variant::Row { strategy, .. } => strategy.name(),
            Variant::FinishRows => "finish_rows",
            Variant::Reduce => "reduce",
            Variant::SelfTest => "self_test",
        }
    }

    /// The text of the shader: whole files, one after the other.
    pub fn wgsl(self) -> String {
        let mut parts = vec![shader!("params")];
        match self {
            Variant::Row {
                strategy,
                labels,
                softmax,
                log_softmax,
                grad,
            } => parts.extend([
                shader!("math"),
                shader!("row_state"),
                shader!("seen"),
                match grad {
                    GradOutput::OverLogits => shader!("logits/read_write"),
                    GradOutput::None | GradOutput::Own => shader!("logits/read"),
                },
                shader!("logits/f32"),
                match labels {
                    LabelInput::None | LabelInput::Index => shader!("sums/plain"),
                    LabelInput::Dense => shader!("sums/weighted"),
                },
                match labels {
                    LabelInput::None => shader!("labels/none"),
                    LabelInput::Index => shader!("labels/index"),
                    LabelInput::Dense => shader!("labels/dense"),
                },
                if softmax {
                    shader!("outputs/softmax")
                } else {
                    shader!("outputs/no_softmax")
                },
                if log_softmax {
                    shader!("outputs/log_softmax")
                } else {
                    shader!("outputs/no_log_softmax")
                },
                match grad {
                    GradOutput::None => "",
                    GradOutput::Own | GradOutput::OverLogits => shader!("outputs/upstream"),
                },
                match grad {
                    GradOutput::None => shader!("outputs/no_grad"),
                    GradOutput::Own => shader!("outputs/grad"),
                    GradOutput::OverLogits => shader!("outputs/grad_over_logits"),
                },
                shader!("outputs/row_states"),
                shader!("row"),
                match strategy {
                    Strategy::RowPerInvocation => shader!("kernels/row_per_invocation"),
                    Strategy::RowPerWorkgroup => shader!("kernels/row_per_workgroup"),
                },
            ]),
            Variant::FinishRows => parts.extend([
                shader!("math"),
                shader!("seen"),
                shader!("accumulators"),
                shader!("kernels/finish_rows"),
            ]),
            Variant::Reduce => parts.extend([shader!("accumulators"), shader!("kernels/reduce")]),
            Variant::SelfTest => parts.extend([shader!("math"), shader!("kernels/self_test")]),
        }
        parts.join("\n")
    }

    /// Its bindings, in the order of their numbers.
    pub fn slots(self) -> Vec<(Slot, Access)> {
        let mut slots = vec![(Slot::Params, Access::Uniform)];
        match self {
            Variant::Row {
                labels,
                softmax,
                log_softmax,
                grad,
                ..
            } => {
                slots.push((
                    Slot::Logits,
                    match grad {
                        GradOutput::OverLogits => Access::ReadWrite,
                        GradOutput::None | GradOutput::Own => Access::Read,
                    },
                ));
                if labels != LabelInput::None {
                    slots.push((Slot::Labels, Access::Read));
                }
                if grad != GradOutput::None {
                    slots.push((Slot::Upstream, Access::Read));
                }
                if softmax {
                    slots.push((Slot::Softmax, Access::ReadWrite));
                }
                if log_softmax {
                    slots.push((Slot::LogSoftmax, Access::ReadWrite));
                }
                if grad == GradOutput::Own {
                    slots.push((Slot::Grad, Access::ReadWrite));
                }
                slots.push((Slot::RowStates, Access::ReadWrite));
            }
            Variant::FinishRows => slots.extend([
                (Slot::RowStates, Access::Read),
                (Slot::RowOutputs, Access::ReadWrite),
                (Slot::Accumulators, Access::ReadWrite),
            ]),
            Variant::Reduce => slots.push((Slot::Accumulators, Access::ReadWrite)),
            Variant::SelfTest => slots.push((Slot::RowOutputs, Access::ReadWrite)),
        }
        slots
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry_point())?;
        if let Variant::Row {
            labels,
            softmax,
            log_softmax,
            grad,
            ..
        } = self
        {
            f.write_str(match labels {
                LabelInput::None => "",
                LabelInput::Index => "/index",
                LabelInput::Dense => "/dense",
            })?;
            if *softmax {
                f.write_str("/softmax")?;
            }
            if *log_softmax {
                f.write_str("/log_softmax")?;
            }
            f.write_str(match grad {
                GradOutput::None => "",
                GradOutput::Own => "/grad",
                GradOutput::OverLogits => "/grad_over_logits",
            })?;
        }
        Ok(())
    }
}

//! From a [`Variant`] to its WGSL text, its bindings and its parameters. No device in sight.

use std::fmt;

/// Who owns a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Strategy {
    /// One invocation.
    RowPerInvocation,
    /// A few neighbouring invocations: a subgroup, or a part of one.
    RowPerSubgroup,
    /// One workgroup.
    RowPerWorkgroup,
    /// Many workgroups, in three passes.
    SplitRow,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Strategy; 4] = [
        Strategy::RowPerInvocation,
        Strategy::RowPerSubgroup,
        Strategy::RowPerWorkgroup,
        Strategy::SplitRow,
    ];

    /// Its name in every report, and the beginning of the name of its shaders.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::RowPerInvocation => "row_per_invocation",
            Strategy::RowPerSubgroup => "row_per_subgroup",
            Strategy::RowPerWorkgroup => "row_per_workgroup",
            Strategy::SplitRow => "split_row",
        }
    }
}

/// A shader that works on rows, one file of `shaders/kernels/` each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowKernel {
    /// All of [`Strategy::RowPerInvocation`].
    PerInvocation,
    /// All of [`Strategy::RowPerSubgroup`].
    PerSubgroup,
    /// All of [`Strategy::RowPerWorkgroup`].
    PerWorkgroup,
    /// [`Strategy::SplitRow`], first pass: the states of blocks.
    SplitStates,
    /// Second pass: the states of rows.
    SplitMerge,
    /// Third pass: the outputs.
    SplitApply,
}

impl RowKernel {
    /// All of them.
    pub const ALL: [RowKernel; 6] = [
        RowKernel::PerInvocation,
        RowKernel::PerSubgroup,
        RowKernel::PerWorkgroup,
        RowKernel::SplitStates,
        RowKernel::SplitMerge,
        RowKernel::SplitApply,
    ];

    /// The name of its file and of its entry point.
    pub fn name(self) -> &'static str {
        match self {
            RowKernel::PerInvocation => "row_per_invocation",
            RowKernel::PerSubgroup => "row_per_subgroup",
            RowKernel::PerWorkgroup => "row_per_workgroup",
            RowKernel::SplitStates => "split_row_states",
            RowKernel::SplitMerge => "split_row_merge",
            RowKernel::SplitApply => "split_row_apply",
        }
    }

    /// Whether invocations work on a block together.
    pub fn has_teams(self) -> bool {
        matches!(
            self,
            RowKernel::PerSubgroup | RowKernel::PerWorkgroup | RowKernel::SplitStates
        )
    }
}

/// How the invocations that work on a block together exchange values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Exchange {
    /// They need not.
    None,
    /// Through workgroup memory.
    Memory,
    /// By shuffles within a subgroup.
    Shuffle,
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

/// One kind of shader: with its compile-time values the key of the pipeline cache; the label in the
/// driver, the id in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// Works on rows: reads logits, leaves states, writes outputs of the shape of the logits.
    Row {
        /// The loop.
        kernel: RowKernel,
        /// The way through a block.
        exchange: Exchange,
        /// The labels.
        labels: LabelInput,
        /// [`Access::ReadWrite`] where the logits share a buffer with another array, or the gradient
        /// goes over them.
        logits: Access,
        /// Whether softmax is written.
        softmax: bool,
        /// Whether log-softmax is written.
        log_softmax: bool,
        /// The gradient.
        grad: GradOutput,
    },
    /// Counts the rows that are not ignored.
    CountLabels,
    /// From row states to per-row outputs and the sums of the batch.
    FinishRows,
    /// From the sums of the batch to the loss.
    Reduce,
    /// Known answers.
    SelfTest,
    /// Who is whose partner in a subgroup.
    ShuffleTest,
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
    /// `[1]`, f32 or a count.
    Denominator,
    /// `[rows, classes]`.
    Softmax,
    /// `[rows, classes]`.
    LogSoftmax,
    /// `[rows, classes]`.
    Grad,
    /// [`STATE_WORDS`] a row, then a block.
    States,
    /// `[rows]` f32.
    Losses,
    /// `[rows]` f32.
    Lse,
    /// `[rows]` i32.
    Predictions,
    /// `[1]` f32.
    Loss,
    /// [`ACCUMULATOR_WORDS`].
    Accumulators,
    /// [`STATUS_WORDS`].
    Status,
    /// Results of a self-test.
    Probes,
}

impl Slot {
    /// The name of the variable in WGSL.
    pub fn name(self) -> &'static str {
        match self {
            Slot::Params => "params",
            Slot::Logits => "logits",
            Slot::Labels => "labels",
            Slot::Upstream => "upstream",
            Slot::Denominator => "denominator",
            Slot::Softmax => "softmax",
            Slot::LogSoftmax => "log_softmax",
            Slot::Grad => "grad",
            Slot::States => "states",
            Slot::Losses => "losses",
            Slot::Lse => "lse",
            Slot::Predictions => "predictions",
            Slot::Loss => "loss",
            Slot::Accumulators => "accumulators",
            Slot::Status => "status",
            Slot::Probes => "probes",
        }
    }
}

/// How a shader uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    /// A uniform.
    Uniform,
    /// A storage buffer, read only.
    Read,
    /// A storage buffer, read and written.
    ReadWrite,
}

/// Columns of a block, the unit of [`Strategy::SplitRow`].
pub const BLOCK: usize = 1024;
/// Words of the state of a row or a block in [`Slot::States`].
pub const STATE_WORDS: usize = 8;
/// Words of [`Slot::Status`].
pub const STATUS_WORDS: usize = 6;
/// What each word of [`Slot::Status`] is.
pub mod status {
    /// Rows that are not ignored and came out NaN.
    pub const NAN_ROWS: usize = 0;
    /// The complement of the number of the first of them.
    pub const FIRST_NAN_ROW: usize = 1;
    /// Rows whose label is no class and not `ignore_index`.
    pub const BAD_LABELS: usize = 2;
    /// The complement of the number of the first of them.
    pub const FIRST_BAD_LABEL: usize = 3;
    /// Rows of the last batch that are not ignored.
    pub const VALID: usize = 4;
    /// Rows of the last batch whose prediction is their label.
    pub const CORRECT: usize = 5;
}
/// Words of [`Slot::Accumulators`]: 32 exact sums, each with its counts.
pub const ACCUMULATOR_WORDS: usize = 32 * 32;
/// A start that says that nobody wants the output, and a stride that says that nobody gave the input.
pub const NOT_WANTED: u32 = u32::MAX;
/// Of [`Params::denominator_flags`]: it is in its buffer, else in the parameters.
pub const DENOMINATOR_IN_BUFFER: u32 = 1;
/// Of [`Params::denominator_flags`]: it is an integer, else an f32.
pub const DENOMINATOR_IS_COUNT: u32 = 2;

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
    pub denominator_start: u32,
    pub softmax_start: u32,
    pub log_softmax_start: u32,
    pub grad_start: u32,
    pub losses_start: u32,
    pub lse_start: u32,
    pub predictions_start: u32,
    pub loss_start: u32,
    pub status_start: u32,
    pub rows_before: u32,
    pub upstream_stride: u32,
    pub upstream: f32,
    pub denominator: u32,
    pub denominator_flags: u32,
    pub reserved_0: u32,
    pub reserved_1: u32,
    pub reserved_2: u32,
}

macro_rules! shader {
    ($name:literal) => {
        include_str!(concat!("../shaders/", $name, ".wgsl"))
    };
}

impl Variant {
    /// Every variant there is.
    pub fn all() -> Vec<Variant> {
        let mut all = vec![
            Variant::CountLabels,
            Variant::FinishRows,
            Variant::Reduce,
            Variant::SelfTest,
            Variant::ShuffleTest,
        ];
        for kernel in RowKernel::ALL {
            let exchanges: &[Exchange] = match kernel.has_teams() {
                true => &[Exchange::Memory, Exchange::Shuffle],
                false => &[Exchange::None],
            };
            for &exchange in exchanges {
                for labels in [LabelInput::None, LabelInput::Index, LabelInput::Dense] {
                    for logits in [Access::Read, Access::ReadWrite] {
                        for (softmax, log_softmax, grad) in row_outputs(kernel, labels, logits) {
                            all.push(Variant::Row {
                                kernel,
                                exchange,
                                labels,
                                logits,
                                softmax,
                                log_softmax,
                                grad,
                            });
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
            Variant::Row { kernel, .. } => kernel.name(),
            Variant::CountLabels => "count_labels",
            Variant::FinishRows => "finish_rows",
            Variant::Reduce => "reduce",
            Variant::SelfTest => "self_test",
            Variant::ShuffleTest => "shuffle_test",
        }
    }

    /// The text of the shader: whole files, one after the other.
    pub fn wgsl(self) -> String {
        let mut parts = vec![shader!("params")];
        match self {
            Variant::Row {
                kernel,
                exchange,
                labels,
                logits,
                softmax,
                log_softmax,
                grad,
            } => {
                parts.extend([
                    shader!("math"),
                    shader!("row_state"),
                    shader!("seen"),
                    match logits {
                        Access::ReadWrite => shader!("logits/read_write"),
                        Access::Read | Access::Uniform => shader!("logits/read"),
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
                    match softmax {
                        true => shader!("outputs/softmax"),
                        false => shader!("outputs/no_softmax"),
                    },
                    match log_softmax {
                        true => shader!("outputs/log_softmax"),
                        false => shader!("outputs/no_log_softmax"),
                    },
                ]);
                parts.extend(match grad {
                    GradOutput::None => vec![shader!("outputs/no_grad")],
                    GradOutput::Own => vec![
                        shader!("denominator"),
                        shader!("outputs/upstream"),
                        shader!("outputs/grad"),
                    ],
                    GradOutput::OverLogits => vec![
                        shader!("denominator"),
                        shader!("outputs/upstream"),
                        shader!("outputs/grad_over_logits"),
                    ],
                });
                parts.extend([shader!("slot"), shader!("row"), shader!("states")]);
                parts.extend(match exchange {
                    Exchange::None => vec![],
                    Exchange::Memory => vec![shader!("team"), shader!("team/memory")],
                    Exchange::Shuffle => vec![shader!("team"), shader!("team/shuffle")],
                });
                parts.push(match kernel {
                    RowKernel::PerInvocation => shader!("kernels/row_per_invocation"),
                    RowKernel::PerSubgroup => shader!("kernels/row_per_subgroup"),
                    RowKernel::PerWorkgroup => shader!("kernels/row_per_workgroup"),
                    RowKernel::SplitStates => shader!("kernels/split_row_states"),
                    RowKernel::SplitMerge => shader!("kernels/split_row_merge"),
                    RowKernel::SplitApply => shader!("kernels/split_row_apply"),
                });
            }
            Variant::CountLabels => parts.push(shader!("kernels/count_labels")),
            Variant::FinishRows => parts.extend([
                shader!("math"),
                shader!("seen"),
                shader!("accumulators"),
                shader!("status"),
                shader!("kernels/finish_rows"),
            ]),
            Variant::Reduce => parts.extend([
                shader!("accumulators"),
                shader!("status"),
                shader!("denominator"),
                shader!("kernels/reduce"),
            ]),
            Variant::SelfTest => parts.extend([shader!("math"), shader!("kernels/self_test")]),
            Variant::ShuffleTest => parts.push(shader!("kernels/shuffle_test")),
        }
        parts.join("\n")
    }

    /// Its bindings, in the order of their numbers.
    pub fn slots(self) -> Vec<(Slot, Access)> {
        let mut slots = vec![(Slot::Params, Access::Uniform)];
        let written = |slot| (slot, Access::ReadWrite);
        match self {
            Variant::Row {
                labels,
                logits,
                softmax,
                log_softmax,
                grad,
                ..
            } => {
                slots.push((Slot::Logits, logits));
                if labels != LabelInput::None {
                    slots.push(written(Slot::Labels));
                }
                if grad != GradOutput::None {
                    slots.extend([Slot::Upstream, Slot::Denominator].map(written));
                }
                if softmax {
                    slots.push(written(Slot::Softmax));
                }
                if log_softmax {
                    slots.push(written(Slot::LogSoftmax));
                }
                if grad == GradOutput::Own {
                    slots.push(written(Slot::Grad));
                }
                slots.push(written(Slot::States));
            }
            Variant::CountLabels => slots.extend([Slot::Labels, Slot::Denominator].map(written)),
            Variant::FinishRows => slots.extend(
                [
                    Slot::States,
                    Slot::Losses,
                    Slot::Lse,
                    Slot::Predictions,
                    Slot::Accumulators,
                    Slot::Status,
                ]
                .map(written),
            ),
            Variant::Reduce => slots.extend(
                [
                    Slot::Denominator,
                    Slot::Loss,
                    Slot::Accumulators,
                    Slot::Status,
                ]
                .map(written),
            ),
            Variant::SelfTest | Variant::ShuffleTest => slots.push(written(Slot::Probes)),
        }
        slots
    }
}

/// The outputs of the shape of the logits that a row kernel exists for: at most softmax and the
/// gradient at once, because nobody needs log-softmax beside them often enough.
fn row_outputs(
    kernel: RowKernel,
    labels: LabelInput,
    logits: Access,
) -> Vec<(bool, bool, GradOutput)> {
    let nothing = (false, false, GradOutput::None);
    match kernel {
        // Sums of exp are the same whatever an index label says.
        RowKernel::SplitStates if labels == LabelInput::Index => return Vec::new(),
        RowKernel::SplitStates | RowKernel::SplitMerge => return vec![nothing],
        _ => {}
    }
    let mut outputs = vec![
        nothing,
        (true, false, GradOutput::None),
        (false, true, GradOutput::None),
    ];
    if labels != LabelInput::None {
        outputs.extend([false, true].map(|softmax| (softmax, false, GradOutput::Own)));
        if logits == Access::ReadWrite {
            outputs.extend([false, true].map(|softmax| (softmax, false, GradOutput::OverLogits)));
        }
    }
    if kernel == RowKernel::SplitApply {
        outputs.remove(0);
    }
    outputs
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry_point())?;
        if let Variant::Row {
            exchange,
            labels,
            logits,
            softmax,
            log_softmax,
            grad,
            ..
        } = self
        {
            f.write_str(match exchange {
                Exchange::None => "",
                Exchange::Memory => "/memory",
                Exchange::Shuffle => "/shuffle",
            })?;
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
            f.write_str(match (grad, logits) {
                (GradOutput::None, Access::ReadWrite) => "/pooled",
                (GradOutput::None, _) => "",
                (GradOutput::Own, Access::ReadWrite) => "/grad/pooled",
                (GradOutput::Own, _) => "/grad",
                (GradOutput::OverLogits, _) => "/grad_over_logits",
            })?;
        }
        Ok(())
    }
}

//! From a [`Variant`] to its WGSL text, its bindings and its parameters. No device in sight.

use std::fmt;

use crate::problem::{Dtype, LabelKind, Problem};

macro_rules! shader {
    ($name:literal) => {
        include_str!(concat!("../shaders/", $name, ".wgsl"))
    };
}

/// Who owns a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Strategy {
    /// One invocation.
    RowPerInvocation,
    /// A few neighbouring invocations: a subgroup, or a part of one.
    RowPerSubgroup,
    /// One workgroup.
    RowPerWorkgroup,
    /// Many workgroups, in two passes.
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
    /// [`Strategy::SplitRow`], first pass: the states of parts.
    SplitStates,
    /// Second pass: the states of rows, and the outputs.
    SplitFinish,
}

impl RowKernel {
    /// All of them.
    pub const ALL: [RowKernel; 5] = [
        RowKernel::PerInvocation,
        RowKernel::PerSubgroup,
        RowKernel::PerWorkgroup,
        RowKernel::SplitStates,
        RowKernel::SplitFinish,
    ];

    /// The name of its file and of its entry point.
    pub fn name(self) -> &'static str {
        match self {
            RowKernel::PerInvocation => "row_per_invocation",
            RowKernel::PerSubgroup => "row_per_subgroup",
            RowKernel::PerWorkgroup => "row_per_workgroup",
            RowKernel::SplitStates => "split_row_states",
            RowKernel::SplitFinish => "split_row_finish",
        }
    }

    /// Whether it writes outputs of the shape of the logits.
    pub fn writes(self) -> bool {
        self != RowKernel::SplitStates
    }

    /// Whether it does all that there is to do with a row.
    pub fn is_whole(self) -> bool {
        matches!(
            self,
            RowKernel::PerInvocation | RowKernel::PerSubgroup | RowKernel::PerWorkgroup
        )
    }

    /// Whether it can finish its rows.
    pub fn can_finish(self) -> bool {
        self != RowKernel::SplitStates
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

/// What a row kernel takes for labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum LabelInput {
    /// Nothing.
    None,
    /// `[rows]` i32.
    Index,
    /// f32 weights in the shape of the logits.
    Dense,
    /// f32 vectors in the shape of the logits.
    Vector,
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

/// What a row kernel writes in the shape of the logits beside the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SoftmaxOutput {
    /// Nothing.
    None,
    /// Softmax.
    Softmax,
    /// Log-softmax.
    LogSoftmax,
}

/// From logits to what softmax is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Curve {
    /// The logits themselves.
    Plain,
    /// Times a number.
    Scaled,
    /// Bounded by a cap, whatever the scale.
    Capped,
}

impl Curve {
    /// All of them.
    pub const ALL: [Curve; 3] = [Curve::Plain, Curve::Scaled, Curve::Capped];

    fn wgsl(self) -> Vec<&'static str> {
        match self {
            Curve::Plain => vec![shader!("curve/straight"), shader!("curve/plain")],
            Curve::Scaled => vec![
                shader!("curve/straight"),
                shader!("curve/scaled"),
                shader!("curve/times"),
            ],
            Curve::Capped => vec![shader!("curve/capped"), shader!("curve/times")],
        }
    }
}

/// How many words of an array of the shape of the logits are read and written at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Width {
    /// One: any rows, anywhere.
    Words,
    /// Four: rows that begin and end where a vector of four words does. Outputs in 16 bits two at a time.
    Vectors,
    /// Four logits, out of which those of a slot are cut, and one output: f32 rows anywhere.
    Shifted,
    /// The same, and four outputs where they are all of one row: f32 rows anywhere, but in the same place of a
    /// vector in all arrays. For kernels that write as they read.
    Alike,
}

/// What a row sums up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sums {
    /// What softmax needs.
    Plain,
    /// The loss of all classes, the entropy, or the product with a vector too.
    Full,
}

/// The options of a shader that are known when it is compiled: its `override` constants, which cost
/// nothing where they are off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Options {
    /// The labels.
    pub labels: LabelInput,
    /// Softmax or log-softmax.
    pub softmax: SoftmaxOutput,
    /// The gradient.
    pub grad: GradOutput,
    /// How the logits are stored, and outputs in 16 bits.
    pub dtype: Dtype,
    /// Whether the losses of rows are wanted.
    pub losses: bool,
    /// Whether their lse is.
    pub lse: bool,
    /// Whether the first column of the maximum is looked for.
    pub predictions: bool,
    /// Whether the entropy is wanted.
    pub entropy: bool,
    /// Whether a kernel that finishes rows writes what is seldom wanted of them.
    pub more: bool,
    /// Whether classes have weights.
    pub class_weights: bool,
    /// Whether labels are smoothed.
    pub smoothed: bool,
    /// Whether there is a z-loss.
    pub z_loss: bool,
    /// Whether a softcap is one that takes less than 2⁻⁴⁴ of accuracy.
    pub low_cap: bool,
    /// Whether the upstream gradient is in a buffer.
    pub upstream: bool,
    /// Whether the denominator is in the parameters.
    pub denominator_known: bool,
    /// Whether logits are softmax already.
    pub from_softmax: bool,
    /// Whether rows are interleaved.
    pub strided: bool,
    /// Whether columns past the last class are written.
    pub padded: bool,
}

impl Options {
    /// Nothing but maxima and sums of f32 logits.
    pub const PLAIN: Options = Options {
        labels: LabelInput::None,
        softmax: SoftmaxOutput::None,
        grad: GradOutput::None,
        dtype: Dtype::F32,
        losses: false,
        lse: false,
        predictions: false,
        entropy: false,
        more: false,
        class_weights: false,
        smoothed: false,
        z_loss: false,
        low_cap: false,
        upstream: false,
        denominator_known: false,
        from_softmax: false,
        strided: false,
        padded: false,
    };

    /// Whether anything of the shape of the logits is written.
    pub fn writes(&self) -> bool {
        self.softmax != SoftmaxOutput::None || self.grad != GradOutput::None
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = |on: bool, name| if on { name } else { "" };
        let names = [
            match self.labels {
                LabelInput::None => "",
                LabelInput::Index => "index",
                LabelInput::Dense => "dense",
                LabelInput::Vector => "vector",
            },
            when(self.dtype != Dtype::F32, self.dtype.name()),
            when(self.from_softmax, "from_softmax"),
            when(self.upstream, "upstream"),
            when(self.denominator_known, "known"),
            when(self.strided, "strided"),
            when(self.class_weights, "weighted"),
            when(self.smoothed, "smoothed"),
            when(self.z_loss, "z_loss"),
            when(self.low_cap, "low_cap"),
            when(self.losses, "losses"),
            when(self.lse, "lse"),
            when(self.predictions, "predictions"),
            when(self.entropy, "entropy"),
            when(self.more, "more"),
            match self.softmax {
                SoftmaxOutput::None => "",
                SoftmaxOutput::Softmax => "softmax",
                SoftmaxOutput::LogSoftmax => "log_softmax",
            },
            match self.grad {
                GradOutput::None => "",
                GradOutput::Own => "grad",
                GradOutput::OverLogits => "grad_over_logits",
            },
            when(self.padded, "padded"),
        ];
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            write!(f, "/{name}")?;
        }
        Ok(())
    }
}

/// One text of a shader: with its compile-time values the key of the pipeline cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// Works on rows: reads logits, leaves states, writes outputs of the shape of the logits.
    Row {
        /// The loop.
        kernel: RowKernel,
        /// The way through a block.
        exchange: Exchange,
        /// The way from x to z.
        curve: Curve,
        /// What it sums up.
        sums: Sums,
        /// [`Access::ReadWrite`] where the logits share a buffer with another array, or the gradient
        /// goes over them.
        logits: Access,
        /// How logits and outputs are read and written.
        width: Width,
        /// Whether outputs are stored in 16 bits.
        halves: bool,
        /// Whether it finishes its rows itself; else it leaves states for [`Variant::FinishRows`].
        finishes: bool,
    },
    /// Counts the rows that are not ignored, and adds up the class weights of their labels.
    CountLabels,
    /// From row states to per-row outputs and the sums of the batch.
    FinishRows(Curve),
    /// From row states to the outputs that are seldom wanted.
    MoreRows(Curve),
    /// From the sums of the batch to the loss.
    Reduce,
    /// Known answers.
    SelfTest,
    /// Who is whose partner in a subgroup.
    ShuffleTest,
    /// exp and log1p of given numbers.
    MathTest,
}

/// A binding, the same number in every shader that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Slot {
    /// [`Params`], uniform.
    Params,
    /// In the shape of the logits.
    Logits,
    /// `[rows]` i32, or f32 in the shape of the logits.
    Labels,
    /// `[classes]` f32.
    ClassWeights,
    /// `[1]` or `[rows]` f32.
    Upstream,
    /// `[1]` f32; in the scratch buffer [`COUNTED_WORDS`].
    Denominator,
    /// In the shape of the logits. A kernel that writes log-softmax has it in this place.
    Softmax,
    /// In the shape of the logits; no binding of its own.
    LogSoftmax,
    /// In the shape of the logits.
    Grad,
    /// [`STATE_WORDS`] a row, then a part.
    States,
    /// `[rows]` f32.
    Losses,
    /// `[rows]` f32.
    Lse,
    /// `[rows]` i32.
    Predictions,
    /// `[rows]` f32.
    Entropy,
    /// `[rows]` u32, 0 or 1.
    Correct,
    /// `[rows]` f32.
    ZLosses,
    /// `[1]` f32.
    Loss,
    /// `[1]` f32.
    ZLoss,
    /// [`ACCUMULATOR_WORDS`].
    Accumulators,
    /// [`STATUS_WORDS`].
    Status,
    /// Results of a self-test.
    Probes,
}

impl Slot {
    /// The name of the variable in WGSL, and of the array in messages.
    pub fn name(self) -> &'static str {
        match self {
            Slot::Params => "given",
            Slot::Logits => "logits",
            Slot::Labels => "labels",
            Slot::ClassWeights => "class_weights",
            Slot::Upstream => "upstream",
            Slot::Denominator => "denominator",
            Slot::Softmax => "softmax",
            Slot::LogSoftmax => "log_softmax",
            Slot::Grad => "grad",
            Slot::States => "states",
            Slot::Losses => "losses",
            Slot::Lse => "lse",
            Slot::Predictions => "predictions",
            Slot::Entropy => "entropy",
            Slot::Correct => "correct",
            Slot::ZLosses => "z_losses",
            Slot::Loss => "loss",
            Slot::ZLoss => "z_loss",
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

/// Columns of a slot, which one invocation reads at once.
pub const SLOT: usize = 4;
/// Slots of a stripe: most invocations that can share a block.
pub const LANES: usize = 8;
/// Columns of a block, eight stripes.
pub const BLOCK: usize = 256;
/// Columns of a part, what [`Strategy::SplitRow`] keeps a state of, at least.
pub const PART: usize = 1024;
/// Rows of which one invocation counts the labels.
pub const ROWS_EACH: u32 = 16;
/// Words of the state of a row or a part in [`Slot::States`].
pub const STATE_WORDS: usize = 9;
/// Words of [`Slot::Status`].
pub const STATUS_WORDS: usize = 8;
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
    /// The upper half of [`VALID`].
    pub const VALID_HIGH: usize = 6;
    /// The upper half of [`CORRECT`].
    pub const CORRECT_HIGH: usize = 7;
}
/// Words of [`Slot::Denominator`] where labels are counted: of the rows and, exactly, of their weights.
pub const COUNTED_WORDS: usize = 14;
/// Words of [`Slot::Accumulators`]: 32 copies of two exact sums, each with its counts.
pub const ACCUMULATOR_WORDS: usize = 32 * 64;
/// A start that says that nobody wants the output, and a stride that says that nobody gave the input.
pub const NOT_WANTED: u32 = u32::MAX;
/// Of [`Params::denominator_flags`]: it is in its buffer, else in the parameters.
pub const DENOMINATOR_IN_BUFFER: u32 = 1;
/// Of [`Params::denominator_flags`]: it is an integer, else an f32.
pub const DENOMINATOR_IS_COUNT: u32 = 2;
/// Of [`Params::denominator_flags`]: it is the sum of class weights that was counted.
pub const DENOMINATOR_IS_WEIGHTS: u32 = 4;
/// Of [`Params::denominator_flags`]: the mean of nothing is 0, else NaN.
pub const EMPTY_IS_ZERO: u32 = 8;

/// The uniform of `shaders/params.wgsl`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[allow(missing_docs)] // The shader's file documents them; a test compares names and offsets.
pub struct Params {
    pub rows: u32,
    pub classes: u32,
    pub row_length: u32,
    pub inner: u32,
    pub zero: u32,
    pub ignore_index: i32,
    pub rows_before: u32,
    pub denominator_flags: u32,
    pub logits_start: u32,
    pub labels_start: u32,
    pub class_weights_start: u32,
    pub upstream_start: u32,
    pub denominator_start: u32,
    pub softmax_start: u32,
    pub log_softmax_start: u32,
    pub grad_start: u32,
    pub losses_start: u32,
    pub lse_start: u32,
    pub predictions_start: u32,
    pub entropy_start: u32,
    pub correct_start: u32,
    pub z_losses_start: u32,
    pub loss_start: u32,
    pub z_loss_start: u32,
    pub status_start: u32,
    pub upstream_stride: u32,
    pub upstream: f32,
    pub denominator: u32,
    pub keep_high: f32,
    pub keep_low: f32,
    pub share_high: f32,
    pub share_low: f32,
    pub share_unit: f32,
    pub z_loss: f32,
    pub slope: f32,
    pub factor: f32,
    pub unit: f32,
    pub gone: f32,
    pub far: f32,
    pub rebase: f32,
    pub bound: f32,
    pub inverse_cap_high: f32,
    pub inverse_cap_low: f32,
    pub factor_head: f32,
    pub factor_rest: f32,
    pub inverse_cap_head: f32,
    pub inverse_cap_rest: f32,
    pub first_column: u32,
    pub end_column: u32,
    pub part: u32,
    pub span: u32,
    pub reserved: u32,
}

impl Params {
    /// What the options of a problem are on the device; no rows, no arrays yet.
    pub fn of(problem: &Problem) -> Params {
        let pair = |value: f64| [value as f32, (value - f64::from(value as f32)) as f32];
        let epsilon = f64::from(problem.label_smoothing());
        let [keep_high, keep_low] = pair(1.0 - epsilon);
        // A row sums gaps up in multiples of the power of two, so that they do not overflow where their
        // share in the loss does not.
        let share = epsilon / problem.classes() as f64;
        let share_unit = if share > 0.0 {
            share.log2().floor().exp2()
        } else {
            1.0
        };
        let [share_high, share_low] = pair(share / share_unit);
        let slope = problem.logit_scale();
        // A scale below 1 is applied to half the difference, which cannot overflow.
        let (factor, unit) = match problem.softcap() {
            Some(cap) => (cap, 1.0),
            None if slope < 1.0 => (2.0 * slope, 0.5),
            None => (slope, 1.0),
        };
        let per_cap = f64::from(slope) / f64::from(problem.softcap().unwrap_or(1.0));
        let [inverse_cap_high, inverse_cap_low] = pair(per_cap);
        // Products of two numbers of 12 bits are exact.
        let short = |value: f64| {
            let head = f32::from_bits((value as f32).to_bits() & 0xffff_f000);
            [head, (value - f64::from(head)) as f32]
        };
        let [factor_head, factor_rest] = short(f64::from(factor));
        let [inverse_cap_head, inverse_cap_rest] = short(per_cap);
        let most = f64::from(f32::MAX);
        Params {
            classes: problem.classes() as u32,
            row_length: problem.row_length() as u32,
            end_column: problem.row_length() as u32,
            inner: problem.inner() as u32,
            ignore_index: match problem.labels() {
                LabelKind::Index { ignore_index } => device_ignore_index(ignore_index),
                LabelKind::None | LabelKind::Dense | LabelKind::Vector => 0,
            },
            keep_high,
            keep_low,
            share_high,
            share_low,
            share_unit: share_unit as f32,
            z_loss: problem.z_loss(),
            slope,
            factor,
            unit,
            // exp is 0 from -104 on.
            gone: (52.0 / (f64::from(factor) * f64::from(unit))).min(most) as f32,
            far: (1000.0 / (f64::from(factor) * f64::from(unit))).min(most) as f32,
            rebase: (208.0 / (f64::from(factor) * f64::from(unit))).min(most) as f32,
            // tanh(52) is 1, and so is it within 2^-149 beyond.
            bound: (52.0 / per_cap).min(most) as f32,
            inverse_cap_high,
            inverse_cap_low,
            factor_head,
            factor_rest,
            inverse_cap_head,
            inverse_cap_rest,
            ..Params::default()
        }
    }
}

/// The label of ignored rows on the device, where labels are 32 bits wide: whatever it is on the host,
/// no class has it there.
pub(crate) fn device_ignore_index(ignore_index: i64) -> i32 {
    i32::try_from(ignore_index).unwrap_or(-1)
}

/// What finishes a row.
fn finish() -> [&'static str; 5] {
    [
        shader!("outcome"),
        shader!("exact"),
        shader!("accumulators"),
        shader!("status"),
        shader!("finish"),
    ]
}

impl Variant {
    /// Every variant there is.
    pub fn all() -> Vec<Variant> {
        let mut all = vec![
            Variant::CountLabels,
            Variant::Reduce,
            Variant::SelfTest,
            Variant::ShuffleTest,
            Variant::MathTest,
        ];
        for curve in Curve::ALL {
            all.extend([Variant::FinishRows(curve), Variant::MoreRows(curve)]);
        }
        for kernel in RowKernel::ALL {
            let exchanges: &[Exchange] = match kernel.has_teams() {
                true => &[Exchange::Memory, Exchange::Shuffle],
                false => &[Exchange::None],
            };
            for &exchange in exchanges {
                for curve in Curve::ALL {
                    for sums in [Sums::Plain, Sums::Full] {
                        for logits in [Access::Read, Access::ReadWrite] {
                            for (width, halves) in [
                                (Width::Words, false),
                                (Width::Vectors, false),
                                (Width::Shifted, false),
                                (Width::Alike, false),
                                (Width::Words, true),
                                (Width::Vectors, true),
                            ] {
                                // What is written piece by piece is read so.
                                let pieces = matches!(width, Width::Shifted | Width::Alike)
                                    || (width == Width::Vectors && halves);
                                if pieces && logits == Access::ReadWrite {
                                    continue;
                                }
                                if width == Width::Alike && !kernel.writes() {
                                    continue;
                                }
                                for finishes in [false, true] {
                                    if (halves && !kernel.writes())
                                        || (finishes && !kernel.can_finish())
                                    {
                                        continue;
                                    }
                                    all.push(Variant::Row {
                                        kernel,
                                        exchange,
                                        curve,
                                        sums,
                                        logits,
                                        width,
                                        halves,
                                        finishes,
                                    });
                                }
                            }
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
            Variant::FinishRows(_) => "finish_rows",
            Variant::MoreRows(_) => "more_rows",
            Variant::Reduce => "reduce",
            Variant::SelfTest => "self_test",
            Variant::ShuffleTest => "shuffle_test",
            Variant::MathTest => "math_test",
        }
    }

    /// The text of the shader: whole files, one after the other. With `pairs` vectors are read and written by
    /// numbers of 64 bits, which changes nothing but time.
    pub fn wgsl(self, pairs: bool) -> String {
        let mut parts = vec![shader!("params")];
        match self {
            Variant::Row {
                kernel,
                exchange,
                curve,
                sums,
                logits,
                width,
                halves,
                finishes,
            } => {
                parts.extend([shader!("math"), shader!("specials")]);
                if curve != Curve::Plain || finishes {
                    parts.push(shader!("pairs"));
                }
                parts.extend(curve.wgsl());
                parts.extend([
                    shader!("row_state"),
                    shader!("seen"),
                    shader!("logits/bits"),
                    match pairs && width != Width::Words {
                        true => shader!("vector/pairs"),
                        false => shader!("vector/words"),
                    },
                    match width {
                        Width::Words => shader!("logits/words"),
                        Width::Vectors => shader!("logits/vectors"),
                        Width::Shifted | Width::Alike => shader!("logits/shifted"),
                    },
                    match (logits, width, halves) {
                        (Access::ReadWrite, Width::Words, true) => {
                            shader!("logits/read_write_halves")
                        }
                        (Access::ReadWrite, Width::Words, false) => shader!("logits/read_write"),
                        (Access::ReadWrite, ..) => shader!("logits/read_write_vectors"),
                        (_, Width::Words, _) => shader!("logits/read"),
                        _ => shader!("logits/read_vectors"),
                    },
                    match (width, halves) {
                        (Width::Vectors, true) => shader!("outputs/half_vectors"),
                        (_, true) => shader!("outputs/halves"),
                        (Width::Words | Width::Shifted, false) => shader!("outputs/words"),
                        (Width::Vectors, false) => shader!("outputs/vectors"),
                        (Width::Alike, false) => shader!("outputs/alike"),
                    },
                    match sums {
                        Sums::Plain => shader!("sums/plain"),
                        Sums::Full => shader!("sums/full"),
                    },
                    shader!("options"),
                    match width {
                        Width::Vectors => shader!("weights/vectors"),
                        _ => shader!("weights/words"),
                    },
                    shader!("labels"),
                    shader!("counted"),
                    shader!("denominator"),
                    shader!("upstream"),
                    shader!("slot"),
                    shader!("row"),
                ]);
                if !matches!(width, Width::Shifted | Width::Alike) {
                    parts.push(shader!("logits/apart"));
                }
                if !finishes || !kernel.is_whole() {
                    parts.push(shader!("states"));
                }
                if !kernel.is_whole() {
                    parts.push(shader!("parts"));
                }
                parts.push(match kernel {
                    RowKernel::SplitFinish => shader!("label/parts"),
                    _ => shader!("label/given"),
                });
                if finishes {
                    parts.extend(finish());
                    parts.extend([shader!("more"), shader!("handover/finish")]);
                } else {
                    parts.push(shader!("handover/states"));
                }
                parts.extend(match (exchange, sums) {
                    (Exchange::None, _) => vec![],
                    (Exchange::Memory, _) => vec![shader!("team"), shader!("team/memory")],
                    (Exchange::Shuffle, Sums::Plain) => vec![
                        shader!("team"),
                        shader!("team/shuffle"),
                        shader!("team/shuffle_plain"),
                    ],
                    (Exchange::Shuffle, Sums::Full) => vec![
                        shader!("team"),
                        shader!("team/shuffle"),
                        shader!("team/shuffle_full"),
                    ],
                });
                parts.push(match kernel {
                    RowKernel::PerInvocation => shader!("kernels/row_per_invocation"),
                    RowKernel::PerSubgroup => shader!("kernels/row_per_subgroup"),
                    RowKernel::PerWorkgroup => shader!("kernels/row_per_workgroup"),
                    RowKernel::SplitStates => shader!("kernels/split_row_states"),
                    RowKernel::SplitFinish => shader!("kernels/split_row_finish"),
                });
            }
            Variant::CountLabels => parts.extend([
                shader!("counted"),
                shader!("exact"),
                shader!("kernels/count_labels"),
            ]),
            Variant::FinishRows(curve) | Variant::MoreRows(curve) => {
                parts.extend([shader!("math"), shader!("specials"), shader!("pairs")]);
                parts.extend(curve.wgsl());
                parts.push(shader!("seen"));
                match self {
                    Variant::MoreRows(_) => parts.extend([
                        shader!("outcome"),
                        shader!("more"),
                        shader!("handover/outcomes"),
                        shader!("kernels/more_rows"),
                    ]),
                    _ => {
                        parts.extend([shader!("options"), shader!("counted")]);
                        parts.extend(finish());
                        parts
                            .extend([shader!("handover/outcomes"), shader!("kernels/finish_rows")]);
                    }
                }
            }
            Variant::Reduce => parts.extend([
                shader!("specials"),
                shader!("math"),
                shader!("exact"),
                shader!("accumulators"),
                shader!("status"),
                shader!("counted"),
                shader!("denominator"),
                shader!("totals"),
                shader!("kernels/reduce"),
            ]),
            Variant::SelfTest => parts.extend([shader!("math"), shader!("kernels/self_test")]),
            Variant::ShuffleTest => parts.push(shader!("kernels/shuffle_test")),
            Variant::MathTest => parts.extend([shader!("math"), shader!("kernels/math_test")]),
        }
        parts.join("\n")
    }

    /// Its bindings, in the order of their numbers.
    pub fn slots(self) -> Vec<(Slot, Access)> {
        use Slot::*;
        let written: &[Slot] = match self {
            Variant::Row { .. } => &[
                Labels,
                ClassWeights,
                Upstream,
                Denominator,
                Softmax,
                Grad,
                States,
                Losses,
                Lse,
                Predictions,
                Entropy,
                Correct,
                ZLosses,
                Accumulators,
                Status,
            ],
            Variant::CountLabels => &[Labels, ClassWeights, Denominator],
            Variant::FinishRows(_) => &[States, Losses, Lse, Predictions, Accumulators, Status],
            Variant::MoreRows(_) => &[States, Entropy, Correct, ZLosses],
            Variant::Reduce => &[Denominator, Loss, ZLoss, Accumulators, Status],
            Variant::SelfTest | Variant::ShuffleTest | Variant::MathTest => &[Probes],
        };
        let mut slots = vec![(Params, Access::Uniform)];
        if let Variant::Row { logits, .. } = self {
            slots.push((Logits, logits));
        }
        slots.extend(written.iter().map(|&slot| (slot, Access::ReadWrite)));
        if let Variant::Row {
            kernel, finishes, ..
        } = self
        {
            // States are what rows are handed over by; the others, what they are finished with.
            slots.retain(|&(slot, _)| match slot {
                States => !finishes || !kernel.is_whole(),
                slot => finishes || slot < States,
            });
        }
        slots
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry_point())?;
        if let Variant::Row { curve, .. } | Variant::FinishRows(curve) | Variant::MoreRows(curve) =
            self
        {
            f.write_str(match curve {
                Curve::Plain => "",
                Curve::Scaled => "/scaled",
                Curve::Capped => "/capped",
            })?;
        }
        if let Variant::Row {
            exchange,
            sums,
            logits,
            width,
            halves,
            finishes,
            ..
        } = self
        {
            f.write_str(match exchange {
                Exchange::None => "",
                Exchange::Memory => "/memory",
                Exchange::Shuffle => "/shuffle",
            })?;
            f.write_str(match sums {
                Sums::Plain => "",
                Sums::Full => "/full",
            })?;
            if *logits == Access::ReadWrite {
                f.write_str("/pooled")?;
            }
            f.write_str(match width {
                Width::Words => "",
                Width::Vectors => "/vectors",
                Width::Shifted => "/shifted",
                Width::Alike => "/alike",
            })?;
            if *halves {
                f.write_str("/halves")?;
            }
            if *finishes {
                f.write_str("/finishes")?;
            }
        }
        Ok(())
    }
}

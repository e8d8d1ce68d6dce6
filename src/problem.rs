//! What is asked for: shapes, labels, outputs, options; validated once, before any device is touched.

use std::fmt;

use half::{bf16, f16};

use crate::error::{Error, Result};

/// The most classes a row can have: columns and labels are 32-bit signed on the device.
pub const MOST_CLASSES: usize = i32::MAX as usize;

/// How the numbers of an array of the shape of the logits are stored. All arithmetic is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Dtype {
    /// IEEE binary32.
    #[default]
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// `f32`, `f16` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }

    /// The nearest number of this type, ties to even, past its largest one infinity.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Dtype::F32 => value,
            Dtype::F16 => f16::from_f32(value).to_f32(),
            Dtype::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }
}

/// What the outputs hold in columns past the last class, where rows are farther apart than they are
/// long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Padding {
    /// What masked classes have: softmax and gradient 0, log-softmax −∞.
    #[default]
    Masked,
    /// Whatever was there. The vectors of a host call hold 0.
    Kept,
}

/// The mean of a batch in which nothing counts: all rows ignored, or the class weights of the rest
/// sum to 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EmptyMean {
    /// NaN, which is 0/0, with a gradient of 0.
    #[default]
    Nan,
    /// 0. A z-loss is a mean over rows, and stays where only the class weights sum to 0.
    Zero,
}

/// What the labels of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LabelKind {
    /// No labels: softmax, log-softmax, lse, entropy and predictions only.
    None,
    /// One class index per row.
    Index {
        /// Rows with this label have loss 0 and gradient 0 and do not count in `mean`.
        ignore_index: i64,
    },
    /// A dense row of label weights, `[rows, classes]`; need not sum to 1.
    Dense,
    /// No labels but a row `v` that the Jacobian of softmax is multiplied by, `[rows, classes]`; see
    /// [`Problem::softmax_backward`].
    Vector,
}

impl LabelKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            LabelKind::None => "no labels",
            LabelKind::Index { .. } => "index labels",
            LabelKind::Dense => "dense labels",
            LabelKind::Vector => "vectors",
        }
    }
}

/// How the losses of the rows become the loss of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reduction {
    /// They stay one per row.
    None,
    /// Their sum.
    Sum,
    /// Their sum over the number of rows that are not ignored.
    #[default]
    Mean,
}

impl Reduction {
    /// `none`, `sum` or `mean`.
    pub fn name(self) -> &'static str {
        match self {
            Reduction::None => "none",
            Reduction::Sum => "sum",
            Reduction::Mean => "mean",
        }
    }
}

/// The gradient of whatever follows with respect to the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Upstream {
    /// One number for the whole batch; 1 where the loss is the end.
    Number(f32),
    /// One number for the whole batch, given with it: a new one for each step.
    Shared,
    /// One per row, given with the batch; only with [`Reduction::None`].
    PerRow,
}

/// What [`Reduction::Mean`] divides the loss and the gradient by.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Denominator {
    /// The class weights of the labels, summed over the rows that are not ignored; without class
    /// weights, and with dense labels, this is the number of rows. (PyTorch's mean.) A
    /// [z-loss](ProblemBuilder::z_loss) is divided by the number of rows.
    #[default]
    Weights,
    /// The rows of the batch that are not ignored, whatever they weigh.
    ValidRows,
    /// A number, such as the rows of a larger batch of which this one is a part; finite and at least
    /// 2⁻¹²⁶.
    Number(f32),
    /// A number in a buffer of the device, `[1]` f32, finite and at least 2⁻¹²⁶: what else it may be
    /// makes loss and gradient NaN. Only with [`Prepared::bind`](crate::Prepared::bind).
    Buffer,
}

/// One output that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Wanted {
    /// `p`, `[rows, classes]`.
    Softmax,
    /// `z − lse`, `[rows, classes]`.
    LogSoftmax,
    /// The gradient of the loss with respect to the logits, `[rows, classes]`.
    Grad,
    /// The loss of each row, `[rows]`.
    Losses,
    /// `log Σ exp z` of each row, `[rows]`.
    Lse,
    /// The reduced loss, one number; with [`Reduction::None`] the same as [`Wanted::Losses`].
    Loss,
    /// The first index of the largest logit of each row, −1 for a NaN row, `[rows]`.
    Predictions,
    /// The entropy of softmax, `lse − Σ p·z`, `[rows]`.
    Entropy,
    /// Whether the prediction is the index label, `[rows]`; never of an ignored row.
    Correct,
    /// The z-loss of each row, `λ·lse²`, `[rows]`: its share of [`Wanted::Losses`].
    ZLosses,
    /// The z-loss reduced: its share of [`Wanted::Loss`]; with [`Reduction::None`] the same as
    /// [`Wanted::ZLosses`].
    ZLoss,
}

impl Wanted {
    /// All of them.
    pub const ALL: [Wanted; 11] = [
        Wanted::Softmax,
        Wanted::LogSoftmax,
        Wanted::Grad,
        Wanted::Losses,
        Wanted::Lse,
        Wanted::Loss,
        Wanted::Predictions,
        Wanted::Entropy,
        Wanted::Correct,
        Wanted::ZLosses,
        Wanted::ZLoss,
    ];

    /// Whether it is undefined without labels.
    pub fn needs_labels(self) -> bool {
        use Wanted::{Entropy, LogSoftmax, Lse, Predictions, Softmax};
        !matches!(self, Softmax | LogSoftmax | Lse | Predictions | Entropy)
    }

    /// Whether it has the shape of the logits.
    pub fn has_classes(self) -> bool {
        matches!(self, Wanted::Softmax | Wanted::LogSoftmax | Wanted::Grad)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wanted::Softmax => "softmax",
            Wanted::LogSoftmax => "log_softmax",
            Wanted::Grad => "grad",
            Wanted::Losses => "losses",
            Wanted::Lse => "lse",
            Wanted::Loss => "loss",
            Wanted::Predictions => "predictions",
            Wanted::Entropy => "entropy",
            Wanted::Correct => "correct",
            Wanted::ZLosses => "z_losses",
            Wanted::ZLoss => "z_loss",
        })
    }
}

/// A set of [`Wanted`] outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Outputs(u16);

impl Outputs {
    /// This set and one more.
    #[must_use]
    pub fn with(self, wanted: Wanted) -> Self {
        Outputs(self.0 | 1 << wanted as u16)
    }

    /// Whether it is in the set.
    pub fn has(self, wanted: Wanted) -> bool {
        self.0 & (1 << wanted as u16) != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The outputs in the set, in the order of [`Wanted::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Wanted> {
        Wanted::ALL
            .into_iter()
            .filter(move |&wanted| self.has(wanted))
    }
}

impl FromIterator<Wanted> for Outputs {
    fn from_iter<I: IntoIterator<Item = Wanted>>(wanted: I) -> Self {
        wanted.into_iter().fold(Outputs::default(), Outputs::with)
    }
}

/// A validated description of one job; made by [`Problem::of`] … [`ProblemBuilder::build`].
///
/// ```
/// use softxent::{Problem, Reduction, Wanted};
/// let problem = Problem::of(64, 1000)
///     .index_labels(-100)
///     .label_smoothing(0.1)
///     .reduction(Reduction::Mean)
///     .want([Wanted::Loss, Wanted::Grad])
///     .build()?;
/// # assert_eq!(problem.classes(), 1000);
/// # Ok::<(), softxent::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    rows: usize,
    classes: usize,
    dtype: Dtype,
    dtype_out: Dtype,
    inner: usize,
    row_length: usize,
    padding: Padding,
    labels: LabelKind,
    from_softmax: bool,
    class_weights: bool,
    label_smoothing: f32,
    z_loss: f32,
    logit_scale: f32,
    softcap: Option<f32>,
    reduction: Reduction,
    denominator: Denominator,
    empty_mean: EmptyMean,
    upstream: Upstream,
    outputs: Outputs,
    grad_over_logits: bool,
}

impl Problem {
    /// Starts a problem of `rows` rows of `classes` f32 logits, without labels or outputs yet.
    pub fn of(rows: usize, classes: usize) -> ProblemBuilder {
        ProblemBuilder {
            problem: Problem {
                rows,
                classes,
                dtype: Dtype::F32,
                dtype_out: Dtype::F32,
                inner: 1,
                row_length: classes,
                padding: Padding::default(),
                labels: LabelKind::None,
                from_softmax: false,
                class_weights: false,
                label_smoothing: 0.0,
                z_loss: 0.0,
                logit_scale: 1.0,
                softcap: None,
                reduction: Reduction::Mean,
                denominator: Denominator::default(),
                empty_mean: EmptyMean::default(),
                upstream: Upstream::Number(1.0),
                outputs: Outputs::default(),
                grad_over_logits: false,
            },
            same_dtype_out: false,
        }
    }

    /// Starts a problem whose gradient is `p ⊙ (v − ⟨p, v⟩)` of each row of a batch with
    /// [`Labels::Vector`]: the Jacobian of softmax, `diag(p) − p pᵀ`, times `v`.
    ///
    /// With `v` the gradient of what follows with respect to the softmax, it is the gradient with
    /// respect to the logits. And because the Jacobian is symmetric and, for label weights that sum to
    /// 1 and no z-loss, the Hessian of a row's loss too, it is the Hessian–vector product of the loss.
    ///
    /// ```
    /// use softxent::{Batch, Problem, reference};
    /// let problem = Problem::softmax_backward(1, 2).build()?;
    /// let results = reference::run(&problem, &Batch::of(&[0.0, 0.0]).vectors(&[1.0, 0.0]))?;
    /// assert_eq!(results.grad, Some(vec![0.25, -0.25]));
    /// # Ok::<(), softxent::Error>(())
    /// ```
    pub fn softmax_backward(rows: usize, classes: usize) -> ProblemBuilder {
        let mut builder = Problem::of(rows, classes).want([Wanted::Grad]);
        builder.problem.labels = LabelKind::Vector;
        builder.problem.reduction = Reduction::None;
        builder
    }

    /// The same for so many rows, whole groups of those that are interleaved.
    pub(crate) fn with_rows(&self, rows: usize) -> Problem {
        Problem {
            rows,
            ..self.clone()
        }
    }

    /// Rows, `N`.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Classes, `K`; at least 1.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How the logits are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// How softmax, log-softmax and the gradient are stored.
    pub fn dtype_out(&self) -> Dtype {
        self.dtype_out
    }

    /// Rows that are interleaved: how far apart the classes of a row are; 1 where they are neighbours.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Length of the class axis in memory; at least [`classes`](Self::classes).
    pub fn row_length(&self) -> usize {
        self.row_length
    }

    /// What outputs hold past the last class.
    pub fn padding(&self) -> Padding {
        self.padding
    }

    /// Elements of an array of the shape of the logits, padding included.
    pub fn elements(&self) -> usize {
        self.rows * self.row_length
    }

    /// Where class `class` of row `row` is in such an array.
    pub fn element(&self, row: usize, class: usize) -> usize {
        let (outer, inner) = (row / self.inner, row % self.inner);
        (outer * self.row_length + class) * self.inner + inner
    }

    /// What the labels are.
    pub fn labels(&self) -> LabelKind {
        self.labels
    }

    /// Whether the "logits" of [`Problem::softmax_backward`] are softmax already.
    pub fn from_softmax(&self) -> bool {
        self.from_softmax
    }

    /// Whether the batch has class weights.
    pub fn class_weights(&self) -> bool {
        self.class_weights
    }

    /// ε, from 0 to 1.
    pub fn label_smoothing(&self) -> f32 {
        self.label_smoothing
    }

    /// λ, the factor of lse² in the loss; 0 for none.
    pub fn z_loss(&self) -> f32 {
        self.z_loss
    }

    /// The factor of the logits.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// The bound of the logits, where there is one.
    pub fn softcap(&self) -> Option<f32> {
        self.softcap
    }

    /// How the losses are reduced.
    pub fn reduction(&self) -> Reduction {
        self.reduction
    }

    /// What the mean divides by.
    pub fn denominator(&self) -> Denominator {
        self.denominator
    }

    /// What the mean of nothing is.
    pub fn empty_mean(&self) -> EmptyMean {
        self.empty_mean
    }

    /// The upstream gradient.
    pub fn upstream(&self) -> Upstream {
        self.upstream
    }

    /// The outputs.
    pub fn outputs(&self) -> Outputs {
        self.outputs
    }

    /// Whether the output is wanted.
    pub fn wants(&self, wanted: Wanted) -> bool {
        self.outputs.has(wanted)
    }

    /// Whether the gradient replaces the logits in the device's memory.
    pub fn grad_over_logits(&self) -> bool {
        self.grad_over_logits
    }

    /// Whether the mean divides the cross-entropy by the sum of class weights.
    pub(crate) fn sums_weights(&self) -> bool {
        self.reduction == Reduction::Mean
            && self.denominator == Denominator::Weights
            && self.class_weights
            && matches!(self.labels, LabelKind::Index { .. })
    }

    /// Checks a batch against this problem: lengths, types, every label, class weight and upstream
    /// gradient. Returns the number of rows that are not ignored.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::LogitsDtype`], [`Error::LabelKind`], [`Error::BadLabel`] with the
    /// first bad row, [`Error::BadClassWeight`], [`Error::UpstreamNotFinite`],
    /// [`Error::OnlyOnDevice`].
    pub fn check(&self, batch: &Batch<'_>) -> Result<usize> {
        let matrix = || match (self.inner, self.row_length == self.classes) {
            (1, true) => format!("{} rows × {} classes", self.rows, self.classes),
            (1, false) => format!("{} rows × {} columns", self.rows, self.row_length),
            (inner, _) => format!(
                "{} × {} classes × {inner}",
                self.rows / inner,
                self.row_length
            ),
        };
        let vector = || format!("one per row, {} rows", self.rows);
        if batch.logits.dtype() != self.dtype {
            return Err(Error::LogitsDtype {
                expected: self.dtype.name(),
                found: batch.logits.dtype().name(),
            });
        }
        expect_length("logits", self.elements(), batch.logits.len(), matrix)?;
        self.check_constants(batch.class_weights)?;
        let upstream = match self.upstream {
            Upstream::PerRow => self.rows,
            Upstream::Shared => 1,
            Upstream::Number(_) => 0,
        };
        expect_length(
            "upstream gradients",
            upstream,
            batch.upstream.len(),
            || match self.upstream {
                Upstream::Shared => "one for all rows".to_owned(),
                Upstream::PerRow | Upstream::Number(_) => vector(),
            },
        )?;
        self.check_upstream(0, batch.upstream)?;
        match (self.labels, batch.labels) {
            (LabelKind::None, Labels::None) => Ok(self.rows),
            (LabelKind::Dense, Labels::Dense(values))
            | (LabelKind::Vector, Labels::Vector(values)) => {
                expect_length(self.labels.name(), self.elements(), values.len(), matrix)?;
                Ok(self.rows)
            }
            (LabelKind::Index { .. }, Labels::Index(labels)) => {
                expect_length("labels", self.rows, labels.len(), vector)?;
                let mut valid = 0;
                for row in 0..self.rows {
                    valid += usize::from(self.check_label(row, labels.label(row))?);
                }
                Ok(valid)
            }
            (expected, found) => Err(Error::LabelKind {
                expected: expected.name(),
                found: found.name(),
            }),
        }
    }
}

/// The parts of a check, for batches that are not in memory.
impl Problem {
    /// What is the same for all rows.
    pub(crate) fn check_constants(&self, class_weights: &[f32]) -> Result<()> {
        if self.denominator == Denominator::Buffer {
            return Err(Error::OnlyOnDevice);
        }
        let weights = if self.class_weights { self.classes } else { 0 };
        expect_length(
            "class weights",
            weights,
            class_weights.len(),
            || match self.class_weights {
                true => format!("one per class, {} classes", self.classes),
                false => "the problem was built without".to_owned(),
            },
        )?;
        let bad = |weight: &f32| !(weight.is_finite() && *weight >= 0.0);
        match first(class_weights, bad) {
            Some((class, &value)) => Err(Error::BadClassWeight { class, value }),
            None => Ok(()),
        }
    }

    /// The upstream gradients of the rows from `row` on.
    pub(crate) fn check_upstream(&self, row: usize, upstream: &[f32]) -> Result<()> {
        match first(upstream, |value| !value.is_finite()) {
            Some((at, &value)) => Err(Error::UpstreamNotFinite {
                row: Some(row + at),
                value,
            }),
            None => Ok(()),
        }
    }

    /// Whether a row counts, by its index label.
    pub(crate) fn check_label(&self, row: usize, value: i128) -> Result<bool> {
        let LabelKind::Index { ignore_index } = self.labels else {
            return Ok(true);
        };
        if value == i128::from(ignore_index) {
            return Ok(false);
        }
        if value < 0 || value >= self.classes as i128 {
            return Err(Error::BadLabel {
                row,
                value,
                classes: self.classes,
                ignore_index,
            });
        }
        Ok(true)
    }
}

fn first<T>(values: &[T], is: impl Fn(&T) -> bool) -> Option<(usize, &T)> {
    values.iter().enumerate().find(|(_, value)| is(value))
}

fn expect_length(
    what: &'static str,
    expected: usize,
    found: usize,
    shape: impl Fn() -> String,
) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Length {
        what,
        expected,
        found,
        shape: shape(),
    })
}

/// Collects the parts of a [`Problem`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ProblemBuilder {
    problem: Problem,
    same_dtype_out: bool,
}

impl ProblemBuilder {
    /// How the logits are stored; f32 where not said.
    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.problem.dtype = dtype;
        self
    }

    /// Stores softmax, log-softmax and the gradient as the logits are; else they are f32. They are
    /// the f32 results, rounded to nearest.
    pub fn same_dtype_out(mut self, same: bool) -> Self {
        self.same_dtype_out = same;
        self
    }

    /// The classes of a row are `inner` elements apart, with those of the next rows in between: the
    /// logits are `[rows / inner, classes, inner]`, such as `[N, K, height·width]`. All arrays of the
    /// shape of the logits have this order; rows are counted along `[rows / inner, inner]`.
    pub fn inner(mut self, inner: usize) -> Self {
        self.problem.inner = inner;
        self
    }

    /// The class axis is this long in memory, where a vocabulary is padded: the classes come first,
    /// what follows never counts. All arrays of the shape of the logits are so.
    pub fn row_length(mut self, columns: usize, padding: Padding) -> Self {
        self.problem.row_length = columns;
        self.problem.padding = padding;
        self
    }

    /// One class index per row; rows whose label is `ignore_index` (PyTorch's default: −100)
    /// leave the batch.
    pub fn index_labels(mut self, ignore_index: i64) -> Self {
        self.problem.labels = LabelKind::Index { ignore_index };
        self
    }

    /// A dense row of label weights per row.
    pub fn dense_labels(mut self) -> Self {
        self.problem.labels = LabelKind::Dense;
        self
    }

    /// For [`Problem::softmax_backward`]: what is given for logits is softmax already.
    pub fn from_softmax(mut self) -> Self {
        self.problem.from_softmax = true;
        self
    }

    /// The batch has a weight for each class, which the label weights are multiplied by: `wₖ·tₖ`.
    pub fn class_weights(mut self) -> Self {
        self.problem.class_weights = true;
        self
    }

    /// ε: labels become `(1 − ε)·y + ε/K` before they are weighted; from 0 to 1.
    pub fn label_smoothing(mut self, epsilon: f32) -> Self {
        self.problem.label_smoothing = epsilon;
        self
    }

    /// λ: adds `λ·lse²` to the loss of each row; finite and not negative.
    pub fn z_loss(mut self, lambda: f32) -> Self {
        self.problem.z_loss = lambda;
        self
    }

    /// Multiplies the logits, before anything else; finite and above 0. Gradients are those of the
    /// logits as given.
    pub fn logit_scale(mut self, scale: f32) -> Self {
        self.problem.logit_scale = scale;
        self
    }

    /// Bounds the scaled logits: `c·tanh(z/c)`; finite and above 0. Gradients are those of the logits
    /// as given.
    pub fn softcap(mut self, cap: f32) -> Self {
        self.problem.softcap = Some(cap);
        self
    }

    /// How the losses are reduced; [`Reduction::Mean`] where not said.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.problem.reduction = reduction;
        self
    }

    /// What [`Reduction::Mean`] divides by; [`Denominator::Weights`] where not said.
    pub fn denominator(mut self, denominator: Denominator) -> Self {
        self.problem.denominator = denominator;
        self
    }

    /// What [`Reduction::Mean`] makes of nothing; NaN where not said.
    pub fn empty_mean(mut self, empty_mean: EmptyMean) -> Self {
        self.problem.empty_mean = empty_mean;
        self
    }

    /// The upstream gradient; the number 1 where not said.
    pub fn upstream(mut self, upstream: Upstream) -> Self {
        self.problem.upstream = upstream;
        self
    }

    /// Adds outputs.
    pub fn want(mut self, outputs: impl IntoIterator<Item = Wanted>) -> Self {
        let outputs = outputs.into_iter();
        self.problem.outputs = outputs.fold(self.problem.outputs, Outputs::with);
        self
    }

    /// Lets the gradient take the place of the logits in the device's memory, which saves
    /// `rows × classes` values there. The bits of the results are the same.
    pub fn grad_over_logits(mut self, over: bool) -> Self {
        self.problem.grad_over_logits = over;
        self
    }

    /// Validates and finishes.
    ///
    /// # Errors
    /// [`Error::NoClasses`], [`Error::TooManyClasses`], [`Error::TooLarge`], [`Error::BadShape`],
    /// [`Error::NothingWanted`], [`Error::LabelsNeeded`], [`Error::BadOption`],
    /// [`Error::Conflict`], [`Error::UpstreamPerRow`], [`Error::UpstreamNotFinite`],
    /// [`Error::DenominatorWithoutMean`], [`Error::BadDenominator`].
    pub fn build(self) -> Result<Problem> {
        let mut problem = self.problem;
        if self.same_dtype_out {
            problem.dtype_out = problem.dtype;
        }
        if problem.reduction == Reduction::None {
            for (reduced, per_row) in [
                (Wanted::Loss, Wanted::Losses),
                (Wanted::ZLoss, Wanted::ZLosses),
            ] {
                if problem.wants(reduced) {
                    problem.outputs = problem.outputs.with(per_row);
                }
            }
        }
        problem.check_shape()?;
        if problem.outputs.is_empty() {
            return Err(Error::NothingWanted);
        }
        if problem.labels == LabelKind::None {
            if let Some(output) = problem.outputs.iter().find(|output| output.needs_labels()) {
                return Err(Error::LabelsNeeded { output });
            }
        }
        problem.check_options()?;
        problem.check_conflicts()?;
        if !matches!(
            problem.denominator,
            Denominator::Weights | Denominator::ValidRows
        ) && problem.reduction != Reduction::Mean
        {
            return Err(Error::DenominatorWithoutMean {
                reduction: problem.reduction.name(),
            });
        }
        if let Denominator::Number(value) = problem.denominator {
            if !(value.is_finite() && value >= f32::MIN_POSITIVE) {
                return Err(Error::BadDenominator { value });
            }
        }
        match problem.upstream {
            Upstream::PerRow if problem.reduction != Reduction::None => {
                Err(Error::UpstreamPerRow {
                    reduction: problem.reduction.name(),
                })
            }
            Upstream::Number(value) if !value.is_finite() => {
                Err(Error::UpstreamNotFinite { row: None, value })
            }
            _ => Ok(problem),
        }
    }
}

impl Problem {
    fn check_shape(&self) -> Result<()> {
        let (rows, classes) = (self.rows, self.classes);
        if classes == 0 {
            return Err(Error::NoClasses);
        }
        if classes.max(self.row_length) > MOST_CLASSES {
            return Err(Error::TooManyClasses {
                classes: classes.max(self.row_length),
                most: MOST_CLASSES,
            });
        }
        // No rows can be interleaved in any number, of which a plan still knows the bytes.
        let together = if rows == 0 { self.inner } else { rows };
        let bytes = together
            .checked_mul(self.row_length.max(classes))
            .and_then(|count| count.checked_mul(size_of::<f32>()));
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(Error::TooLarge {
                rows: together,
                classes,
            });
        }
        if self.row_length < classes {
            return Err(Error::BadShape {
                what: "the length of a row in memory",
                value: self.row_length,
                needed: format!("at least its {classes} classes"),
            });
        }
        if self.inner == 0 || !rows.is_multiple_of(self.inner) {
            return Err(Error::BadShape {
                what: "the number of interleaved rows",
                value: self.inner,
                needed: format!("a divisor of the {rows} rows"),
            });
        }
        Ok(())
    }

    fn check_options(&self) -> Result<()> {
        let positive = |value: f32| value.is_finite() && value > 0.0;
        let (cap, scale) = (self.softcap.unwrap_or(1.0), self.logit_scale);
        for (option, value, good, needed) in [
            (
                "label smoothing",
                self.label_smoothing,
                (0.0..=1.0).contains(&self.label_smoothing),
                "from 0 to 1",
            ),
            (
                "z-loss",
                self.z_loss,
                self.z_loss.is_finite() && self.z_loss >= 0.0,
                "finite and not negative",
            ),
            ("logit scale", scale, positive(scale), "finite and above 0"),
            ("softcap", cap, positive(cap), "finite and above 0"),
        ] {
            if !good {
                return Err(Error::BadOption {
                    option,
                    value,
                    needed,
                });
            }
        }
        Ok(())
    }

    fn check_conflicts(&self) -> Result<()> {
        let labelled = matches!(self.labels, LabelKind::Index { .. } | LabelKind::Dense);
        let vector = self.labels == LabelKind::Vector;
        let conflicts = [
            (
                vector && self.outputs != Outputs::default().with(Wanted::Grad),
                "the product of the Jacobian with a vector is its gradient, and no other output goes with it",
                "ask for the others in a problem of their own",
            ),
            (
                self.from_softmax && !vector,
                "softmax in place of logits is for `softmax_backward`",
                "give logits",
            ),
            (
                self.from_softmax && (self.softcap.is_some() || self.logit_scale != 1.0),
                "a scale or a cap of the logits cannot be seen in their softmax",
                "give logits, or leave both out and multiply the gradient by their derivative",
            ),
            (
                !labelled && self.class_weights,
                "class weights weigh labels, and there are none",
                "leave them out, or give labels",
            ),
            (
                !labelled && self.label_smoothing != 0.0,
                "label smoothing changes labels, and there are none",
                "leave it out, or give labels",
            ),
            (
                !labelled && self.z_loss != 0.0,
                "the z-loss is a part of the loss, which needs labels",
                "leave it out and square `lse`, or give labels",
            ),
            (
                self.z_loss == 0.0 && (self.wants(Wanted::ZLosses) || self.wants(Wanted::ZLoss)),
                "the z-loss is wanted, and its factor is 0",
                "set the factor, or leave the output out",
            ),
            (
                self.wants(Wanted::Correct) && !matches!(self.labels, LabelKind::Index { .. }),
                "`correct` compares predictions with class indices, and the labels are weights",
                "ask for `predictions` and compare them with what you hold for right",
            ),
            (
                self.grad_over_logits && self.dtype_out != self.dtype,
                "the gradient takes the place of the logits, so it has to be stored as they are",
                "ask for outputs in the logits' dtype, or give the gradient a place of its own",
            ),
        ];
        match conflicts.into_iter().find(|(holds, ..)| *holds) {
            Some((_, what, instead)) => Err(Error::Conflict { what, instead }),
            None => Ok(()),
        }
    }
}

/// Class indices of any integer type.
pub trait IndexLabels: Sync {
    /// How many there are.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The label of a row, in a type that holds every other.
    fn label(&self, row: usize) -> i128;
}

macro_rules! index_labels {
    ($($integer:ty),*) => {$(
        index_labels!(@of $integer, &[$integer]);
        index_labels!(@of $integer, Vec<$integer>);
        index_labels!(@of $integer, [$integer; N], const N: usize);
    )*};
    (@of $integer:ty, $list:ty $(, $generic:tt $name:ident: $kind:ty)?) => {
        impl $(<$generic $name: $kind>)? IndexLabels for $list {
            fn len(&self) -> usize {
                <[$integer]>::len(self)
            }
            fn label(&self, row: usize) -> i128 {
                self[row] as i128
            }
        }
    };
}
index_labels!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

/// The logits of a batch; of a slice, an array or a `Vec` by `into`.
#[derive(Debug, Clone, Copy)]
pub enum Logits<'a> {
    /// f32.
    F32(&'a [f32]),
    /// f16.
    F16(&'a [f16]),
    /// bf16.
    Bf16(&'a [bf16]),
}

impl Logits<'_> {
    /// How they are stored.
    pub fn dtype(self) -> Dtype {
        match self {
            Logits::F32(_) => Dtype::F32,
            Logits::F16(_) => Dtype::F16,
            Logits::Bf16(_) => Dtype::Bf16,
        }
    }

    /// How many there are.
    pub fn len(self) -> usize {
        match self {
            Logits::F32(values) => values.len(),
            Logits::F16(values) => values.len(),
            Logits::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// One of them; f32 holds every value of the other types.
    pub fn get(self, at: usize) -> Option<f32> {
        match self {
            Logits::F32(values) => values.get(at).copied(),
            Logits::F16(values) => Some(values.get(at)?.to_f32()),
            Logits::Bf16(values) => Some(values.get(at)?.to_f32()),
        }
    }

    /// The bytes of some of them, as they are in memory.
    pub(crate) fn bytes(&self, range: std::ops::Range<usize>) -> &[u8] {
        match self {
            Logits::F32(values) => bytemuck::cast_slice(&values[range]),
            Logits::F16(values) => bytemuck::cast_slice(&values[range]),
            Logits::Bf16(values) => bytemuck::cast_slice(&values[range]),
        }
    }
}

impl Default for Logits<'_> {
    fn default() -> Self {
        Logits::F32(&[])
    }
}

macro_rules! logits_from {
    ($($float:ty => $kind:ident),*) => {$(
        impl<'a> From<&'a [$float]> for Logits<'a> {
            fn from(values: &'a [$float]) -> Self {
                Logits::$kind(values)
            }
        }
        impl<'a> From<&'a Vec<$float>> for Logits<'a> {
            fn from(values: &'a Vec<$float>) -> Self {
                Logits::$kind(values)
            }
        }
        impl<'a, const N: usize> From<&'a [$float; N]> for Logits<'a> {
            fn from(values: &'a [$float; N]) -> Self {
                Logits::$kind(values)
            }
        }
    )*};
}
logits_from!(f32 => F32, f16 => F16, bf16 => Bf16);

/// The labels of a batch.
#[derive(Clone, Copy, Default)]
pub enum Labels<'a> {
    /// None.
    #[default]
    None,
    /// One class index per row: `Labels::Index(&labels)` of a `Vec` or a slice of any integer type.
    Index(&'a dyn IndexLabels),
    /// Label weights, in the shape of the logits.
    Dense(&'a [f32]),
    /// What the Jacobian is multiplied by, in the shape of the logits.
    Vector(&'a [f32]),
}

impl Labels<'_> {
    fn name(self) -> &'static str {
        match self {
            Labels::None => "no labels",
            Labels::Index(_) => "index labels",
            Labels::Dense(_) => "dense labels",
            Labels::Vector(_) => "vectors",
        }
    }
}

/// The values of one job, on the host. What the problem does not use stays empty.
///
/// ```
/// use softxent::Batch;
/// let batch = Batch::of(&[0.5, 1.0, -1.0]).index(&[1]);
/// ```
#[derive(Clone, Copy, Default)]
pub struct Batch<'a> {
    /// `[rows, classes]`, row after row, unless the problem has another
    /// [order](ProblemBuilder::inner) or [padding](ProblemBuilder::row_length).
    pub logits: Logits<'a>,
    /// The labels.
    pub labels: Labels<'a>,
    /// `[classes]`, finite and not negative.
    pub class_weights: &'a [f32],
    /// The upstream gradient: one number with [`Upstream::Shared`], one of each row with
    /// [`Upstream::PerRow`], else empty.
    pub upstream: &'a [f32],
}

impl<'a> Batch<'a> {
    /// Logits without labels.
    pub fn of(logits: impl Into<Logits<'a>>) -> Self {
        Batch {
            logits: logits.into(),
            ..Batch::default()
        }
    }

    /// With one class index per row.
    #[must_use]
    pub fn index(mut self, labels: &'a dyn IndexLabels) -> Self {
        self.labels = Labels::Index(labels);
        self
    }

    /// With label weights.
    #[must_use]
    pub fn dense(mut self, labels: &'a [f32]) -> Self {
        self.labels = Labels::Dense(labels);
        self
    }

    /// With what the Jacobian is multiplied by.
    #[must_use]
    pub fn vectors(mut self, vectors: &'a [f32]) -> Self {
        self.labels = Labels::Vector(vectors);
        self
    }

    /// With class weights.
    #[must_use]
    pub fn class_weights(mut self, weights: &'a [f32]) -> Self {
        self.class_weights = weights;
        self
    }

    /// With an upstream gradient.
    #[must_use]
    pub fn upstream(mut self, upstream: &'a [f32]) -> Self {
        self.upstream = upstream;
        self
    }
}

/// The results of one job. What was not wanted is `None`.
///
/// `T` is `f32` from a device and `f64` from the [reference](crate::reference). Outputs that a device
/// stores in 16 bits come as f32 here, which holds each of their values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Results<T = f32> {
    /// `p`, in the shape of the logits.
    pub softmax: Option<Vec<T>>,
    /// `z − lse`, in the shape of the logits.
    pub log_softmax: Option<Vec<T>>,
    /// Gradient of the reduced loss times the upstream gradient, in the shape of the logits.
    pub grad: Option<Vec<T>>,
    /// The loss of each row, `[rows]`; never scaled by the upstream gradient.
    pub losses: Option<Vec<T>>,
    /// `log Σ exp z`, `[rows]`.
    pub lse: Option<Vec<T>>,
    /// The reduced loss; `None` with [`Reduction::None`], where [`losses`](Self::losses) holds it.
    pub loss: Option<T>,
    /// First index of the largest logit, −1 for a NaN row, `[rows]`.
    pub predictions: Option<Vec<i64>>,
    /// `lse − Σ p·z`, `[rows]`.
    pub entropy: Option<Vec<T>>,
    /// Whether the prediction is the label, `[rows]`.
    pub correct_rows: Option<Vec<bool>>,
    /// `λ·lse²`, `[rows]`.
    pub z_losses: Option<Vec<T>>,
    /// The reduced z-loss; `None` with [`Reduction::None`].
    pub z_loss: Option<T>,
    /// Rows whose prediction is their label; known with index labels where predictions or
    /// [`Wanted::Correct`] are wanted.
    pub correct: Option<u64>,
    /// Rows that are not ignored.
    pub valid_rows: u64,
    /// Rows that are not ignored and came out NaN.
    pub nan_rows: u64,
    /// The first of them.
    pub first_nan_row: Option<u64>,
}

impl<T: Copy> Results<T> {
    /// The same results with every floating-point value changed by `change`.
    pub fn map<U>(&self, change: impl Fn(T) -> U) -> Results<U> {
        let all = |values: &Option<Vec<T>>| -> Option<Vec<U>> {
            Some(
                values
                    .as_ref()?
                    .iter()
                    .map(|&value| change(value))
                    .collect(),
            )
        };
        Results {
            softmax: all(&self.softmax),
            log_softmax: all(&self.log_softmax),
            grad: all(&self.grad),
            losses: all(&self.losses),
            lse: all(&self.lse),
            loss: self.loss.map(&change),
            predictions: self.predictions.clone(),
            entropy: all(&self.entropy),
            correct_rows: self.correct_rows.clone(),
            z_losses: all(&self.z_losses),
            z_loss: self.z_loss.map(&change),
            correct: self.correct,
            valid_rows: self.valid_rows,
            nan_rows: self.nan_rows,
            first_nan_row: self.first_nan_row,
        }
    }
}

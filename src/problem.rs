//! What is asked for: shapes, labels, outputs, options; validated once, before any device is touched.

use std::fmt;

use crate::error::{Error, Result};

/// The most classes a row can have: columns and labels are 32-bit signed on the device.
pub const MOST_CLASSES: usize = i32::MAX as usize;

/// What the labels of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LabelKind {
    /// No labels: softmax, log-softmax, lse and predictions only.
    None,
    /// One class index per row.
    Index {
        /// Rows with this label have loss 0 and gradient 0 and do not count in `mean`.
        ignore_index: i64,
    },
    /// A dense row of label weights, `[rows, classes]`; need not sum to 1.
    Dense,
}

impl LabelKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            LabelKind::None => "no labels",
            LabelKind::Index { .. } => "index labels",
            LabelKind::Dense => "dense labels",
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
    /// The rows of the batch that are not ignored.
    #[default]
    ValidRows,
    /// A number, such as the rows of a larger batch of which this one is a part.
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
}

impl Wanted {
    /// All of them.
    pub const ALL: [Wanted; 7] = [
        Wanted::Softmax,
        Wanted::LogSoftmax,
        Wanted::Grad,
        Wanted::Losses,
        Wanted::Lse,
        Wanted::Loss,
        Wanted::Predictions,
    ];

    /// Whether it is undefined without labels.
    pub fn needs_labels(self) -> bool {
        matches!(self, Wanted::Grad | Wanted::Losses | Wanted::Loss)
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
        })
    }
}

/// A set of [`Wanted`] outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Outputs(u8);

impl Outputs {
    /// This set and one more.
    #[must_use]
    pub fn with(self, wanted: Wanted) -> Self {
        Outputs(self.0 | 1 << wanted as u8)
    }

    /// Whether it is in the set.
    pub fn has(self, wanted: Wanted) -> bool {
        self.0 & (1 << wanted as u8) != 0
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
    labels: LabelKind,
    reduction: Reduction,
    denominator: Denominator,
    upstream: Upstream,
    outputs: Outputs,
    grad_over_logits: bool,
}

impl Problem {
    /// Starts a problem of `rows` rows of `classes` f32 logits, without labels or outputs yet.
    pub fn of(rows: usize, classes: usize) -> ProblemBuilder {
        ProblemBuilder(Problem {
            rows,
            classes,
            labels: LabelKind::None,
            reduction: Reduction::Mean,
            denominator: Denominator::default(),
            upstream: Upstream::Number(1.0),
            outputs: Outputs::default(),
            grad_over_logits: false,
        })
    }

    /// Rows, `N`.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Classes, `K`; at least 1.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// What the labels are.
    pub fn labels(&self) -> LabelKind {
        self.labels
    }

    /// How the losses are reduced.
    pub fn reduction(&self) -> Reduction {
        self.reduction
    }

    /// What the mean divides by.
    pub fn denominator(&self) -> Denominator {
        self.denominator
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

    /// Checks a batch against this problem: lengths, label kind, every label, every upstream
    /// gradient. Returns the number of rows that are not ignored.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::LabelKind`], [`Error::BadLabel`] with the first bad row,
    /// [`Error::UpstreamNotFinite`], [`Error::OnlyOnDevice`].
    pub fn check(&self, batch: &Batch<'_>) -> Result<usize> {
        let matrix = || format!("{} rows × {} classes", self.rows, self.classes);
        let vector = || format!("one per row, {} rows", self.rows);
        expect_length(
            "logits",
            self.rows * self.classes,
            batch.logits.len(),
            matrix,
        )?;
        if self.denominator == Denominator::Buffer {
            return Err(Error::OnlyOnDevice);
        }
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
        if let Some((row, &value)) = first(batch.upstream, |value| !value.is_finite()) {
            return Err(Error::UpstreamNotFinite {
                row: Some(row),
                value,
            });
        }
        match (self.labels, batch.labels) {
            (LabelKind::None, Labels::None) => Ok(self.rows),
            (LabelKind::Dense, Labels::Dense(labels)) => {
                expect_length(
                    "dense labels",
                    self.rows * self.classes,
                    labels.len(),
                    matrix,
                )?;
                Ok(self.rows)
            }
            (LabelKind::Index { ignore_index }, Labels::Index(labels)) => {
                expect_length("labels", self.rows, labels.len(), vector)?;
                let mut valid = 0;
                for row in 0..self.rows {
                    let value = labels.label(row);
                    if value == i128::from(ignore_index) {
                        continue;
                    }
                    if value < 0 || value >= self.classes as i128 {
                        return Err(Error::BadLabel {
                            row,
                            value,
                            classes: self.classes,
                            ignore_index,
                        });
                    }
                    valid += 1;
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
pub struct ProblemBuilder(Problem);

impl ProblemBuilder {
    /// One class index per row; rows whose label is `ignore_index` (PyTorch's default: −100)
    /// leave the batch.
    pub fn index_labels(mut self, ignore_index: i64) -> Self {
        self.0.labels = LabelKind::Index { ignore_index };
        self
    }

    /// A dense row of label weights per row.
    pub fn dense_labels(mut self) -> Self {
        self.0.labels = LabelKind::Dense;
        self
    }

    /// How the losses are reduced; [`Reduction::Mean`] where not said.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.0.reduction = reduction;
        self
    }

    /// What [`Reduction::Mean`] divides by; the rows that are not ignored where not said.
    pub fn denominator(mut self, denominator: Denominator) -> Self {
        self.0.denominator = denominator;
        self
    }

    /// The upstream gradient; the number 1 where not said.
    pub fn upstream(mut self, upstream: Upstream) -> Self {
        self.0.upstream = upstream;
        self
    }

    /// Adds outputs.
    pub fn want(mut self, outputs: impl IntoIterator<Item = Wanted>) -> Self {
        self.0.outputs = outputs.into_iter().fold(self.0.outputs, Outputs::with);
        self
    }

    /// Lets the gradient take the place of the logits in the device's memory, which saves
    /// `rows × classes` values there. The bits of the results are the same.
    pub fn grad_over_logits(mut self, over: bool) -> Self {
        self.0.grad_over_logits = over;
        self
    }

    /// Validates and finishes.
    ///
    /// # Errors
    /// [`Error::NoClasses`], [`Error::TooManyClasses`], [`Error::TooLarge`],
    /// [`Error::NothingWanted`], [`Error::LabelsNeeded`], [`Error::UpstreamPerRow`],
    /// [`Error::UpstreamNotFinite`], [`Error::DenominatorWithoutMean`], [`Error::BadDenominator`].
    pub fn build(self) -> Result<Problem> {
        let mut problem = self.0;
        if problem.reduction == Reduction::None && problem.wants(Wanted::Loss) {
            problem.outputs = problem.outputs.with(Wanted::Losses);
        }
        let (rows, classes) = (problem.rows, problem.classes);
        if classes == 0 {
            return Err(Error::NoClasses);
        }
        if classes > MOST_CLASSES {
            return Err(Error::TooManyClasses {
                classes,
                most: MOST_CLASSES,
            });
        }
        let bytes = rows
            .checked_mul(classes)
            .and_then(|count| count.checked_mul(size_of::<f32>()));
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(Error::TooLarge { rows, classes });
        }
        if problem.outputs.is_empty() {
            return Err(Error::NothingWanted);
        }
        if problem.labels == LabelKind::None {
            if let Some(output) = problem.outputs.iter().find(|output| output.needs_labels()) {
                return Err(Error::LabelsNeeded { output });
            }
        }
        if problem.denominator != Denominator::ValidRows && problem.reduction != Reduction::Mean {
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

/// The labels of a batch.
#[derive(Clone, Copy, Default)]
pub enum Labels<'a> {
    /// None.
    #[default]
    None,
    /// One class index per row: `Labels::Index(&labels)` of a `Vec` or a slice of any integer type.
    Index(&'a dyn IndexLabels),
    /// Label weights, row after row.
    Dense(&'a [f32]),
}

impl Labels<'_> {
    fn name(self) -> &'static str {
        match self {
            Labels::None => "no labels",
            Labels::Index(_) => "index labels",
            Labels::Dense(_) => "dense labels",
        }
    }
}

/// The values of one job, on the host. What the problem does not use stays empty.
#[derive(Clone, Copy, Default)]
pub struct Batch<'a> {
    /// `[rows, classes]`, row after row.
    pub logits: &'a [f32],
    /// The labels.
    pub labels: Labels<'a>,
    /// The upstream gradient: one number with [`Upstream::Shared`], one of each row with
    /// [`Upstream::PerRow`], else empty.
    pub upstream: &'a [f32],
}

/// The results of one job. What was not wanted is `None`.
///
/// `T` is `f32` from a device and `f64` from the [reference](crate::reference).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Results<T = f32> {
    /// `p`, `[rows, classes]`.
    pub softmax: Option<Vec<T>>,
    /// `z − lse`, `[rows, classes]`.
    pub log_softmax: Option<Vec<T>>,
    /// Gradient of the reduced loss times the upstream gradient, `[rows, classes]`.
    pub grad: Option<Vec<T>>,
    /// The loss of each row, `[rows]`; never scaled by the upstream gradient.
    pub losses: Option<Vec<T>>,
    /// `log Σ exp z`, `[rows]`.
    pub lse: Option<Vec<T>>,
    /// The reduced loss; `None` with [`Reduction::None`], where [`losses`](Self::losses) holds it.
    pub loss: Option<T>,
    /// First index of the largest logit, −1 for a NaN row, `[rows]`.
    pub predictions: Option<Vec<i64>>,
    /// Rows whose prediction is their label; known with index labels where predictions are wanted.
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
            correct: self.correct,
            valid_rows: self.valid_rows,
            nan_rows: self.nan_rows,
            first_nan_row: self.first_nan_row,
        }
    }
}

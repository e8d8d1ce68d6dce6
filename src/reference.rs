//! The CPU reference: what every kernel is judged by.
//!
//! Slow and obvious: f64, one row at a time, three readings of it, and no arithmetic shared with the
//! shaders. The formulas are those in which nothing cancels, because the textbook ones fail in
//! f64 too: from a gap of 37 between the label's logit and the others on, `lse − z_y` and
//! `p_y − 1` are exactly 0 where the true value is `exp(−37)`.
//!
//! ```text
//! m    = maxₖ zₖ
//! s    = Σ exp(zₖ − m)        over all k but one that attains the maximum, whose term is the 1 below
//! L    = log1p(s)
//! lse  = m + L
//! log pₖ = (zₖ − m) − L       two terms ≤ 0
//! pₖ   = exp(zₖ − m) / (1 + s)
//! loss = L + (m − z_y)        two terms ≥ 0;  dense labels t: Σ tₖ·(L + (m − zₖ)), where 0·∞ = 0
//! grad = pₖ                   at k = y: −Σ_{j≠y} exp(zⱼ − m) / (1 + s);  dense: pₖ·Σt − tₖ
//! ```
//!
//! The shift by the maximum, the `log1p` over all terms but the largest, and the softmax by a
//! division (not as `exp(z − lse)`, which is less accurate) follow P. Blanchard, D. J. Higham and
//! N. J. Higham, *Accurately computing the log-sum-exp and softmax functions*, IMA Journal of
//! Numerical Analysis 41(4), 2311–2330, 2021, [doi:10.1093/imanum/draa038][paper]. The gradient at
//! the label is `p_y − 1`, written without the subtraction. Where the formulas come from:
//! [`derivation`](crate::derivation).
//!
//! [paper]: https://doi.org/10.1093/imanum/draa038

use crate::error::{Error, Result};
use crate::problem::{
    Batch, Denominator, LabelKind, Labels, Logits, Problem, Reduction, Results, Upstream, Wanted,
};
#[cfg(feature = "rayon")]
use rayon::prelude::*;

/// What a row is compared with.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// Nothing, or the row is ignored: loss 0 and gradient 0, whatever the logits are.
    None,
    /// One class. An index that names no class makes loss and gradient NaN.
    Index(usize),
    /// One weight per class. A NaN, an infinity or a wrong length makes loss and gradient NaN.
    Dense(&'a [f32]),
}

/// A row reduced to what its outputs are made of; the outputs themselves are computed when asked for.
///
/// A row that holds a NaN or +∞, or nothing but −∞, has `m` = NaN, and the rest follows from that.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    logits: &'a [f32],
    target: Target<'a>,
    /// The largest logit.
    pub m: f64,
    /// `Σ exp(zₖ − m)` over all classes but the first that attains the maximum.
    pub s: f64,
    /// `L = log1p(s)`, so that `lse = m + L`.
    pub l: f64,
    /// The sum of the label weights: 1 for an index, 0 without a target, NaN for a bad target.
    pub weight: f64,
    /// The loss, before any reduction.
    pub loss: f64,
    /// The first class that attains the maximum, −1 for a NaN row.
    pub prediction: i64,
}

/// Reduces one row.
///
/// ```
/// use softxent::reference::{Target, row};
/// let row = row(&[0.0, 100.0], Target::Index(1));
/// // p − 1 and −log p are 0 in f64; the true loss and gradient are not.
/// assert_eq!(row.p(1), 1.0);
/// assert_eq!(row.loss, f64::exp(-100.0));
/// assert_eq!(row.grad(1), -f64::exp(-100.0));
/// ```
pub fn row<'a>(logits: &'a [f32], target: Target<'a>) -> Row<'a> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let spoilt = logits.iter().any(|&z| z.is_nan() || z == f32::INFINITY);
    let m = if spoilt || largest == f32::NEG_INFINITY {
        f64::NAN
    } else {
        f64::from(largest)
    };
    let top = logits.iter().position(|&z| f64::from(z) == m);
    let s = sum_exp(logits, m, top);
    let l = s.ln_1p();
    let weight = match target {
        Target::None => 0.0,
        Target::Index(y) if y < logits.len() => 1.0,
        Target::Dense(t) if t.len() == logits.len() && t.iter().all(|t| t.is_finite()) => {
            sum(t.iter().map(|&t| t.into()))
        }
        _ => f64::NAN,
    };
    let surprisal = |z: f32| l + (m - f64::from(z)); // −log p
    let loss = match target {
        Target::None => 0.0,
        _ if m.is_nan() || weight.is_nan() => f64::NAN,
        Target::Index(y) => surprisal(logits[y]),
        Target::Dense(t) => {
            let terms = t.iter().zip(logits).filter(|&(&t, _)| t != 0.0); // 0·∞ = 0
            sum(terms.map(|(&t, &z)| f64::from(t) * surprisal(z)))
        }
    };
    Row {
        logits,
        target,
        m,
        s,
        l,
        weight,
        loss,
        prediction: top.map_or(-1, |k| k as i64),
    }
}

/// The outputs of one class; NaN where there is no class `k`.
impl Row<'_> {
    /// `lse = m + L`. It cancels where `m ≈ −L`, so its error is one of `|m| + L`.
    pub fn lse(&self) -> f64 {
        self.m + self.l
    }

    /// The softmax, `exp(zₖ − m) / (1 + s)`.
    pub fn p(&self, k: usize) -> f64 {
        (self.z(k) - self.m).exp() / (1.0 + self.s)
    }

    /// The log-softmax, `(zₖ − m) − L`.
    pub fn log_p(&self, k: usize) -> f64 {
        (self.z(k) - self.m) - self.l
    }

    /// The derivative of [`loss`](Self::loss) with respect to logit `k`.
    pub fn grad(&self, k: usize) -> f64 {
        match self.target {
            Target::None => 0.0,
            // The others are added up anew: s less the label's term would cancel. 0 − 0 is +0.
            Target::Index(y) if y == k => {
                0.0 - sum_exp(self.logits, self.m, Some(y)) / (1.0 + self.s) * self.weight
            }
            Target::Index(_) => self.p(k) * self.weight,
            Target::Dense(t) => {
                self.p(k) * self.weight - t.get(k).map_or(f64::NAN, |&t| f64::from(t))
            }
        }
    }

    fn z(&self, k: usize) -> f64 {
        self.logits.get(k).map_or(f64::NAN, |&z| z.into())
    }
}

/// `Σ exp(zₖ − m)` over all classes but one.
fn sum_exp(logits: &[f32], m: f64, but: Option<usize>) -> f64 {
    let others = logits.iter().enumerate().filter(|&(k, _)| Some(k) != but);
    sum(others.map(|(_, &z)| (f64::from(z) - m).exp()))
}

/// The sum of the terms, from +0, with Neumaier's compensation: its error does not grow with
/// their number until that nears 2⁵².
fn sum(terms: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0_f64, 0.0);
    for term in terms {
        let next = sum + term;
        lost += if sum.abs() >= term.abs() {
            (sum - next) + term
        } else {
            (term - next) + sum
        };
        sum = next;
    }
    // An infinite or NaN sum is the answer, and what was lost on the way to it is ∞ − ∞.
    if sum.is_finite() { sum + lost } else { sum }
}

/// Computes every output that the problem wants.
///
/// With the feature `rayon` rows run in parallel; the results are the same bits without it. Next to
/// the outputs it keeps one [`Row`] per row, which is less than 100 bytes.
///
/// ```
/// use softxent::{Batch, Problem, Wanted, reference};
/// let problem = Problem::of(2, 3).index_labels(-100).want([Wanted::Loss, Wanted::Grad]).build()?;
/// let results = reference::run(
///     &problem,
///     &Batch::of(&[1.0, 2.0, 3.0, 0.0, 0.0, 0.0]).index(&[2, -100]),
/// )?;
/// assert_eq!(results.valid_rows, 1);
/// let expected = (f64::exp(-1.0) + f64::exp(-2.0)).ln_1p();
/// assert!((results.loss.unwrap() - expected).abs() < 4.0 * f64::EPSILON);
/// assert_eq!(results.grad.unwrap()[3..], [0.0, 0.0, 0.0]);
/// # Ok::<(), softxent::Error>(())
/// ```
///
/// # Errors
/// Those of [`Problem::check`], and [`Error::OutOfMemory`].
pub fn run(problem: &Problem, batch: &Batch<'_>) -> Result<Results<f64>> {
    let valid = problem.check(batch)?;
    let (n, k) = (problem.rows(), problem.classes());
    let target = |i: usize| match (problem.labels(), batch.labels) {
        (LabelKind::Index { ignore_index }, Labels::Index(labels)) => match labels.label(i) {
            y if y == i128::from(ignore_index) => Target::None,
            y => Target::Index(usize::try_from(y).unwrap_or(usize::MAX)),
        },
        (LabelKind::Dense, Labels::Dense(labels)) => Target::Dense(&labels[i * k..][..k]),
        _ => Target::None,
    };
    let Logits::F32(logits) = batch.logits else {
        return Err(Error::NothingWanted); // to be written
    };
    let rows = each(n, |i| row(&logits[i * k..][..k], target(i)))?;

    // The mean of no rows is 0/0, while the gradient of ignored rows is 0 and stays 0.
    let (denominator, divisor) = match (problem.reduction(), problem.denominator()) {
        (Reduction::Mean, Denominator::Number(number)) => (number.into(), number.into()),
        (Reduction::Mean, _) => (valid as f64, valid.max(1) as f64),
        (Reduction::None | Reduction::Sum, _) => (1.0, 1.0),
    };
    let scale = |i: usize| match problem.upstream() {
        Upstream::Number(g) => f64::from(g) / divisor,
        Upstream::Shared => f64::from(batch.upstream[0]) / divisor,
        Upstream::PerRow => f64::from(batch.upstream[i]) / divisor,
    };
    let is_nan = |row: &Row| match problem.labels() {
        LabelKind::None => row.m.is_nan(),
        _ => row.loss.is_nan(),
    };

    let wants = |output| problem.wants(output);
    let indexed = matches!(problem.labels(), LabelKind::Index { .. });
    let reduced = problem.reduction() != Reduction::None;
    let wants_losses = wants(Wanted::Losses) || wants(Wanted::Loss) && !reduced;
    let mean_or_sum = || sum(rows.iter().map(|row| row.loss)) / denominator;
    let is_correct =
        |row: &&Row| matches!(row.target, Target::Index(y) if row.prediction == y as i64);
    Ok(Results {
        softmax: each_if(wants(Wanted::Softmax), n * k, |j| rows[j / k].p(j % k))?,
        log_softmax: each_if(wants(Wanted::LogSoftmax), n * k, |j| {
            rows[j / k].log_p(j % k)
        })?,
        grad: each_if(wants(Wanted::Grad), n * k, |j| {
            rows[j / k].grad(j % k) * scale(j / k)
        })?,
        losses: each_if(wants_losses, n, |i| rows[i].loss)?,
        lse: each_if(wants(Wanted::Lse), n, |i| rows[i].lse())?,
        loss: (wants(Wanted::Loss) && reduced).then(mean_or_sum),
        predictions: each_if(wants(Wanted::Predictions), n, |i| rows[i].prediction)?,
        correct: (wants(Wanted::Predictions) && indexed)
            .then(|| rows.iter().filter(is_correct).count() as u64),
        valid_rows: valid as u64,
        entropy: None,
        correct_rows: None,
        z_losses: None,
        z_loss: None,
        nan_rows: rows.iter().filter(|row| is_nan(row)).count() as u64,
        first_nan_row: rows.iter().position(is_nan).map(|i| i as u64),
    })
}

fn each_if<T: Send>(
    wanted: bool,
    count: usize,
    value: impl Fn(usize) -> T + Sync + Send,
) -> Result<Option<Vec<T>>> {
    wanted.then(|| each(count, value)).transpose()
}

/// `value(0)`, `value(1)`, … up to `count` of them, in this order, whoever computes them.
fn each<T: Send>(count: usize, value: impl Fn(usize) -> T + Sync + Send) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let refused = |_| Error::OutOfMemory {
        place: "host",
        what: "the reference".to_owned(),
        bytes: (count as u64).saturating_mul(size_of::<T>() as u64),
    };
    values.try_reserve_exact(count).map_err(refused)?;
    #[cfg(feature = "rayon")]
    (0..count)
        .into_par_iter()
        .map(value)
        .collect_into_vec(&mut values);
    #[cfg(not(feature = "rayon"))]
    values.extend((0..count).map(value));
    Ok(values)
}

impl Results<f64> {
    /// Every value rounded to the nearest f32.
    pub fn to_f32(&self) -> Results<f32> {
        self.map(|value| value as f32)
    }
}

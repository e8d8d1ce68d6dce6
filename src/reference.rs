//! The CPU reference: what every kernel is judged by.
//!
//! Slow and obvious: f64, one row at a time, a few readings of it, and no arithmetic shared with the
//! shaders. The formulas are those in which nothing cancels, because the textbook ones fail in
//! f64 too: from a gap of 37 between the label's logit and the others on, `lse − z_y` and
//! `p_y − 1` are exactly 0 where the true value is `exp(−37)`.
//!
//! ```text
//! z    = scale·x                    exact: a product of two f32;  with a cap c, z = c·tanh(u), u = scale·x/c
//! m    = maxₖ zₖ
//! gapₖ = m − zₖ ≥ 0                 with a cap, from u: see below
//! s    = Σ exp(−gapₖ)               over all k but one that attains the maximum, whose term is the 1 below
//! L    = log1p(s)
//! lse  = m + L
//! log pₖ = −(gapₖ + L)              two terms ≥ 0
//! pₖ   = exp(−gapₖ) / (1 + s)
//! H    = L + Σ pₖ·gapₖ              entropy; all terms ≥ 0
//!
//! wtₖ  = wₖ·((1 − ε)·yₖ + ε/K)      weighted, smoothed labels; an index label y: c₁ = (1 − ε)·w_y at y, ε/K·wₖ everywhere
//! loss = Σ wtₖ·(L + gapₖ) + λ·lse²  where 0·∞ = 0
//! ∂/∂z = pₖ·Σwt − wtₖ + 2λ·lse·pₖ   at an index label y, p_y·c₁ − c₁ is −c₁·Σ_{j≠y} exp(−gapⱼ) / (1 + s)
//! ∂/∂x = ∂/∂z · slope               slope = scale;  with a cap, scale·4q/(1 + q)², q = exp(−2|u|), which is 1 − tanh²
//!
//! J·v  = pₖ·((vₖ − v_t) − Σ pⱼ·(vⱼ − v_t))·slope      for any v_t: that of the largest logit
//! ```
//!
//! The shift by the maximum, the `log1p` over all terms but the largest, and the softmax by a
//! division (not as `exp(z − lse)`, which is less accurate) follow P. Blanchard, D. J. Higham and
//! N. J. Higham, *Accurately computing the log-sum-exp and softmax functions*, IMA Journal of
//! Numerical Analysis 41(4), 2311–2330, 2021, [doi:10.1093/imanum/draa038][paper]. The gradient at
//! the label is `p_y − 1`, written without the subtraction. Where the formulas come from:
//! [`derivation`](crate::derivation).
//!
//! Under a cap `z` is rounded at the size of `c`, and `exp` would make a relative error of that. So the
//! gap comes from `tanh a − tanh b = sinh(a − b)/(cosh a·cosh b)`, with the two `u` of the maximum and
//! of class `k`, whose difference is rounded relative to itself:
//!
//! ```text
//! gap = 2c·(1 − exp(−2(a − b)))·r / ((1 + exp(−2|a|))·(1 + exp(−2|b|)))
//! r   = exp(−2·min(|a|, |b|))       where a and b have one sign, else 1
//! ```
//!
//! A logit of −∞ is a masked class and stays one under a cap. Its slope is the limit: the scale, and 0
//! with a cap.
//!
//! [paper]: https://doi.org/10.1093/imanum/draa038

pub use crate::processor::run_stream;

use crate::error::{Error, Result};
use crate::problem::{
    Batch, Denominator, EmptyMean, LabelKind, Labels, Logits, Padding, Problem, Reduction, Results,
    Upstream, Wanted,
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

/// The options of a [`Problem`] that are seen in a single row.
///
/// ```
/// use softxent::reference::{RowOptions, Target, row_with};
/// let options = RowOptions { class_weights: &[1.0, 3.0], z_loss: 0.5, ..RowOptions::default() };
/// let row = row_with(&[0.0, 0.0], Target::Index(1), options);
/// let lse = f64::ln(2.0);
/// // A logarithm, three products and a sum of numbers below 4.
/// approx::assert_abs_diff_eq!(row.loss, 3.0 * lse + 0.5 * lse * lse, epsilon = 12.0 * f64::EPSILON);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowOptions<'a> {
    /// One weight per class; empty where all are 1. Too few make loss and gradient NaN.
    pub class_weights: &'a [f32],
    /// ε.
    pub label_smoothing: f32,
    /// λ.
    pub z_loss: f32,
    /// The factor of the logits.
    pub logit_scale: f32,
    /// The bound of the scaled logits.
    pub softcap: Option<f32>,
}

impl Default for RowOptions<'_> {
    fn default() -> Self {
        RowOptions {
            class_weights: &[],
            label_smoothing: 0.0,
            z_loss: 0.0,
            logit_scale: 1.0,
            softcap: None,
        }
    }
}

impl<'a> RowOptions<'a> {
    fn of(problem: &Problem, batch: &Batch<'a>) -> Self {
        RowOptions {
            class_weights: batch.class_weights,
            label_smoothing: problem.label_smoothing(),
            z_loss: problem.z_loss(),
            logit_scale: problem.logit_scale(),
            softcap: problem.softcap(),
        }
    }

    fn class_weight(&self, k: usize) -> f64 {
        match self.class_weights {
            [] => 1.0,
            weights => weights.get(k).map_or(f64::NAN, |&w| w.into()),
        }
    }
}

/// Where the classes of a row are in the arrays of the shape of the logits.
#[derive(Debug, Clone, Copy)]
struct Lane {
    first: usize,
    step: usize,
    classes: usize,
}

impl Lane {
    /// Row `i` of a problem; without classes where there is no such row.
    fn of(problem: &Problem, i: usize) -> Self {
        let exists = i < problem.rows();
        Lane {
            first: if exists { problem.element(i, 0) } else { 0 },
            step: problem.inner(),
            classes: if exists { problem.classes() } else { 0 },
        }
    }

    fn at(&self, k: usize) -> Option<usize> {
        (k < self.classes).then(|| self.first + k * self.step)
    }
}

/// A row reduced to what its outputs are made of; the outputs themselves are computed when asked for.
///
/// A row that holds a NaN or +∞, or nothing but −∞, has `m` = NaN, and the rest follows from that.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    lane: Lane,
    logits: Logits<'a>,
    target: Target<'a>,
    options: RowOptions<'a>,
    /// The largest `z`.
    pub m: f64,
    /// `Σ exp(zₖ − m)` over all classes but the first that attains the maximum.
    pub s: f64,
    /// `L = log1p(s)`, so that `lse = m + L`.
    pub l: f64,
    /// `Σ wₖtₖ`, the sum of the weighted and smoothed labels: without options 1 for an index. 0 without
    /// a target, NaN for a bad one.
    pub weight: f64,
    /// The loss without the z-loss, `Σ wₖtₖ·(lse − zₖ)`.
    pub cross_entropy: f64,
    /// The loss, before any reduction.
    pub loss: f64,
    /// The first class whose logit is the largest, −1 for a NaN row.
    pub prediction: i64,
    weight_size: f64,
    /// The part of `weight` that smoothing spreads over all classes, for an index.
    spread: f64,
}

/// Reduces one row, without options.
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
    row_with(logits, target, RowOptions::default())
}

/// Reduces one row of any dtype, with options.
///
/// ```
/// use softxent::reference::{RowOptions, Target, row_with};
/// let options = RowOptions { softcap: Some(10.0), ..RowOptions::default() };
/// let row = row_with(&[0.0, 1e30], Target::Index(0), options);
/// assert_eq!((row.m, row.z(0), row.prediction), (10.0, 0.0, 1));
/// assert_eq!((row.slope(0), row.slope(1)), (1.0, 0.0));
/// ```
pub fn row_with<'a>(
    logits: impl Into<Logits<'a>>,
    target: Target<'a>,
    options: RowOptions<'a>,
) -> Row<'a> {
    let logits = logits.into();
    let lane = Lane {
        first: 0,
        step: 1,
        classes: logits.len(),
    };
    reduce(lane, logits, target, options)
}

/// Reduces row `i` of a batch, wherever the layout of the problem has put it. An ignored row and
/// vectors are [`Target::None`].
///
/// The batch is not [checked](Problem::check): what it lacks is NaN. With
/// [`from_softmax`](Problem::from_softmax) there are no logits, and this row is of no use.
///
/// ```
/// use softxent::{Batch, Padding, Problem, Wanted, reference};
/// let problem = Problem::of(2, 2).inner(2).row_length(3, Padding::Masked).index_labels(-100);
/// let problem = problem.want([Wanted::Loss]).build()?;
/// let logits = [0.0, 1.0, 100.0, 2.0, 9.0, 9.0];
/// let row = reference::row_of(&problem, &Batch::of(&logits).index(&[1, 0]), 0);
/// assert_eq!(row.loss, f64::exp(-100.0));
/// # Ok::<(), softxent::Error>(())
/// ```
pub fn row_of<'a>(problem: &Problem, batch: &Batch<'a>, i: usize) -> Row<'a> {
    let options = RowOptions::of(problem, batch);
    let target = target(problem, batch, i);
    reduce(Lane::of(problem, i), batch.logits, target, options)
}

fn target<'a>(problem: &Problem, batch: &Batch<'a>, i: usize) -> Target<'a> {
    match (problem.labels(), batch.labels) {
        (LabelKind::Index { ignore_index }, Labels::Index(labels)) if i < labels.len() => {
            match labels.label(i) {
                y if y == i128::from(ignore_index) => Target::None,
                y => Target::Index(usize::try_from(y).unwrap_or(usize::MAX)),
            }
        }
        (LabelKind::Dense, Labels::Dense(labels)) => Target::Dense(labels),
        (LabelKind::Index { .. } | LabelKind::Dense, _) => Target::Index(usize::MAX),
        (LabelKind::None | LabelKind::Vector, _) => Target::None,
    }
}

/// Dense labels are an array of the shape of the logits, of which `lane` is one row.
fn reduce<'a>(
    lane: Lane,
    logits: Logits<'a>,
    target: Target<'a>,
    options: RowOptions<'a>,
) -> Row<'a> {
    let mut row = Row {
        lane,
        logits,
        target,
        options,
        m: f64::NAN,
        s: f64::NAN,
        l: f64::NAN,
        weight: 0.0,
        cross_entropy: 0.0,
        loss: 0.0,
        prediction: -1,
        weight_size: 0.0,
        spread: 0.0,
    };
    let classes = lane.classes;
    let mut top = None;
    let mut largest = f64::NEG_INFINITY;
    let mut spoilt = false;
    for k in 0..classes {
        let x = row.x(k);
        spoilt |= x.is_nan() || x == f64::INFINITY;
        if x > largest {
            (top, largest) = (Some(k), x);
        }
    }
    if let (Some(top), false) = (top, spoilt) {
        row.prediction = top as i64;
        row.m = row.z(top);
        row.s = row.sum_exp(Some(top));
        row.l = row.s.ln_1p();
    }

    match target {
        Target::None => return row,
        Target::Index(y) => {
            row.spread = match row.share() {
                0.0 => 0.0, // a K of 0, and no reading of all weights for nothing
                share => share * sum((0..classes).map(|k| options.class_weight(k))),
            };
            row.weight = row.hit(y) + row.spread;
            row.weight_size = row.weight;
        }
        Target::Dense(t) => {
            let weights = || (0..classes).map(|k| row.weighted_target(k));
            let finite = |k| {
                let at = lane.at(k).and_then(|at| t.get(at));
                at.is_some_and(|t| t.is_finite())
            };
            let good = t.len() == logits.len() && (0..classes).all(finite);
            let of = |all: f64| if good { all } else { f64::NAN };
            (row.weight, row.weight_size) = (of(sum(weights())), of(sum(weights().map(f64::abs))));
        }
    }
    let surprisal = |k: usize| row.l + row.gap(k); // −log p
    let times = |weight: f64, k: usize| match weight {
        0.0 => 0.0, // 0·∞ = 0
        weight => weight * surprisal(k),
    };
    row.cross_entropy = match target {
        _ if row.m.is_nan() || row.weight.is_nan() => f64::NAN,
        Target::Index(y) => {
            let spread = match row.share() {
                0.0 => 0.0,
                share => share * sum((0..classes).map(|k| times(options.class_weight(k), k))),
            };
            times(row.hit(y), y) + spread
        }
        _ => sum((0..classes).map(|k| times(row.weighted_target(k), k))),
    };
    row.loss = row.cross_entropy + row.z_loss();
    row
}

/// The outputs of one class are NaN where there is no class `k`.
impl Row<'_> {
    /// `lse = m + L`. It cancels where `m ≈ −L`, so its error is one of `|m| + L`.
    pub fn lse(&self) -> f64 {
        self.m + self.l
    }

    /// The softmax, `exp(zₖ − m) / (1 + s)`.
    pub fn p(&self, k: usize) -> f64 {
        (-self.gap(k)).exp() / (1.0 + self.s)
    }

    /// The log-softmax, `(zₖ − m) − L`.
    pub fn log_p(&self, k: usize) -> f64 {
        -self.gap(k) - self.l
    }

    /// The entropy of the softmax, `L + Σ pₖ·(m − zₖ)`.
    pub fn entropy(&self) -> f64 {
        let term = |k| match self.p(k) {
            0.0 => 0.0, // 0·∞ = 0
            p => p * self.gap(k),
        };
        self.l + sum((0..self.lane.classes).map(term))
    }

    /// The z-loss, `λ·lse²`; 0 without a target.
    pub fn z_loss(&self) -> f64 {
        match self.target {
            Target::None => 0.0,
            _ => f64::from(self.options.z_loss) * self.lse() * self.lse(),
        }
    }

    /// The derivative of [`loss`](Self::loss) with respect to the logit of class `k` as given.
    pub fn grad(&self, k: usize) -> f64 {
        self.grad_of([1.0, 1.0], k)
    }

    /// The same with a factor for the cross-entropy and one for the z-loss.
    fn grad_of(&self, [loss, z_loss]: [f64; 2], k: usize) -> f64 {
        let cross_entropy = match self.target {
            Target::None => return 0.0, // a slope may be NaN here
            // The others are added up anew: s less the label's term would cancel. 0 − 0 is +0.
            Target::Index(y) if y == k => {
                let others = self.sum_exp(Some(y)) / (1.0 + self.s);
                let spread = self.p(k) * self.spread - self.share() * self.options.class_weight(k);
                spread - self.hit(y) * others
            }
            _ => self.p(k) * self.weight - self.weighted_target(k),
        };
        let of_lse = 2.0 * f64::from(self.options.z_loss) * self.lse() * self.p(k);
        (cross_entropy * loss + of_lse * z_loss) * self.slope(k)
    }

    /// `zₖ`: the logit after scale and cap.
    pub fn z(&self, k: usize) -> f64 {
        match self.options.softcap {
            // A mask is not a small logit, and stays.
            Some(cap) if self.x(k) != f64::NEG_INFINITY => {
                f64::from(cap) * (self.scaled(k) / f64::from(cap)).tanh()
            }
            _ => self.scaled(k),
        }
    }

    /// `m − zₖ`, without a rounding of the two where there is a cap; ∞ for a masked class.
    pub fn gap(&self, k: usize) -> f64 {
        let masked = self.x(k) == f64::NEG_INFINITY;
        let (Some(cap), Ok(top), false) = (
            self.options.softcap,
            usize::try_from(self.prediction),
            masked,
        ) else {
            return self.m - self.z(k);
        };
        let cap = f64::from(cap);
        let (a, b) = (self.scaled(top) / cap, self.scaled(k) / cap);
        let apart = (self.scaled(top) - self.scaled(k)) / cap;
        let near = if a * b > 0.0 {
            a.abs().min(b.abs())
        } else {
            0.0
        };
        let decay = |u: f64| (-2.0 * u.abs()).exp();
        let (near, tails) = (decay(near), (1.0 + decay(a)) * (1.0 + decay(b)));
        -(-2.0 * apart).exp_m1() * near / tails * 2.0 * cap
    }

    /// `∂zₖ/∂xₖ`: the scale, with a cap times `1 − tanh²`.
    pub fn slope(&self, k: usize) -> f64 {
        let scale = f64::from(self.options.logit_scale);
        match self.options.softcap {
            None => scale,
            Some(cap) => {
                let q = (-2.0 * (self.scaled(k) / f64::from(cap)).abs()).exp();
                scale * (4.0 * q / (1.0 + q).powi(2))
            }
        }
    }

    /// `wₖ·tₖ`: the label of class `k`, smoothed and weighted.
    pub fn weighted_target(&self, k: usize) -> f64 {
        let w = self.options.class_weight(k);
        match self.target {
            Target::None => 0.0,
            Target::Index(y) if y == k => self.hit(y) + self.share() * w,
            Target::Index(_) => self.share() * w,
            Target::Dense(t) => {
                let at = self.lane.at(k).and_then(|at| t.get(at));
                let t = at.map_or(f64::NAN, |&t| f64::from(t));
                w * (self.kept() * t + self.share())
            }
        }
    }

    /// `Σ |wₖ·tₖ|`.
    pub fn weight_size(&self) -> f64 {
        self.weight_size
    }

    /// `1 − ε`.
    fn kept(&self) -> f64 {
        1.0 - f64::from(self.options.label_smoothing)
    }

    /// `ε/K`.
    fn share(&self) -> f64 {
        match self.options.label_smoothing {
            0.0 => 0.0,
            epsilon => f64::from(epsilon) / self.lane.classes as f64,
        }
    }

    /// `(1 − ε)·w_y`: what an index label adds at its class.
    fn hit(&self, y: usize) -> f64 {
        match self.lane.at(y) {
            Some(_) => self.kept() * self.options.class_weight(y),
            None => f64::NAN,
        }
    }

    fn x(&self, k: usize) -> f64 {
        let x = self.lane.at(k).and_then(|at| self.logits.get(at));
        x.map_or(f64::NAN, f64::from)
    }

    fn scaled(&self, k: usize) -> f64 {
        f64::from(self.options.logit_scale) * self.x(k)
    }

    /// `Σ exp(zₖ − m)` over all classes but one.
    fn sum_exp(&self, but: Option<usize>) -> f64 {
        let others = (0..self.lane.classes).filter(|&k| Some(k) != but);
        sum(others.map(|k| (-self.gap(k)).exp()))
    }
}

/// One row of [`Problem::softmax_backward`].
#[derive(Debug, Clone, Copy)]
struct Product<'a> {
    row: Row<'a>,
    /// The logits are softmax.
    given: bool,
    v: &'a [f32],
    /// `v_t`: an offset of all `v` has no part in the product, and left in it would be rounded. 0
    /// where `p` is given, whose sum need not be 1.
    origin: f64,
    /// `Σ pⱼ·(vⱼ − v_t)`; NaN for a NaN row.
    mean: f64,
}

impl<'a> Product<'a> {
    fn of(problem: &Problem, batch: &Batch<'a>, i: usize) -> Self {
        let row = row_of(problem, batch, i);
        let v = match batch.labels {
            Labels::Vector(v) => v,
            _ => &[],
        };
        let given = problem.from_softmax();
        let mut product = Product {
            row,
            given,
            v,
            origin: 0.0,
            mean: f64::NAN,
        };
        let top = usize::try_from(row.prediction).unwrap_or(usize::MAX);
        if !given {
            product.origin = product.v(top);
        }
        let classes = 0..problem.classes();
        let term = |k| product.p(k) * (product.v(k) - product.origin);
        let finite = |k| product.p(k).is_finite() && product.v(k).is_finite();
        if classes.clone().all(finite) {
            product.mean = sum(classes.map(term));
        }
        product
    }

    fn p(&self, k: usize) -> f64 {
        if self.given {
            self.row.x(k)
        } else {
            self.row.p(k)
        }
    }

    fn v(&self, k: usize) -> f64 {
        let v = self.row.lane.at(k).and_then(|at| self.v.get(at));
        v.map_or(f64::NAN, |&v| v.into())
    }

    /// The product, times ∂z/∂x.
    fn grad(&self, k: usize) -> f64 {
        self.p(k) * ((self.v(k) - self.origin) - self.mean) * self.row.slope(k)
    }
}

/// The sum of the terms, from +0, with Neumaier's compensation: its error does not grow with
/// their number until that nears 2⁵².
pub(crate) fn sum(terms: impl Iterator<Item = f64>) -> f64 {
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

/// What the mean divides the cross-entropies by, and the z-losses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Denominators {
    loss: f64,
    z_loss: f64,
    empty: EmptyMean,
}

impl Denominators {
    fn of(problem: &Problem, batch: &Batch<'_>, valid: usize) -> Self {
        Denominators::new(problem, label_weights(problem, batch), valid)
    }

    /// `weights` is what the labels weigh, for a mean that is divided by it.
    pub(crate) fn new(problem: &Problem, weights: f64, valid: usize) -> Self {
        let rows = valid as f64;
        let (loss, z_loss) = match (problem.reduction(), problem.denominator()) {
            (Reduction::None | Reduction::Sum, _) => (1.0, 1.0),
            (Reduction::Mean, Denominator::Number(number)) => (number.into(), number.into()),
            (Reduction::Mean, _) if problem.sums_weights() => (weights, rows),
            // The buffer of a device, too, which `check` has refused.
            (Reduction::Mean, _) => (rows, rows),
        };
        Denominators {
            loss,
            z_loss,
            empty: problem.empty_mean(),
        }
    }

    /// The reduced loss and z-loss of the sums of both.
    pub(crate) fn means(&self, sums: Sums) -> [f64; 2] {
        [
            self.mean(sums.cross_entropy, self.loss),
            match sums.z_loss {
                Some(sum) => self.mean(sum, self.z_loss),
                None => 0.0,
            },
        ]
    }

    /// A mean of nothing is what the problem says, unless a row that weighs nothing is NaN.
    fn mean(&self, sum: f64, denominator: f64) -> f64 {
        match self.empty {
            EmptyMean::Nan if denominator == 0.0 => f64::NAN,
            EmptyMean::Zero if denominator == 0.0 && !sum.is_nan() => 0.0,
            _ => sum / denominator,
        }
    }

    /// The factors of the two terms of a gradient; 0 where there is nothing.
    fn scales(&self, upstream: f64) -> [f64; 2] {
        [self.loss, self.z_loss].map(|denominator| match denominator {
            0.0 => 0.0,
            denominator => upstream / denominator,
        })
    }
}

/// What the labels of a batch weigh, where there are class weights.
pub(crate) fn label_weights(problem: &Problem, batch: &Batch<'_>) -> f64 {
    let weight = |i| match target(problem, batch, i) {
        Target::Index(y) => batch.class_weights.get(y).map_or(f64::NAN, |&w| w.into()),
        _ => 0.0, // ignored
    };
    match problem.sums_weights() {
        true => sum((0..problem.rows()).map(weight)),
        false => 0.0,
    }
}

/// Losses of rows, added up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    pub cross_entropy: f64,
    /// Where the problem has one.
    pub z_loss: Option<f64>,
}

/// Computes every output that the problem wants, unrounded whatever its dtypes.
///
/// With the feature `rayon` rows run in parallel; the results are the same bits without it. Next to
/// the outputs it keeps one [`Row`] per row, which is less than 200 bytes.
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
    let denominators = Denominators::of(problem, batch, valid);
    let (mut results, sums) = run_rows(problem, batch, denominators)?;
    let [loss, z_loss] = denominators.means(sums);
    results.loss = results.loss.map(|_| loss + z_loss);
    results.z_loss = results.z_loss.map(|_| z_loss);
    results.valid_rows = valid as u64;
    Ok(results)
}

/// All but the reduced losses, which are 0 where they are wanted, and the number of valid rows.
pub(crate) fn run_rows(
    problem: &Problem,
    batch: &Batch<'_>,
    denominators: Denominators,
) -> Result<(Results<f64>, Sums)> {
    let n = problem.rows();
    let scales = |i: usize| {
        let upstream = match problem.upstream() {
            Upstream::Number(g) => g,
            Upstream::Shared => batch.upstream[0],
            Upstream::PerRow => batch.upstream[i],
        };
        denominators.scales(upstream.into())
    };
    if problem.labels() == LabelKind::Vector {
        let products = each(n, |i| Product::of(problem, batch, i))?;
        let grad = |i: usize, k: usize| products[i].grad(k) * scales(i)[0];
        let is_nan = |product: &Product| product.mean.is_nan();
        let results = Results {
            grad: each_class_if(problem, true, 0.0, grad)?,
            nan_rows: products.iter().filter(|product| is_nan(product)).count() as u64,
            first_nan_row: products.iter().position(is_nan).map(|i| i as u64),
            ..Results::default()
        };
        return Ok((results, Sums::default()));
    }

    let rows = each(n, |i| row_of(problem, batch, i))?;
    let is_nan = |row: &Row| match problem.labels() {
        LabelKind::None => row.m.is_nan(),
        _ => row.loss.is_nan(),
    };
    let is_correct =
        |row: &Row| matches!(row.target, Target::Index(y) if row.prediction == y as i64);
    let sums = Sums {
        cross_entropy: sum(rows.iter().map(|row| row.cross_entropy)),
        z_loss: (problem.z_loss() != 0.0).then(|| sum(rows.iter().map(Row::z_loss))),
    };

    let wants = |output| problem.wants(output);
    let indexed = matches!(problem.labels(), LabelKind::Index { .. });
    let reduced = problem.reduction() != Reduction::None;
    let masked = match problem.padding() {
        Padding::Masked => f64::NEG_INFINITY,
        Padding::Kept => 0.0,
    };
    let results = Results {
        softmax: each_class_if(problem, wants(Wanted::Softmax), 0.0, |i, k| rows[i].p(k))?,
        log_softmax: each_class_if(problem, wants(Wanted::LogSoftmax), masked, |i, k| {
            rows[i].log_p(k)
        })?,
        grad: each_class_if(problem, wants(Wanted::Grad), 0.0, |i, k| {
            rows[i].grad_of(scales(i), k)
        })?,
        losses: each_if(wants(Wanted::Losses), n, |i| rows[i].loss)?,
        lse: each_if(wants(Wanted::Lse), n, |i| rows[i].lse())?,
        loss: (wants(Wanted::Loss) && reduced).then_some(0.0),
        predictions: each_if(wants(Wanted::Predictions), n, |i| rows[i].prediction)?,
        entropy: each_if(wants(Wanted::Entropy), n, |i| rows[i].entropy())?,
        correct_rows: each_if(wants(Wanted::Correct), n, |i| is_correct(&rows[i]))?,
        z_losses: each_if(wants(Wanted::ZLosses), n, |i| rows[i].z_loss())?,
        z_loss: (wants(Wanted::ZLoss) && reduced).then_some(0.0),
        correct: ((wants(Wanted::Predictions) || wants(Wanted::Correct)) && indexed)
            .then(|| rows.iter().filter(|row| is_correct(row)).count() as u64),
        valid_rows: 0,
        nan_rows: rows.iter().filter(|row| is_nan(row)).count() as u64,
        first_nan_row: rows.iter().position(is_nan).map(|i| i as u64),
    };
    Ok((results, sums))
}

/// An array of the shape of the logits, of the values of row and class, and `padding` past the last
/// class.
fn each_class_if(
    problem: &Problem,
    wanted: bool,
    padding: f64,
    value: impl Fn(usize, usize) -> f64 + Sync + Send,
) -> Result<Option<Vec<f64>>> {
    let (inner, length) = (problem.inner(), problem.row_length());
    each_if(wanted, problem.elements(), |j| {
        let class = j / inner % length;
        match class < problem.classes() {
            true => value(j / inner / length * inner + j % inner, class),
            false => padding,
        }
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
    let refused = |_| Error::no_room::<T>("the reference", count);
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

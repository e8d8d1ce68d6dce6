//! The oracle itself: against multi-precision values, and against what must hold for any softmax.

use softxent::half::{bf16, f16};
use softxent::reference::{Row, RowOptions, Target, row, row_of, row_with, run};
use softxent::{
    Batch, Denominator, Dtype, EmptyMean, Error, LabelKind, Padding, Problem, ProblemBuilder,
    Reduction, Results, Upstream, Wanted,
};

use crate::cases::{self, Golden};

/// How far the oracle may be off, in f64 ULPs (2⁻⁵²) of what is computed, or of the size of the two
/// terms where it is a true difference. In halves of an ULP, u = 2⁻⁵³, with exp and log1p of libm
/// good to 1 ULP = 2u, and Neumaier's sum to 2u whatever its length:
///
/// ```text
/// e = exp(z − m)        2      (and the rounding error of z − m, see `slip`)
/// s, the others         4      terms of one sign
/// 1 + s                 5
/// L = log1p(s)          6      its condition number is at most 1
/// p = e / (1 + s)       8
/// loss = L + (m − z)    7      dense: 10, with a product and a sum
/// others / (1 + s)     10      dense, pₖ·Σt − tₖ: 12 of pₖ·Σ|t| + |tₖ|
/// · upstream / N       12 and 14
/// the expected value    1      rounded to f64 once; and 2 for serde_json's way of reading it
/// ```
const ULPS: f64 = 17.0 / 2.0;

/// Below 2⁻¹⁰²² the values of f64 are steps of 2⁻¹⁰⁷⁴, and 4 roundings are 4 steps.
const STEPS: f64 = 4.0 * f64::from_bits(1);

fn max(logits: &[f32]) -> f64 {
    f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max))
}

/// How far `z − m` is off for the classes whose exp is not 0: the exact rounding error (two-sum),
/// which is 0 unless the exponents of z and m differ by 30 or so. It is a relative error of exp.
fn slip(logits: &[f32]) -> f64 {
    let m = max(logits);
    let error = |z: f64| {
        let d = z - m;
        let back = d - z;
        ((z - (d - back)) - (m + back)).abs()
    };
    let z = logits.iter().map(|&z| f64::from(z));
    z.filter(|z| z - m > -746.0).map(error).fold(0.0, f64::max)
}

#[track_caller]
fn assert_near(name: &str, found: f64, expected: f64, tolerance: f64) {
    let exact = expected == 0.0 || !expected.is_finite();
    let same = found == expected || found.is_nan() && expected.is_nan();
    assert!(
        same || !exact && (found - expected).abs() <= tolerance,
        "{name}: found {found:e}, expected {expected:e}, allowed ±{tolerance:e}"
    );
}

// ---- golden values ---------------------------------------------------------------------------------

impl Golden {
    /// The relative tolerance of row `i`.
    fn unit(&self, i: usize) -> f64 {
        ULPS * f64::EPSILON + 2.0 * slip(&self.case.logits[self.case.row(i)])
    }

    /// What the loss of row `i` is made of: `Σ|tₖ·log pₖ|`.
    fn loss_size(&self, i: usize, loss: f64) -> f64 {
        let (Some(dense), Some(log_p)) = (&self.case.dense, &self.expect.log_softmax) else {
            return loss.abs();
        };
        let terms = dense[self.case.row(i)].iter().zip(&log_p[self.case.row(i)]);
        let weighted = terms.filter(|&(&t, _)| t != 0.0);
        weighted
            .map(|(&t, log_p)| (f64::from(t) * log_p).abs())
            .sum()
    }

    fn compare(
        &self,
        output: Wanted,
        [found, expected]: [&Option<Vec<f64>>; 2],
        tolerance: impl Fn(usize, f64) -> f64,
    ) {
        let length = |values: &Option<Vec<f64>>| values.as_ref().map(Vec::len);
        assert_eq!(
            length(found),
            length(expected),
            "{}: {output}",
            self.case.name
        );
        let pairs = found.iter().flatten().zip(expected.iter().flatten());
        for (j, (&found, &expected)) in pairs.enumerate() {
            let name = format!("{}: {output}[{j}]", self.case.name);
            assert_near(&name, found, expected, tolerance(j, expected));
        }
    }

    fn check(&self) {
        let (found, expect, k) = (self.case.oracle(), &self.expect, self.case.classes);
        let denominator = match self.case.reduction {
            Reduction::Mean => expect.valid_rows.max(1) as f64,
            _ => 1.0,
        };
        self.compare(
            Wanted::Softmax,
            [&found.softmax, &expect.softmax],
            |j, p| self.unit(j / k) * p + STEPS,
        );
        self.compare(
            Wanted::LogSoftmax,
            [&found.log_softmax, &expect.log_softmax],
            |j, log_p| self.unit(j / k) * log_p.abs() + STEPS,
        );
        self.compare(Wanted::Lse, [&found.lse, &expect.lse], |i, lse| {
            self.unit(i) * (2.0 * max(&self.case.logits[self.case.row(i)]).abs() + lse.abs()) // ≥ |m| + L
        });
        self.compare(
            Wanted::Losses,
            [&found.losses, &expect.losses],
            |i, loss| self.unit(i) * self.loss_size(i, loss) + STEPS * self.case.weight(i).max(1.0),
        );
        let of_rows = |losses: &Vec<f64>| {
            let each = losses.iter().enumerate();
            each.map(|(i, &loss)| self.unit(i) * self.loss_size(i, loss) + STEPS)
                .sum::<f64>()
        };
        self.compare(
            Wanted::Loss,
            [
                &found.loss.map(|loss| vec![loss]),
                &expect.loss.map(|loss| vec![loss]),
            ],
            |_, loss| {
                let of_rows = expect.losses.as_ref().map_or(0.0, of_rows);
                of_rows / denominator + 2.0 * f64::EPSILON * loss.abs() // a sum, a division
            },
        );
        self.compare(Wanted::Grad, [&found.grad, &expect.grad], |j, grad| {
            let i = j / k;
            let upstream = *self.case.upstream.get(i).unwrap_or(&self.case.upstream[0]);
            let scale = (f64::from(upstream) / denominator).abs();
            let size = match (&self.case.dense, &expect.softmax) {
                (Some(t), Some(p)) => scale * (p[j] * self.case.weight(i) + f64::from(t[j]).abs()),
                _ => grad.abs(),
            };
            self.unit(i) * size + STEPS * (scale * self.case.weight(i)).max(1.0)
        });
        let exact = |results: &Results<f64>| Results {
            predictions: results.predictions.clone(),
            correct: results.correct,
            valid_rows: results.valid_rows,
            nan_rows: results.nan_rows,
            first_nan_row: results.first_nan_row,
            ..Results::<f64>::default()
        };
        assert_eq!(exact(&found), exact(expect), "{}", self.case.name);
        for loss in found.losses.iter().flatten().chain(&found.loss) {
            let negative_zero = *loss == 0.0 && loss.is_sign_negative();
            assert!(!negative_zero, "{}: a loss of −0", self.case.name);
        }
    }
}

#[test]
fn agrees_with_multi_precision() {
    for golden in cases::golden() {
        golden.check();
    }
}

// ---- properties ------------------------------------------------------------------------------------

/// Multiples of 2⁻¹⁰ in [−8, 8), the same ones for the same seed: few enough bits that shifts and
/// steps of the tests below are exact in f32.
fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let steps = |bits: u64| (bits >> 50) as f32 - 8192.0;
    (0..count).map(|_| steps(next()) / 1024.0).collect()
}

/// Rows of every width and shape, each with its name: random, confident (by 60), tied, masked.
fn rows() -> Vec<(String, Vec<f32>)> {
    let mut rows = Vec::new();
    for k in [1, 2, 3, 17, 1000] {
        let plain = random(k as u64, k);
        let edit = |edit: fn(&mut [f32])| {
            let mut row = plain.clone();
            edit(&mut row);
            row
        };
        rows.push((format!("random, {k} classes"), plain.clone()));
        rows.push((
            format!("confident, {k} classes"),
            edit(|row| row[row.len() / 2] = 60.0),
        ));
        rows.push((format!("tied, {k} classes"), edit(|row| row.fill(2.5))));
        rows.push((
            format!("masked, {k} classes"),
            edit(|row| row[1..].fill(f32::NEG_INFINITY)),
        ));
    }
    rows
}

/// What the properties are checked with: three classes, and weights of both signs whose sum is not 1.
fn targets(dense: &[f32]) -> [(&'static str, Target<'_>); 4] {
    let k = dense.len();
    [
        ("label first", Target::Index(0)),
        ("label in the middle", Target::Index(k / 2)),
        ("label last", Target::Index(k - 1)),
        ("dense labels", Target::Dense(dense)),
    ]
}

fn softmax(row: &Row, k: usize) -> Vec<f64> {
    (0..k).map(|j| row.p(j)).collect()
}

fn grad(row: &Row, k: usize) -> Vec<f64> {
    (0..k).map(|j| row.grad(j)).collect()
}

fn total(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(f64::abs).sum()
}

#[test]
fn softmax_sums_to_1_and_gradient_to_0() {
    for (name, z) in rows() {
        let k = z.len();
        let dense = random(99, k);
        // ULPS for each term, and half an ULP for each addition here.
        let unit = (ULPS + k as f64 / 2.0) * f64::EPSILON;
        for (which, target) in targets(&dense) {
            let row = row(&z, target);
            let sum = softmax(&row, k).iter().sum();
            assert_near(&format!("{name}, {which}: Σp"), sum, 1.0, unit);
            // At an index label nothing cancels: the label's share balances the others to full
            // relative accuracy, however small both are.
            let size = match target {
                Target::Dense(t) => 2.0 * total(t.iter().map(|&t| f64::from(t))),
                _ => total(grad(&row, k)),
            };
            let sum: f64 = grad(&row, k).iter().sum();
            assert!(
                sum.abs() <= unit * size,
                "{name}, {which}: the gradient sums to {sum:e}"
            );
        }
    }
}

#[test]
fn a_shift_changes_only_lse() {
    for (name, z) in rows() {
        let k = z.len();
        let dense = random(99, k);
        // |z| < 64 in steps of 2⁻¹⁰, and 4096: 23 bits, so z + 4096 is exact and z − m the same.
        let shifted: Vec<f32> = z.iter().map(|z| z + 4096.0).collect();
        for (which, target) in targets(&dense) {
            let (a, b) = (row(&z, target), row(&shifted, target));
            assert_eq!(softmax(&a, k), softmax(&b, k), "{name}, {which}");
            assert_eq!(grad(&a, k), grad(&b, k), "{name}, {which}");
            assert_eq!(a.loss.to_bits(), b.loss.to_bits(), "{name}, {which}");
            assert_eq!((a.m + 4096.0, a.l), (b.m, b.l), "{name}, {which}");
        }
    }
}

#[test]
fn a_permutation_permutes() {
    for (name, z) in rows() {
        let k = z.len();
        let dense = random(99, k);
        let reversed: Vec<f32> = z.iter().rev().copied().collect();
        let dense_reversed: Vec<f32> = dense.iter().rev().copied().collect();
        for (which, target) in targets(&dense) {
            let mirror = match target {
                Target::Index(y) => Target::Index(k - 1 - y),
                _ => Target::Dense(&dense_reversed),
            };
            let (a, b) = (row(&z, target), row(&reversed, mirror));
            // The terms are the same bits, and their sums in two orders both within ULPS.
            let unit = ULPS * f64::EPSILON;
            let weight = match target {
                Target::Dense(t) => total(t.iter().map(|&t| f64::from(t))),
                _ => 0.0,
            };
            for j in 0..k {
                let name = format!("{name}, {which}, class {j}");
                assert_near(&name, b.p(k - 1 - j), a.p(j), unit * a.p(j));
                let size = a.p(j) * weight + a.grad(j).abs();
                assert_near(&name, b.grad(k - 1 - j), a.grad(j), unit * size);
            }
            let size = match target {
                Target::Dense(t) => {
                    let terms = t.iter().enumerate().filter(|&(_, &t)| t != 0.0);
                    total(terms.map(|(j, &t)| f64::from(t) * a.log_p(j)))
                }
                _ => a.loss,
            };
            assert_near(
                &format!("{name}, {which}: loss"),
                b.loss,
                a.loss,
                unit * size,
            );
        }
    }
}

// ---- options ---------------------------------------------------------------------------------------

/// The options of [`RowOptions`] in a short form.
#[derive(Clone, Copy)]
pub struct Knobs<'a> {
    pub name: &'a str,
    pub weights: &'a [f32],
    pub smoothing: f32,
    pub z_loss: f32,
    pub scale: f32,
    pub cap: Option<f32>,
}

const PLAIN: Knobs<'static> = Knobs {
    name: "no options",
    weights: &[],
    smoothing: 0.0,
    z_loss: 0.0,
    scale: 1.0,
    cap: None,
};

const WEIGHTS: &[f32] = &[0.5, 2.0, 0.0, 1.25, 3.0];

/// Each option alone, and all of them.
const KNOBS: [Knobs<'static>; 7] = [
    PLAIN,
    Knobs {
        name: "weights",
        weights: WEIGHTS,
        ..PLAIN
    },
    Knobs {
        name: "smoothing",
        smoothing: 0.1,
        ..PLAIN
    },
    Knobs {
        name: "z-loss",
        z_loss: 0.01,
        ..PLAIN
    },
    Knobs {
        name: "scale",
        scale: 0.7,
        ..PLAIN
    },
    Knobs {
        name: "cap",
        cap: Some(6.0),
        ..PLAIN
    },
    Knobs {
        name: "all options",
        weights: WEIGHTS,
        smoothing: 0.3,
        z_loss: 0.02,
        scale: 0.3,
        cap: Some(5.0),
    },
];

/// One problem with the values of its batch.
#[derive(Clone)]
pub struct Job<'a> {
    pub name: String,
    pub knobs: Knobs<'a>,
    pub problem: Problem,
    pub logits: Vec<f32>,
    pub index: Vec<i64>,
    /// Vectors too.
    pub dense: Vec<f32>,
    pub upstream: Vec<f32>,
}

const ROWS: usize = 4;
const CLASSES: usize = 5;

impl Job<'_> {
    fn batch<'a>(&'a self, logits: &'a [f32]) -> Batch<'a> {
        let batch = Batch::of(logits)
            .class_weights(self.knobs.weights)
            .upstream(&self.upstream);
        match self.problem.labels() {
            LabelKind::Dense => batch.dense(&self.dense),
            LabelKind::Vector => batch.vectors(&self.dense),
            LabelKind::Index { .. } => batch.index(&self.index),
            LabelKind::None => batch,
        }
    }

    #[track_caller]
    fn run(&self, logits: &[f32]) -> Results<f64> {
        run(&self.problem, &self.batch(logits))
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn is_ignored(&self, i: usize) -> bool {
        match self.problem.labels() {
            LabelKind::Index { ignore_index } => self.index[i] == ignore_index,
            _ => false,
        }
    }

    fn upstream(&self, i: usize) -> f64 {
        f64::from(match self.problem.upstream() {
            Upstream::Number(g) => g,
            Upstream::Shared => self.upstream[0],
            Upstream::PerRow => self.upstream[i],
        })
    }

    /// What the cross-entropy and the z-loss are divided by: the table of denominators, written once
    /// more.
    fn denominators(&self) -> [f64; 2] {
        let counted = (0..self.problem.rows()).filter(|&i| !self.is_ignored(i));
        let rows = counted.clone().count() as f64;
        let indexed = matches!(self.problem.labels(), LabelKind::Index { .. });
        match (self.problem.reduction(), self.problem.denominator()) {
            (Reduction::Mean, Denominator::Number(number)) => [f64::from(number); 2],
            (Reduction::Mean, Denominator::Weights)
                if indexed && !self.knobs.weights.is_empty() =>
            {
                let of_label = |i: usize| f64::from(self.knobs.weights[self.index[i] as usize]);
                [counted.map(of_label).sum(), rows]
            }
            (Reduction::Mean, _) => [rows; 2],
            _ => [1.0; 2],
        }
    }

    /// What upstream gradient and denominators make of the two terms of row `i`; of nothing, nothing.
    fn scales(&self, i: usize) -> [f64; 2] {
        self.denominators().map(|denominator| match denominator {
            0.0 => 0.0,
            denominator => self.upstream(i) / denominator,
        })
    }

    /// What a sum over one of them is; of nothing, what the problem says.
    fn over(&self, sum: f64, denominator: f64) -> f64 {
        match self.problem.empty_mean() {
            _ if denominator != 0.0 => sum / denominator,
            EmptyMean::Nan => f64::NAN,
            EmptyMean::Zero => 0.0,
        }
    }

    /// `w·t` of row `i` from its definition.
    fn weighted(&self, i: usize, k: usize) -> f64 {
        let y = match self.problem.labels() {
            LabelKind::Dense => f64::from(self.dense[self.problem.element(i, k)]),
            _ => f64::from(u8::from(self.index[i] == k as i64)),
        };
        let epsilon = f64::from(self.knobs.smoothing);
        let w = self.knobs.weights.get(k).map_or(1.0, |&w| f64::from(w));
        w * ((1.0 - epsilon) * y + epsilon / self.problem.classes() as f64)
    }
}

/// Every set of options with index labels, one of them ignored, and dense ones; reduced in every way;
/// in rows, and interleaved with padding.
fn jobs() -> Vec<Job<'static>> {
    let mut jobs = Vec::new();
    let reductions = [
        (Reduction::None, Denominator::Weights, Upstream::PerRow),
        (Reduction::Sum, Denominator::Weights, Upstream::Number(0.5)),
        (Reduction::Mean, Denominator::Weights, Upstream::Number(3.0)),
        (Reduction::Mean, Denominator::ValidRows, Upstream::Shared),
        (
            Reduction::Mean,
            Denominator::Number(2.5),
            Upstream::Number(-2.5),
        ),
    ];
    for knobs in KNOBS {
        for dense in [false, true] {
            for (reduction, denominator, upstream) in reductions {
                for (inner, columns) in [(1, CLASSES), (2, 7)] {
                    let mut problem = Problem::of(ROWS, CLASSES)
                        .inner(inner)
                        .row_length(columns, Padding::Masked)
                        .label_smoothing(knobs.smoothing)
                        .z_loss(knobs.z_loss)
                        .logit_scale(knobs.scale)
                        .reduction(reduction)
                        .denominator(denominator)
                        .upstream(upstream)
                        .want(wanted(knobs, !dense));
                    problem = match dense {
                        true => problem.dense_labels(),
                        false => problem.index_labels(-1),
                    };
                    if let Some(cap) = knobs.cap {
                        problem = problem.softcap(cap);
                    }
                    if !knobs.weights.is_empty() {
                        problem = problem.class_weights();
                    }
                    jobs.push(Job {
                        name: format!(
                            "{}, {}, {reduction:?} over {denominator:?}, {inner} × {columns}",
                            knobs.name,
                            if dense { "dense" } else { "index" }
                        ),
                        knobs,
                        problem: problem.build().unwrap(),
                        logits: random(5, ROWS * columns),
                        index: vec![0, 4, -1, 1],
                        dense: random(6, ROWS * columns),
                        upstream: match upstream {
                            Upstream::Number(_) => vec![],
                            Upstream::Shared => vec![-1.5],
                            Upstream::PerRow => vec![1.0, -2.0, 0.5, 4.0],
                        },
                    });
                }
            }
        }
    }
    jobs
}

fn wanted(knobs: Knobs, indexed: bool) -> Vec<Wanted> {
    let fits = |output: &Wanted| match output {
        Wanted::Correct => indexed,
        Wanted::ZLoss | Wanted::ZLosses => knobs.z_loss != 0.0,
        _ => true,
    };
    Wanted::ALL.into_iter().filter(fits).collect()
}

/// The results of a job by the textbook formulas, on logits where little of them cancels, and the
/// sizes of what they are made of.
///
/// With `r = 2 + max|z|`, which is at least `|m| + log K`, a rounding of z or of lse is at most `ε·r`,
/// and so is what it does to `p`, relatively.
fn textbook(job: &Job<'_>) -> [Results<f64>; 2] {
    let (n, k) = (job.problem.rows(), job.problem.classes());
    let knobs = &job.knobs;
    let empty = |padding: f64| Some(vec![padding; job.problem.elements()]);
    let masked = match job.problem.padding() {
        Padding::Masked => f64::INFINITY,
        Padding::Kept => 0.0,
    };
    let mut all = [0.0, masked].map(|masked| Results::<f64> {
        softmax: empty(0.0),
        log_softmax: empty(-masked),
        grad: empty(0.0),
        losses: Some(vec![0.0; n]),
        lse: Some(vec![0.0; n]),
        entropy: Some(vec![0.0; n]),
        z_losses: Some(vec![0.0; n]),
        loss: Some(0.0),
        z_loss: Some(0.0),
        ..Results::default()
    });
    let [sizes, values] = &mut all;
    let mut put = |field: fn(&mut Results<f64>) -> &mut Option<Vec<f64>>, at, value, size| {
        if let (Some(values), Some(sizes)) = (field(values), field(sizes)) {
            (values[at], sizes[at]) = (value, size);
        }
    };
    let (mut sums, mut sum_sizes) = ([0.0; 2], [0.0; 2]);
    for i in 0..n {
        let x = |j| f64::from(job.logits[job.problem.element(i, j)]);
        let scale = f64::from(knobs.scale);
        let z: Vec<f64> = (0..k)
            .map(|j| match knobs.cap {
                Some(c) => f64::from(c) * (scale * x(j) / f64::from(c)).tanh(),
                None => scale * x(j),
            })
            .collect();
        let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
        let p: Vec<f64> = z.iter().map(|z| (z - lse).exp()).collect();
        let r = 2.0 + z.iter().fold(0.0_f64, |most, z| most.max(z.abs()));
        let wt: Vec<f64> = (0..k).map(|j| job.weighted(i, j)).collect();
        let weight: f64 = wt.iter().sum();
        let lambda = f64::from(knobs.z_loss);
        let counts = if job.is_ignored(i) { 0.0 } else { 1.0 };
        let scales = job.scales(i);

        put(|all| &mut all.lse, i, lse, r);
        let pz = p.iter().zip(&z).map(|(p, z)| p * z);
        put(|all| &mut all.entropy, i, lse - pz.sum::<f64>(), r * r);
        let terms = wt.iter().zip(&z).map(|(wt, z)| wt * (lse - z));
        let (ce, ce_size) = (counts * terms.sum::<f64>(), counts * total(wt.clone()) * r);
        let (zl, zl_size) = (counts * lambda * lse * lse, counts * lambda * r * r);
        put(|all| &mut all.losses, i, ce + zl, ce_size + zl_size);
        put(|all| &mut all.z_losses, i, zl, zl_size);
        // These are not multiplied by the upstream gradient.
        for (sum, term) in sums.iter_mut().zip([ce, zl]) {
            *sum += term;
        }
        for (size, term) in sum_sizes.iter_mut().zip([ce_size, zl_size]) {
            *size += term;
        }
        for j in 0..k {
            let at = job.problem.element(i, j);
            put(|all| &mut all.softmax, at, p[j], p[j] * r);
            put(|all| &mut all.log_softmax, at, z[j] - lse, r);
            let slope = counts
                * match knobs.cap {
                    Some(c) => scale * (1.0 - (scale * x(j) / f64::from(c)).tanh().powi(2)),
                    None => scale,
                };
            let of_z = 2.0 * lambda * lse * p[j];
            let (grad, size) = match job.problem.labels() {
                LabelKind::Vector => {
                    let v = |j| f64::from(job.dense[job.problem.element(i, j)]);
                    let mean: f64 = (0..k).map(|j| p[j] * v(j)).sum();
                    let size: f64 = (0..k).map(|j| p[j] * v(j).abs()).sum();
                    let scale = scales[0];
                    let size = p[j] * (v(j).abs() + size) * scale.abs();
                    (p[j] * (v(j) - mean) * scale * slope, size)
                }
                _ => {
                    let grad = (p[j] * weight - wt[j]) * scales[0] + of_z * scales[1];
                    let of_loss = p[j] * total(wt.clone()) + wt[j].abs();
                    let of_z = 2.0 * lambda * r * p[j];
                    (
                        grad * slope,
                        of_loss * scales[0].abs() + of_z * scales[1].abs(),
                    )
                }
            };
            // 1 − tanh² is off by an ULP or two of 1, not of itself.
            put(|all| &mut all.grad, at, grad, size * r * scale * counts);
        }
    }
    let denominators = job.denominators();
    let loss = job.over(sums[0], denominators[0]);
    let z_loss = match knobs.z_loss {
        0.0 => 0.0,
        _ => job.over(sums[1], denominators[1]),
    };
    let of = |size: f64, denominator: f64| match denominator {
        0.0 => 0.0,
        denominator => size / denominator,
    };
    let z_size = of(sum_sizes[1], denominators[1]);
    values.loss = Some(loss + z_loss);
    sizes.loss = Some(of(sum_sizes[0], denominators[0]) + z_size);
    (values.z_loss, sizes.z_loss) = (Some(z_loss), Some(z_size));
    let [sizes, values] = all;
    [values, sizes]
}

#[test]
fn every_option_agrees_with_the_textbook() {
    for job in jobs() {
        let found = job.run(&job.logits);
        check_textbook(&job, &found).unwrap_or_else(|why| panic!("{why}"));
        let ignored = u64::from(job.is_ignored(2));
        assert_eq!(found.valid_rows, ROWS as u64 - ignored, "{}", job.name);
    }
}

/// Whether these are the results of the textbook, and nothing that was not asked for.
pub fn check_textbook(job: &Job<'_>, found: &Results<f64>) -> Result<(), String> {
    let (n, k) = (job.problem.rows(), job.problem.classes());
    // The sums have K terms, or N; around them are at most two dozen roundings on the longest way, that
    // of a gradient: three for z, exp, log, exp, ε/K, w·t, their sums and products, the slope, g/den.
    let unit = (24 + k + n) as f64 * f64::EPSILON;
    let [values, sizes] = textbook(job);
    let one = |value: Option<f64>| value.map(|value| vec![value]);
    let fields = |of: &Results<f64>| {
        [
            (Wanted::Softmax, of.softmax.clone()),
            (Wanted::LogSoftmax, of.log_softmax.clone()),
            (Wanted::Grad, of.grad.clone()),
            (Wanted::Losses, of.losses.clone()),
            (Wanted::Lse, of.lse.clone()),
            (Wanted::Entropy, of.entropy.clone()),
            (Wanted::ZLosses, of.z_losses.clone()),
            (Wanted::Loss, one(of.loss)),
            (Wanted::ZLoss, one(of.z_loss)),
        ]
    };
    let fail = |what: String| Err(format!("{}: {what}", job.name));
    let reduced = job.problem.reduction() != Reduction::None;
    let each = fields(found).into_iter().zip(fields(&values));
    for (((output, found), (_, values)), (_, sizes)) in each.zip(fields(&sizes)) {
        let is_one = matches!(output, Wanted::Loss | Wanted::ZLoss);
        let asked = job.problem.wants(output) && (reduced || !is_one);
        if found.is_some() != asked {
            return fail(format!("{output} is there: {}", found.is_some()));
        }
        let (Some(found), Some(values), Some(sizes)) = (found, values, sizes) else {
            continue;
        };
        if found.len() != values.len() {
            return fail(format!("{} of {output}, not {}", found.len(), values.len()));
        }
        for (j, ((&found, &value), &size)) in found.iter().zip(&values).zip(&sizes).enumerate() {
            let right = match value.is_nan() {
                true => found.is_nan(), // the mean of nothing
                // Padding and ignored rows are exact.
                false => found == value || (found - value).abs() <= unit * size,
            };
            if !right {
                let size = unit * size;
                return fail(format!(
                    "{output}[{j}] is {found:e}, not {value:e} ± {size:e}"
                ));
            }
        }
    }
    let valid = (0..n).filter(|&i| !job.is_ignored(i)).count() as u64;
    let counts = (found.valid_rows, found.nan_rows, found.first_nan_row);
    if counts != (valid, 0, None) {
        return fail(format!("{counts:?}, where {valid} rows are valid"));
    }
    if let (Some(rows), Some(predictions)) = (&found.correct_rows, &found.predictions) {
        let right = |i: usize| !job.is_ignored(i) && predictions[i] == job.index[i];
        let right: Vec<bool> = (0..n).map(right).collect();
        let count = right.iter().filter(|&&right| right).count() as u64;
        if *rows != right || found.correct != Some(count) {
            return fail(format!("{rows:?} are correct, not {right:?}"));
        }
    }
    Ok(())
}

/// As [`assert_near`], where a value that happens to be 0 need not be found exactly.
#[track_caller]
fn assert_near_size(name: &str, found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance,
        "{name}: found {found:e}, expected {expected:e}, allowed ±{tolerance:e}"
    );
}

/// What a row must tell those who judge others by it.
#[test]
fn a_row_says_what_it_is_made_of() {
    for job in jobs() {
        let batch = job.batch(&job.logits);
        let results = job.run(&job.logits);
        for i in 0..ROWS {
            let row = row_of(&job.problem, &batch, i);
            let name = format!("{}: row {i}", job.name);
            assert_eq!(row.loss, results.losses.as_ref().unwrap()[i], "{name}");
            assert_eq!(row.loss, row.cross_entropy + row.z_loss(), "{name}");
            assert_eq!(
                row.entropy(),
                results.entropy.as_ref().unwrap()[i],
                "{name}"
            );
            let weighted = (0..CLASSES).map(|k| row.weighted_target(k));
            if job.is_ignored(i) {
                assert_eq!((row.weight, row.weight_size()), (0.0, 0.0), "{name}");
                assert_eq!(total(weighted), 0.0, "{name}");
                continue;
            }
            // Two products, a sum and a quotient on each side, and K additions here.
            let unit = (8 + CLASSES) as f64 * f64::EPSILON * row.weight_size();
            assert_near_size(&name, row.weight, weighted.clone().sum(), unit);
            assert_near_size(&name, row.weight_size(), total(weighted), unit);
            for k in 0..CLASSES {
                let at = job.problem.element(i, k);
                assert_eq!(row.p(k), results.softmax.as_ref().unwrap()[at], "{name}");
                // m and z are rounded at the size of z, the gap is not.
                let size = row.m.abs() + row.z(k).abs();
                let tolerance = ULPS * f64::EPSILON * size;
                assert_near_size(&name, row.gap(k), row.m - row.z(k), tolerance);
                assert_near_size(
                    &name,
                    row.weighted_target(k),
                    job.weighted(i, k),
                    4.0 * f64::EPSILON * row.weighted_target(k).abs(),
                );
            }
        }
        let none = row_of(&job.problem, &batch, ROWS);
        assert!(none.m.is_nan() && none.p(0).is_nan() && none.loss.is_nan());
    }
}

/// What the textbook formulas lose in f64: rows under a cap, from mpmath with 400 digits.
#[test]
fn confident_rows_under_a_cap_agree_with_multi_precision() {
    struct Truth {
        options: RowOptions<'static>,
        y: usize,
        logits: [f32; 4],
        lse: f64,
        loss: f64,
        entropy: f64,
        p: [f64; 4],
        grad: [f64; 4],
    }
    let weights = &[1.0, 0.5, 2.0, 0.25];
    let plain = RowOptions::default();
    for truth in [
        // Everything at once.
        Truth {
            options: RowOptions {
                class_weights: weights,
                label_smoothing: 0.1,
                z_loss: 0.001,
                logit_scale: 0.7,
                softcap: Some(30.0),
            },
            y: 1,
            logits: [1.5, -2.25, 40.0, 39.5],
            lse: 22.578933266916902,
            loss: 12.254163152897553,
            entropy: 0.6898054461659509,
            p: [
                4.4659819204603925e-10,
                3.241214873373717e-11,
                0.5408535238162664,
                0.4591464757047233,
            ],
            grad: [
                -0.01747857977478981,
                -0.3228592953011186,
                0.08720637967945412,
                0.0872603774540924,
            ],
        },
        // Where z is 10¹⁰ and rounded to steps of 2⁻²⁰, its exp would be off by 10⁻⁶.
        Truth {
            options: RowOptions {
                softcap: Some(1e10),
                ..plain
            },
            y: 0,
            logits: [4e10, 4e10 + 8192.0, 3e10, -1e11],
            lse: 9993293008.375746,
            loss: 10.985075955391627,
            entropy: 0.0002031807751457322,
            p: [1.6952826965966116e-05, 0.999983047173034, 0.0, 0.0],
            grad: [-0.0013409279501209977, 0.0013409257546199529, 0.0, 0.0],
        },
        // Confident, and right.
        Truth {
            options: RowOptions {
                class_weights: weights,
                logit_scale: 0.7,
                softcap: Some(50.0),
                ..plain
            },
            y: 2,
            logits: [1.5, -2.25, 90.0, 3.0],
            lse: 42.55320518761403,
            loss: 7.420225374975536e-18,
            entropy: 1.550431743237876e-16,
            p: [
                9.44756691102481e-19,
                6.848416266950154e-20,
                1.0,
                2.6968718337157853e-18,
            ],
            grad: [
                1.3220762237126503e-18,
                9.578275423108196e-20,
                -1.431976764570012e-18,
                3.768968133129599e-18,
            ],
        },
    ] {
        let row = row_with(&truth.logits, Target::Index(truth.y), truth.options);
        let cap = f64::from(truth.options.softcap.unwrap());
        let u = |k: usize| {
            f64::from(truth.options.logit_scale) * f64::from(truth.logits[k]).abs() / cap
        };
        // u is rounded once, so exp(−2|u|) is off by 2|u| halves of an ULP and its own 2; the others of
        // a gap are expm1, the two sums, three products and a quotient: 16 and 6|u| in all. They are
        // relative to the gap, and times the gap to its exp. In ULPs, with those of plain rows:
        let largest = (0..4).map(u).fold(0.0, f64::max);
        let gap = |k: usize| (8.0 + 3.0 * largest) * row.gap(k).min(746.0);
        let widest = (0..4)
            .filter(|&k| row.p(k) > 0.0)
            .map(gap)
            .fold(0.0, f64::max);
        let unit = (ULPS + 8.0 + 3.0 * largest + widest) * f64::EPSILON;
        let near = |name: &str, found: f64, expected: f64, size: f64| {
            let name = format!("y = {}, {name}", truth.y);
            assert_near_size(&name, found, expected, unit * size + STEPS);
        };
        near("lse", row.lse(), truth.lse, row.m.abs() + row.l);
        near("loss", row.loss, truth.loss, truth.loss);
        near("entropy", row.entropy(), truth.entropy, 2.0 * truth.entropy);
        for k in 0..4 {
            near("p", row.p(k), truth.p[k], truth.p[k]);
            let mixed = truth.options.label_smoothing + truth.options.z_loss != 0.0;
            let size = match mixed {
                true => {
                    let of_lse = 2.0 * f64::from(truth.options.z_loss) * (row.m.abs() + row.l);
                    let p = row.p(k) * (row.weight_size() + of_lse);
                    (p + row.weighted_target(k).abs()) * row.slope(k)
                }
                false => truth.grad[k].abs(),
            };
            near("grad", row.grad(k), truth.grad[k], size);
        }
    }
}

/// `∂loss/∂xₖ` by central differences. The step `h` = 2⁻¹⁴ is exact in f32 on these logits, and near
/// `(3·ε·loss / |loss‴|)^⅓`, where the two errors balance: the formula's own, `h²/6·|loss‴|`, and
/// that of the two losses over `2h`.
///
/// With `f(z)` the loss, `a = Σ|wt|` and `lse` between its values at both steps: `|f′| ≤ 2a + 2λ|lse|`,
/// `|f″| ≤ a/4 + 2λ(1 + |lse|/4)` and `|f‴| ≤ b·a + 2λ(b·|lse| + 3/4)`, because the second and third
/// derivatives of lse, `p(1 − p)` and `p(1 − p)(1 − 2p)`, are at most 1/4 and `b = 1/(6√3)`. The cap has
/// `|z′| ≤ s`, `|z″| ≤ 4/(3√3)·s²/c` and `|z‴| ≤ 2·s³/c²`, and
/// `loss‴ = f‴·z′³ + 3·f″·z′·z″ + f′·z‴`.
#[test]
fn gradient_is_the_derivative_of_the_loss() {
    let h = 1.0 / 16384.0;
    for job in jobs() {
        let at = job.run(&job.logits);
        for i in 0..ROWS {
            let own = row_of(&job.problem, &job.batch(&job.logits), i);
            let (a, lambda) = (own.weight_size(), f64::from(job.knobs.z_loss));
            let lse = own.m.abs() + own.l + f64::from(h) * f64::from(job.knobs.scale);
            let b = 1.0 / (6.0 * 3.0_f64.sqrt());
            let f = [
                2.0 * a + 2.0 * lambda * lse,
                a / 4.0 + 2.0 * lambda * (1.0 + lse / 4.0),
                b * a + 2.0 * lambda * (b * lse + 0.75),
            ];
            let s = f64::from(job.knobs.scale);
            let z = match job.knobs.cap.map(f64::from) {
                None => [s, 0.0, 0.0],
                Some(c) => [s, 8.0 * b * s * s / c, 2.0 * s.powi(3) / (c * c)],
            };
            let third = f[2] * z[0].powi(3) + 3.0 * f[1] * z[0] * z[1] + f[0] * z[2];
            // u < 1 under the caps of these jobs, so a gap is good to 11 ULPs more than without.
            let terms = (0..CLASSES).filter(|&k| own.weighted_target(k) != 0.0);
            let surprisals = terms.map(|k| own.weighted_target(k) * own.log_p(k));
            let size = total(surprisals) + 2.0 * lambda * lse * lse;
            let rounded = (ULPS + 11.0) * f64::EPSILON * size / f64::from(h);
            let truncated = f64::from(h).powi(2) / 6.0 * third;
            let scales = job.scales(i);
            for k in 0..CLASSES {
                let j = job.problem.element(i, k);
                let terms = |step: f32| {
                    let mut logits = job.logits.clone();
                    logits[j] += step;
                    let row = row_of(&job.problem, &job.batch(&logits), i);
                    [row.cross_entropy, row.z_loss()]
                };
                let (above, below) = (terms(h), terms(-h));
                let slope =
                    |term: usize| (above[term] - below[term]) / (2.0 * f64::from(h)) * scales[term];
                let scale = scales[0].abs().max(scales[1].abs());
                let tolerance = (truncated + rounded) * scale;
                let name = format!("{}: row {i}, class {k}", job.name);
                let found = at.grad.as_ref().unwrap()[j];
                assert_near_size(&name, found, slope(0) + slope(1), tolerance);
            }
        }
    }
}

// ---- layout and dtypes -----------------------------------------------------------------------------

/// The array of a contiguous job as `problem` orders it, `padding` past the last class.
fn laid_out(problem: &Problem, values: &[f32], padding: f32) -> Vec<f32> {
    let mut all = vec![padding; problem.elements()];
    for i in 0..problem.rows() {
        for k in 0..problem.classes() {
            all[problem.element(i, k)] = values[i * problem.classes() + k];
        }
    }
    all
}

/// Where a row is moves bits about and changes none; padding is never read.
#[test]
fn a_layout_only_moves_results() {
    let (n, k) = (6, 5);
    let (logits, dense) = (random(8, n * k), random(9, n * k));
    for padding in [Padding::Masked, Padding::Kept] {
        for (inner, columns) in [(1, 5), (1, 8), (2, 5), (3, 9), (6, 6)] {
            for is_dense in [false, true] {
                let build = |inner, columns| {
                    let problem = Problem::of(n, k).inner(inner).row_length(columns, padding);
                    let problem = problem.class_weights().label_smoothing(0.2).z_loss(0.5);
                    let problem = problem.logit_scale(1.5).softcap(9.0);
                    let all = Knobs {
                        z_loss: 0.5,
                        ..PLAIN
                    };
                    let problem = problem.want(wanted(all, !is_dense));
                    match is_dense {
                        true => problem.dense_labels().build().unwrap(),
                        false => problem.index_labels(-1).build().unwrap(),
                    }
                };
                let (plain, moved) = (build(1, k), build(inner, columns));
                let index = [0, -1, 4, 2, 2, 1];
                let (moved_logits, moved_dense) = (
                    laid_out(&moved, &logits, f32::NAN),
                    laid_out(&moved, &dense, f32::NAN),
                );
                let batch = |logits, dense| {
                    let batch = Batch::of(logits).class_weights(WEIGHTS);
                    match is_dense {
                        true => batch.dense(dense),
                        false => batch.index(&index),
                    }
                };
                let expected = run(&plain, &batch(&logits, &dense)).unwrap();
                let found = run(&moved, &batch(&moved_logits, &moved_dense)).unwrap();
                let place = |values: &Option<Vec<f64>>, padding: f64| {
                    let mut all = vec![padding; moved.elements()];
                    for j in 0..n * k {
                        all[moved.element(j / k, j % k)] = values.as_ref().unwrap()[j];
                    }
                    Some(all)
                };
                let masked = match padding {
                    Padding::Masked => f64::NEG_INFINITY,
                    Padding::Kept => 0.0,
                };
                let expected = Results {
                    softmax: place(&expected.softmax, 0.0),
                    log_softmax: place(&expected.log_softmax, masked),
                    grad: place(&expected.grad, 0.0),
                    ..expected
                };
                assert_eq!(found, expected, "{inner} × {columns}, {padding:?}");
            }
        }
    }
}

/// f16 and bf16 are values of f32, and the outputs are not rounded, whatever they are stored in.
#[test]
fn a_dtype_is_its_values() {
    let (n, k) = (3, 40);
    let mut logits = random(10, n * k);
    logits[7] = f32::NEG_INFINITY;
    logits[k + 3] = f32::NAN;
    let halves: Vec<f16> = logits.iter().map(|&x| f16::from_f32(x)).collect();
    let brains: Vec<bf16> = logits.iter().map(|&x| bf16::from_f32(x)).collect();
    for dtype in Dtype::ALL {
        let build = |dtype| -> Problem {
            let problem = Problem::of(n, k).dtype(dtype).same_dtype_out(true);
            let problem = problem.index_labels(-1).softcap(3.0).label_smoothing(0.1);
            problem.want(wanted(PLAIN, true)).build().unwrap()
        };
        let labels = [5, 0, 39];
        let rounded: Vec<f32> = logits.iter().map(|&x| dtype.round(x)).collect();
        let batch = match dtype {
            Dtype::F32 => Batch::of(&logits),
            Dtype::F16 => Batch::of(&halves),
            Dtype::Bf16 => Batch::of(&brains),
        };
        let found = run(&build(dtype), &batch.index(&labels)).unwrap();
        let wide = Batch::of(&rounded).index(&labels);
        let expected = run(&build(Dtype::F32), &wide).unwrap();
        // NaN is not equal to itself; its bits are.
        assert_eq!(
            found.map(f64::to_bits),
            expected.map(f64::to_bits),
            "{dtype:?}"
        );
        assert_eq!(found.first_nan_row, Some(1));
    }
}

// ---- the Jacobian ----------------------------------------------------------------------------------

fn product(builder: ProblemBuilder, logits: &[f32], v: &[f32]) -> Results<f64> {
    let problem = builder.build().unwrap();
    run(&problem, &Batch::of(logits).vectors(v)).unwrap()
}

/// `diag(p) − p pᵀ` written out, times `v`.
#[test]
fn the_backward_pass_is_the_jacobian() {
    for k in [1, 2, 5, 33] {
        let (n, z, v) = (4, random(11, 4 * k), random(12, 4 * k));
        for (scale, cap) in [(1.0, None), (0.25, None), (0.25, Some(2.0))] {
            let mut problem = Problem::softmax_backward(n, k)
                .logit_scale(scale)
                .upstream(Upstream::Number(-1.5));
            if let Some(cap) = cap {
                problem = problem.softcap(cap);
            }
            let found = product(problem, &z, &v);
            for i in 0..n {
                let options = RowOptions {
                    logit_scale: scale,
                    softcap: cap,
                    ..RowOptions::default()
                };
                let row = row_with(&z[i * k..][..k], Target::None, options);
                let p = softmax(&row, k);
                let v = &v[i * k..][..k];
                let mean: f64 = total((0..k).map(|j| p[j] * f64::from(v[j])));
                for a in 0..k {
                    let entry = |b: usize| match a == b {
                        true => p[a] * (1.0 - p[a]),
                        false => -p[a] * p[b],
                    };
                    let jv: f64 = (0..k).map(|b| entry(b) * f64::from(v[b])).sum();
                    let expected = jv * row.slope(a) * -1.5;
                    // ULPS for each p, in sums of K products on both sides; vₐ − v_t and vⱼ − v_t are
                    // rounded at the size of both.
                    let origin = f64::from(v[row.prediction as usize].abs());
                    let size = p[a] * (f64::from(v[a].abs()) + mean + 2.0 * origin);
                    let unit = (2.0 * ULPS + 4.0 + k as f64 / 2.0) * f64::EPSILON;
                    let name = format!("{k} classes, scale {scale}, cap {cap:?}, class {a}");
                    let found = found.grad.as_ref().unwrap()[i * k + a];
                    let tolerance = unit * size * row.slope(a) * 1.5;
                    assert_near_size(&name, found, expected, tolerance);
                }
            }
            assert_eq!((found.valid_rows, found.nan_rows), (n as u64, 0));
        }
    }
}

/// The product of a confident row is that of its other classes, not the rounding of the first; and an
/// offset of `v` has none.
#[test]
fn the_product_of_a_confident_row_does_not_cancel() {
    let backward = |v: &[f32]| product(Problem::softmax_backward(1, 2), &[0.0, 100.0], v);
    let tiny = f64::exp(-100.0);
    assert_eq!(backward(&[1.0, 0.0]).grad.unwrap(), [tiny, -tiny]);
    assert_eq!(backward(&[1.0, 2.0]).grad.unwrap(), [-tiny, tiny]);
    assert_eq!(backward(&[0.1, 0.1]).grad.unwrap(), [0.0, 0.0]);
}

/// Softmax as given is not normalised: `p ⊙ (v − Σ p·v)` to the letter.
#[test]
fn the_backward_pass_from_softmax_takes_p_as_it_is() {
    let (p, v) = ([0.5, 0.25, 0.5], [2.0, -4.0, 1.0]);
    let problem = Problem::softmax_backward(1, 3).from_softmax();
    let found = product(problem.clone(), &p, &v);
    assert_eq!(found.grad.unwrap(), [0.75, -1.125, 0.25]); // Σ p·v = 1 − 1 + 0.5
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let found = product(problem.clone(), &[0.5, bad, 0.5], &v);
        assert_eq!((found.nan_rows, found.first_nan_row), (1, Some(0)), "{bad}");
        assert!(found.grad.unwrap().iter().all(|g| g.is_nan()), "{bad}");
    }
}

#[test]
fn the_backward_pass_at_the_edges() {
    let masked = f32::NEG_INFINITY;
    let logits = [
        [masked, 1.0, 1.0],
        [0.0, f32::NAN, 1.0],
        [0.0, 1.0, 2.0],
        [masked; 3],
        [1.0, 1.0, 0.0],
        [0.0, f32::INFINITY, 0.0],
    ];
    let mut v = [[3.0, 1.0, -1.0]; 6];
    v[2][0] = f32::INFINITY;
    v[4][2] = f32::MAX;
    let found = product(
        Problem::softmax_backward(6, 3),
        logits.as_flattened(),
        v.as_flattened(),
    );
    let grad = found.grad.unwrap();
    assert_eq!(grad[..3], [0.0, 0.5, -0.5]);
    for i in [1, 2, 3, 5] {
        assert!(grad[i * 3..][..3].iter().all(|g| g.is_nan()), "row {i}");
    }
    assert!(grad[12..15].iter().all(|g| g.is_finite()));
    assert_eq!((found.nan_rows, found.first_nan_row), (4, Some(1)));
    // A NaN of `v` spoils its row also where p is 0.
    let found = product(
        Problem::softmax_backward(1, 2),
        &[masked, 0.0],
        &[f32::NAN, 1.0],
    );
    assert!(found.grad.unwrap().iter().all(|g| g.is_nan()));
    // Upstream per row, a layout with padding.
    let problem = Problem::softmax_backward(2, 2)
        .inner(2)
        .row_length(3, Padding::Masked)
        .upstream(Upstream::PerRow)
        .build()
        .unwrap();
    let (z, v) = ([0.0; 6], [1.0, 0.0, 0.0, 1.0, f32::NAN, f32::NAN]);
    let batch = Batch::of(&z).vectors(&v).upstream(&[1.0, 2.0]);
    let found = run(&problem, &batch).unwrap();
    assert_eq!(found.grad.unwrap(), [0.25, -0.5, -0.25, 0.5, 0.0, 0.0]);
    assert_eq!(found.nan_rows, 0);
}

/// The Hessian of a row's loss without a cap, `Σwt·J + 2λ(p pᵀ + lse·J)`, times `v`, is the difference
/// of gradients along `v`; and without a z-loss it is `Σwt` times the backward pass.
///
/// `v` is in multiples of 2⁻², so the step `h·v`, `h` = 2⁻¹⁴, is exact in f32 on logits below 8. With
/// `δ = v − Σpv` and `|δ| ≤ 2`, the derivatives along `v` are `p′ = p·δ`, `p″ = p·(δ² − σ²)` and
/// `p‴ = p·(δ³ − 3δσ² − κ)`, where `σ² ≤ 1` is the variance of `v` and `|κ| ≤ 2σ²`; so they are at most 2p,
/// 4p and 16p. Those of `lse` are at most 1, 1 and 2, and the third of `p·lse` at most
/// `p·(16·|lse| + 3·4 + 3·2 + 2)`. A central difference is off by h²/6 times the third.
#[test]
fn the_hessian_is_the_difference_of_gradients() {
    let h = 1.0 / 16384.0_f32;
    let k = 5;
    let z = random(13, k);
    let v: Vec<f32> = random(14, k)
        .iter()
        .map(|v| (v / 2.0).round() / 4.0)
        .collect();
    let dense = random(15, k);
    for (name, target, z_loss) in [
        ("index", Target::Index(3), 0.0),
        ("dense", Target::Dense(&dense), 0.0),
        ("index with z-loss", Target::Index(0), 0.5),
        ("dense with z-loss", Target::Dense(&dense), 0.25),
    ] {
        let options = RowOptions {
            z_loss,
            ..RowOptions::default()
        };
        let step = |h: f32| -> Vec<f32> { (0..k).map(|j| z[j] + h * v[j]).collect() };
        let (above, below) = (step(h), step(-h));
        let [above, below] = [&above, &below].map(|z| grad(&row_with(z, target, options), k));
        let here = row_with(&z, target, options);
        let product = product(Problem::softmax_backward(1, k), &z, &v);
        let jacobian = product.grad.unwrap();
        let (lambda, h) = (f64::from(z_loss), f64::from(h));
        let mean: f64 = (0..k).map(|j| here.p(j) * f64::from(v[j])).sum();
        for j in 0..k {
            let along_p = 2.0 * lambda * (here.p(j) * mean + here.lse() * jacobian[j]);
            let hessian = here.weight * jacobian[j] + along_p;
            let slope = (above[j] - below[j]) / (2.0 * h);
            let lse = here.m.abs() + here.l + h;
            // p‴ is that of a point in between, where p differs by a factor of at most exp(2·2h).
            let p = here.p(j) * (4.0 * h).exp();
            let third = p * (16.0 * here.weight_size() + 2.0 * lambda * (16.0 * lse + 20.0));
            let size =
                p * (here.weight_size() + 2.0 * lambda * lse) + here.weighted_target(j).abs();
            // The gradients are good to ULPS of their size, the two products to less than twice that.
            let rounded = ULPS * f64::EPSILON * size * (1.0 / h + 4.0);
            let name = format!("{name}, class {j}");
            assert_near_size(&name, hessian, slope, h * h / 6.0 * third + rounded);
        }
    }
}

// ---- what the golden values leave out --------------------------------------------------------------

/// Rows land in their places however many threads compute them, and an output does not depend on
/// which others are wanted.
#[test]
fn every_output_alone_is_the_rows_one_by_one() {
    let (n, k) = (500, 33);
    let logits = random(7, n * k);
    let labels: Vec<u16> = (0..n)
        .map(|i| if i % 5 == 0 { 999 } else { (i % k) as u16 })
        .collect();
    let one = |i: usize| {
        let target = match i % 5 {
            0 => Target::None,
            _ => Target::Index(i % k),
        };
        let options = RowOptions {
            z_loss: 0.25,
            ..RowOptions::default()
        };
        row_with(&logits[i * k..][..k], target, options)
    };
    let right = |i: usize| !i.is_multiple_of(5) && one(i).prediction == (i % k) as i64;
    let correct = Some((0..n).filter(|&i| right(i)).count() as u64);
    for output in Wanted::ALL {
        let problem = Problem::of(n, k)
            .index_labels(999)
            .z_loss(0.25)
            .reduction(Reduction::Sum);
        let problem = problem.want([output]).build().unwrap();
        let results = run(&problem, &Batch::of(&logits).index(&labels)).unwrap();
        let each_class = |value: fn(&Row<'_>, usize) -> f64| {
            Some((0..n * k).map(|j| value(&one(j / k), j % k)).collect())
        };
        let each_row = |value: fn(&Row<'_>) -> f64| Some((0..n).map(|i| value(&one(i))).collect());
        let mut expected = Results {
            valid_rows: 400,
            ..Results::default()
        };
        match output {
            Wanted::Softmax => expected.softmax = each_class(|row, k| row.p(k)),
            Wanted::LogSoftmax => expected.log_softmax = each_class(|row, k| row.log_p(k)),
            Wanted::Grad => expected.grad = each_class(|row, k| row.grad(k)),
            Wanted::Losses => expected.losses = each_row(|row| row.loss),
            Wanted::Lse => expected.lse = each_row(|row| row.lse()),
            Wanted::Loss => expected.loss = results.loss,
            Wanted::Predictions => {
                expected.predictions = Some((0..n).map(|i| one(i).prediction).collect());
                expected.correct = correct;
            }
            Wanted::Entropy => expected.entropy = each_row(|row| row.entropy()),
            Wanted::Correct => {
                expected.correct_rows = Some((0..n).map(right).collect());
                expected.correct = correct;
            }
            Wanted::ZLosses => expected.z_losses = each_row(|row| row.z_loss()),
            Wanted::ZLoss => expected.z_loss = results.z_loss,
        }
        assert_eq!(results, expected, "{output}");
        assert_eq!(results.loss.is_some(), output == Wanted::Loss, "{output}");
        assert_eq!(
            results.z_loss.is_some(),
            output == Wanted::ZLoss,
            "{output}"
        );
    }
}

/// The sum is as good after a million terms as after one; a plain one is off by 100 000 ULPs here.
#[test]
fn a_long_row_is_no_less_accurate() {
    let mut z = vec![-1.0; 1_000_001];
    z[500_000] = 0.0;
    let row = row(&z, Target::Index(500_000));
    let s = 1e6 * f64::exp(-1.0);
    assert_near("s", row.s, s, ULPS * f64::EPSILON * s);
    let grad = -s / (1.0 + s);
    assert_near("grad", row.grad(500_000), grad, ULPS * f64::EPSILON);
}

#[test]
fn a_bad_target_spoils_loss_and_gradient_only() {
    let z = [1.0, 3.0, 2.0];
    let fine = row(&z, Target::None);
    for (name, target) in [
        ("label K", Target::Index(3)),
        ("label −1", Target::Index(usize::MAX)),
        ("NaN weight", Target::Dense(&[0.0, f32::NAN, 1.0])),
        ("infinite weight", Target::Dense(&[0.0, f32::INFINITY, 1.0])),
        (
            "infinite weights",
            Target::Dense(&[0.0, f32::INFINITY, f32::NEG_INFINITY]),
        ),
        ("too few weights", Target::Dense(&[1.0, 2.0])),
    ] {
        let bad = row(&z, target);
        assert!(bad.loss.is_nan(), "{name}: loss");
        assert!(grad(&bad, 3).iter().all(|g| g.is_nan()), "{name}: gradient");
        assert_eq!(softmax(&bad, 3), softmax(&fine, 3), "{name}");
        assert_eq!((bad.lse(), bad.prediction), (fine.lse(), 1), "{name}");
    }
    let empty = row(&[], Target::Index(0));
    assert!(empty.lse().is_nan() && empty.loss.is_nan() && empty.p(0).is_nan());
}

#[test]
fn a_nan_weight_spoils_its_row_and_the_reduced_loss() {
    let problem =
        Problem::of(2, 2)
            .dense_labels()
            .want([Wanted::Loss, Wanted::Losses, Wanted::Grad]);
    let batch = Batch::of(&[0.0, 1.0, 0.0, 0.0]).dense(&[1.0, 0.0, f32::NAN, 0.0]);
    let results = run(&problem.build().unwrap(), &batch).unwrap();
    assert!(results.loss.unwrap().is_nan());
    assert!(results.losses.unwrap()[0].is_finite());
    assert!(results.grad.unwrap()[..2].iter().all(|g| g.is_finite()));
    assert_eq!(
        (results.nan_rows, results.first_nan_row, results.valid_rows),
        (1, Some(1), 2)
    );
}

#[test]
fn what_check_refuses_is_refused() {
    let problem = Problem::of(2, 3)
        .index_labels(-100)
        .want([Wanted::Loss])
        .build()
        .unwrap();
    assert!(matches!(
        run(&problem, &Batch::of(&[0.0; 6]).index(&[0, 3])),
        Err(Error::BadLabel {
            row: 1,
            value: 3,
            ..
        })
    ));
    assert!(matches!(
        run(&problem, &Batch::of(&[0.0; 5]).index(&[0, 0])),
        Err(Error::Length { what: "logits", .. })
    ));
    let buffer = Problem::of(1, 1)
        .index_labels(-100)
        .denominator(Denominator::Buffer)
        .want([Wanted::Loss])
        .build()
        .unwrap();
    assert!(matches!(
        run(&buffer, &Batch::of(&[0.0]).index(&[0])),
        Err(Error::OnlyOnDevice)
    ));
}

#[test]
fn to_f32_rounds_to_nearest() {
    let tiny = f64::from(f32::from_bits(1));
    let results = Results {
        losses: Some(vec![
            1.0 + 2f64.powi(-24),
            1.0 + 3.0 * 2f64.powi(-24),
            0.75 * tiny,
            1e300,
        ]),
        loss: Some(f64::NAN),
        predictions: Some(vec![7]),
        ..Results::default()
    };
    let rounded = results.to_f32();
    let next = 1.0 + f32::EPSILON;
    assert_eq!(
        rounded.losses.unwrap(),
        [1.0, next + f32::EPSILON, tiny as f32, f32::INFINITY]
    );
    assert!(rounded.loss.unwrap().is_nan());
    assert_eq!((rounded.predictions, rounded.grad), (Some(vec![7]), None));
}

// ---- the edges of the options ----------------------------------------------------------------------

const MASKED: f32 = f32::NEG_INFINITY;

fn all_finite(values: &Option<Vec<f64>>) -> bool {
    values.as_ref().unwrap().iter().all(|g| g.is_finite())
}

#[test]
fn a_masked_class_counts_by_its_effective_weight() {
    let z = [MASKED, 1.0, 2.0];
    let smooth = RowOptions {
        label_smoothing: 0.1,
        ..RowOptions::default()
    };
    let masked_weight = RowOptions {
        class_weights: &[0.0, 1.0, 2.0],
        ..smooth
    };
    let one_hot = [1.0, 0.0, 0.0];
    for target in [Target::Index(2), Target::Dense(&[0.0, 0.0, 1.0])] {
        // Smoothing reaches the masked class: an infinite loss.
        let row = row_with(&z, target, smooth);
        assert_eq!(row.loss, f64::INFINITY);
        assert!(grad(&row, 3).iter().all(|g| g.is_finite()));
        assert_eq!(row.p(0), 0.0);
        assert_eq!(row.grad(0), -row.weighted_target(0));
        // A weight of 0 keeps it out.
        let row = row_with(&z, target, masked_weight);
        assert!(row.loss.is_finite() && row.loss > 0.0);
        assert_eq!((row.grad(0), row.p(0)), (0.0, 0.0));
        // Entropy and lse are those of the row without the class.
        let absent = row_with(&[1.0, 2.0], Target::None, smooth);
        assert_eq!((row.entropy(), row.lse()), (absent.entropy(), absent.lse()));
    }
    // A label of weight 0, or smoothed away, at the masked class.
    for target in [Target::Index(0), Target::Dense(&one_hot)] {
        let weightless = RowOptions {
            label_smoothing: 0.0,
            ..masked_weight
        };
        let row = row_with(&z, target, weightless);
        assert_eq!((row.loss, grad(&row, 3)), (0.0, vec![0.0; 3]));
        let uniform = RowOptions {
            label_smoothing: 1.0,
            ..masked_weight
        };
        assert!(row_with(&z, target, uniform).loss.is_finite());
        assert_eq!(row_with(&z, target, smooth).loss, f64::INFINITY);
        // A mask is one under a cap, too; the label's class has a gradient without, and none with.
        let capped = RowOptions {
            softcap: Some(2.0),
            ..RowOptions::default()
        };
        let row = row_with(&z, target, capped);
        assert_eq!((row.p(0), row.loss), (0.0, f64::INFINITY));
        assert_eq!(
            (row.z(0), row.slope(0), row.grad(0)),
            (f64::NEG_INFINITY, 0.0, 0.0)
        );
        assert_eq!(row_with(&z, target, RowOptions::default()).grad(0), -1.0);
    }
    // Weights of both signs on masked classes are ∞ − ∞.
    let row = row_with(
        &[MASKED, MASKED, 0.0],
        Target::Dense(&[1.0, -1.0, 0.0]),
        smooth,
    );
    assert!(row.loss.is_nan());
}

/// The problems of the tests that follow: index labels with all options on 2 classes.
fn options(rows: usize) -> ProblemBuilder {
    Problem::of(rows, 2)
        .index_labels(-100)
        .class_weights()
        .z_loss(0.5)
        .want(Wanted::ALL)
}

#[test]
fn the_mean_of_nothing() {
    let weights = [0.0, 1.0];
    let logits = [0.0_f32; 4];
    let l = std::f64::consts::LN_2;
    let z_term = 0.5 * l * l;
    for empty in [EmptyMean::Nan, EmptyMean::Zero] {
        let problem = options(2).empty_mean(empty);
        let nothing = match empty {
            EmptyMean::Nan => f64::NAN,
            EmptyMean::Zero => 0.0,
        };
        let check = |name: &str, problem: ProblemBuilder, labels: [i64; 2], expected: [f64; 2]| {
            let problem = problem.build().unwrap();
            let batch = Batch::of(&logits).class_weights(&weights).index(&labels);
            let found = run(&problem, &batch).unwrap();
            let losses = [found.loss.unwrap(), found.z_loss.unwrap()];
            for (found, expected) in losses.into_iter().zip(expected) {
                // λ·lse² of both sides: three roundings each.
                assert_near(name, found, expected, 4.0 * f64::EPSILON);
            }
            found
        };
        // All rows ignored.
        let found = check("ignored", problem.clone(), [-100, -100], [nothing; 2]);
        assert_eq!(found.grad.unwrap(), [0.0; 4]);
        assert_eq!((found.valid_rows, found.nan_rows), (0, 0));
        assert_eq!(found.z_losses.unwrap(), [0.0; 2]);
        assert_eq!(found.correct_rows.unwrap(), [false; 2]);
        // The weights of the rest sum to 0: the z term has its row.
        let found = check(
            "weightless",
            problem.clone(),
            [0, -100],
            [nothing + z_term, z_term],
        );
        let of_lse = 0.5 * 2.0 * l * 0.5;
        for (j, g) in found.grad.unwrap().into_iter().enumerate() {
            let expected = if j < 2 { of_lse } else { 0.0 };
            assert_near("weightless: gradient", g, expected, 4.0 * f64::EPSILON);
        }
        assert_eq!(found.valid_rows, 1);
        // Smoothing gives the row a loss, and still there is nothing to divide it by.
        let smooth = problem.clone().label_smoothing(0.5);
        check("smoothed", smooth, [0, 0], [nothing + z_term, z_term]);
        // A NaN row is seen even where it weighs nothing.
        let problem_of_nan = Problem::of(2, 2).index_labels(-100).class_weights();
        let problem_of_nan = problem_of_nan.empty_mean(empty);
        let problem_of_nan = problem_of_nan.want([Wanted::Loss, Wanted::Grad]).build();
        let nan = [f32::NAN, 0.0, 0.0, 0.0];
        let batch = Batch::of(&nan).class_weights(&weights).index(&[0, -100]);
        let found = run(&problem_of_nan.unwrap(), &batch).unwrap();
        assert!(found.loss.unwrap().is_nan() && found.grad.unwrap()[0].is_nan());
        assert_eq!(found.nan_rows, 1);
        // A count of rows, or a number, is not 0.
        let rows = problem.clone().denominator(Denominator::ValidRows);
        check("rows", rows, [0, 0], [z_term, z_term]);
        let number = problem.clone().denominator(Denominator::Number(4.0));
        check("number", number.clone(), [0, -100], [z_term / 4.0; 2]);
        check("number", number, [-100, -100], [0.0; 2]);
    }
    // No rows at all.
    for (reduction, expected) in [
        (Reduction::None, None),
        (Reduction::Sum, Some(0.0)),
        (Reduction::Mean, Some(f64::NAN)),
    ] {
        let problem = options(0).reduction(reduction).build().unwrap();
        let none: [i64; 0] = [];
        let batch = Batch::of(&[0.0_f32; 0])
            .class_weights(&weights)
            .index(&none);
        let found = run(&problem, &batch).unwrap();
        let bits = |value: Option<f64>| value.map(f64::to_bits);
        assert_eq!(bits(found.loss), bits(expected), "{reduction:?}");
        assert_eq!(bits(found.z_loss), bits(expected), "{reduction:?}");
        assert_eq!(found.losses, Some(vec![]));
        assert_eq!(found.grad, Some(vec![]));
    }
}

#[test]
fn a_bad_row_with_options_is_nan_and_alone() {
    let bad = [[f32::NAN, 0.0], [0.0, f32::INFINITY], [MASKED, MASKED]];
    for bad in bad {
        let logits = [[1.0, 2.0], bad, bad];
        let problem = options(3)
            .softcap(4.0)
            .label_smoothing(0.5)
            .build()
            .unwrap();
        let weights = [0.0, 1.0];
        let labels = [1, 0, -100];
        let batch = Batch::of(logits.as_flattened());
        let batch = batch.class_weights(&weights).index(&labels);
        let found = run(&problem, &batch).unwrap();
        assert_eq!((found.valid_rows, found.nan_rows), (2, 1), "{bad:?}");
        assert_eq!(found.first_nan_row, Some(1));
        assert!(found.loss.unwrap().is_nan() && found.z_loss.unwrap().is_nan());
        assert_eq!(found.predictions.unwrap(), [1, -1, -1]);
        assert_eq!(found.correct_rows.unwrap(), [true, false, false]);
        assert_eq!(found.correct, Some(1));
        for (name, values, ignored) in [
            ("losses", found.losses.unwrap(), Some(0.0)),
            ("z_losses", found.z_losses.unwrap(), Some(0.0)),
            ("lse", found.lse.unwrap(), None),
            ("entropy", found.entropy.unwrap(), None),
        ] {
            assert!(values[0].is_finite() && values[1].is_nan(), "{name}");
            match ignored {
                Some(value) => assert_eq!(values[2], value, "{name}"),
                None => assert!(values[2].is_nan(), "{name}"),
            }
        }
        let grad = found.grad.unwrap();
        assert!(grad[..2].iter().all(|g| g.is_finite()));
        assert!(grad[2..4].iter().all(|g| g.is_nan()));
        assert_eq!(grad[4..], [0.0, 0.0]);
        let p = found.softmax.unwrap();
        assert!(p[..2].iter().all(|p| p.is_finite()) && p[2..].iter().all(|p| p.is_nan()));
    }
}

#[test]
fn a_bad_label_leaves_the_other_outputs_of_its_row() {
    let wanted = Wanted::ALL.into_iter().filter(|&o| o != Wanted::Correct);
    let problem = Problem::of(2, 2).dense_labels().z_loss(0.5).want(wanted);
    let problem = problem.class_weights().build().unwrap();
    let logits = [0.0, 1.0, 0.5, 0.0];
    let weights = [1.0, 0.0];
    // Also where its class weighs nothing.
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let labels = [1.0, 0.0, 0.0, bad];
        let batch = Batch::of(&logits).class_weights(&weights).dense(&labels);
        let found = run(&problem, &batch).unwrap();
        assert!(found.losses.as_ref().unwrap()[1].is_nan() && found.loss.unwrap().is_nan());
        assert!(found.grad.as_ref().unwrap()[2..].iter().all(|g| g.is_nan()));
        assert!(found.z_loss.unwrap().is_finite());
        for values in [&found.softmax, &found.lse, &found.entropy, &found.z_losses] {
            assert!(all_finite(values), "{bad}");
        }
        assert_eq!((found.valid_rows, found.nan_rows), (2, 1));
        assert_eq!((found.first_nan_row, found.correct), (Some(1), None));
    }
}

/// What overflows f32 on the way is far from the end of f64.
#[test]
fn huge_values_stay_finite() {
    let huge = f32::MAX;
    for options in [
        RowOptions {
            logit_scale: huge,
            ..RowOptions::default()
        },
        RowOptions {
            logit_scale: huge,
            softcap: Some(huge),
            class_weights: &[huge, huge, huge],
            z_loss: huge,
            label_smoothing: 0.5,
        },
        RowOptions {
            logit_scale: huge,
            softcap: Some(f32::from_bits(1)),
            ..RowOptions::default()
        },
        RowOptions {
            logit_scale: f32::from_bits(1),
            softcap: Some(huge),
            ..RowOptions::default()
        },
    ] {
        let z = [huge, -huge, f32::from_bits(1)];
        for target in [Target::Index(1), Target::Dense(&[huge, -huge, huge])] {
            let row = row_with(&z, target, options);
            assert!(row.loss.is_finite(), "{options:?}: loss {}", row.loss);
            for k in 0..3 {
                assert!(row.grad(k).is_finite(), "{options:?}: grad {}", row.grad(k));
                assert!(row.gap(k) >= 0.0 && row.slope(k) >= 0.0, "{options:?}");
            }
            assert!(row.entropy() >= 0.0 && row.entropy() <= 3.0_f64.ln() * (1.0 + 1e-15));
        }
    }
}

/// One class: p is 1, and only the z-loss moves it.
#[test]
fn one_class_has_no_loss_but_the_z_loss() {
    for (name, z_loss, expected) in [("without", 0.0, 0.0), ("with", 0.25, 0.25 * 9.0)] {
        let options = RowOptions {
            class_weights: &[2.0],
            label_smoothing: 0.1,
            z_loss,
            ..RowOptions::default()
        };
        let row = row_with(&[3.0], Target::Index(0), options);
        assert_eq!((row.loss, row.cross_entropy), (expected, 0.0), "{name}");
        assert_eq!(row.grad(0), f64::from(z_loss) * 2.0 * 3.0, "{name}");
        assert!(row.loss.is_sign_positive() && row.entropy() == 0.0);
    }
}

/// The prediction is that of the logits as given, where a cap has made them equal.
#[test]
fn a_saturated_cap_does_not_move_the_prediction() {
    let options = RowOptions {
        softcap: Some(1.0),
        ..RowOptions::default()
    };
    let row = row_with(&[100.0, 300.0, 200.0, 300.0], Target::None, options);
    assert_eq!((row.prediction, row.m, row.s), (1, 1.0, 3.0));
}

//! The oracle itself: against multi-precision values, and against what must hold for any softmax.

use softxent::reference::{Row, Target, row, run};
use softxent::{Batch, Error, Labels, Problem, Reduction, Results, Upstream, Wanted};

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

/// One problem with the values of its batch.
struct Job {
    name: &'static str,
    problem: Problem,
    logits: Vec<f32>,
    index: Vec<i64>,
    dense: Vec<f32>,
}

impl Job {
    fn run(&self, logits: &[f32]) -> Results<f64> {
        let labels = if self.dense.is_empty() {
            Labels::Index(&self.index)
        } else {
            Labels::Dense(&self.dense)
        };
        let batch = Batch {
            logits,
            labels,
            upstream: &[],
        };
        run(&self.problem, &batch).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

/// 4 rows of 5 classes: index labels, one of them ignored, and dense labels; sum and mean.
fn jobs() -> Vec<Job> {
    let problem = |reduction, g| {
        let problem = Problem::of(4, 5)
            .reduction(reduction)
            .upstream(Upstream::Number(g));
        problem.want(Wanted::ALL)
    };
    let job = |name, problem: softxent::ProblemBuilder, dense| Job {
        name,
        problem: problem.build().unwrap(),
        logits: random(5, 20),
        index: vec![0, 4, -1, 2],
        dense,
    };
    let dense = random(6, 20);
    vec![
        job(
            "sum, index",
            problem(Reduction::Sum, 1.0).index_labels(-1),
            vec![],
        ),
        job(
            "mean, index",
            problem(Reduction::Mean, -2.5).index_labels(-1),
            vec![],
        ),
        job(
            "sum, dense",
            problem(Reduction::Sum, 0.5).dense_labels(),
            dense.clone(),
        ),
        job(
            "mean, dense",
            problem(Reduction::Mean, 3.0).dense_labels(),
            dense,
        ),
    ]
}

/// `∂loss/∂zₖ` by central differences. The step `h` = 2⁻¹⁴ is exact in f32 on these logits, and near
/// `(3·ε·loss / |loss‴|)^⅓`, where the two errors balance: the formula's own, `h²/6·|loss‴|` with
/// `|loss‴| = Σt·|p(1 − p)(1 − 2p)| ≤ Σt/(6√3)`, and that of the two losses over `2h`.
#[test]
fn gradient_is_the_derivative_of_the_loss() {
    let h = 1.0 / 16384.0;
    for job in jobs() {
        let at = job.run(&job.logits);
        let Upstream::Number(g) = job.problem.upstream() else {
            unreachable!()
        };
        let rows = match job.problem.reduction() {
            Reduction::Mean => at.valid_rows as f64,
            _ => 1.0,
        };
        let t = |j: usize| job.dense.get(j).map_or(0.0, |&t| f64::from(t));
        let log_p = at.log_softmax.as_ref().unwrap();
        let weighted = match job.dense.is_empty() {
            true => total(at.losses.clone().unwrap()),
            false => total((0..20).map(|j| t(j) * log_p[j])),
        };
        for j in 0..20 {
            let loss = |step: f32| {
                let mut logits = job.logits.clone();
                logits[j] += step;
                job.run(&logits).loss.unwrap()
            };
            let slope = (loss(h) - loss(-h)) / (2.0 * f64::from(h));
            let weight = match job.dense.is_empty() {
                true => 1.0,
                false => total((j / 5 * 5..j / 5 * 5 + 5).map(t)),
            };
            let truncated = f64::from(h).powi(2) / 6.0 * weight / (6.0 * 3.0_f64.sqrt());
            let rounded = ULPS * f64::EPSILON * weighted / f64::from(h);
            let (found, slope) = (at.grad.as_ref().unwrap()[j], f64::from(g) * slope);
            let tolerance = f64::from(g).abs() * (truncated + rounded) / rows;
            let name = format!("{}: logit {j}", job.name);
            assert_near(&name, found, slope, tolerance);
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
        row(&logits[i * k..][..k], target)
    };
    for output in Wanted::ALL {
        let problem = Problem::of(n, k)
            .index_labels(999)
            .reduction(Reduction::Sum);
        let problem = problem.want([output]).build().unwrap();
        let labels = Labels::Index(&labels);
        let results = run(
            &problem,
            &Batch {
                logits: &logits,
                labels,
                upstream: &[],
            },
        )
        .unwrap();
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
                let right = |&i: &usize| i % 5 != 0 && one(i).prediction == (i % k) as i64;
                expected.correct = Some((0..n).filter(right).count() as u64);
            }
        }
        assert_eq!(results, expected, "{output}");
        assert_eq!(results.loss.is_some(), output == Wanted::Loss, "{output}");
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
    let batch = Batch {
        logits: &[0.0, 1.0, 0.0, 0.0],
        labels: Labels::Dense(&[1.0, 0.0, f32::NAN, 0.0]),
        upstream: &[],
    };
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
    let batch = Batch {
        logits: &[0.0; 6],
        labels: Labels::Index(&vec![0, 3]),
        upstream: &[],
    };
    assert!(matches!(
        run(&problem, &batch),
        Err(Error::BadLabel {
            row: 1,
            value: 3,
            ..
        })
    ));
    let batch = Batch {
        logits: &[0.0; 5],
        ..batch
    };
    assert!(matches!(
        run(&problem, &batch),
        Err(Error::Length { what: "logits", .. })
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

//! The training of `examples/resident`, step by step, against the same training in f64.
//!
//! How far they may differ, with ‖·‖ the Euclidean norm over all weights and |·| over a row, `ε` = 2⁻²³
//! (WGSL leaves open to which of its two neighbours a sum or a product is rounded), and `e` the
//! difference of the weights:
//!
//! **Errors add up, they do not grow.** The loss of a batch is convex in the weights and its gradient
//! has the Lipschitz constant `L ≤ ½·mean(|image|² + 1)`: the Hessian of a row's loss in its logits,
//! `H` = diag p − p·pᵀ, has no eigenvalue above ½ (D. Böhning, *Multinomial logistic regression
//! algorithm*, 1992). For such a function the step `w ↦ w − η·∇f(w)` brings no two points further apart
//! as long as `η ≤ 2/L` (J.-B. Baillon and G. Haddad, 1977). So
//!
//! ```text
//! ‖e_{t+1}‖ ≤ ‖e_t‖ + what step t rounds
//! ```
//!
//! **What a step rounds.** With `x` an image and the 1 of the bias, `g` a row of the gradient and `γₙ` =
//! `nε/(1 − nε)`, the error of a sum of products of `n` rounded operations in any order:
//!
//! ```text
//! logits     |δz| ≤ γ₆₅·|Σ|x·w|| + 2⁻²⁴·|z|      64 products and sums; the oracle's f32 logits
//! gradient   |δg| ≤ |H|·|δz|/rows + 10ε·|g|      |H| ≤ 2·max p(1 − p), by Gershgorin's circles;
//!                                                what softxent promises
//! weights    ‖δw‖ ≤ η·Σ |x|·(|δg| + γ₄₉·|g|)     imagesᵀ·g, 48 products and sums, and times η
//!                 + ε·‖w‖                        the difference
//! ```
//!
//! **The loss of a step** is off by `‖∇f‖·‖e‖ + ½L‖e‖²` through the weights, by the mean of
//! `|p − y|·|δz| + ¼|δz|²` through the logits, and by 9ε of itself through softxent (`judge`).
//!
//! The sizes are those of the oracle, where the device has its own: a difference of second order, which
//! a hundredth more covers. Nearly all of the bound is γ₆₅, where errors would all have one sign. So
//! that it does not pile up beyond use, the oracle takes over the weights of the device after each
//! epoch, which is one submission.

#[path = "../../examples/resident/digits.rs"]
mod digits;
#[path = "../../examples/resident/regression.rs"]
mod regression;

use std::fmt;

use softxent::{Batch, Problem, Wanted, reference};

use crate::common::{gpu, report};
use digits::{CLASSES, Digits, FEATURES};
use regression::{BATCH, EPOCHS, HELD_BACK, LEARNING_RATE, Regression, STEPS, TRAINED};

const EPSILON: f64 = f32::EPSILON as f64;
const WEIGHTS: usize = (FEATURES + 1) * CLASSES;
const SECOND_ORDER: f64 = 1.01;

fn gamma(operations: usize) -> f64 {
    let error = operations as f64 * EPSILON;
    error / (1.0 - error)
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// The features of a row, and the 1 that the bias is multiplied by.
fn features(digits: &Digits, row: usize) -> Vec<f64> {
    let image = &digits.images[row * FEATURES..][..FEATURES];
    image.iter().map(|&x| f64::from(x)).chain([1.0]).collect()
}

/// `Σ term(x, w)` over the features, for each class.
fn over_features(x: &[f64], weights: &[f64], term: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let of = |k| x.iter().zip(weights[k..].iter().step_by(CLASSES));
    (0..CLASSES)
        .map(|k| of(k).map(|(&x, &w)| term(x, w)).sum())
        .collect()
}

/// The training in f64, and how far one in f32 may be off by now.
struct Oracle<'a> {
    digits: &'a Digits,
    weights: Vec<f64>,
    /// Bound of ‖e‖.
    weights_off: f64,
}

impl Oracle<'_> {
    /// One step on a batch. Returns its loss and how far that may be off.
    fn step(&mut self, batch: usize) -> (f64, f64) {
        let rows = batch * BATCH..(batch + 1) * BATCH;
        let x: Vec<Vec<f64>> = rows.clone().map(|row| features(self.digits, row)).collect();
        let logits: Vec<f64> = x
            .iter()
            .flat_map(|x| over_features(x, &self.weights, |x, w| x * w))
            .collect();
        let problem = Problem::of(BATCH, CLASSES)
            .index_labels(-100)
            .want([Wanted::Loss, Wanted::Grad, Wanted::Softmax])
            .build();
        let rounded: Vec<f32> = logits.iter().map(|&z| z as f32).collect();
        let labels = self.digits.labels[rows].to_vec();
        let batch = Batch::of(&rounded).index(&labels);
        let results = problem.and_then(|problem| reference::run(&problem, &batch));
        let results = results.unwrap_or_else(|error| panic!("{error}"));
        let (loss, grad, p) = (
            results.loss.unwrap(),
            results.grad.unwrap(),
            results.softmax.unwrap(),
        );

        let curvature = x.iter().map(|x| norm(x).powi(2)).sum::<f64>() / BATCH as f64 / 2.0;
        let rate = f64::from(LEARNING_RATE);
        assert!(rate <= 2.0 / curvature, "a step could tear errors apart");

        let mut weights_grad = vec![0.0; WEIGHTS];
        let (mut grad_off, mut loss_off) = (0.0, 0.0);
        for (i, x) in x.iter().enumerate() {
            let row = i * CLASSES..(i + 1) * CLASSES;
            let (z, g, p) = (&logits[row.clone()], &grad[row.clone()], &p[row]);
            for (j, x) in x.iter().enumerate() {
                for (k, g) in g.iter().enumerate() {
                    weights_grad[j * CLASSES + k] += x * g;
                }
            }
            let sizes = over_features(x, &self.weights, |x, w| (x * w).abs());
            let z_off = gamma(FEATURES + 1) * norm(&sizes) + EPSILON / 2.0 * norm(z);
            let hessian = p.iter().map(|p| 2.0 * p * (1.0 - p)).fold(0.0, f64::max);
            let g_off = hessian * z_off / BATCH as f64 + 10.0 * EPSILON * norm(g);
            grad_off += norm(x) * (g_off + gamma(BATCH + 1) * norm(g));
            loss_off += norm(g) * z_off + z_off * z_off / 4.0 / BATCH as f64;
        }
        loss_off += norm(&weights_grad) * self.weights_off
            + curvature / 2.0 * self.weights_off.powi(2)
            + 9.0 * EPSILON * loss;

        for (w, g) in self.weights.iter_mut().zip(weights_grad) {
            *w -= rate * g;
        }
        let step_off = rate * grad_off + EPSILON * norm(&self.weights);
        self.weights_off += SECOND_ORDER * step_off;
        (loss, SECOND_ORDER * loss_off)
    }

    /// Held-back rows that are right with these weights, and those where rounding could decide.
    fn held_back(&self) -> (u32, u32) {
        let (mut correct, mut close) = (0, 0);
        for row in TRAINED..TRAINED + HELD_BACK {
            let x = features(self.digits, row);
            let logits = over_features(&x, &self.weights, |x, w| x * w);
            let label = self.digits.labels[row] as usize;
            let others = logits.iter().enumerate().filter(|&(k, _)| k != label);
            let best = others.fold(f64::NEG_INFINITY, |best, (_, &z)| best.max(z));
            let sizes = over_features(&x, &self.weights, |x, w| (x * w).abs());
            let z_off = gamma(FEATURES + 1) * norm(&sizes);
            correct += u32::from(logits[label] > best);
            close += u32::from((logits[label] - best).abs() <= 2.0 * z_off);
        }
        (correct, close)
    }
}

#[test]
fn the_resident_example_trains_like_f64() {
    let engine = gpu!();
    let digits = Digits::load().unwrap();
    let regression = pollster::block_on(Regression::new(engine, &digits)).unwrap();
    // Another training of the same, whose bits have to be the same.
    let again = pollster::block_on(Regression::new(engine, &digits)).unwrap();
    let mut oracle = Oracle {
        digits: &digits,
        weights: vec![0.0; WEIGHTS],
        weights_off: 0.0,
    };
    let (mut loss_worst, mut weights_worst) = (Worst::default(), Worst::default());
    for epoch in 1..=EPOCHS {
        let losses = regression.epoch().unwrap();
        assert_eq!(losses.len(), STEPS);
        if epoch == 1 {
            let bits =
                |losses: &[f32]| -> Vec<u32> { losses.iter().map(|l| l.to_bits()).collect() };
            assert_eq!(bits(&again.epoch().unwrap()), bits(&losses));
        }
        for (step, loss) in losses.into_iter().enumerate() {
            let (expected, allowed) = oracle.step(step);
            let what = || format!("epoch {epoch}, step {step}: the loss is {loss}");
            loss_worst.judge((f64::from(loss) - expected).abs(), allowed, what);
        }
        let weights = regression.weights().unwrap();
        assert_eq!(weights.len(), WEIGHTS);
        let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
        let pairs = weights.iter().zip(&oracle.weights);
        let off: Vec<f64> = pairs.map(|(found, expected)| found - expected).collect();
        let what = || format!("epoch {epoch}: the weights");
        weights_worst.judge(norm(&off), oracle.weights_off, what);
        (oracle.weights, oracle.weights_off) = (weights, 0.0);
    }
    let correct = regression.held_back_correct().unwrap();
    let (expected, close) = oracle.held_back();
    report(&format!(
        "training: losses {loss_worst}, weights {weights_worst}; {correct} of {HELD_BACK} right"
    ));
    assert!(
        correct.abs_diff(expected.into()) <= close.into(),
        "{correct} held-back rows are right, in f64 {expected} ± {close}"
    );
    assert!(
        correct as f64 >= 0.95 * HELD_BACK as f64,
        "{correct} of {HELD_BACK} held-back rows are right"
    );
}

/// The largest difference, and the largest that was allowed.
#[derive(Default)]
struct Worst {
    off: f64,
    allowed: f64,
}

impl Worst {
    fn judge(&mut self, off: f64, allowed: f64, what: impl Fn() -> String) {
        assert!(
            off <= allowed,
            "{}, {off:e} off, {allowed:e} allowed",
            what()
        );
        self.off = self.off.max(off);
        self.allowed = self.allowed.max(allowed);
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at most {:.1e} off ({:.1e} allowed)",
            self.off, self.allowed
        )
    }
}

//! Logits, labels and vectors that are made up: a pattern of random numbers, again and again.
//!
//! Its length is a prime, so that rows differ; and what a stretch of it adds up to is the difference of
//! two entries of a table, so that the loss of every row is known without going through its classes.

use rayon::prelude::*;
use softxent::Dtype;
use softxent::half::{bf16, f16};

use super::cases::{Case, LabelsOf, Op, SCALE, SMOOTHING, SOFTCAP, With, Z_LOSS};
use crate::cli::random::Rng;

const LENGTH: usize = 65_521;

/// The numbers of a case.
pub struct Data {
    case: Case,
    /// N(0, 1), as they are stored.
    logits: Vec<f32>,
    /// Label weights from 0 to 1, before they are scaled; or N(0, 1), vectors.
    beside: Vec<f32>,
    /// What label weights are multiplied by: a power of two, which rounds nothing.
    scale: f32,
}

impl Data {
    pub fn new(case: &Case) -> Data {
        let mut rng = Rng::new(1);
        let logits = (0..LENGTH).map(|_| case.dtype.round(rng.normal()));
        let logits = logits.collect();
        let beside = (0..LENGTH).map(|_| match case.op {
            Op::SoftmaxBackward => rng.normal(),
            _ => rng.unit() as f32,
        });
        Data {
            case: *case,
            logits,
            beside: beside.collect(),
            scale: match case.op {
                Op::SoftmaxBackward => 1.0,
                _ => (0.5f32).powi(case.classes.ilog2() as i32),
            },
        }
    }

    /// The bytes of the logits, an even number of patterns of them.
    pub fn logit_bytes(&self) -> Vec<u8> {
        encode(&self.logits, self.case.dtype)
    }

    /// The bytes of the label weights or vectors.
    pub fn beside_bytes(&self) -> Vec<u8> {
        let scaled: Vec<f32> = self.beside.iter().map(|y| y * self.scale).collect();
        encode(&scaled, Dtype::F32)
    }

    /// The class of each row, anywhere.
    pub fn labels(&self) -> Vec<i32> {
        let rows = 0..self.case.rows;
        rows.map(|row| self.label(row) as i32).collect()
    }

    fn label(&self, row: usize) -> usize {
        hash(row) % self.case.classes
    }

    /// The weight of a class: from 0.5 to 1.5.
    fn class_weight(&self, class: usize) -> f32 {
        match self.case.options.has(With::Weights) {
            true => 0.5 + (hash(class) % 1024) as f32 / 1024.0,
            false => 1.0,
        }
    }

    pub fn class_weights(&self) -> Vec<f32> {
        let classes = 0..self.case.classes;
        classes.map(|class| self.class_weight(class)).collect()
    }
}

/// The plain formulas in f64: of N(0, 1) they lose no digit that matters.
pub struct Formula<'a> {
    data: &'a Data,
    /// z and dz/dx of each logit of the pattern.
    curve: Vec<[f64; 2]>,
    exps: Sums,
    /// exp(z)·dz/dx
    bent: Sums,
    /// Of the loss without its z-loss.
    denominator: f64,
}

impl Data {
    pub fn formula(&self) -> Formula<'_> {
        let Case { rows, options, .. } = self.case;
        let scale = match options.has(With::Scale) {
            true => f64::from(SCALE),
            false => 1.0,
        };
        let point = |x: f32| {
            let z = scale * f64::from(x);
            if !options.has(With::Softcap) {
                return [z, scale];
            }
            let tanh = (z / f64::from(SOFTCAP)).tanh();
            [f64::from(SOFTCAP) * tanh, scale * (1.0 - tanh * tanh)]
        };
        let curve: Vec<[f64; 2]> = self.logits.iter().map(|&x| point(x)).collect();
        let weight = |row| f64::from(self.class_weight(self.label(row)));
        Formula {
            data: self,
            exps: Sums::of(curve.iter().map(|[z, _]| z.exp())),
            bent: Sums::of(curve.iter().map(|[z, slope]| z.exp() * slope)),
            curve,
            denominator: match self.case.labels {
                Some(LabelsOf::Index) => (0..rows).into_par_iter().map(weight).sum(),
                _ => rows as f64,
            },
        }
    }
}

impl Formula<'_> {
    /// Σ a, Σ a·z and Σ a·dz/dx of a row, a being its labels, smoothed and weighted.
    fn labels(&self, row: usize) -> [f64; 3] {
        let Data { case, .. } = self.data;
        let epsilon = match case.options.has(With::Smoothing) {
            true => f64::from(SMOOTHING),
            false => 0.0,
        };
        let label = self.data.label(row);
        let terms = |class: usize| {
            let at = (row * case.classes + class) % LENGTH;
            let y = match case.labels {
                Some(LabelsOf::Dense) => f64::from(self.data.beside[at] * self.data.scale),
                _ => f64::from(u8::from(class == label)),
            };
            let smoothed = (1.0 - epsilon) * y + epsilon / case.classes as f64;
            let a = f64::from(self.data.class_weight(class)) * smoothed;
            let [z, slope] = self.curve[at];
            [a, a * z, a * slope]
        };
        if case.labels == Some(LabelsOf::Index) && epsilon == 0.0 {
            return terms(label);
        }
        let add = |a: [f64; 3], b: [f64; 3]| [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
        (0..case.classes).map(terms).fold([0.0; 3], add)
    }

    fn lse(&self, row: usize) -> f64 {
        let classes = self.data.case.classes;
        self.exps.stretch(row * classes, classes).ln()
    }

    fn z_loss(&self) -> f64 {
        match self.data.case.options.has(With::ZLoss) {
            true => f64::from(Z_LOSS),
            false => 0.0,
        }
    }

    pub fn mean_loss(&self) -> f64 {
        let rows = self.data.case.rows;
        let of_row = |row: usize| {
            let (lse, [a, a_z, _]) = (self.lse(row), self.labels(row));
            (lse * a - a_z) / self.denominator + self.z_loss() * lse * lse / rows as f64
        };
        (0..rows).into_par_iter().map(of_row).sum()
    }

    /// The sum of a row of softmax or of gradients, and that of the sizes that the errors of its numbers are
    /// relative to.
    pub fn row_sum(&self, row: usize) -> (f64, f64) {
        let Case {
            op, rows, classes, ..
        } = self.data.case;
        match op {
            Op::Softmax => (1.0, 1.0),
            Op::SoftmaxBackward => {
                let sizes = self.data.beside.iter().map(|v| f64::from(v.abs()));
                (0.0, 2.0 * sizes.fold(0.0, f64::max))
            }
            Op::Loss | Op::LossGrad => {
                let start = row * classes;
                let slope = self.bent.stretch(start, classes) / self.exps.stretch(start, classes);
                let (lse, [a, _, a_slope]) = (self.lse(row), self.labels(row));
                let upstream = rows as f64 / self.denominator;
                let z = 2.0 * self.z_loss() * lse;
                let sum = upstream * (a * slope - a_slope) + z * slope;
                // No slope is steeper than the scale.
                (sum, 2.0 * upstream * a + z.abs())
            }
        }
    }
}

/// Fibonacci hashing: D. Knuth, The Art of Computer Programming, 3, 6.4.
fn hash(number: usize) -> usize {
    ((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize
}

/// The sums of the first so many numbers of a pattern.
struct Sums(Vec<f64>);

impl Sums {
    fn of(values: impl Iterator<Item = f64>) -> Sums {
        let mut sums = vec![0.0];
        let mut sum = 0.0;
        sums.extend(values.map(|value| {
            sum += value;
            sum
        }));
        Sums(sums)
    }

    /// The sum of `length` numbers from the one at `start` on.
    fn stretch(&self, start: usize, length: usize) -> f64 {
        let before = |count: usize| {
            let (whole, rest) = (count / LENGTH, count % LENGTH);
            (whole, self.0[rest])
        };
        let ((first, head), (last, tail)) = (before(start), before(start + length));
        (last - first) as f64 * self.0[LENGTH] + (tail - head)
    }
}

/// Two patterns, which in 16 bits fill whole words where one does not.
fn encode(values: &[f32], dtype: Dtype) -> Vec<u8> {
    let twice = || values.iter().chain(values);
    match dtype {
        Dtype::F32 => twice().flat_map(|x| x.to_le_bytes()).collect(),
        Dtype::F16 => twice()
            .flat_map(|&x| f16::from_f32(x).to_le_bytes())
            .collect(),
        Dtype::Bf16 => twice()
            .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use softxent::{Batch, reference};

    use super::*;

    /// Against going through every class in the words of the definition.
    #[test]
    fn losses_and_sums() {
        for (labels, options, rows, classes) in [
            (LabelsOf::Index, With::Plain, 70_000, 2),
            (LabelsOf::Dense, With::Plain, 3, 1000),
            (LabelsOf::Index, With::ZLoss, 2, 200_000),
            (LabelsOf::Dense, With::Smoothing, 2, 65_521),
            (LabelsOf::Index, With::Weights, 300, 10),
            (LabelsOf::Index, With::Softcap, 30, 100),
            (LabelsOf::Index, With::All, 30, 100),
            (LabelsOf::Dense, With::All, 30, 100),
        ] {
            let case = Case {
                op: Op::LossGrad,
                dtype: Dtype::F32,
                labels: Some(labels),
                options,
                rows,
                classes,
            };
            let (data, problem) = (Data::new(&case), case.problem().unwrap());
            let at = |k: usize| k % LENGTH;
            let logits: Vec<f32> = (0..rows * classes).map(|k| data.logits[at(k)]).collect();
            let index = data.labels();
            let dense: Vec<f32> = (0..rows * classes)
                .map(|k| data.beside[at(k)] * data.scale)
                .collect();
            let weights = data.class_weights();
            let batch = Batch::of(&logits[..]);
            let batch = match labels {
                LabelsOf::Index => batch.index(&index),
                LabelsOf::Dense => batch.dense(&dense),
            };
            let batch = match options.has(With::Weights) {
                true => batch.class_weights(&weights),
                false => batch,
            };
            let exact = reference::run(&problem, &batch).unwrap();
            let formula = data.formula();
            let (found, loss) = (formula.mean_loss(), exact.loss.unwrap());
            assert!((found / loss - 1.0).abs() < 1e-9, "{found} for {loss}");
            let grad = exact.grad.unwrap();
            for (row, grad) in grad.chunks(classes).enumerate() {
                let (found, size) = formula.row_sum(row);
                let sum: f64 = grad.iter().sum();
                assert!((found - sum).abs() < 1e-9 * size, "{found} for {sum}");
                let largest = grad.iter().map(|g| g.abs()).sum::<f64>();
                assert!(largest <= size, "{largest} above {size}");
            }
        }
    }
}

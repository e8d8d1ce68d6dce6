//! Logits, labels and vectors that are made up: a pattern of random numbers, again and again.
//!
//! Its length is a prime, so that rows differ; and what a stretch of it adds up to is the difference of
//! two entries of a table, so that the loss of every row is known without going through its classes.

use rayon::prelude::*;
use softxent::Dtype;
use softxent::half::{bf16, f16};

use super::cases::{Case, LabelsOf, Op};
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
        (0..self.case.rows).map(|row| self.label(row)).collect()
    }

    fn label(&self, row: usize) -> i32 {
        // Fibonacci hashing: D. Knuth, The Art of Computer Programming, 3, 6.4.
        let hash = (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        (hash % self.case.classes as u64) as i32
    }

    /// The largest |v|, or what the label weights of a row add up to, at most.
    pub fn largest_beside(&self) -> f64 {
        match self.case.op {
            Op::SoftmaxBackward => {
                let sizes = self.beside.iter().map(|v| f64::from(v.abs()));
                sizes.fold(0.0, f64::max)
            }
            _ => self.case.classes as f64 * f64::from(self.scale),
        }
    }

    /// The mean loss by the plain formula in f64: of N(0, 1) it loses no digit that matters.
    pub fn mean_loss(&self) -> f64 {
        let Case { rows, classes, .. } = self.case;
        let exps = Sums::of(self.logits.iter().map(|&x| f64::from(x).exp()));
        let lse = |row: usize| exps.stretch(row * classes, classes).ln();
        let sum: f64 = match self.case.labels {
            Some(LabelsOf::Dense) => {
                let scale = f64::from(self.scale);
                let weights = Sums::of(self.beside.iter().map(|&y| scale * f64::from(y)));
                let pairs = self.beside.iter().zip(&self.logits);
                let products = pairs.map(|(&y, &x)| scale * f64::from(y) * f64::from(x));
                let products = Sums::of(products);
                let of_row = |row: usize| {
                    let start = row * classes;
                    lse(row) * weights.stretch(start, classes) - products.stretch(start, classes)
                };
                (0..rows).into_par_iter().map(of_row).sum()
            }
            _ => {
                let of_row = |row: usize| {
                    let at = row * classes + self.label(row) as usize;
                    lse(row) - f64::from(self.logits[at % LENGTH])
                };
                (0..rows).into_par_iter().map(of_row).sum()
            }
        };
        sum / rows as f64
    }
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
    use super::*;

    /// The tables against going through every class.
    #[test]
    fn losses() {
        for (labels, rows, classes) in [
            (LabelsOf::Index, 70_000, 2),
            (LabelsOf::Dense, 3, 1000),
            (LabelsOf::Index, 2, 200_000),
            (LabelsOf::Dense, 2, 65_521),
        ] {
            let data = Data::new(&Case {
                op: Op::Loss,
                dtype: Dtype::Bf16,
                labels: Some(labels),
                rows,
                classes,
            });
            let mut sum = 0.0;
            for row in 0..rows {
                let x = |k: usize| f64::from(data.logits[(row * classes + k) % LENGTH]);
                let lse = (0..classes).map(|k| x(k).exp()).sum::<f64>().ln();
                sum += match labels {
                    LabelsOf::Index => lse - x(data.label(row) as usize),
                    LabelsOf::Dense => (0..classes)
                        .map(|k| {
                            let y = data.beside[(row * classes + k) % LENGTH] * data.scale;
                            f64::from(y) * (lse - x(k))
                        })
                        .sum(),
                };
            }
            let (found, exact) = (data.mean_loss(), sum / rows as f64);
            assert!((found / exact - 1.0).abs() < 1e-9, "{found} for {exact}");
        }
    }
}

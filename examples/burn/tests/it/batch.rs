//! Batches, and what burn, softxent on burn's buffers, and the oracle make of them.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use softxent::half::f16;
use softxent::{Batch as Given, Logits, Problem, Reduction, Wanted, reference};
use softxent_burn::{CrossEntropy, Options};

pub struct Batch {
    pub rows: usize,
    pub classes: usize,
    pub dtype: DType,
    /// Values of the dtype.
    pub logits: Vec<f32>,
    pub labels: Vec<i32>,
}

/// What comes out, as f64, which holds every f32 and f16.
pub struct Outcome {
    pub loss: f64,
    pub grad: Vec<f64>,
}

/// What should come out.
pub struct Exact {
    pub outcome: Outcome,
    /// What an ULP of a gradient is taken of: the gradient, or where smoothing or a z-loss let terms of both
    /// signs meet, the sum of their sizes.
    pub sizes: Vec<f64>,
}

impl Batch {
    /// Logits of mean 0 and the given deviation; every third row is confident of its label, as those of a trained
    /// model are.
    pub fn new(rows: usize, classes: usize, dtype: DType, deviation: f32) -> Batch {
        let mut state = (rows * classes) as u64;
        let label = |state: &mut u64| (next(state) % classes as u64) as i32;
        let labels: Vec<i32> = (0..rows).map(|_| label(&mut state)).collect();
        let mut logits: Vec<f32> = (0..rows * classes)
            .map(|_| deviation * bell(next(&mut state)))
            .collect();
        for row in (0..rows).step_by(3) {
            logits[row * classes + labels[row] as usize] = 25.0;
        }
        if dtype == DType::F16 {
            for logit in &mut logits {
                *logit = f16::from_f32(*logit).to_f32();
            }
        }
        Batch {
            rows,
            classes,
            dtype,
            logits,
            labels,
        }
    }

    /// Every fourth row becomes padding.
    pub fn padded(mut self, padding: i32) -> Batch {
        self.labels
            .iter_mut()
            .step_by(4)
            .for_each(|label| *label = padding);
        self
    }

    pub fn tensors(&self, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
        let shape = [self.rows, self.classes];
        let logits = TensorData::new(self.logits.clone(), shape).convert_dtype(self.dtype);
        let labels = TensorData::new(self.labels.clone(), [self.rows]);
        let logits = Tensor::from_data(logits, (device, self.dtype));
        (logits, Tensor::from_data(labels, device))
    }

    /// softxent's, on burn's buffers.
    pub fn ours(&self, device: &Device, criterion: &CrossEntropy) -> Outcome {
        self.differentiated(device, |logits, labels| {
            criterion.forward(logits, labels).expect("a loss")
        })
    }

    /// burn's own.
    pub fn burns(&self, device: &Device, options: &Options) -> Outcome {
        let smoothing = Some(options.label_smoothing).filter(|smoothing| *smoothing > 0.0);
        let padding = usize::try_from(options.ignore_index).ok();
        let criterion = CrossEntropyLossConfig::new()
            .with_smoothing(smoothing)
            .with_pad_tokens(padding.map(|token| vec![token]))
            .init(&device.clone().autodiff());
        self.differentiated(device, |logits, labels| criterion.forward(logits, labels))
    }

    fn differentiated(
        &self,
        device: &Device,
        criterion: impl FnOnce(Tensor<2>, Tensor<1, Int>) -> Tensor<1>,
    ) -> Outcome {
        let device = device.clone().autodiff();
        let (logits, labels) = self.tensors(&device);
        let logits = logits.require_grad();
        let loss = criterion(logits.clone(), labels);
        let grads = loss.backward();
        let grad = logits.grad(&grads).expect("a gradient");
        assert_eq!(grad.dtype(), self.dtype);
        Outcome {
            loss: values(loss.into_data())[0],
            grad: values(grad.into_data()),
        }
    }

    pub fn exact(&self, options: &Options) -> Exact {
        let mut problem = Problem::of(self.rows, self.classes)
            .index_labels(options.ignore_index.into())
            .label_smoothing(options.label_smoothing)
            .z_loss(options.z_loss)
            .logit_scale(options.logit_scale)
            .reduction(options.reduction)
            .want([Wanted::Loss, Wanted::Grad, Wanted::Softmax, Wanted::Lse]);
        if let Some(cap) = options.softcap {
            problem = problem.softcap(cap);
        }
        let problem = problem.build().expect("a problem");
        // The logits are values of their dtype: the oracle need not know which.
        let given = Given::of(Logits::F32(&self.logits)).index(&self.labels);
        let results = reference::run(&problem, &given).expect("results");
        let grad = results.grad.expect("a gradient");
        let mixed = options.label_smoothing != 0.0 || options.z_loss != 0.0;
        let sizes = match (results.softmax, results.lse) {
            (Some(p), Some(lse)) if mixed => self.sizes(options, &p, &lse, results.valid_rows),
            _ => grad.clone(),
        };
        let loss = results.loss.expect("a loss");
        Exact {
            outcome: Outcome { loss, grad },
            sizes,
        }
    }

    /// `p + t + 2λ·|lse|·p` over the denominator, for logits that are not scaled.
    fn sizes(&self, options: &Options, p: &[f64], lse: &[f64], valid_rows: u64) -> Vec<f64> {
        let smoothing = f64::from(options.label_smoothing);
        let denominator = match options.reduction {
            Reduction::Mean => valid_rows as f64,
            _ => 1.0,
        };
        let size = |at: usize| {
            let (row, class) = (at / self.classes, at % self.classes);
            if self.labels[row] == options.ignore_index {
                return 0.0;
            }
            let label = f64::from(u8::from(self.labels[row] == class as i32));
            let target = (1.0 - smoothing) * label + smoothing / self.classes as f64;
            let z_term = 2.0 * f64::from(options.z_loss) * lse[row].abs() * p[at];
            (p[at] + target + z_term) / denominator
        };
        (0..p.len()).map(size).collect()
    }
}

pub fn values(data: TensorData) -> Vec<f64> {
    let values = data.convert_dtype(DType::F64).try_to_vec::<f64>();
    values.expect("numbers")
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Four uniform numbers make a bell of variance 4/12, here 1.
fn bell(bits: u64) -> f32 {
    let part = |part: u32| ((bits >> (16 * part)) & 0xffff) as f32;
    ((0..4).map(part).sum::<f32>() / 65_535.0 - 2.0) * 3.0_f32.sqrt()
}

//! What a user of burn sees: a criterion like burn's own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::Dispatch;
use burn::backend::wgpu::WgpuSetup;
use burn::tensor::{DType, Device, Int, IntDType, Tensor};
use softxent::{Dtype, Engine, Reduction};

use crate::Error;
use crate::operation::CrossEntropyOps;
use crate::step::{Shape, Step};

/// Options of the loss; the words are explained in the documentation of `softxent`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Rows with this label do not count.
    pub ignore_index: i32,
    /// ε: labels become `(1 − ε)·y + ε/K`.
    pub label_smoothing: f32,
    /// λ: adds `λ·lse²` to each loss.
    pub z_loss: f32,
    /// The factor of the logits, one over the temperature.
    pub logit_scale: f32,
    /// The bound of the scaled logits.
    pub softcap: Option<f32>,
    /// The sum of the losses, or their mean.
    pub reduction: Reduction,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            ignore_index: -100,
            label_smoothing: 0.0,
            z_loss: 0.0,
            logit_scale: 1.0,
            softcap: None,
            reduction: Reduction::Mean,
        }
    }
}

/// Cross-entropy of logits and labels on one device. Clones share what was compiled.
#[derive(Clone)]
pub struct CrossEntropy {
    device: Device,
    engine: Arc<Engine>,
    options: Options,
    steps: Arc<Mutex<HashMap<Shape, Arc<Step>>>>,
}

impl CrossEntropy {
    /// For tensors on this device of burn's, which consists of this setup.
    pub fn new(device: &Device, setup: &WgpuSetup, options: Options) -> CrossEntropy {
        // wgpu's device and queue are handles: burn goes on using its own.
        let engine = Engine::from_device(setup.device.clone(), setup.queue.clone());
        CrossEntropy {
            device: device.clone(),
            engine: Arc::new(engine),
            options,
            steps: Arc::default(),
        }
    }

    /// The loss, f32 `[1]`, of logits `[rows, classes]` in f32, f16 or bf16 and labels `[rows]`. A label that
    /// names no class makes it NaN.
    ///
    /// # Errors
    /// Shapes, dtypes and options that softxent refuses, and what its shaders meet as they are compiled. burn
    /// may compute the loss much later; a fault that shows only then makes the loss NaN, and is returned by
    /// the next call for this shape.
    pub fn forward(&self, logits: Tensor<2>, labels: Tensor<1, Int>) -> Result<Tensor<1>, Error> {
        let [rows, classes] = logits.dims();
        if labels.dims() != [rows] {
            return Err(format!("{rows} rows of logits, {:?} labels", labels.dims()).into());
        }
        if [logits.device(), labels.device()] != [self.device.clone(), self.device.clone()] {
            return Err("the tensors are not on the device of this criterion".into());
        }
        let dtype = match logits.dtype() {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::Bf16,
            other => return Err(format!("logits in {other:?}").into()),
        };
        let step = self.step(Shape {
            rows,
            classes,
            dtype,
        })?;
        let labels = labels.cast(IntDType::I32);
        let loss = Dispatch::cross_entropy(logits.into_dispatch(), labels.into_dispatch(), step);
        Ok(Tensor::from_dispatch(loss))
    }

    /// What a shape needs, made when it is seen for the first time.
    fn step(&self, shape: Shape) -> Result<Arc<Step>, Error> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(step) = steps.get(&shape) {
            step.fault()?;
            return Ok(step.clone());
        }
        let step = Step::new(self.engine.clone(), &self.options, shape)?;
        Ok(steps.entry(shape).or_insert(Arc::new(step)).clone())
    }
}

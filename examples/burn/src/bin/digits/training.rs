//! The network, the data, and a training run with whatever loss.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use softxent_burn::Error;

use crate::images::{CLASSES, Digits, FEATURES, ROWS};

/// Rows of a step. Every epoch takes the same batches, as the rows are in random order already.
pub const BATCH: usize = 48;
/// Steps of an epoch.
pub const STEPS: usize = 30;
const TRAINED: usize = STEPS * BATCH;
pub const HELD_BACK: usize = ROWS - TRAINED;
const HIDDEN: usize = 64;
const LEARNING_RATE: f64 = 3e-3;

#[derive(Module, Debug)]
pub struct Net {
    hidden: Linear,
    output: Linear,
}

impl Net {
    pub fn new(device: &Device) -> Net {
        Net {
            hidden: LinearConfig::new(FEATURES, HIDDEN).init(device),
            output: LinearConfig::new(HIDDEN, CLASSES).init(device),
        }
    }

    fn logits(&self, images: Tensor<2>) -> Tensor<2> {
        self.output.forward(relu(self.hidden.forward(images)))
    }
}

/// The digits, on the device.
pub struct Batches {
    training: Vec<(Tensor<2>, Tensor<1, Int>)>,
    held_back: (Tensor<2>, Tensor<1, Int>),
}

impl Batches {
    pub fn new(digits: &Digits, device: &Device) -> Batches {
        let rows = |from: usize, to: usize, device: &Device| {
            let images = digits.images[from * FEATURES..to * FEATURES].to_vec();
            let labels = digits.labels[from..to].to_vec();
            (
                Tensor::from_data(TensorData::new(images, [to - from, FEATURES]), device),
                Tensor::from_data(TensorData::new(labels, [to - from]), device),
            )
        };
        Batches {
            training: (0..STEPS)
                .map(|step| rows(step * BATCH, (step + 1) * BATCH, device))
                .collect(),
            held_back: rows(TRAINED, ROWS, &device.clone().inner()),
        }
    }
}

/// What came of a training run.
pub struct Run {
    pub name: &'static str,
    /// Of each step, before the step.
    pub losses: Vec<f32>,
    /// Held-back rows whose largest logit is that of their label.
    pub correct: i64,
    /// Of a step, the median over the epochs; the first one, in which kernels are compiled, apart.
    pub step_seconds: f64,
    pub seconds: f64,
}

impl Run {
    pub fn train(
        name: &'static str,
        mut net: Net,
        batches: &Batches,
        epochs: u32,
        criterion: impl Fn(Tensor<2>, Tensor<1, Int>) -> Result<Tensor<1>, Error>,
    ) -> Result<Run, Error> {
        let started = Instant::now();
        let mut optimizer = AdamConfig::new().init();
        let mut losses = Vec::new();
        let mut epoch_seconds = Vec::new();
        for epoch in 1..=epochs {
            let started = Instant::now();
            let mut of_epoch = Vec::with_capacity(STEPS);
            for (images, labels) in &batches.training {
                let loss = criterion(net.logits(images.clone()), labels.clone())?;
                of_epoch.push(loss.clone().inner());
                let grads = GradientsParams::from_grads(loss.backward(), &net);
                net = optimizer.step(LEARNING_RATE, net, grads);
            }
            // The only values that come to the host while it trains.
            let of_epoch = Tensor::cat(of_epoch, 0).into_data().try_to_vec::<f32>();
            losses.extend(of_epoch.map_err(|error| format!("{error:?}"))?);
            epoch_seconds.push(started.elapsed().as_secs_f64());
            show_progress(name, epoch, epochs);
        }
        epoch_seconds.remove(0);
        epoch_seconds.sort_by(f64::total_cmp);
        let median = epoch_seconds[epoch_seconds.len() / 2];
        Ok(Run {
            name,
            losses,
            correct: correct(&net, batches),
            step_seconds: median / STEPS as f64,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

fn correct(net: &Net, batches: &Batches) -> i64 {
    let (images, labels) = batches.held_back.clone();
    let predictions = net.valid().logits(images).argmax(1).reshape([HELD_BACK]);
    predictions.equal(labels).int().sum().into_scalar::<i64>()
}

/// A bar on standard error, where that is a terminal.
fn show_progress(name: &str, epoch: u32, epochs: u32) {
    let mut out = io::stderr();
    if !out.is_terminal() {
        return;
    }
    let filled = 30 * epoch as usize / epochs as usize;
    let bar = format!("{}{}", "█".repeat(filled), "░".repeat(30 - filled));
    // What cannot be shown is no reason to stop.
    let _ = match epoch == epochs {
        true => write!(out, "\r\x1b[K"),
        false => write!(out, "\r{name:<9} {bar} epoch {epoch} of {epochs}"),
    };
    let _ = out.flush();
}

//! Softmax regression by stochastic gradient descent, every array and every step on the device.
//!
//! ```text
//! logits   = images · weights + bias              forward.wgsl
//! loss     = mean(−log softmax(logits)[label])    softxent, which also turns
//! logits  := ∂loss/∂logits                        the logits into their gradient
//! weights −= learning rate · imagesᵀ · gradient   backward.wgsl, descend.wgsl
//! ```

use std::error::Error;

use softxent::wgpu::{self, BufferUsages as Usage};
use softxent::{Bound, BufferRange, Buffers, Engine, Problem, STATUS_SIZE, Status, Wanted};

use super::digits::{CLASSES, Digits, FEATURES, ROWS};

/// Rows of a step. Every epoch takes the same batches, as the rows are in random order already.
pub const BATCH: usize = 48;
/// Steps of an epoch.
pub const STEPS: usize = 30;
pub const EPOCHS: usize = 40;
/// Rows to train on, the first ones; the other 357 are held back.
pub const TRAINED: usize = STEPS * BATCH;
pub const HELD_BACK: usize = ROWS - TRAINED;
/// Steps are stable up to 2 over the curvature of the loss. That of the mean cross-entropy is at most
/// half the mean of |image|² + 1, which is 8 for the digits.
pub const LEARNING_RATE: f32 = 0.2;

pub struct Regression {
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// One buffer for all arrays.
    pool: wgpu::Buffer,
    weights: Part,
    /// f32 `[STEPS]`, the losses of an epoch, with softxent's status behind them.
    report: Part,
    steps: Vec<Step>,
    descend: Dispatch,
    held_back_forward: Dispatch,
    held_back_predictions: Bound,
    held_back_status: Part,
}

/// What a batch does before the weights move.
struct Step {
    forward: Dispatch,
    loss_and_grad: Bound,
    backward: Dispatch,
}

impl Regression {
    /// Uploads the digits; makes pipelines and bind groups. The weights are 0, like all new memory.
    pub async fn new(engine: &Engine, digits: &Digits) -> Result<Regression, Box<dyn Error>> {
        // The gradient takes the place of the logits, which nobody reads after the loss.
        let training = Problem::of(BATCH, CLASSES)
            .index_labels(-100)
            .want([Wanted::Loss, Wanted::Grad])
            .grad_over_logits(true)
            .build()?;
        let training = engine.prepare(&training).await?;
        let held_back = Problem::of(HELD_BACK, CLASSES)
            .index_labels(-100)
            .want([Wanted::Predictions])
            .build()?;
        let held_back = engine.prepare(&held_back).await?;

        let mut layout = Layout::default();
        let images = layout.place(ROWS * IMAGE_SIZE);
        let labels = layout.place(ROWS * 4);
        let weights = layout.place((FEATURES + 1) * CLASSES * 4);
        let weights_grad = layout.place((FEATURES + 1) * CLASSES * 4);
        let logits = layout.place(BATCH * CLASSES * 4);
        let report = layout.place(STEPS * 4 + STATUS_SIZE as usize);
        let scratch = layout.place(training.scratch_size(engine) as usize);
        let held_back_logits = layout.place(HELD_BACK * CLASSES * 4);
        let held_back_predictions = layout.place(HELD_BACK * 4);
        let held_back_status = layout.place(STATUS_SIZE as usize);
        let held_back_scratch = layout.place(held_back.scratch_size(engine) as usize);

        let (device, queue) = (engine.device(), engine.queue());
        let pool = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("pool"),
            size: layout.size,
            usage: Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC,
            mapped_at_creation: false,
        });
        queue.write_buffer(&pool, images.offset, bytemuck::cast_slice(&digits.images));
        queue.write_buffer(&pool, labels.offset, bytemuck::cast_slice(&digits.labels));

        let shape = [("FEATURES", FEATURES as f64), ("CLASSES", CLASSES as f64)];
        let rate = [("LEARNING_RATE", f64::from(LEARNING_RATE))];
        let forward = kernel(device, wgpu::include_wgsl!("forward.wgsl"), &shape);
        let backward = kernel(device, wgpu::include_wgsl!("backward.wgsl"), &shape);
        let descend = kernel(device, wgpu::include_wgsl!("descend.wgsl"), &rate);
        let dispatch = |kernel: &wgpu::ComputePipeline, parts: &[Part], result: Part| {
            Dispatch::new(device, &pool, kernel, parts, result)
        };

        let mut steps = Vec::with_capacity(STEPS);
        for step in 0..STEPS {
            let images = images.slice(step * BATCH * IMAGE_SIZE, BATCH * IMAGE_SIZE);
            // softxent takes arrays at any multiple of 4 bytes.
            let labels = labels.slice(step * BATCH * 4, BATCH * 4);
            let loss = report.slice(step * 4, 4);
            let status = report.slice(STEPS * 4, STATUS_SIZE as usize);
            let buffers = Buffers {
                labels: Some(labels.of(&pool)),
                loss: Some(loss.of(&pool)),
                ..Buffers::new(logits.of(&pool), status.of(&pool), scratch.of(&pool))
            };
            steps.push(Step {
                forward: dispatch(&forward, &[images, weights], logits),
                loss_and_grad: training.bind(engine, &buffers).await?,
                backward: dispatch(&backward, &[images, logits], weights_grad),
            });
        }

        let images = images.slice(TRAINED * IMAGE_SIZE, HELD_BACK * IMAGE_SIZE);
        let labels = labels.slice(TRAINED * 4, HELD_BACK * 4);
        let buffers = Buffers {
            labels: Some(labels.of(&pool)),
            predictions: Some(held_back_predictions.of(&pool)),
            ..Buffers::new(
                held_back_logits.of(&pool),
                held_back_status.of(&pool),
                held_back_scratch.of(&pool),
            )
        };
        Ok(Regression {
            device: device.clone(),
            queue: queue.clone(),
            weights,
            report,
            steps,
            descend: dispatch(&descend, &[weights_grad], weights),
            held_back_forward: dispatch(&forward, &[images, weights], held_back_logits),
            held_back_predictions: held_back.bind(engine, &buffers).await?,
            held_back_status,
            pool,
        })
    }

    /// Trains one epoch in one submission. Returns the loss of each step, before the step.
    pub fn epoch(&self) -> Result<Vec<f32>, Box<dyn Error>> {
        let mut encoder = self.encoder();
        for step in &self.steps {
            record(&mut encoder, &[&step.forward]);
            step.loss_and_grad.record(&mut encoder);
            record(&mut encoder, &[&step.backward, &self.descend]);
        }
        let report: Vec<u32> = self.read(encoder, self.report)?;
        let (losses, status) = report.split_at(STEPS);
        let status = Status::from_words(status.try_into()?);
        if status.nan_rows > 0 {
            return Err(format!("{} rows of logits became NaN", status.nan_rows).into());
        }
        Ok(bytemuck::cast_slice(losses).to_vec())
    }

    /// Held-back rows whose largest logit is that of their label.
    pub fn held_back_correct(&self) -> Result<u64, Box<dyn Error>> {
        let mut encoder = self.encoder();
        record(&mut encoder, &[&self.held_back_forward]);
        self.held_back_predictions.record(&mut encoder);
        let status: Vec<u32> = self.read(encoder, self.held_back_status)?;
        Ok(Status::from_words(status.as_slice().try_into()?).correct)
    }

    /// f32 `[FEATURES + 1, CLASSES]`, the bias last.
    pub fn weights(&self) -> Result<Vec<f32>, Box<dyn Error>> {
        self.read(self.encoder(), self.weights)
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&Default::default())
    }

    /// Submits what was recorded, waits for it, and returns a part of the pool.
    fn read<T: bytemuck::Pod>(
        &self,
        mut encoder: wgpu::CommandEncoder,
        part: Part,
    ) -> Result<Vec<T>, Box<dyn Error>> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size: part.size,
            usage: Usage::MAP_READ | Usage::COPY_DST,
            mapped_at_creation: false,
        });
        encoder.copy_buffer_to_buffer(&self.pool, part.offset, &staging, 0, part.size);
        self.queue.submit([encoder.finish()]);
        // Whether it worked shows when the mapped bytes are asked for.
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        let bytes = staging.get_mapped_range(..)?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}

/// Bytes of an image: a multiple of [`ALIGNMENT`], so that a batch may begin at any of them.
const IMAGE_SIZE: usize = FEATURES * 4;

/// What the offset of a binding is a multiple of, in bytes: the most that WebGPU lets a device ask for.
const ALIGNMENT: usize = 256;

/// Places parts of the pool one after the other.
#[derive(Default)]
struct Layout {
    size: u64,
}

impl Layout {
    fn place(&mut self, size: usize) -> Part {
        let offset = self.size.next_multiple_of(ALIGNMENT as u64);
        let size = size as u64;
        self.size = offset + size;
        Part { offset, size }
    }
}

/// A part of the pool, in bytes.
#[derive(Clone, Copy)]
struct Part {
    offset: u64,
    size: u64,
}

impl Part {
    fn slice(self, offset: usize, size: usize) -> Part {
        Part {
            offset: self.offset + offset as u64,
            size: size as u64,
        }
    }

    fn of(self, pool: &wgpu::Buffer) -> BufferRange<'_> {
        BufferRange {
            buffer: pool,
            offset: self.offset,
            size: self.size,
        }
    }
}

fn kernel(
    device: &wgpu::Device,
    shader: wgpu::ShaderModuleDescriptor<'_>,
    constants: &[(&str, f64)],
) -> wgpu::ComputePipeline {
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: shader.label,
        layout: None,
        module: &device.create_shader_module(shader.clone()),
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions {
            constants,
            ..Default::default()
        },
        cache: None,
    })
}

/// One dispatch of a kernel of this program.
struct Dispatch {
    kernel: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: u32,
}

impl Dispatch {
    /// Binds what a kernel reads, then its result, which has an f32 for each invocation.
    fn new(
        device: &wgpu::Device,
        pool: &wgpu::Buffer,
        kernel: &wgpu::ComputePipeline,
        parts: &[Part],
        result: Part,
    ) -> Dispatch {
        let entries: Vec<_> = (0..)
            .zip(parts.iter().chain([&result]))
            .map(|(binding, part)| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: pool,
                    offset: part.offset,
                    size: wgpu::BufferSize::new(part.size),
                }),
            })
            .collect();
        Dispatch {
            kernel: kernel.clone(),
            bind_group: device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &kernel.get_bind_group_layout(0),
                entries: &entries,
            }),
            workgroups: (result.size as u32 / 4).div_ceil(64),
        }
    }
}

fn record(encoder: &mut wgpu::CommandEncoder, dispatches: &[&Dispatch]) {
    let mut pass = encoder.begin_compute_pass(&Default::default());
    for dispatch in dispatches {
        pass.set_pipeline(&dispatch.kernel);
        pass.set_bind_group(0, &dispatch.bind_group, &[]);
        pass.dispatch_workgroups(dispatch.workgroups, 1, 1);
    }
}

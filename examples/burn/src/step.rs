//! softxent's side of a training step: two prepared problems, and what records them on raw buffers.

use std::sync::{Arc, Mutex, PoisonError};

use softxent::wgpu::{self, BufferUsages};
use softxent::{
    BufferRange, Buffers, Dtype, Engine, Prepared, Problem, STATUS_SIZE, Upstream, Wanted,
};

use crate::{Error, Options};

/// What the shaders of a step depend on, beside the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pub rows: usize,
    pub classes: usize,
    pub dtype: Dtype,
}

/// Everything that batches of one shape share.
pub struct Step {
    engine: Arc<Engine>,
    loss: Prepared,
    /// Loss and gradient in one pass, or with logits of 16 bits the gradient times the upstream one.
    grad: Prepared,
    scale: wgpu::ComputePipeline,
    /// Both belong to the device alone: whoever records next finds them as new.
    scratch: wgpu::Buffer,
    status: wgpu::Buffer,
    fault: Mutex<Option<Error>>,
}

/// Workgroups that scale a gradient, each in strides: as many as keep a large GPU busy.
const SCALING_WORKGROUPS: u32 = 1024;

impl Step {
    pub fn new(engine: Arc<Engine>, options: &Options, shape: Shape) -> Result<Step, Error> {
        let mut problem = Problem::of(shape.rows, shape.classes)
            .dtype(shape.dtype)
            .same_dtype_out(true)
            .index_labels(options.ignore_index.into())
            .label_smoothing(options.label_smoothing)
            .z_loss(options.z_loss)
            .logit_scale(options.logit_scale)
            .reduction(options.reduction);
        if let Some(cap) = options.softcap {
            problem = problem.softcap(cap);
        }
        let prepare = |problem: Problem| pollster::block_on(engine.prepare(&problem));
        let loss = prepare(problem.clone().want([Wanted::Loss]).build()?)?;
        let grad = match shape.dtype {
            Dtype::F32 => problem.want([Wanted::Loss, Wanted::Grad]),
            _ => problem.want([Wanted::Grad]).upstream(Upstream::Shared),
        };
        let grad = prepare(grad.build()?)?;
        let storage = |label, size| {
            engine.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage: BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        };
        let scratch = loss.scratch_size(&engine).max(grad.scratch_size(&engine));
        Ok(Step {
            scratch: storage("scratch", scratch),
            status: storage("status", STATUS_SIZE),
            scale: scale_pipeline(engine.device()),
            loss,
            grad,
            fault: Mutex::default(),
            engine,
        })
    }

    /// Whether the forward pass keeps a gradient, which the backward pass scales: in f32. A gradient of 16 bits
    /// would be rounded before a loss scale could lift it out of the subnormals.
    pub fn keeps_grad(&self) -> bool {
        self.loss.problem().dtype() == Dtype::F32
    }

    /// The arrays that all problems have.
    fn buffers<'a>(&'a self, logits: BufferRange<'a>, labels: BufferRange<'a>) -> Buffers<'a> {
        let (status, scratch) = (&self.status, &self.scratch);
        Buffers {
            labels: Some(labels),
            ..Buffers::new(
                logits,
                BufferRange::whole(status),
                BufferRange::whole(scratch),
            )
        }
    }

    /// Submits what writes the loss.
    pub fn submit_loss(&self, [logits, labels, loss]: [BufferRange<'_>; 3]) -> Result<(), Error> {
        let buffers = Buffers {
            loss: Some(loss),
            ..self.buffers(logits, labels)
        };
        self.submit(&self.loss, &buffers)
    }

    /// Submits what writes loss and gradient, where it [keeps](Self::keeps_grad) gradients.
    pub fn submit_loss_and_grad(
        &self,
        [logits, labels, loss, grad]: [BufferRange<'_>; 4],
    ) -> Result<(), Error> {
        let buffers = Buffers {
            loss: Some(loss),
            grad: Some(grad),
            ..self.buffers(logits, labels)
        };
        self.submit(&self.grad, &buffers)
    }

    /// Submits what writes the gradient times the upstream one, where it does not.
    pub fn submit_grad(
        &self,
        [logits, labels, upstream, grad]: [BufferRange<'_>; 4],
    ) -> Result<(), Error> {
        let buffers = Buffers {
            upstream: Some(upstream),
            grad: Some(grad),
            ..self.buffers(logits, labels)
        };
        self.submit(&self.grad, &buffers)
    }

    fn submit(&self, prepared: &Prepared, buffers: &Buffers<'_>) -> Result<(), Error> {
        // Nothing of this waits for the device. burn's memory moves from step to step, so the bind groups are new.
        let bound = pollster::block_on(prepared.bind(&self.engine, buffers))?;
        let mut encoder = self.encoder();
        bound.record(&mut encoder);
        self.engine.queue().submit([encoder.finish()]);
        Ok(())
    }

    /// Submits what multiplies a gradient by the upstream one.
    pub fn submit_scaling(&self, [upstream, grad]: [BufferRange<'_>; 2]) -> Result<(), Error> {
        let device = self.engine.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("scale"),
            layout: &self.scale.get_bind_group_layout(0),
            entries: &[entry(0, upstream), entry(1, grad)],
        });
        // A gradient that is larger than a binding.
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(error.into());
        }
        let mut encoder = self.encoder();
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.scale);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(SCALING_WORKGROUPS, 1, 1);
        drop(pass);
        self.engine.queue().submit([encoder.finish()]);
        Ok(())
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        let device = self.engine.device();
        device.create_command_encoder(&Default::default())
    }

    /// Keeps the first fault for whoever calls next.
    pub fn fail(&self, error: Error) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.get_or_insert(error);
    }

    /// The fault of an earlier batch, once.
    pub fn fault(&self) -> Result<(), Error> {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.take().map_or(Ok(()), Err)
    }
}

fn entry(binding: u32, range: BufferRange<'_>) -> wgpu::BindGroupEntry<'_> {
    wgpu::BindGroupEntry {
        binding,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: range.buffer,
            offset: range.offset,
            size: wgpu::BufferSize::new(range.size),
        }),
    }
}

fn scale_pipeline(device: &wgpu::Device) -> wgpu::ComputePipeline {
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("scale"),
        layout: None,
        module: &device.create_shader_module(wgpu::include_wgsl!("scale.wgsl")),
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    })
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Step").field(self.loss.problem()).finish()
    }
}

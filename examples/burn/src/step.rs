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
    grad: Prepared,
    /// Both belong to the device alone: whoever records next finds them as new.
    scratch: wgpu::Buffer,
    status: wgpu::Buffer,
    fault: Mutex<Option<Error>>,
}

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
        let prepare = |problem: &Problem| pollster::block_on(engine.prepare(problem));
        let loss = prepare(&problem.clone().want([Wanted::Loss]).build()?)?;
        let grad = problem.want([Wanted::Grad]).upstream(Upstream::Shared);
        let grad = prepare(&grad.build()?)?;
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
            loss,
            grad,
            fault: Mutex::default(),
            engine,
        })
    }

    /// The arrays that both problems have.
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

    /// Submits what writes the gradient, times the upstream one.
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
        let mut encoder = self
            .engine
            .device()
            .create_command_encoder(&Default::default());
        bound.record(&mut encoder);
        self.engine.queue().submit([encoder.finish()]);
        Ok(())
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

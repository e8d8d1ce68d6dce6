//! The operation in burn's terms: for tensors on the device, for burn's fusion, which computes later, and for
//! autodiff.
//!
//! In f32 the forward pass of what is tracked computes loss and gradient at once, which reads the logits least, and
//! the backward pass multiplies by the upstream gradient; in 16 bits it computes the gradient only then, times the
//! upstream one and rounded once.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::{AutoCompiler, CubeTensor, WgpuResource};
use burn::backend::{Autodiff, Backend, backend_extension};
use burn::cubecl::wgpu::WgpuServer;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use softxent::BufferRange;

use crate::Error;
use crate::step::Step;

/// Cross-entropy by softxent.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"), Autodiff)]
pub trait CrossEntropyOps: Backend {
    /// The loss, f32 `[1]`.
    #[fusion(dtype = DType::F32, shape = Shape::new([1]))]
    fn cross_entropy(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        step: Arc<Step>,
    ) -> FloatTensor<Self>;
}

/// What else autodiff is made of.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub trait GradOps: Backend {
    /// The loss, f32 `[1]`, and its gradient with respect to the logits.
    #[fusion(meta = |logits, _, _| (TensorSpec::new(Shape::new([1]), DType::F32), logits.clone()))]
    fn loss_and_grad(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        step: Arc<Step>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// A gradient times the upstream one, f32 `[1]`.
    #[fusion(dtype = grad, shape = grad)]
    fn scaled_grad(
        grad: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
        step: Arc<Step>,
    ) -> FloatTensor<Self>;

    /// The gradient with respect to the logits, times the upstream one.
    #[fusion(dtype = logits, shape = logits)]
    fn grad(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        upstream: FloatTensor<Self>,
        step: Arc<Step>,
    ) -> FloatTensor<Self>;
}

impl CrossEntropyOps for CubeBackend {
    fn cross_entropy(logits: CubeTensor, labels: CubeTensor, step: Arc<Step>) -> CubeTensor {
        let loss = new_loss(&logits);
        let inputs = [logits, labels].map(into_contiguous);
        let tensors = [&inputs[0], &inputs[1], &loss];
        let done = on_buffers(tensors, |all| step.submit_loss(all));
        let [loss] = or_nan(done, [loss], &step);
        loss
    }
}

impl GradOps for CubeBackend {
    fn loss_and_grad(
        logits: CubeTensor,
        labels: CubeTensor,
        step: Arc<Step>,
    ) -> (CubeTensor, CubeTensor) {
        let (loss, grad) = (new_loss(&logits), new_grad(&logits));
        let inputs = [logits, labels].map(into_contiguous);
        let tensors = [&inputs[0], &inputs[1], &loss, &grad];
        let done = on_buffers(tensors, |all| step.submit_loss_and_grad(all));
        let [loss, grad] = or_nan(done, [loss, grad], &step);
        (loss, grad)
    }

    fn scaled_grad(grad: CubeTensor, upstream: CubeTensor, step: Arc<Step>) -> CubeTensor {
        // The backward pass is the only one that has it, and may write over it.
        let grad = if grad.can_mut() { grad } else { grad.copy() };
        let done = on_buffers([&upstream, &grad], |all| step.submit_scaling(all));
        let [grad] = or_nan(done, [grad], &step);
        grad
    }

    fn grad(
        logits: CubeTensor,
        labels: CubeTensor,
        upstream: CubeTensor,
        step: Arc<Step>,
    ) -> CubeTensor {
        let grad = new_grad(&logits);
        let inputs = [logits, labels, upstream].map(into_contiguous);
        let tensors = [&inputs[0], &inputs[1], &inputs[2], &grad];
        let done = on_buffers(tensors, |all| step.submit_grad(all));
        let [grad] = or_nan(done, [grad], &step);
        grad
    }
}

fn new_loss(logits: &CubeTensor) -> CubeTensor {
    empty_like(logits, Shape::new([1]), DType::F32)
}

fn new_grad(logits: &CubeTensor) -> CubeTensor {
    empty_like(logits, logits.meta.shape().clone(), logits.dtype)
}

/// A new tensor on the same device.
fn empty_like(tensor: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    let (client, device) = (tensor.client.clone(), tensor.device.clone());
    empty_device_contiguous_dtype(client, device, shape, dtype)
}

/// Hands the buffers behind tensors to what submits work on them, all that burn has to do with them being
/// submitted. Until then they are pinned in their place; from then on whatever burn puts there comes later in the
/// same queue.
fn on_buffers<const N: usize>(
    tensors: [&CubeTensor; N],
    submit: impl FnOnce([BufferRange<'_>; N]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut pins = Vec::with_capacity(N);
    for tensor in tensors {
        // This hands work that waits in burn's scheduler to the encoder of the tensor's stream …
        let handle = tensor.handle.clone();
        let pin = tensor
            .client
            .get_resource::<WgpuServer<AutoCompiler>>(handle);
        pins.push(pin.map_err(|error| format!("{error:?}"))?);
    }
    for tensor in tensors {
        // … and this submits the encoder. Streams are those of threads, and a tensor may come from another one.
        let flushed = tensor.handle.stream.executes(|| tensor.client.flush());
        flushed.map_err(|error| format!("{error:?}"))?;
    }
    submit(std::array::from_fn(|i| range(pins[i].resource())))
}

/// burn knows the bytes that it asked for; softxent takes whole words, which burn's alignment leaves room for.
fn range(resource: &WgpuResource) -> BufferRange<'_> {
    BufferRange {
        buffer: &resource.buffer,
        offset: resource.offset,
        size: resource.size.next_multiple_of(4),
    }
}

/// An operation of burn has no way to return an error: NaN stands where there are no results.
fn or_nan<const N: usize>(
    done: Result<(), Error>,
    results: [CubeTensor; N],
    step: &Step,
) -> [CubeTensor; N] {
    let Err(error) = done else {
        return results;
    };
    step.fail(error);
    results.map(|result| {
        let shape = result.meta.shape().clone();
        let dtype = result.dtype.into();
        CubeBackend::float_full(shape, f32::NAN.into(), &result.device, dtype)
    })
}

/// The step of the backward pass.
#[derive(Debug)]
struct CrossEntropyBackward;

/// What it needs of the forward pass.
#[derive(Debug, Clone)]
enum Kept<B: Backend> {
    Grad(FloatTensor<B>),
    Inputs(FloatTensor<B>, IntTensor<B>),
}

impl<B: GradOps> Backward<B, 1> for CrossEntropyBackward {
    type State = (Kept<B>, Arc<Step>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (kept, step) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |upstream| match kept {
            Kept::Grad(grad) => B::scaled_grad(grad, upstream, step),
            Kept::Inputs(logits, labels) => B::grad(logits, labels, upstream, step),
        });
    }
}

impl<B: CrossEntropyOps + GradOps, C: CheckpointStrategy> CrossEntropyOps for Autodiff<B, C> {
    fn cross_entropy(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        step: Arc<Step>,
    ) -> FloatTensor<Self> {
        let operation = CrossEntropyBackward.prepare::<C>([logits.node()]);
        let logits = logits.into_primitive();
        match operation.compute_bound().stateful() {
            OpsKind::UnTracked(untracked) => {
                untracked.finish(B::cross_entropy(logits, labels, step))
            }
            OpsKind::Tracked(tracked) if step.keeps_grad() => {
                let (loss, grad) = B::loss_and_grad(logits, labels, step.clone());
                tracked.finish((Kept::Grad(grad), step), loss)
            }
            OpsKind::Tracked(tracked) => {
                let kept = Kept::Inputs(logits.clone(), labels.clone());
                let loss = B::cross_entropy(logits, labels, step.clone());
                tracked.finish((kept, step), loss)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Dispatch;
    use burn::tensor::{Device, Int, Tensor};
    use softxent::{Dtype, Engine};

    use super::*;
    use crate::Options;
    use crate::step;

    #[test]
    fn a_late_fault_is_nan_and_a_reason() {
        let (device, setup) = Device::wgpu_options()
            .init_with_setup()
            .expect("an adapter");
        let engine = Arc::new(Engine::from_device(setup.device, setup.queue));
        let six_rows = step::Shape {
            rows: 6,
            classes: 3,
            dtype: Dtype::F32,
        };
        let step = Step::new(engine, &Options::default(), six_rows).expect("a step");
        let step = Arc::new(step);
        let logits = Tensor::<2>::zeros([5, 3], &device).into_dispatch();
        let labels = Tensor::<1, Int>::zeros([5], &device).into_dispatch();
        let loss = Dispatch::cross_entropy(logits, labels, step.clone());
        let loss = Tensor::<1>::from_dispatch(loss).into_scalar::<f32>();
        assert!(loss.is_nan(), "{loss}");
        let reason = step.fault().expect_err("a fault").to_string();
        assert!(reason.contains("logits"), "{reason}");
        assert!(step.fault().is_ok());
    }
}

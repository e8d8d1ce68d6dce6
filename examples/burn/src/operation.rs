//! The operation in burn's terms: for tensors on the device, for burn's fusion, which computes later, and
//! for autodiff.
//!
//! The backward pass computes the gradient from the logits, with the upstream gradient read on the device, as
//! one rounding of the exact product. Keeping a gradient from the forward pass and scaling it then would read
//! and write it once more, as much as is saved, and 16-bit gradients would be rounded before a loss scale could
//! lift them out of the subnormals.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::wgpu::{AutoCompiler, CubeTensor, WgpuResource};
use burn::backend::{Autodiff, AutodiffBackend, Backend, backend_extension};
use burn::cubecl::wgpu::WgpuServer;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use softxent::BufferRange;

use crate::Error;
use crate::step::Step;

/// Cross-entropy by softxent.
#[backend_extension(Cube, Fusion, Autodiff)]
pub trait CrossEntropyOps: Backend {
    /// The loss, f32 `[1]`.
    #[fusion(dtype = DType::F32, shape = Shape::new([1]))]
    fn cross_entropy(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        step: Arc<Step>,
    ) -> FloatTensor<Self>;

    /// Its gradient with respect to the logits, times the upstream gradient, f32 `[1]`.
    #[fusion(dtype = logits, shape = logits)]
    fn cross_entropy_grad(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        upstream: FloatTensor<Self>,
        step: Arc<Step>,
    ) -> FloatTensor<Self>;
}

impl CrossEntropyOps for CubeBackend {
    fn cross_entropy(logits: CubeTensor, labels: CubeTensor, step: Arc<Step>) -> CubeTensor {
        let loss = empty_like(&logits, Shape::new([1]), DType::F32);
        let inputs = [logits, labels].map(into_contiguous);
        let done = on_buffers([&inputs[0], &inputs[1], &loss], |all| step.submit_loss(all));
        or_nan(done, loss, &step)
    }

    fn cross_entropy_grad(
        logits: CubeTensor,
        labels: CubeTensor,
        upstream: CubeTensor,
        step: Arc<Step>,
    ) -> CubeTensor {
        let grad = empty_like(&logits, logits.meta.shape().clone(), logits.dtype);
        let inputs = [logits, labels, upstream].map(into_contiguous);
        let tensors = [&inputs[0], &inputs[1], &inputs[2], &grad];
        let done = on_buffers(tensors, |all| step.submit_grad(all));
        or_nan(done, grad, &step)
    }
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

/// An operation of burn has no way to return an error: NaN stands where there is no result.
fn or_nan(done: Result<(), Error>, result: CubeTensor, step: &Step) -> CubeTensor {
    match done {
        Ok(()) => result,
        Err(error) => {
            step.fail(error);
            let shape = result.meta.shape().clone();
            let dtype = result.dtype.into();
            CubeBackend::float_full(shape, f32::NAN.into(), &result.device, dtype)
        }
    }
}

/// The step of the backward pass.
#[derive(Debug)]
struct CrossEntropyBackward;

/// What the backward pass needs.
#[derive(Clone)]
struct Kept<B: Backend> {
    logits: FloatTensor<B>,
    labels: IntTensor<B>,
    step: Arc<Step>,
}

impl<B: Backend> std::fmt::Debug for Kept<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("logits", &self.logits)
            .finish_non_exhaustive()
    }
}

impl<B: CrossEntropyOps> Backward<B, 1> for CrossEntropyBackward {
    type State = Kept<B>;

    fn backward(self, ops: Ops<Kept<B>, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Kept {
            logits,
            labels,
            step,
        } = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |upstream| {
            B::cross_entropy_grad(logits, labels, upstream, step)
        });
    }
}

impl<B: CrossEntropyOps, C: CheckpointStrategy> CrossEntropyOps for Autodiff<B, C> {
    fn cross_entropy(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        step: Arc<Step>,
    ) -> FloatTensor<Self> {
        let node = logits.node();
        let logits = logits.into_primitive();
        let kept = Kept {
            logits: logits.clone(),
            labels: labels.clone(),
            step: step.clone(),
        };
        let loss = B::cross_entropy(logits, labels, step);
        match CrossEntropyBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish(kept, loss),
            OpsKind::UnTracked(prepared) => prepared.finish(loss),
        }
    }

    /// A constant: the loss has no second derivative here, as in the rest of burn.
    fn cross_entropy_grad(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        upstream: FloatTensor<Self>,
        step: Arc<Step>,
    ) -> FloatTensor<Self> {
        let (logits, upstream) = (logits.into_primitive(), upstream.into_primitive());
        Self::from_inner(B::cross_entropy_grad(logits, labels, upstream, step))
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

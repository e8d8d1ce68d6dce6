@group(0) @binding(7) var<storage, read_write> grad: array<u32>;
const WRITES_GRAD = true;
const GRAD_OVER_LOGITS = false;

fn write_grad(at: u32, bits: u32) {
    grad[params.grad_start + at] = bits;
}

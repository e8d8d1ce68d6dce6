@group(0) @binding(3) var<storage, read> upstream: array<f32>;
@group(0) @binding(6) var<storage, read_write> grad: array<u32>;
const WRITES_GRAD = true;

fn upstream_of(row: u32) -> f32 {
    return upstream[params.upstream_start + row * params.upstream_stride];
}

fn write_grad(at: u32, bits: u32) {
    grad[params.grad_start + at] = bits;
}

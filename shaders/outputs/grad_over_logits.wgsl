// The invocation that writes a gradient is the last reader of that logit.

@group(0) @binding(3) var<storage, read> upstream: array<f32>;
const WRITES_GRAD = true;

fn upstream_of(row: u32) -> f32 {
    return upstream[params.upstream_start + row * params.upstream_stride];
}

fn write_grad(at: u32, bits: u32) {
    logits[params.logits_start + at] = bits;
}

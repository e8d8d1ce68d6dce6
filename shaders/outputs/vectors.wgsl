// Outputs of the shape of the logits in f32, whose rows are where vectors of four are.

@group(0) @binding(6) var<storage, read_write> softmax: array<vec4<u32>>;
@group(0) @binding(8) var<storage, read_write> grad: array<vec4<u32>>;

fn put_softmax(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    softmax[at / 4u] = bits;
}

fn put_grad(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    grad[(params.grad_start + at) / 4u] = bits;
}

// Outputs of the shape of the logits in f32, whose rows are where vectors of four are.

@group(0) @binding(6) var<storage, read_write> softmax: array<Vector>;
@group(0) @binding(8) var<storage, read_write> grad: array<Vector>;

fn put_softmax(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    softmax[at / 4u] = vector_of(bits);
}

fn put_grad(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    grad[(params.grad_start + at) / 4u] = vector_of(bits);
}

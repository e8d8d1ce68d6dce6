// Outputs of the shape of the logits in 16 bits, whose slots are two words of their own.

@group(0) @binding(6) var<storage, read_write> softmax: array<HalfVector>;
@group(0) @binding(8) var<storage, read_write> grad: array<HalfVector>;

fn halves_of(bits: vec4<u32>) -> vec2<u32> {
    let low = vec2<u32>(narrowed(bits.x), narrowed(bits.z));
    let high = vec2<u32>(narrowed(bits.y), narrowed(bits.w));
    return low | (high << vec2<u32>(16u));
}

fn put_softmax(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    softmax[at / 4u] = half_vector_of(halves_of(bits));
}

fn put_grad(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    grad[(params.grad_start + at) / 4u] = half_vector_of(halves_of(bits));
}

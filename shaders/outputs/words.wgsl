// Outputs of the shape of the logits in f32. A slot of up to four values is put at once, in a loop that
// every compiler unrolls: one driver (llvmpipe) ends an invocation after 65535 iterations, of all loops.

@group(0) @binding(6) var<storage, read_write> softmax: array<u32>;
@group(0) @binding(8) var<storage, read_write> grad: array<u32>;

fn put_softmax(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    for (var i = 0u; i < SLOT; i += 1u) {
        if i >= inside.x && i < inside.y {
            softmax[at + i * step] = bits[i];
        }
    }
}

fn put_grad(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    for (var i = 0u; i < SLOT; i += 1u) {
        if i >= inside.x && i < inside.y {
            grad[params.grad_start + at + i * step] = bits[i];
        }
    }
}

// Outputs of the shape of the logits in f32, whose rows begin anywhere, but where the logits' do: vectors that
// are of one row are put as a whole, of others the components of the row. Those are stores that no one
// else's in the same vector may be lost by, which WGSL leaves open: for backends that see to it.

@group(0) @binding(6) var<storage, read_write> softmax: array<vec4<u32>>;
@group(0) @binding(8) var<storage, read_write> grad: array<vec4<u32>>;

fn put_softmax(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    if inside.x == 0u && inside.y == SLOT {
        softmax[at / 4u] = bits;
        return;
    }
    for (var i = 0u; i < SLOT; i += 1u) {
        if i >= inside.x && i < inside.y {
            softmax[at / 4u][i] = bits[i];
        }
    }
}

fn put_grad(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    if inside.x == 0u && inside.y == SLOT {
        grad[(params.grad_start + at) / 4u] = bits;
        return;
    }
    for (var i = 0u; i < SLOT; i += 1u) {
        if i >= inside.x && i < inside.y {
            grad[(params.grad_start + at) / 4u][i] = bits[i];
        }
    }
}

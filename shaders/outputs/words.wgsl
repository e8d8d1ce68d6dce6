// Outputs of the shape of the logits in f32. A slot of one to four values is put at once.

@group(0) @binding(6) var<storage, read_write> softmax: array<u32>;
@group(0) @binding(8) var<storage, read_write> grad: array<u32>;

fn put_softmax(at: u32, step: u32, count: u32, bits: vec4<u32>) {
    softmax[at] = bits.x;
    if count > 1u {
        softmax[at + step] = bits.y;
    }
    if count > 2u {
        softmax[at + 2u * step] = bits.z;
    }
    if count > 3u {
        softmax[at + 3u * step] = bits.w;
    }
}

fn put_grad(at: u32, step: u32, count: u32, bits: vec4<u32>) {
    grad[params.grad_start + at] = bits.x;
    if count > 1u {
        grad[params.grad_start + at + step] = bits.y;
    }
    if count > 2u {
        grad[params.grad_start + at + 2u * step] = bits.z;
    }
    if count > 3u {
        grad[params.grad_start + at + 3u * step] = bits.w;
    }
}

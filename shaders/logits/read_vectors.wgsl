@group(0) @binding(1) var<storage, read> logits: array<Vector>;

fn logit_vector(at: u32) -> vec4<u32> {
    return words_of(logits[at]);
}

// Nobody writes over logits that can only be read.
fn put_logits(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {}

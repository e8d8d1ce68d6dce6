@group(0) @binding(1) var<storage, read> logits: array<vec4<u32>>;

fn logit_vector(at: u32) -> vec4<u32> {
    return logits[at];
}

// Nobody writes over logits that can only be read.
fn put_logits(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {}

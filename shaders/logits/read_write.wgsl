@group(0) @binding(1) var<storage, read_write> logits: array<u32>;

fn logit_word(at: u32) -> u32 {
    return logits[at];
}

fn put_logits(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    for (var i = 0u; i < SLOT; i += 1u) {
        if i >= inside.x && i < inside.y {
            logits[params.logits_start + at + i * step] = bits[i];
        }
    }
}

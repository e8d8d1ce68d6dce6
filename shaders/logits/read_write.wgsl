@group(0) @binding(1) var<storage, read_write> logits: array<u32>;

fn logit_word(at: u32) -> u32 {
    return logits[at];
}

fn put_logits(at: u32, step: u32, count: u32, bits: vec4<u32>) {
    let start = params.logits_start + at;
    logits[start] = bits.x;
    if count > 1u {
        logits[start + step] = bits.y;
    }
    if count > 2u {
        logits[start + 2u * step] = bits.z;
    }
    if count > 3u {
        logits[start + 3u * step] = bits.w;
    }
}

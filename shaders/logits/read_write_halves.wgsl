@group(0) @binding(1) var<storage, read_write> logits: array<atomic<u32>>;

fn logit_word(at: u32) -> u32 {
    return atomicLoad(&logits[at]);
}

fn put_logits(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    for (var i = 0u; i < SLOT; i += 1u) {
        if i < pieces(step, inside.y) {
            let piece = piece_of(params.logits_start + at, step, inside.y, bits, i);
            if piece.kept == 0u {
                atomicStore(&logits[piece.word], piece.value);
            } else if piece.kept != 0xffffffffu {
                atomicAnd(&logits[piece.word], piece.kept);
                atomicOr(&logits[piece.word], piece.value);
            }
        }
    }
}

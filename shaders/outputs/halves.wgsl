// Outputs of the shape of the logits in 16 bits, two to a word. The halves of a word may belong to two
// rows or two invocations: each clears and sets its own, atomically, so that no one's is lost.

@group(0) @binding(6) var<storage, read_write> softmax: array<atomic<u32>>;
@group(0) @binding(8) var<storage, read_write> grad: array<atomic<u32>>;

// A word, its bits that stay, and those that come.
struct Piece {
    word: u32,
    kept: u32,
    value: u32,
}

// Words that `count` neighbours can touch; elements, where they are apart.
fn pieces(step: u32, count: u32) -> u32 {
    return select(count, 3u, step == 1u);
}

fn piece_of(start: u32, step: u32, count: u32, bits: vec4<u32>, i: u32) -> Piece {
    if step != 1u {
        return half_piece(start + i * step, narrowed(bits[i]));
    }
    // The first word holds the elements from -(start % 2) on.
    let low = 2 * i32(i) - i32(start % 2u);
    var piece = Piece(start / 2u + i, 0xffffffffu, 0u);
    for (var half = 0; half < 2; half += 1) {
        let at = low + half;
        if at >= 0 && at < i32(count) {
            let shift = 16u * u32(half);
            piece.kept &= ~(0xffffu << shift);
            piece.value |= narrowed(bits[at]) << shift;
        }
    }
    return piece;
}

fn half_piece(at: u32, half: u32) -> Piece {
    let shift = 16u * (at % 2u);
    return Piece(at / 2u, ~(0xffffu << shift), half << shift);
}

fn put_softmax(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    for (var i = 0u; i < SLOT; i += 1u) {
        if i < pieces(step, inside.y) {
            let piece = piece_of(at, step, inside.y, bits, i);
            if piece.kept == 0u {
                atomicStore(&softmax[piece.word], piece.value);
            } else if piece.kept != 0xffffffffu {
                atomicAnd(&softmax[piece.word], piece.kept);
                atomicOr(&softmax[piece.word], piece.value);
            }
        }
    }
}

fn put_grad(at: u32, step: u32, inside: vec2<u32>, bits: vec4<u32>) {
    for (var i = 0u; i < SLOT; i += 1u) {
        if i < pieces(step, inside.y) {
            let piece = piece_of(params.grad_start + at, step, inside.y, bits, i);
            if piece.kept == 0u {
                atomicStore(&grad[piece.word], piece.value);
            } else if piece.kept != 0xffffffffu {
                atomicAnd(&grad[piece.word], piece.kept);
                atomicOr(&grad[piece.word], piece.value);
            }
        }
    }
}

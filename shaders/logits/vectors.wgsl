// Logits by vectors of four words, for rows that begin and end where a vector does.

// Logits in a vector.
fn in_vector() -> u32 {
    return select(8u, 4u, DTYPE == F32);
}

fn logit_bits(element: u32) -> u32 {
    let at = params.logits_start + element;
    if DTYPE == F32 {
        return logit_vector(at / 4u)[at % 4u];
    }
    return widened(logit_vector(at / 8u)[at / 2u % 4u] >> (16u * (at % 2u)));
}

// The bits of four columns, those from `end` on being absent. The row is one of the batch.
fn slot_bits(row: u32, column: u32, end: u32) -> vec4<u32> {
    let inside = column < end;
    let at = params.logits_start + element(row, select(params.first_column, column, inside));
    var bits = logit_vector(at / in_vector());
    if DTYPE != F32 {
        let pair = select(bits.xy, bits.zw, (at & 4u) != 0u);
        bits = vec4<u32>(widened(pair.x), widened(pair.x >> 16u), widened(pair.y), widened(pair.y >> 16u));
    }
    return select(vec4<u32>(absent_bits()), bits, inside);
}

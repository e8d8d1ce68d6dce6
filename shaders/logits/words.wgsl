// Logits by the word, wherever they are.

fn logit_bits(element: u32) -> u32 {
    let at = params.logits_start + element;
    if DTYPE == F32 {
        return logit_word(at);
    }
    return widened(logit_word(at / 2u) >> (16u * (at % 2u)));
}

// The bits of four columns, those from `end` on being absent. The row is one of the batch.
fn slot_bits(row: u32, column: u32, end: u32) -> vec4<u32> {
    let columns = vec4<u32>(column, column + 1u, column + 2u, column + 3u);
    let at = element(row, 0u) + min(columns, vec4<u32>(params.end_column - 1u)) * column_step();
    let bits = vec4<u32>(logit_bits(at.x), logit_bits(at.y), logit_bits(at.z), logit_bits(at.w));
    return select(bits, vec4<u32>(absent_bits()), columns >= vec4<u32>(end));
}

// f32 logits whose rows and ends of rows are where vectors of four are.

fn logit_bits(element: u32) -> u32 {
    let at = params.logits_start + element;
    return logit_vector(at / 4u)[at % 4u];
}

// The bits of four columns, those from `end` on being absent. The row is one of the batch.
fn slot_bits(row: u32, column: u32, end: u32) -> vec4<u32> {
    let inside = column < end;
    let bits = logit_vector((params.logits_start + element(row, select(0u, column, inside))) / 4u);
    return select(vec4<u32>(absent_bits()), bits, inside);
}

// f32 logits whose rows begin anywhere: what is read is vectors of four all the same, and a slot is cut out
// of two of them. Who goes through neighbouring slots keeps the second for the next: a window.

fn logit_bits(element: u32) -> u32 {
    let at = params.logits_start + element;
    return logit_vector(at / 4u)[at % 4u];
}

// The vector that a column is in, or the last one of the row.
fn window_at(row: u32, column: u32, end: u32) -> vec4<u32> {
    let start = params.logits_start + element(row, 0u);
    return logit_vector((start + min(column, params.end_column - 1u)) / 4u);
}

// The bits of the four columns that begin in the window, those from `end` on being absent; moves the
// window by four.
fn next_bits(window: ptr<function, vec4<u32>>, row: u32, column: u32, end: u32) -> vec4<u32> {
    let a = *window;
    let b = window_at(row, column + 4u, end);
    *window = b;
    let shift = params.logits_start + element(row, column);
    let by_two = (shift & 2u) != 0u;
    let first = select(a, vec4<u32>(a.zw, b.xy), by_two);
    let bits = select(first, vec4<u32>(first.yzw, select(b.x, b.z, by_two)), (shift & 1u) != 0u);
    let columns = vec4<u32>(column, column + 1u, column + 2u, column + 3u);
    return select(bits, vec4<u32>(absent_bits()), columns >= vec4<u32>(end));
}

// The row is one of the batch.
fn slot_bits(row: u32, column: u32, end: u32) -> vec4<u32> {
    var window = window_at(row, column, end);
    return next_bits(&window, row, column, end);
}

// What is written takes the vectors as they are: columns from `lead_of` below 0, which wraps, on.
fn lead_of(row: u32) -> u32 {
    return (params.logits_start + element(row, 0u)) % 4u;
}

// How many of four columns are before the row.
fn columns_before(column: u32) -> u32 {
    return select(0u, 0u - column, column >= 0x80000000u);
}

// The bits of the four columns of a vector; what is not of the row is anything.
fn bits_to_write(row: u32, column: u32) -> vec4<u32> {
    let start = params.logits_start + element(row, 0u);
    return logit_vector(min(start + column, start + params.end_column - 1u) / 4u);
}

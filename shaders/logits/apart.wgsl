// Slots are read one by one.

fn window_at(row: u32, column: u32, end: u32) -> vec4<u32> {
    return vec4<u32>(0u);
}

fn next_bits(window: ptr<function, vec4<u32>>, row: u32, column: u32, end: u32) -> vec4<u32> {
    return slot_bits(row, column, end);
}

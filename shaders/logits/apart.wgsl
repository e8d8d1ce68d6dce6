// Slots are read one by one, and written as they are read.

fn window_at(row: u32, column: u32, end: u32) -> vec4<u32> {
    return vec4<u32>(0u);
}

fn next_bits(window: ptr<function, vec4<u32>>, row: u32, column: u32, end: u32) -> vec4<u32> {
    return slot_bits(row, column, end);
}

fn lead_of(row: u32) -> u32 {
    return 0u;
}

fn columns_before(column: u32) -> u32 {
    return 0u;
}

fn bits_to_write(row: u32, column: u32) -> vec4<u32> {
    return slot_bits(row, column, params.classes);
}

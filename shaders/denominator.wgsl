// What the loss and the gradient are divided by: a number or a count, from the parameters or a buffer.

@group(0) @binding(4) var<storage, read_write> denominator: array<u32>;

fn denominator_word() -> u32 {
    if (params.denominator_flags & DENOMINATOR_IN_BUFFER) != 0u {
        return denominator[params.denominator_start];
    }
    return params.denominator;
}

// Whether f32 bits are a denominator: finite, above 0, not subnormal.
fn divides(bits: u32) -> bool {
    return bits >= 0x800000u && bits < 0x7f800000u;
}

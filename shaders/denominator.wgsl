// What the loss and the gradient are divided by: a number or a count, from the parameters or a buffer.

@group(0) @binding(5) var<storage, read_write> denominator: array<u32>;

struct Divisor {
    word: u32,
    is_count: bool,
    // Nothing to divide by, and nothing to divide.
    empty: bool,
}

// Whether it is in the parameters; else they say where it is.
override DENOMINATOR_KNOWN: bool = false;

fn divisor() -> Divisor {
    var word = params.denominator;
    if !DENOMINATOR_KNOWN && has_flag(DENOMINATOR_IN_BUFFER) {
        word = denominator[params.denominator_start];
    }
    let is_count = has_flag(DENOMINATOR_IS_COUNT);
    return Divisor(word, is_count, word == 0u && (is_count || has_flag(DENOMINATOR_IS_WEIGHTS)));
}

fn z_divisor() -> Divisor {
    if !DENOMINATOR_KNOWN && has_flag(DENOMINATOR_IS_WEIGHTS) {
        let rows = denominator[params.denominator_start + 1u];
        return Divisor(rows, true, rows == 0u);
    }
    return divisor();
}

// Whether it can be divided by: as an f32 it is finite, above 0, not subnormal.
fn divides(by: Divisor) -> bool {
    return by.is_count || (by.word >= 0x800000u && by.word < 0x7f800000u);
}

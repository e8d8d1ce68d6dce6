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

// The bits of the sum of the weights that were counted, rounded once; NaN where one is none.
fn weight_sum() -> u32 {
    let start = params.denominator_start;
    let specials = start + WEIGHT_SPECIALS;
    if denominator[specials + 2u] != 0u {
        return NAN;
    }
    if denominator[specials] != 0u {
        return PLUS_INF;
    }
    // The highest limb that is not 0, the one below it, and whether there is anything below that.
    var high = 0u;
    var low = 0u;
    var rest = 0u;
    var power = 0u;
    var below = vec2<u32>(0u);
    for (var limb = 0u; limb < LIMBS; limb += 1u) {
        let word = denominator[start + WEIGHT_SUM + limb];
        if word != 0u {
            high = word;
            low = below.x;
            rest = below.y;
            power = 32u * limb;
        }
        below = vec2<u32>(word, below.x | below.y);
    }
    if power == 0u && high < 0x1000000u {
        // Of 24 bits it is the f32 as it is: the 2^23 that a normal number has is 1 in its exponent.
        return high;
    }
    // 32 bits from the leading one on, the last of them for all that is lower.
    let lead = firstLeadingBit(high);
    let shift = 31u - lead;
    let lost = rest | (low << shift);
    let bits = (high << shift) | ((low >> 1u) >> (31u - shift)) | u32(lost != 0u);
    // To nearest, ties to even.
    let rounded = (bits >> 8u) + u32((bits & 0xffu) > 0x80u || (bits & 0x1ffu) == 0x180u);
    return min(((power + lead - 23u) << 23u) + rounded, PLUS_INF);
}

fn divisor() -> Divisor {
    var word = params.denominator;
    if !DENOMINATOR_KNOWN && has_flag(DENOMINATOR_IN_BUFFER) {
        word = denominator[params.denominator_start];
        if CLASS_WEIGHTS && has_flag(DENOMINATOR_IS_WEIGHTS) {
            word = weight_sum();
        }
    }
    let is_count = has_flag(DENOMINATOR_IS_COUNT);
    return Divisor(word, is_count, word == 0u && (is_count || has_flag(DENOMINATOR_IS_WEIGHTS)));
}

fn z_divisor() -> Divisor {
    if !DENOMINATOR_KNOWN && CLASS_WEIGHTS && has_flag(DENOMINATOR_IS_WEIGHTS) {
        let rows = denominator[params.denominator_start + COUNTED_ROWS];
        return Divisor(rows, true, rows == 0u);
    }
    return divisor();
}

// Whether it can be divided by: as an f32 it is finite, above 0, not subnormal.
fn divides(by: Divisor) -> bool {
    return by.is_count || (by.word >= 0x800000u && by.word < 0x7f800000u);
}

// Values that float arithmetic has to be kept away from.

const NAN = 0x7fc00000u;
const PLUS_INF = 0x7f800000u;
const MINUS_INF = 0xff800000u;
const EXPONENT = 0x7f800000u;

// From 2^100 on a second part is of no use, and might overflow on its way.
fn is_large(value: f32) -> bool {
    return (bitcast<u32>(value) & EXPONENT) >= 0x71800000u;
}

// Not past the largest f32.
fn saturated(value: f32) -> f32 {
    let bits = bitcast<u32>(value);
    return bitcast<f32>(select(bits, (bits & 0x80000000u) | 0x7f7fffffu, (bits & EXPONENT) == EXPONENT));
}

// The bits of twice a value. What is past the largest f32 is seen before it overflows.
fn doubled_bits(half: f32) -> u32 {
    // NaN and infinity, where sums of signed terms came that far, keep their bits.
    if (bitcast<u32>(half) & EXPONENT) == EXPONENT {
        return bitcast<u32>(half);
    }
    if abs(half) >= 0x1p+127f {
        return select(PLUS_INF, MINUS_INF, half < 0.0);
    }
    return bitcast<u32>(2.0 * half);
}

// The bits of a + b, from theirs.
fn sum_bits(a: u32, b: u32) -> u32 {
    let a_special = (a & EXPONENT) == EXPONENT;
    let b_special = (b & EXPONENT) == EXPONENT;
    if a_special && b_special {
        return select(NAN, a, a == b);
    }
    if a_special || b_special {
        return select(a, b, b_special);
    }
    return doubled_bits(veil(veil(0.5 * bitcast<f32>(a)) + veil(0.5 * bitcast<f32>(b))));
}

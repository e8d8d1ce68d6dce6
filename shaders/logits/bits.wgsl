// The bits of a logit as f32, whatever it is stored as. By integers: a device may round or flush.

const F32 = 0u;
const F16 = 1u;
const BF16 = 2u;
override DTYPE: u32 = 0u;

// The bits of a number stored in the low 16 of these.
fn widened(half: u32) -> u32 {
    if DTYPE == BF16 {
        return half << 16u;
    }
    return f32_from_f16(half & 0xffffu);
}

// What columns past the end read as: masked, or a softmax of 0.
fn absent_bits() -> u32 {
    return select(MINUS_INF, 0u, FROM_SOFTMAX);
}

fn f32_from_f16(half: u32) -> u32 {
    let sign = (half & 0x8000u) << 16u;
    let size = half & 0x7fffu;
    // Below 2^-14 a multiple of 2^-24, which f32 has as a normal number.
    let small = bitcast<u32>(f32(size) * 0x1p-24f);
    let normal = (size << 13u) + (112u << 23u);
    let special = (size << 13u) | 0x7f800000u;
    return sign | select(select(normal, special, size >= 0x7c00u), small, size < 0x400u);
}

// The nearest 16 bits, ties to even; past the largest finite number infinity.
fn narrowed(bits: u32) -> u32 {
    let size = bits & 0x7fffffffu;
    if size > 0x7f800000u {
        return select(0x7e00u, 0x7fc0u, DTYPE == BF16);
    }
    if DTYPE == BF16 {
        return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
    }
    let sign = (bits >> 16u) & 0x8000u;
    if size >= 0x477ff000u {
        return sign | 0x7c00u;
    }
    if size >= 0x38800000u {
        return sign | ((size - (112u << 23u) + 0xfffu + ((size >> 13u) & 1u)) >> 13u);
    }
    // Below 2^-14: the mantissa with its leading 1, as a multiple of 2^-24.
    let shift = 126u - max(size >> 23u, 102u);
    let mantissa = select((size & 0x7fffffu) | 0x800000u, 0u, size < (102u << 23u));
    let kept = mantissa >> shift;
    let rest = mantissa - (kept << shift);
    let half = 1u << (shift - 1u);
    return sign | (kept + select(0u, 1u, rest > half || (rest == half && (kept & 1u) == 1u)));
}

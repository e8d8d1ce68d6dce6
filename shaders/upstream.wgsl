// The upstream gradient over the denominator.

@group(0) @binding(4) var<storage, read_write> upstream: array<f32>;

// Whether it is in a buffer.
override UPSTREAM_GIVEN: bool = true;

fn upstream_of(row: u32) -> f32 {
    if !UPSTREAM_GIVEN {
        return params.upstream;
    }
    return upstream[params.upstream_start + row * params.upstream_stride];
}

// Whether value / by is NaN, by integers: a number that is no denominator, or an upstream gradient that
// is not finite.
fn is_no_scale(value: f32, by: Divisor) -> bool {
    return (!by.empty && !divides(by)) || (bitcast<u32>(value) & EXPONENT) == EXPONENT;
}

// value / by, rounded twice. Nothing to divide by has no row to scale, and gives 0.
fn over(value: f32, by: Divisor) -> f32 {
    if by.empty || !divides(by) {
        return 0.0;
    }
    var d = vec2<f32>(bitcast<f32>(by.word), 0.0);
    if by.is_count {
        // Halves of 16 bits, because a count may have more bits than an f32.
        d = two_sum(f32(by.word & 0xffff0000u), f32(by.word & 0xffffu));
    }
    // 1/d by its mantissa, from 1 to 2, then its power of two; doubled, so that it is never subnormal.
    let bits = bitcast<u32>(d.x);
    let power = bitcast<f32>((255u << 23u) - (bits & 0x7f800000u));
    let mantissa = vec2<f32>(bitcast<f32>((bits & 0x7fffffu) | 0x3f800000u), d.y * veil(0.5 * power));
    return veil(veil(value * veil(0.5 * reciprocal(mantissa))) * power);
}

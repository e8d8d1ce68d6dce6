// Exact sums of f32 values, in integers, so that no order of what is added changes a bit.
//
// A sum is one number of LIMBS words, least first, for its positive values and, where it may have them,
// one for its negative values; bit 0 weighs 2^-149, so every finite f32 is a 24-bit integer shifted by 0 to
// 253, and 2^32 of them fit. A carry is known from the value that an atomic addition returns, and goes on to
// the next limb. What is not finite is counted: +inf, −inf, NaN.

// The words: of the sum, and of its counts of what is not finite.
fn add_exactly(sum: u32, specials: u32, bits: u32) {
    let exponent = (bits >> 23u) & 0xffu;
    let fraction = bits & 0x7fffffu;
    let mantissa = select(fraction, fraction | 0x800000u, exponent != 0u);
    let shift = max(exponent, 1u) - 1u;
    let into = shift % 32u;
    var low = mantissa << into;
    var high = select(mantissa >> (32u - into), 0u, into == 0u);
    var at = sum + (bits >> 31u) * LIMBS + shift / 32u;
    if exponent == 255u {
        // What is not finite is counted in its place.
        at = specials + select(bits >> 31u, 2u, fraction != 0u);
        low = 1u;
        high = 0u;
    }
    let carry = add_limb(at, low);
    // high + carry cannot wrap: high has at most 23 bits.
    var more = high + carry;
    for (var limb = at + 1u; more != 0u; limb += 1u) {
        more = add_limb(limb, more);
    }
}

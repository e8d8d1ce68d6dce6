// What a batch adds up, in integers, so that no order of rows, chunks or workgroups changes a bit.
//
// SUM_SLOTS copies of three exact sums of f32 values and of some counts; a row adds to the copy of its
// workgroup, which keeps neighbours apart. A sum is one number of LIMBS words, least first, for its
// positive values and, where it may have them, one for its negative values; bit 0 weighs 2^-149, so
// every finite f32 is a 24-bit integer shifted by 0 to 253, and 2^32 of them fit. A carry is known from
// the value that the atomic addition returns, and goes on to the next limb. All is zero between two
// batches.

const SUM_SLOTS = 32u;
const SLOT_WORDS = 64u;
const LIMBS = 10u;
// The sums, each followed by its counts of what is not finite: +inf, −inf, NaN.
const LOSS_SUM = 0u;
const LOSS_SPECIALS = 20u;
const Z_SUM = 23u;
const Z_SPECIALS = 33u;
const WEIGHT_SUM = 36u;
const WEIGHT_SPECIALS = 46u;
const VALID_ROWS = 49u;
const CORRECT_ROWS = 50u;

@group(0) @binding(18) var<storage, read_write> accumulators: array<atomic<u32>>;

fn count(slot: u32, word: u32) {
    atomicAdd(&accumulators[slot * SLOT_WORDS + word], 1u);
}

fn add_exactly(slot: u32, sum: u32, specials: u32, bits: u32) {
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
    at += slot * SLOT_WORDS;
    let carry = add_limb(at, low);
    // high + carry cannot wrap: high has at most 23 bits.
    var more = high + carry;
    for (var limb = at + 1u; more != 0u; limb += 1u) {
        more = add_limb(limb, more);
    }
}

// Adds and returns the carry.
fn add_limb(at: u32, value: u32) -> u32 {
    let before = atomicAdd(&accumulators[at], value);
    return select(0u, 1u, before + value < before);
}

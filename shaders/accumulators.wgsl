// What a batch adds up, in integers, so that no order of rows, chunks or workgroups changes a bit.
//
// STATUS_WORDS of counters, then SUM_SLOTS copies of an exact sum of f32 values; a row adds to the
// copy of its workgroup, which keeps neighbours apart. A copy is two numbers of LIMBS words, least
// first, one for positive and one for negative values; bit 0 of a number weighs 2^-149, so every
// finite f32 is a 24-bit integer shifted by 0 to 253, and 2^32 of them fit. A carry is known from
// the value that the atomic addition returns, and goes on to the next limb.

const NAN_ROWS = 0u;
const FIRST_NAN_ROW = 1u;   // as ~row, so that 0 means none and the maximum is the first
const BAD_LABELS = 2u;
const FIRST_BAD_LABEL = 3u; // as ~row
const CORRECT_ROWS = 4u;
const VALID_ROWS = 5u;
const PLUS_INF_LOSSES = 6u;
const MINUS_INF_LOSSES = 7u;
const NAN_LOSSES = 8u;
const LOSS = 9u;            // bits of the reduced loss, written by `reduce`
const STATUS_WORDS = 16u;
const SUM_SLOTS = 32u;
const LIMBS = 10u;
const SLOT_WORDS = 20u;

@group(0) @binding(9) var<storage, read_write> accumulators: array<atomic<u32>>;

fn count(word: u32) {
    atomicAdd(&accumulators[params.accumulators_start + word], 1u);
}

fn note_first(word: u32, row: u32) {
    atomicMax(&accumulators[params.accumulators_start + word], ~(params.rows_before + row));
}

fn add_exactly(slot: u32, bits: u32) {
    let exponent = (bits >> 23u) & 0xffu;
    var mantissa = bits & 0x7fffffu;
    if exponent == 255u {
        count(select(select(PLUS_INF_LOSSES, MINUS_INF_LOSSES, bits >= 0x80000000u), NAN_LOSSES, mantissa != 0u));
        return;
    }
    if exponent != 0u {
        mantissa |= 0x800000u;
    }
    let shift = max(exponent, 1u) - 1u;
    let into = shift % 32u;
    let low = mantissa << into;
    let high = select(mantissa >> (32u - into), 0u, into == 0u);
    let sign = bits >> 31u;
    let at = params.accumulators_start + STATUS_WORDS + slot * SLOT_WORDS + sign * LIMBS + shift / 32u;
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

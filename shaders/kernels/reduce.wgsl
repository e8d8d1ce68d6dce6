// One workgroup turns the exact sums of the batch into the reduced loss, rounded once, and leaves
// zeros for the next batch.
//
// Invocation l adds up word l of every slot; then one invocation carries, subtracts, divides bit by
// bit and rounds to nearest, ties to even.

const WORKGROUP_SIZE = 32u;

@group(0) @binding(12) var<storage, read_write> loss: array<u32>;

var<workgroup> totals_low: array<u32, SLOT_WORDS>;
var<workgroup> totals_high: array<u32, SLOT_WORDS>;

// The number whose limbs start at `first`: carries released, one limb more.
fn released(first: u32) -> array<u32, 11> {
    var number: array<u32, 11>;
    var carry = 0u;
    for (var l = 0u; l < LIMBS; l += 1u) {
        let sum = totals_low[first + l] + carry;
        carry = totals_high[first + l] + select(0u, 1u, sum < carry);
        number[l] = sum;
    }
    number[LIMBS] = carry;
    return number;
}

// f32 bits of ±(positive − negative)·2^(power − 149) / divisor.
fn rounded_quotient(positive: array<u32, 11>, negative: array<u32, 11>, divisor: u32, power: i32) -> u32 {
    var larger = positive;
    var smaller = negative;
    var sign = 0u;
    for (var l = LIMBS + 1u; l > 0u; l -= 1u) {
        if larger[l - 1u] != smaller[l - 1u] {
            if larger[l - 1u] < smaller[l - 1u] {
                let swapped = larger;
                larger = smaller;
                smaller = swapped;
                sign = 0x80000000u;
            }
            break;
        }
    }
    var borrow = 0u;
    var top_limb = 0u;
    for (var l = 0u; l <= LIMBS; l += 1u) {
        let minuend = larger[l];
        let taken = smaller[l] + borrow;
        // smaller + borrow may wrap to 0; then exactly 2^32 is taken and the limb stays.
        let wrapped = taken < borrow;
        larger[l] = minuend - taken;
        borrow = select(0u, 1u, wrapped || minuend < taken);
        if larger[l] != 0u {
            top_limb = l;
        }
    }
    // Long division from the top bit, until 25 bits of the quotient are there, or all above 2^-151.
    var quotient = 0u;
    var remainder = 0u;
    var position = i32(32u * top_limb + 31u);
    if larger[top_limb] == 0u {
        return 0u;
    }
    for (; position + power >= -2 && quotient < 0x1000000u; position -= 1) {
        var bit = 0u;
        if position >= 0 {
            bit = (larger[u32(position) / 32u] >> (u32(position) % 32u)) & 1u;
        }
        let over = remainder >= 0x80000000u;
        remainder = (remainder << 1u) | bit;
        quotient <<= 1u;
        if over || remainder >= divisor {
            remainder -= divisor;
            quotient |= 1u;
        }
    }
    if quotient == 0u {
        return 0u;
    }
    // The last quotient bit weighs 2^(position + 1 + power − 149); what is left below it only breaks ties.
    var sticky = remainder != 0u;
    for (var l = 0u; l <= LIMBS; l += 1u) {
        let below = position + 1 - i32(32u * l);
        if below >= 32 {
            sticky |= larger[l] != 0u;
        } else if below > 0 {
            sticky |= (larger[l] & ((1u << u32(below)) - 1u)) != 0u;
        }
    }
    if position + power < -2 {
        // Below 2^-126: the last bit is two below the grid of 2^-149.
        let kept = quotient >> 2u;
        let rest = (quotient & 3u) * 2u + select(0u, 1u, sticky);
        return sign | (kept + select(0u, 1u, rest > 4u || (rest == 4u && (kept & 1u) == 1u)));
    }
    let kept = quotient >> 1u;
    let half = (quotient & 1u) == 1u;
    let rounded = kept + select(0u, 1u, half && (sticky || (kept & 1u) == 1u));
    // kept = 1.xxx·2^23 weighs 2^(position + 2 + power − 149).
    let exponent = position + 3 + power;
    let bits = (u32(exponent - 1) << 23u) + rounded;
    return sign | select(bits, 0x7f800000u, exponent >= 255 || bits >= 0x7f800000u);
}

// The reduced loss from the totals.
fn loss_bits() -> u32 {
    let word = denominator_word();
    let is_count = (params.denominator_flags & DENOMINATOR_IS_COUNT) != 0u;
    let up = totals_low[PLUS_INF_LOSSES] != 0u;
    let down = totals_low[MINUS_INF_LOSSES] != 0u;
    if totals_low[NAN_LOSSES] != 0u || (up && down) || !select(divides(word), word != 0u, is_count) {
        return 0x7fc00000u;
    }
    if up {
        return 0x7f800000u;
    }
    if down {
        return 0xff800000u;
    }
    // An f32 is its 24-bit mantissa times a power of two.
    let divisor = select((word & 0x7fffffu) | 0x800000u, word, is_count);
    let power = select(150 - i32(word >> 23u), 0, is_count);
    return rounded_quotient(released(0u), released(LIMBS), divisor, power);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn reduce(@builtin(local_invocation_index) local: u32) {
    var low = 0u;
    var high = 0u;
    for (var slot = 0u; slot < SUM_SLOTS; slot += 1u) {
        let total = atomicExchange(&accumulators[slot * SLOT_WORDS + local], 0u);
        low += total;
        high += select(0u, 1u, low < total);
    }
    totals_low[local] = low;
    totals_high[local] = high;
    workgroupBarrier();
    if local != 0u {
        return;
    }
    atomicStore(&status[params.status_start + VALID], totals_low[VALID_ROWS]);
    atomicStore(&status[params.status_start + CORRECT], totals_low[CORRECT_ROWS]);
    if params.loss_start != NOT_WANTED {
        loss[params.loss_start] = loss_bits();
    }
    if params.denominator_flags == (DENOMINATOR_IN_BUFFER | DENOMINATOR_IS_COUNT) {
        denominator[params.denominator_start] = 0u;
    }
}

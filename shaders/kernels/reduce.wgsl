// One workgroup turns the exact sums of the batch into the reduced loss, rounded once.
//
// Reads the accumulators, writes one word of them. Invocation l adds up limb l of every slot; then
// one invocation carries, subtracts, divides bit by bit and rounds to nearest, ties to even.

const WORKGROUP_SIZE = 32u;

var<workgroup> limb_low: array<u32, 20>;
var<workgroup> limb_high: array<u32, 20>;

fn accumulator(word: u32) -> u32 {
    return atomicLoad(&accumulators[params.accumulators_start + word]);
}

// The number whose limbs start at `first`: carries released, one limb more.
fn released(first: u32) -> array<u32, 11> {
    var number: array<u32, 11>;
    var carry = 0u;
    for (var l = 0u; l < LIMBS; l += 1u) {
        let sum = limb_low[first + l] + carry;
        carry = limb_high[first + l] + select(0u, 1u, sum < carry);
        number[l] = sum;
    }
    number[LIMBS] = carry;
    return number;
}

// f32 bits of ±(positive − negative)·2^-149 / denominator.
fn rounded_quotient(positive: array<u32, 11>, negative: array<u32, 11>, denominator: u32) -> u32 {
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
    // Long division from the top bit, until 25 bits of the quotient are there.
    var quotient = 0u;
    var remainder = 0u;
    var position = i32(32u * top_limb + 31u);
    for (; position >= -2 && quotient < 0x1000000u; position -= 1) {
        var bit = 0u;
        if position >= 0 {
            bit = (larger[u32(position) / 32u] >> (u32(position) % 32u)) & 1u;
        }
        let over = remainder >= 0x80000000u;
        remainder = (remainder << 1u) | bit;
        quotient <<= 1u;
        if over || remainder >= denominator {
            remainder -= denominator;
            quotient |= 1u;
        }
    }
    if quotient == 0u {
        return 0u;
    }
    // The last quotient bit weighs 2^(position + 1 − 149); what is left below it only breaks ties.
    var sticky = remainder != 0u;
    for (var l = 0u; l <= LIMBS; l += 1u) {
        let below = position + 1 - i32(32u * l);
        if below >= 32 {
            sticky |= larger[l] != 0u;
        } else if below > 0 {
            sticky |= (larger[l] & ((1u << u32(below)) - 1u)) != 0u;
        }
    }
    if position < -2 {
        // Below 2^-126: the last bit is two below the grid of 2^-149.
        let kept = quotient >> 2u;
        let rest = (quotient & 3u) * 2u + select(0u, 1u, sticky);
        return sign | (kept + select(0u, 1u, rest > 4u || (rest == 4u && (kept & 1u) == 1u)));
    }
    let kept = quotient >> 1u;
    let half = (quotient & 1u) == 1u;
    let rounded = kept + select(0u, 1u, half && (sticky || (kept & 1u) == 1u));
    // kept = 1.xxx·2^23 weighs 2^(position + 2 − 149); its exponent field is that of 2^(position + 25 − 149).
    let exponent = position + 3;
    let bits = (u32(exponent - 1) << 23u) + rounded;
    return sign | select(bits, 0x7f800000u, exponent >= 255 || bits >= 0x7f800000u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn reduce(@builtin(local_invocation_index) local: u32) {
    if local < SLOT_WORDS {
        var low = 0u;
        var high = 0u;
        for (var slot = 0u; slot < SUM_SLOTS; slot += 1u) {
            let limb = accumulator(STATUS_WORDS + slot * SLOT_WORDS + local);
            low += limb;
            high += select(0u, 1u, low < limb);
        }
        limb_low[local] = low;
        limb_high[local] = high;
    }
    workgroupBarrier();
    if local != 0u {
        return;
    }
    var denominator = params.denominator;
    var bits: u32;
    let up = accumulator(PLUS_INF_LOSSES) != 0u;
    let down = accumulator(MINUS_INF_LOSSES) != 0u;
    if accumulator(NAN_LOSSES) != 0u || (up && down) || denominator == 0u {
        bits = 0x7fc00000u;
    } else if up {
        bits = 0x7f800000u;
    } else if down {
        bits = 0xff800000u;
    } else {
        bits = rounded_quotient(released(0u), released(LIMBS), denominator);
    }
    atomicStore(&accumulators[params.accumulators_start + LOSS], bits);
}

// The sums of a batch in one workgroup: all slots added up, carries released, one rounding.

const WORKGROUP_SIZE = 32u;

var<workgroup> totals_low: array<u32, WORDS_IN_USE>;
var<workgroup> totals_high: array<u32, WORDS_IN_USE>;

// Adds up the slots, and leaves zeros.
fn gather(local: u32) {
    for (var word = local; word < WORDS_IN_USE; word += WORKGROUP_SIZE) {
        var low = 0u;
        var high = 0u;
        for (var slot = 0u; slot < SUM_SLOTS; slot += 1u) {
            let total = atomicExchange(&accumulators[slot * SLOT_WORDS + word], 0u);
            low += total;
            high += select(0u, 1u, low < total);
        }
        totals_low[word] = low;
        totals_high[word] = high;
    }
    workgroupBarrier();
}

// The number whose limbs start at word `first`: carries released, one limb more.
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

// A sum over a divisor: f32 bits. Of a sum of values that are not negative `negative` says so.
fn mean_bits(sum: u32, specials: u32, signed: bool, by: Divisor) -> u32 {
    let up = totals_low[specials] != 0u;
    let down = totals_low[specials + 1u] != 0u;
    if totals_low[specials + 2u] != 0u || (up && down) {
        return NAN;
    }
    if by.empty {
        return select(NAN, 0u, has_flag(EMPTY_IS_ZERO));
    }
    if !divides(by) {
        return NAN;
    }
    if up || down {
        return PLUS_INF | select(0u, 0x80000000u, down);
    }
    var negative: array<u32, 11>;
    if signed {
        negative = released(sum + LIMBS);
    }
    // An f32 is its 24-bit mantissa times a power of two.
    let divisor = select((by.word & 0x7fffffu) | 0x800000u, by.word, by.is_count);
    let power = select(150 - i32(by.word >> 23u), 0, by.is_count);
    return rounded_quotient(released(sum), negative, divisor, power);
}

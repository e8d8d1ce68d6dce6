// The row state, the one object that lanes, blocks and windows merge, and the shape of its tree.
//
// (top, live, sums): the maximum of the finite logits; whether there is one; and sums relative to
// its z, m, the first being Σ exp(z − m) over all entries but one that attains m. Leaving that 1 out keeps
// the full relative accuracy of a confident row, where 1 + Σ would round to 1.
//
// Canonical tree of a row of K columns, which depends on K alone. Blocks of BLOCK columns; in each,
// lane v of LANES adds up the slots of 4 columns v, v + LANES, …; lanes, then blocks, merge in a binary
// tree of neighbours, absent ones being zeros and EMPTY. No chain is longer than 8.
//
// Within a block what is added are pairs (largest, sum of the others), and the terms are exp relative to
// exp(base)·2^N, both known from the maximum of the block. Another power of two in its place changes
// no bit: see `Reference`.

const SLOT = 4u;
const LANES = 8u;
const STRIPE = 32u;
const BLOCK = 256u;
// Stripes of a block.
const STRIPES = 8u;

struct RowState {
    top: f32,
    live: bool,
    // First column that attains the maximum.
    first: u32,
    sums: Sums,
}

const NO_COLUMN = 0xffffffffu;
// A label that is no column, and not NO_COLUMN either.
const NO_LABEL = 0xfffffffeu;

fn empty_state() -> RowState {
    return RowState(LOWEST, false, NO_COLUMN, no_sums());
}

// The state of the columns of `left` followed by those of `right`.
fn merge(left: RowState, right: RowState) -> RowState {
    var high = left;
    var low = right;
    if right.live && (!left.live || right.top > left.top) {
        high = right;
        low = left;
    }
    var rescale = 0.0;
    var drop = 0.0;
    if low.live {
        let here = point(low.top);
        let top = point(high.top);
        rescale = exp_gap(here, top);
        drop = half_gap(here, top);
        // The maximum that `low` left out is an ordinary entry now.
        low.sums = with_maximum(low.sums);
    }
    high.sums = merge_sums(high.sums, low.sums, rescale, drop);
    return high;
}

// The largest x of what is looked at, with its point.
struct Peak {
    x: f32,
    point: vec2<f32>,
}

fn peak(x: f32) -> Peak {
    return Peak(x, point(x));
}

// What gaps are relative to, so that they are exact: for a maximum within 208 of 0, 0, as every z that
// counts is within 350 then; else the maximum, as every z that counts is within a factor of two of it.
fn base_of(top: vec2<f32>) -> vec2<f32> {
    return select(vec2<f32>(0.0), top, abs(top.x) > params.rebase);
}

// exp in units of exp(base)·2^(127 − lift).
//
// With a lift of UP more than the maximum asks for, terms of 2^-216 of the maximum are normal numbers. Below
// that they are lost beside any sum that is not 0 in the end. So multiplying by powers of two is exact
// where it matters, and a sum has the same bits whichever maximum its terms were relative to on the way.
struct Reference {
    base: vec2<f32>,
    lift: f32,
}

const UP = 90.0;
// Above any lift, for sums without a term.
const NOTHING_YET = 5000.0;

fn reference_of(top: vec2<f32>, base: vec2<f32>) -> Reference {
    let power = nearest_power(gaps(spread(top), base)).x;
    return Reference(base, 127.0 - clamp(power, -2.0 * FAR, 2.0 * FAR));
}

// The e of the maximum itself, as a sum of two.
fn mantissa_of(top: Peak) -> vec2<f32> {
    let gap = gaps(spread(top.point), base_of(top.point));
    return exp_mantissa(vec2<f32>(gap.high.x, gap.low.x));
}

// (largest, sum of the others) of two disjoint sets.
fn add_pairs(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(max(a.x, b.x), (a.y + b.y) + min(a.x, b.x));
}

// Order of finite floats as order of integers; 0 is below all of them.
fn order_key(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

// The value of a key, LOWEST for 0.
fn from_order_key(key: u32) -> f32 {
    let value = bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
    return select(value, LOWEST, key == 0u);
}

// Blocks merge as a binary counter does: `pile[l]` holds the state of 2^l units (a unit being what a
// kernel merges at once, a power of two of blocks), and `pushed` counts them.
const PILE_HEIGHT = 24u;
var<private> pile: array<RowState, PILE_HEIGHT>;
var<private> pushed: u32;

fn push(unit: RowState) {
    var state = unit;
    var level = 0u;
    for (var count = pushed; (count & 1u) == 1u; count >>= 1u) {
        state = merge(pile[level], state);
        level += 1u;
    }
    pile[level] = state;
    pushed += 1u;
}

// Merges what is on the pile, the most recent first, and clears it.
fn pop_all() -> RowState {
    var state = empty_state();
    for (var level = 0u; (pushed >> level) != 0u; level += 1u) {
        if ((pushed >> level) & 1u) == 1u {
            state = merge(pile[level], state);
        }
    }
    pushed = 0u;
    return state;
}

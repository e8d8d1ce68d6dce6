// The row state, the one object that lanes, blocks and windows merge, and the shape of its tree.
//
// (top, live, sums): the maximum of the finite logits; whether there is one; and sums relative to
// its z, m, the first being Σ exp(z − m) over all entries but one that attains m. Leaving that 1 out keeps
// the full relative accuracy of a confident row, where 1 + Σ would round to 1.
//
// Canonical tree of a row of K columns, which depends on K alone. Blocks of BLOCK columns; in each,
// the maximum first, then sums of exp(z − its maximum): lane v of LANES adds up the slots of 4
// columns v, v + LANES, …, a slot being (a + b) + (c + d); lanes, then blocks, merge in a binary tree
// of neighbours, absent ones being zeros and EMPTY. No chain is longer than 8.

const SLOT = 4u;
const LANES = 32u;
const LANE_STEP = 128u;
const BLOCK = 1024u;

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
    return RowState(LOWEST, false, NO_COLUMN, Sums());
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

fn half_gap(here: vec2<f32>, top: vec2<f32>) -> f32 {
    let gap = half_gap_pair(here, top);
    return veil(gap.x + gap.y);
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

// The upper levels of the tree over the lanes of a block, from its groups of four lanes.
fn fold_groups(g: array<Sums, 8>) -> Sums {
    return ((g[0] + g[1]) + (g[2] + g[3])) + ((g[4] + g[5]) + (g[6] + g[7]));
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

// What every kernel does with a slot of four columns and with the lane that sums it up.
//
// Logits are classified by their bits before any arithmetic: −inf is a masked class, +inf and NaN
// make the row NaN. Columns past the end read as masked, so a tail is the same code as the body.

// Finds the first column of the maximum; off where no one asks for predictions.
override WITH_PREDICTIONS: bool = true;

struct Slot {
    x: vec4<f32>,
    live: vec4<bool>,
}

// Rows may be interleaved; else the classes of a row are neighbours.
override STRIDED: bool = false;

// Where a class is in every array of the shape of the logits.
fn element(row: u32, column: u32) -> u32 {
    if STRIDED {
        return (row / params.inner * params.row_length + column) * params.inner + row % params.inner;
    }
    return row * params.row_length + column;
}

fn column_step() -> u32 {
    return select(1u, params.inner, STRIDED);
}

fn read_slot(row: u32, column: u32) -> Slot {
    let start = element(row, 0u);
    let last = params.classes - 1u;
    let columns = vec4<u32>(column, column + 1u, column + 2u, column + 3u);
    let at = start + min(columns, vec4<u32>(last)) * column_step();
    var bits = vec4<u32>(logit_bits(at.x), logit_bits(at.y), logit_bits(at.z), logit_bits(at.w));
    if FROM_SOFTMAX && any(bits == vec4<u32>(MINUS_INF)) {
        seen |= POISONED;
    }
    bits = select(bits, vec4<u32>(MINUS_INF), columns > vec4<u32>(last));
    let live = (bits & vec4<u32>(EXPONENT)) != vec4<u32>(EXPONENT);
    if any(!live & (bits != vec4<u32>(MINUS_INF))) {
        seen |= POISONED;
    }
    return Slot(select(vec4<f32>(LOWEST), bitcast<vec4<f32>>(bits), live), live);
}

fn fold_slot(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// What is given is e over its sum already: maxima and sums of e do not matter.
override FROM_SOFTMAX: bool = false;

// (Σ of e over the entries below the maximum, number of entries that attain it)
fn exp_sums(slot: Slot, e: vec4<f32>, top: Peak) -> vec2<f32> {
    let tie = slot.live & (slot.x == vec4<f32>(top.x));
    return vec2<f32>(
        fold_slot(select(e, vec4<f32>(0.0), tie)),
        fold_slot(select(vec4<f32>(0.0), vec4<f32>(1.0), tie)),
    );
}

fn exp_slot(slot: Slot, top: Peak) -> vec4<f32> {
    if FROM_SOFTMAX {
        return select(vec4<f32>(0.0), slot.x, slot.live);
    }
    let e = exp_gaps(slot.x, top.point);
    return select(vec4<f32>(0.0), e, slot.live);
}

// One lane of one block: the columns `column`, `column` + LANE_STEP, … below `end`.

// A maximum in the making.
struct Top {
    x: f32,
    live: bool,
}

fn raise(top: Top, slot: Slot) -> Top {
    let highest = max(max(slot.x.x, slot.x.y), max(slot.x.z, slot.x.w));
    return Top(max(top.x, highest), top.live || any(slot.live));
}

// Its order key, 0 where all is masked.
fn key_of(top: Top) -> u32 {
    return select(0u, select(order_key(top.x), order_key(0.0), FROM_SOFTMAX), top.live);
}

fn lane_sums(row: u32, column: u32, end: u32, top: Peak) -> Sums {
    var sums = Sums();
    for (var at = column; at < end; at += LANE_STEP) {
        sums += slot_sums(row, at, read_slot(row, at), top);
    }
    return sums;
}

// The first column of a slot that attains the maximum.
fn slot_first(slot: Slot, column: u32, top: Peak) -> u32 {
    let tie = slot.live & (slot.x == vec4<f32>(top.x));
    return select(NO_COLUMN, column + select(select(select(3u, 2u, tie.z), 1u, tie.y), 0u, tie.x), any(tie));
}

fn lane_first(row: u32, column: u32, end: u32, top: Peak) -> u32 {
    var first = NO_COLUMN;
    for (var at = column; at < end && first == NO_COLUMN; at += LANE_STEP) {
        first = slot_first(read_slot(row, at), at, top);
    }
    return first;
}

// The state of a block from the key of its maximum and the sums over its lanes.
fn close_block(key: u32, first: u32, lanes: Sums) -> RowState {
    if key == 0u {
        var state = empty_state();
        state.sums = without_maximum(lanes);
        return state;
    }
    return RowState(from_order_key(key), true, first, without_maximum(lanes));
}

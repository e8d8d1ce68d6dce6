// What every row kernel does with a slot of four columns, and with a row once its state is known.
//
// Logits are classified by their bits before any arithmetic: −inf is a masked class, +inf and NaN
// make the row NaN. Columns past the end read as masked, so a tail is the same code as the body.

const MINUS_INF = 0xff800000u;
const EXPONENT = 0x7f800000u;

// Finds the first column of the maximum; off where no one asks for predictions.
override WITH_PREDICTIONS: bool = true;

const WRITES_MATRIX = WRITES_SOFTMAX || WRITES_LOG_SOFTMAX || WRITES_GRAD;

struct Slot {
    x: vec4<f32>,
    live: vec4<bool>,
}

fn read_slot(row: u32, column: u32) -> Slot {
    let start = params.logits_start + row * params.classes;
    let last = params.classes - 1u;
    let columns = vec4<u32>(column, column + 1u, column + 2u, column + 3u);
    let at = start + min(columns, vec4<u32>(last));
    var bits = vec4<u32>(logit_bits(at.x), logit_bits(at.y), logit_bits(at.z), logit_bits(at.w));
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

// (Σ of e over the entries below the maximum, number of entries that attain it)
fn exp_sums(slot: Slot, top: f32) -> vec2<f32> {
    let tie = slot.live & (slot.x == vec4<f32>(top));
    let e = exp_slot(slot, top);
    return vec2<f32>(
        fold_slot(select(e, vec4<f32>(0.0), tie)),
        fold_slot(select(vec4<f32>(0.0), vec4<f32>(1.0), tie)),
    );
}

fn exp_slot(slot: Slot, top: f32) -> vec4<f32> {
    let e = vec4<f32>(exp_gap(slot.x.x, top), exp_gap(slot.x.y, top), exp_gap(slot.x.z, top), exp_gap(slot.x.w, top));
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

fn key_of(top: Top) -> u32 {
    return select(0u, order_key(top.x), top.live);
}

// The order key of its maximum, 0 where all is masked.
fn lane_top(row: u32, column: u32, end: u32) -> u32 {
    var top = Top(LOWEST, false);
    for (var at = column; at < end; at += LANE_STEP) {
        top = raise(top, read_slot(row, at));
    }
    return key_of(top);
}

// Two slots an iteration: one driver (llvmpipe) ends an invocation after 65535 of them.
fn lane_sums(row: u32, column: u32, end: u32, top: f32) -> Sums {
    var sums = Sums();
    for (var at = column; at < end; at += 2u * LANE_STEP) {
        sums += slot_sums(row, at, read_slot(row, at), top);
        if at + LANE_STEP < end {
            sums += slot_sums(row, at + LANE_STEP, read_slot(row, at + LANE_STEP), top);
        }
    }
    return sums;
}

// The first column of a slot that attains the maximum.
fn slot_first(slot: Slot, column: u32, top: f32) -> u32 {
    let tie = slot.live & (slot.x == vec4<f32>(top));
    return select(NO_COLUMN, column + select(select(select(3u, 2u, tie.z), 1u, tie.y), 0u, tie.x), any(tie));
}

fn lane_first(row: u32, column: u32, end: u32, top: f32) -> u32 {
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
        state.sums = without_maximum(lanes, 0.0);
        return state;
    }
    return RowState(from_order_key(key), true, first, without_maximum(lanes, lanes[1] - 1.0));
}

// The row as its outputs need it.
struct Row {
    state: RowState,
    label: Label,
    log_sum: f32,   // L = log(1 + s); lse = m + L
    inverse: f32,   // 1/(1 + s)
    scale: f32,     // upstream gradient over the denominator
}

fn finish_row(row: u32, state: RowState) -> Row {
    if !state.live {
        seen |= POISONED;
    }
    var done: Row;
    done.state = state;
    done.log_sum = log1p_sum(state.sums[0]);
    done.inverse = reciprocal_sum(state.sums[0]);
    done.label = row_label(row, state);
    done.scale = veil(upstream_of(row) * params.gradient_scale);
    return done;
}

// p = e·factor of a block, e being relative to the block's own maximum.
fn block_factor(block_top: f32, done: Row) -> f32 {
    return veil(exp_gap(block_top, done.state.top) * done.inverse);
}

fn write_slot(row: u32, column: u32, done: Row, block_top: f32, factor: f32) {
    let slot = read_slot(row, column);
    let e = exp_slot(slot, block_top);
    write_column(row, column, e.x * factor, slot.x.x, slot.live.x, done);
    write_column(row, column + 1u, e.y * factor, slot.x.y, slot.live.y, done);
    write_column(row, column + 2u, e.z * factor, slot.x.z, slot.live.z, done);
    write_column(row, column + 3u, e.w * factor, slot.x.w, slot.live.w, done);
}

fn write_column(row: u32, column: u32, p: f32, x: f32, live: bool, done: Row) {
    if column >= params.classes {
        return;
    }
    let at = row * params.classes + column;
    if WRITES_SOFTMAX {
        write_softmax(at, or_nan(p, POISONED));
    }
    if WRITES_LOG_SOFTMAX {
        write_log_softmax(at, or_nan_bits(log_softmax_bits(x, live, done), POISONED));
    }
    if WRITES_GRAD {
        let grad = or_nan(column_grad(at, column, veil(p), done), POISONED | BAD_LABEL | BAD_WEIGHT);
        write_grad(at, select(grad, 0u, (seen & IGNORED) != 0u));
    }
}

fn or_nan(value: f32, flags: u32) -> u32 {
    return or_nan_bits(bitcast<u32>(value), flags);
}

fn or_nan_bits(bits: u32, flags: u32) -> u32 {
    return select(bits, 0x7fc00000u, (seen & flags) != 0u);
}

// (x − m) − L, −inf for a masked class and where the exact result is past the largest f32.
fn log_softmax_bits(x: f32, live: bool, done: Row) -> u32 {
    let past = half_gap(x, done.state.top) >= 0x1p+127f;
    let gap = two_sum(select(x, done.state.top, past), -done.state.top);
    let value = (gap.x - done.log_sum) + gap.y;
    return select(bitcast<u32>(value), MINUS_INF, past || !live);
}

// Leaves in `row_states` what `finish_rows` derives the per-row outputs from.
fn store_row(row: u32, done: Row) {
    var prediction = done.state.first;
    if (seen & POISONED) != 0u {
        prediction = NO_COLUMN;
    } else if prediction == done.label.column && (seen & (IGNORED | BAD_LABEL)) == 0u {
        seen |= CORRECT;
    }
    let at = params.row_states_start + 8u * row;
    row_states[at] = bitcast<u32>(done.state.top);
    row_states[at + 1u] = bitcast<u32>(done.state.sums[0]);
    row_states[at + 2u] = bitcast<u32>(done.label.half_gap);
    row_states[at + 3u] = bitcast<u32>(done.label.weight);
    row_states[at + 4u] = seen;
    row_states[at + 5u] = prediction;
}

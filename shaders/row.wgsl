// What every kernel does with a row once its state is known: what its outputs need, the write of a
// slot of them, and what is left for `finish_rows`.

const WRITES_MATRIX = WRITES_SOFTMAX || WRITES_LOG_SOFTMAX || WRITES_GRAD;

// What the outputs need of a row's labels.
struct Label {
    column: u32,
    half_gap: f32,  // Σ y·(m − x)/2
    weight: f32,    // Σ y
    // Index labels: Σ of exp(x − m) over the classes that are not the label.
    others: f32,
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
    return row_of(row, state, row_label(row, state));
}

fn row_of(row: u32, state: RowState, label: Label) -> Row {
    let s = state.sums[0];
    return Row(state, label, log1p_sum(s), reciprocal_sum(s), gradient_scale(row));
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

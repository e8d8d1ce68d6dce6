// What every kernel does with a row once its state is known: what its outputs need, the write of a
// slot of them, and what is left for `finish_rows`.

override WRITES_SOFTMAX: bool = false;
// In the place of softmax.
override WRITES_LOG_SOFTMAX: bool = false;
override WRITES_GRAD: bool = false;
override GRAD_OVER_LOGITS: bool = false;
// Whether columns past the last class are written too.
override PADDED: bool = false;

fn writes_matrix() -> bool {
    return WRITES_SOFTMAX || WRITES_LOG_SOFTMAX || WRITES_GRAD;
}

// The row as its outputs need it.
struct Row {
    state: RowState,
    label: Label,
    top: Peak,
    log_sum: f32,   // L = log(1 + s); lse = m + L
    inverse: f32,   // 1/(1 + s)
    reference: Reference,
    share: f32,     // what e is multiplied by to be p
    pull: Pull,
    bad_scale: bool,  // of the gradient: NaN, which no arithmetic keeps
}

fn finish_row(row: u32, state: RowState) -> Row {
    if !state.live {
        seen |= POISONED;
    }
    return row_of(row, state, row_label(row, state));
}

fn row_of(row: u32, state: RowState, label: Label) -> Row {
    let s = wide(state.sums).x;
    let top = peak(state.top);
    var log_sum = 0.0;
    if WRITES_LOG_SOFTMAX || Z_LOSS {
        log_sum = log1p_sum(s);
    }
    var inverse = 1.0;
    var share = 1.0;
    if !FROM_SOFTMAX {
        inverse = reciprocal_sum(s);
        // In units of the e of the maximum, 1 + s is larger by that.
        let unit = mantissa_of(top);
        let rest = veil(unit.x * s);
        let sum = two_sum(unit.x, rest);
        share = reciprocal(vec2<f32>(sum.x, veil(sum.y + unit.y)));
    }
    var pull = Pull();
    var bad_scale = false;
    if WRITES_GRAD {
        let given = upstream_of(row);
        let by = divisor();
        bad_scale = is_no_scale(given, by);
        var lse = 0.0;
        var scales = vec2<f32>(over(given, by), 0.0);
        if Z_LOSS {
            let m = z_of(top.x);
            lse = veil(m.x + (m.y + log_sum));
            scales.y = over(given, z_divisor());
        }
        scales *= params.slope;
        pull = row_pull(state, label, inverse, lse, scales);
    }
    let reference = reference_of(top.point, base_of(top.point));
    return Row(state, label, top, log_sum, inverse, reference, share, pull, bad_scale);
}

// How many columns are written.
fn written_columns() -> u32 {
    return select(params.classes, params.row_length, PADDED);
}

// Writes the outputs of four columns whose logits have been read. Unless they are known to be in the row as
// a `whole`, the first may be before it, and the last behind it.
fn write_slot(row: u32, column: u32, bits: vec4<u32>, done: Row, whole: bool) {
    var inside = vec2<u32>(0u, SLOT);
    if !whole {
        let end = written_columns();
        if column + SLOT - 1u >= end + SLOT - 1u {
            return;
        }
        inside = vec2<u32>(columns_before(column), min(SLOT, end - column));
    }
    let slot = slot_of(bits);
    let place = points(slot.x);
    let p = exp_slot(slot, place, done.reference) * done.share;
    let at = element(row, column);
    let past = vec4<u32>(column, column + 1u, column + 2u, column + 3u) >= vec4<u32>(params.classes);
    let nan = vec4<u32>(0x7fc00000u);
    if WRITES_SOFTMAX {
        let bits = select(bitcast<vec4<u32>>(p), nan, (seen & POISONED) != 0u);
        put_softmax(params.softmax_start + at, column_step(), inside, select(bits, vec4<u32>(0u), past));
    }
    if WRITES_LOG_SOFTMAX {
        var bits: vec4<u32>;
        for (var i = 0u; i < SLOT; i += 1u) {
            bits[i] = log_softmax_bits(slot.x[i], slot.masked[i], done);
        }
        bits = select(bits, nan, (seen & POISONED) != 0u);
        put_softmax(params.log_softmax_start + at, column_step(), inside, select(bits, vec4<u32>(MINUS_INF), past));
    }
    if WRITES_GRAD {
        let grad = slot_grad(row, column, slot, veil4(p), done.pull, done.label.column);
        var bits = bitcast<vec4<u32>>(grad * slopes(place));
        bits = select(bits, nan, done.bad_scale || (seen & (POISONED | BAD_LABEL | BAD_WEIGHT)) != 0u);
        bits = select(bits, vec4<u32>(0u), vec4<bool>((seen & IGNORED) != 0u));
        if PADDED {
            bits = select(bits, vec4<u32>(0u), past);
        }
        if GRAD_OVER_LOGITS {
            put_logits(at, column_step(), inside, bits);
        } else {
            put_grad(at, column_step(), inside, bits);
        }
    }
}

// Writes the columns from `start`, a multiple of SLOT, to `end`, which is another or not before the end of
// the row; of `members` who do so together, `member` does so. Each writes what it alone reads.
//
// Slots that are of the row as a whole are written in a loop that need not look where it ends: a driver that
// computes by vectors of invocations goes through both sides of every `if`.
fn write_columns(row: u32, start: u32, end: u32, member: u32, members: u32, done: Row) {
    // By vectors as they are, which begin `lead` columns before the row's.
    let lead = lead_of(row);
    let is_last = end >= written_columns();
    let to = select(end, written_columns() + lead, is_last);
    let whole = to - to % SLOT;
    let first = start + select(0u, SLOT, start == 0u && lead > 0u);
    for (var at = first + SLOT * member; at < whole; at += SLOT * members) {
        write_slot(row, at - lead, bits_to_write(row, at - lead), done, true);
    }
    // The edges of the row.
    for (var edge = member; edge < 2u; edge += members) {
        let at = select(start, whole, edge == 1u);
        if select(first > start, whole < to, edge == 1u) {
            write_slot(row, at - lead, bits_to_write(row, at - lead), done, false);
        }
    }
}

// (z − m) − L, −inf for a masked class and where the exact result is past the largest f32.
fn log_softmax_bits(x: f32, masked: bool, done: Row) -> u32 {
    let gap = half_gap_pair(point(x), done.top.point);
    let past = gap.x >= 0x1p+127f;
    let value = (-2.0 * select(gap.x, 0.0, past) - done.log_sum) - 2.0 * gap.y;
    return select(bitcast<u32>(value), MINUS_INF, past || masked);
}

// The first column of the maximum, none in a NaN row; notes whether it is the label.
fn prediction_of(done: Row) -> u32 {
    if (seen & POISONED) != 0u {
        return NO_COLUMN;
    }
    if done.state.first == done.label.column && (seen & (IGNORED | BAD_LABEL)) == 0u {
        seen |= HIT;
    }
    return done.state.first;
}

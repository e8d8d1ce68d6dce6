// What every kernel does with a slot of four columns.
//
// Logits are classified by their bits: −inf is a masked class, +inf and NaN make the row NaN, whatever
// becomes of it in arithmetic. Columns past the end read as masked, so a tail is the same code as the
// body.

// What is given is e over its sum already: maxima and sums of e do not matter.
override FROM_SOFTMAX: bool = false;
// Rows may be interleaved; else the classes of a row are neighbours.
override STRIDED: bool = false;

struct Slot {
    x: vec4<f32>,
    masked: vec4<bool>,
}

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

// What an invocation has read: the largest bits, with and without a sign.
struct Extremes {
    signed: vec4<i32>,
    unsigned: vec4<u32>,
}
var<private> extremes: Extremes;

// Notes NaN and +inf among what has been read since the last time, and −inf where that is none.
fn note_poison() {
    let signed = max(extremes.signed, extremes.signed.zwxy);
    let unsigned = max(extremes.unsigned, extremes.unsigned.zwxy);
    if max(signed.x, signed.y) >= 0x7f800000 || max(unsigned.x, unsigned.y) > MINUS_INF - u32(FROM_SOFTMAX) {
        seen |= POISONED;
    }
    extremes = Extremes();
}

fn noted(bits: vec4<u32>) -> vec4<u32> {
    extremes.signed = max(extremes.signed, bitcast<vec4<i32>>(bits));
    extremes.unsigned = max(extremes.unsigned, bits);
    return bits;
}

fn slot_of(bits: vec4<u32>) -> Slot {
    let lowest = vec4<u32>(0xff7fffffu);
    return Slot(bitcast<vec4<f32>>(min(bits, lowest)), bits > lowest);
}

// The largest x, LOWEST where all is masked.
fn slot_top(slot: Slot) -> f32 {
    let pair = max(slot.x.xy, slot.x.zw);
    return max(pair.x, pair.y);
}

fn fold_slot(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// (largest, sum of the others)
fn pair_of_slot(e: vec4<f32>) -> vec2<f32> {
    let high = max(e.xz, e.yw);
    let low = min(e.xz, e.yw);
    return vec2<f32>(max(high.x, high.y), (low.x + low.y) + min(high.x, high.y));
}

fn exp_slot(slot: Slot, at: Points, reference: Reference) -> vec4<f32> {
    if FROM_SOFTMAX {
        return slot.x;
    }
    let parts = exp_parts(gaps(at, reference.base));
    return select(parts.e * powers(parts.n + reference.lift), vec4<f32>(0.0), slot.masked);
}

// The first column of a slot that attains the maximum.
fn slot_first(slot: Slot, column: u32, top: f32) -> u32 {
    let tie = !slot.masked & (slot.x == vec4<f32>(top));
    return select(NO_COLUMN, column + select(select(select(3u, 2u, tie.z), 1u, tie.y), 0u, tie.x), any(tie));
}

// The state of a block from its maximum, the first column that attains it, and the sums over its lanes.
fn close_block(top: f32, first: u32, lanes: Sums) -> RowState {
    if FROM_SOFTMAX {
        return RowState(0.0, true, first, relative_to_top(lanes, vec2<f32>(1.0)));
    }
    let inverse = reciprocal(mantissa_of(peak(top)));
    let scale = vec2<f32>(veil(inverse * 0x1p-90f), inverse);
    return RowState(top, largest(lanes) > 0.0, first, relative_to_top(lanes, scale));
}

// What a row is compared with, and the gradient that follows. With c = (1 − ε)·w_y and h = ε/K:
//
//   an index y: loss c·(L + m − z_y) + h·Σ w·(L + m − z), gradient p·(c + h·Σw) − h·w, and at the label
//               −c·(sum of the others)/(1 + s) in place of c·(p − 1), which would cancel; w has a power
//               of two of h, h the rest
//   weights y:  a = w·((1 − ε)·y + h), loss Σ a·(L + m − z), gradient p·Σa − a
//   a vector v: gradient p·(v − Σ p·v)


// Whether every class has a share in the loss.
fn has_column_weights() -> bool {
    return LABELS >= WEIGHTS || SMOOTHED;
}

@group(0) @binding(2) var<storage, read_write> labels: array<u32>;

// w of four classes, 0 and noted where it is none.
fn checked_weights(bits: vec4<u32>) -> vec4<f32> {
    let bad = (bits >= vec4<u32>(EXPONENT)) & (bits != vec4<u32>(0x80000000u));
    seen |= select(0u, BAD_WEIGHT, any(bad));
    return bitcast<vec4<f32>>(select(bits & vec4<u32>(0x7fffffffu), vec4<u32>(0u), bad));
}

// What is given of a column, 0 and noted where it is none; of the last class past the end.
fn label_weight(row: u32, column: u32) -> f32 {
    let bits = labels[params.labels_start + element(row, min(column, params.classes - 1u))];
    let bad = (bits & EXPONENT) == EXPONENT;
    seen |= select(0u, BAD_WEIGHT, bad);
    return bitcast<f32>(select(bits, 0u, bad));
}

// a, v, or w, of four columns; 0 past the end.
fn column_weights(row: u32, column: u32, slot: Slot) -> vec4<f32> {
    let columns = vec4<u32>(column, column + 1u, column + 2u, column + 3u);
    var a = vec4<f32>(params.share_unit);
    if LABELS != INDEX {
        a = vec4<f32>(
            label_weight(row, columns.x),
            label_weight(row, columns.y),
            label_weight(row, columns.z),
            label_weight(row, columns.w),
        );
    }
    if LABELS == WEIGHTS && SMOOTHED {
        let share = vec2<f32>(params.share_high, params.share_low) * params.share_unit;
        a = fma(vec4<f32>(params.keep_high), a, vec4<f32>(share.x))
            + fma(vec4<f32>(params.keep_low), a, vec4<f32>(share.y));
    }
    if LABELS != VECTORS && CLASS_WEIGHTS {
        a = veil4(a * checked_weights(class_weights_bits(column)));
    }
    a = select(vec4<f32>(0.0), a, columns < vec4<u32>(params.classes));
    if LABELS != VECTORS {
        seen |= select(0u, LOSS_UP, any(slot.masked & (a > vec4<f32>(0.0))));
        if LABELS == WEIGHTS {
            seen |= select(0u, LOSS_DOWN, any(slot.masked & (a < vec4<f32>(0.0))));
        }
    }
    return a;
}

// What the outputs need of an index label. Never reads past the row: a bad label is noted, and its
// row comes out NaN.
struct Label {
    column: u32,
    half_gap: f32,  // (m − z_y)/2
    weight: f32,    // w_y
    others: f32,    // Σ of exp(z − m) over the classes that are not the label
}

// The column of an index label; NO_LABEL, and noted, where the row is ignored or it is no class.
fn index_label(row: u32) -> u32 {
    let label = bitcast<i32>(labels[params.labels_start + row]);
    if label == params.ignore_index {
        seen |= IGNORED;
        return NO_LABEL;
    }
    let column = u32(label);
    if label < 0 || column >= params.classes {
        seen |= BAD_LABEL;
        return NO_LABEL;
    }
    return column;
}

fn row_label(row: u32, state: RowState) -> Label {
    let none = Label(NO_LABEL, 0.0, 0.0, 0.0);
    if LABELS != INDEX {
        return none;
    }
    let column = index_label(row);
    if column == NO_LABEL {
        return none;
    }
    let weight = label_class_weight(row, column);
    let s = wide(state.sums).x;
    let bits = label_bits(row, column);
    if (bits & EXPONENT) == EXPONENT {
        if weight > 0.0 && params.keep_high > 0.0 {
            seen |= LOSS_UP;
        }
        return Label(column, 0.0, weight, 1.0 + s);
    }
    let x = bitcast<f32>(bits);
    let here = point(x);
    let top = point(state.top);
    var others = s;
    // Of the maximum exactly 0, see `gaps_from`.
    var gap = 0.0;
    if x != state.top {
        others = 1.0 + veil(s - exp_gap(here, top));
        gap = half_gap(here, top);
    }
    return Label(column, gap, weight, veil(others));
}

// The gradient of a row with respect to z, in the parts that are common to its columns.
struct Pull {
    all: f32,       // what p is multiplied by
    at_label: f32,  // what p of the label is multiplied by
    others: f32,    // what the label has in place of p − 1
    back: f32,      // what a, w or v is multiplied by
    mean: f32,      // Σ p·v
}

// scales: of the loss and of the z-loss.
fn row_pull(state: RowState, label: Label, inverse: f32, lse: f32, scales: vec2<f32>) -> Pull {
    let sums = wide(state.sums);
    var z = 0.0;
    if Z_LOSS {
        z = saturated(veil(saturated(veil(2.0 * veil(params.z_loss * lse))) * scales.y));
    }
    if LABELS == VECTORS {
        return Pull(0.0, 0.0, 0.0, scales.x, veil(sums.z * inverse));
    }
    if LABELS == WEIGHTS {
        return Pull(saturated(veil(veil(sums.w * scales.x) + z)), 0.0, 0.0, scales.x, 0.0);
    }
    var kept = label.weight;
    var back = 0.0;
    var at_label = z;
    if SMOOTHED {
        kept = veil(params.keep_high * kept);
        back = veil(params.share_high * scales.x);
        at_label = veil(veil(sums.w * back) + z);
    }
    let pulled = veil(kept * scales.x);
    return Pull(saturated(veil(pulled + at_label)), at_label, veil(veil(label.others * inverse) * pulled), back, 0.0);
}

// The gradient of the columns of a slot with respect to z.
fn slot_grad(row: u32, column: u32, slot: Slot, p: vec4<f32>, pull: Pull, label: u32) -> vec4<f32> {
    if LABELS == VECTORS {
        return veil4(p * (column_weights(row, column, slot) - pull.mean)) * pull.back;
    }
    var grad = p * pull.all;
    var at_label = vec4<f32>(-pull.others);
    if SMOOTHED || Z_LOSS {
        at_label = veil4(at_label + veil4(p * pull.at_label));
    }
    if has_column_weights() {
        let back = veil4(column_weights(row, column, slot) * pull.back);
        grad = veil4(grad) - back;
        at_label -= back;
    }
    if LABELS == INDEX {
        let columns = vec4<u32>(column, column + 1u, column + 2u, column + 3u);
        grad = select(grad, at_label, columns == vec4<u32>(label));
    }
    return grad;
}

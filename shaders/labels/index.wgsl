// One class index per row: loss L + (m − x_y), gradient p, and −(sum of the others)/(1 + s) at the
// label, where p − 1 would cancel.

@group(0) @binding(2) var<storage, read_write> labels: array<i32>;

// Never reads past the row: a bad label is noted, and its row comes out NaN.
fn row_label(row: u32, state: RowState) -> Label {
    let label = labels[params.labels_start + row];
    if label == params.ignore_index {
        seen |= IGNORED;
        return Label(NO_LABEL, 0.0, 1.0, 0.0);
    }
    let column = u32(label);
    if label < 0 || column >= params.classes {
        seen |= BAD_LABEL;
        return Label(NO_LABEL, 0.0, 1.0, 0.0);
    }
    let bits = logit_bits(params.logits_start + row * params.classes + column);
    if (bits & EXPONENT) == EXPONENT {
        seen |= LOSS_UP;
        return Label(column, 0.0, 1.0, 1.0 + state.sums.x);
    }
    let x = bitcast<f32>(bits);
    var others = state.sums.x;
    if x != state.top {
        others = 1.0 + veil(state.sums.x - exp_gap(x, state.top));
    }
    return Label(column, half_gap(x, state.top), 1.0, veil(others));
}

fn column_grad(at: u32, column: u32, p: f32, done: Row) -> f32 {
    if column == done.label.column {
        return -veil(done.label.others * done.inverse) * done.scale;
    }
    return p * done.scale;
}

// A row of label weights y: loss Σy·L + Σ y·(m − x), gradient p·Σy − y.

@group(0) @binding(2) var<storage, read_write> labels: array<u32>;

fn label_bits(row: u32, column: u32) -> u32 {
    let at = params.labels_start + row * params.classes + min(column, params.classes - 1u);
    return select(0u, labels[at], column < params.classes);
}

fn row_label(row: u32, state: RowState) -> Label {
    return Label(NO_LABEL, plus_zero(state.sums.z), plus_zero(state.sums.w), 0.0);
}

// A sum of −0 alone keeps its sign only where no absent entry joined it, which is the kernel's affair.
fn plus_zero(sum: f32) -> f32 {
    return select(sum, 0.0, sum == 0.0);
}

fn column_grad(at: u32, column: u32, p: f32, done: Row) -> f32 {
    // Where a weight is not finite the whole row becomes NaN.
    return (veil(p * done.label.weight) - bitcast<f32>(labels[params.labels_start + at])) * done.scale;
}

// A row of label weights y: loss Σy·L + Σ y·(m − x), gradient p·Σy − y.

@group(0) @binding(2) var<storage, read> labels: array<u32>;

struct Label {
    column: u32,
    half_gap: f32,
    weight: f32,
}

fn label_bits(row: u32, column: u32) -> u32 {
    let at = params.labels_start + row * params.classes + min(column, params.classes - 1u);
    return select(0u, labels[at], column < params.classes);
}

fn row_label(row: u32, state: RowState) -> Label {
    return Label(NO_LABEL, state.sums.z, state.sums.w);
}

fn column_grad(at: u32, column: u32, p: f32, done: Row) -> f32 {
    // Where a weight is not finite the whole row becomes NaN.
    return (veil(p * done.label.weight) - bitcast<f32>(labels[params.labels_start + at])) * done.scale;
}

// No labels: nothing but Σ e and the ties.

alias Sums = vec2<f32>;

struct Label {
    column: u32,
    half_gap: f32,
    weight: f32,
}

fn slot_sums(row: u32, column: u32, slot: Slot, top: f32) -> Sums {
    return exp_sums(slot, top);
}

fn without_maximum(lanes: Sums, ties: f32) -> Sums {
    return Sums(lanes.x + ties, 0.0);
}

fn merge_sums(high: Sums, low: Sums, rescale: f32, drop: f32) -> Sums {
    return Sums(high.x + veil(low.x * rescale), 0.0);
}

fn row_label(row: u32, state: RowState) -> Label {
    return Label(NO_COLUMN - 1u, 0.0, 0.0);
}

fn column_grad(at: u32, column: u32, p: f32, done: Row) -> f32 {
    return 0.0;
}

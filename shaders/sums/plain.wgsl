// What a row sums up for softmax alone: (Σ e of the smaller, ties).

alias Sums = vec2<f32>;

fn slot_sums(row: u32, column: u32, slot: Slot, top: Peak) -> Sums {
    return exp_sums(slot, exp_slot(slot, top), top);
}

// The sums of a block: one of the ties is left out.
fn without_maximum(lanes: Sums) -> Sums {
    return Sums(lanes.x + max(lanes.y - 1.0, 0.0), 0.0);
}

fn with_maximum(sums: Sums) -> Sums {
    return Sums(veil(sums.x + 1.0), 0.0);
}

fn merge_sums(high: Sums, low: Sums, rescale: f32, drop: f32) -> Sums {
    return Sums(high.x + veil(low.x * rescale), 0.0);
}

// (Σ e, Σ e·gap, Σ a·gap/2, Σ a).
fn wide(sums: Sums) -> vec4<f32> {
    return vec4<f32>(sums.x, 0.0, 0.0, 0.0);
}

fn narrow(sums: vec4<f32>) -> Sums {
    return Sums(sums.x, 0.0);
}

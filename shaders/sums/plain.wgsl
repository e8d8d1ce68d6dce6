// What a row sums up where its labels are not weights: (Σ e of the smaller, ties).

alias Sums = vec2<f32>;

fn slot_sums(row: u32, column: u32, slot: Slot, top: f32) -> Sums {
    return exp_sums(slot, top);
}

fn without_maximum(lanes: Sums, ties: f32) -> Sums {
    return Sums(lanes.x + ties, 0.0);
}

fn merge_sums(high: Sums, low: Sums, rescale: f32, drop: f32) -> Sums {
    return Sums(high.x + veil(low.x * rescale), 0.0);
}

fn wide(sums: Sums) -> vec4<f32> {
    return vec4<f32>(sums, 0.0, 0.0);
}

fn narrow(sums: vec4<f32>) -> Sums {
    return sums.xy;
}

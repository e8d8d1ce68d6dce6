// What a row sums up for softmax alone: (largest e, Σ e of the others) in a block; (Σ e of all but the
// maximum, 0) in a state, where the e of the maximum is 1.

alias Sums = vec2<f32>;

fn no_sums() -> Sums {
    return Sums();
}

// Whether a slot can be summed up only when the maximum of its block is known.
fn top_first() -> bool {
    return false;
}

fn slot_sums(row: u32, column: u32, slot: Slot, top: Peak, reference: Reference) -> Sums {
    return pair_of_slot(exp_slot(slot, points(slot.x), reference));
}

fn add_sums(a: Sums, b: Sums) -> Sums {
    return add_pairs(a, b);
}

fn largest(sums: Sums) -> f32 {
    return sums.x;
}

// Sums whose terms were relative to a smaller power of two.
fn lowered(sums: Sums, by: f32) -> Sums {
    return sums * by;
}

// scale: 1 over the e of the maximum, in the two units that e has.
fn relative_to_top(lanes: Sums, scale: vec2<f32>) -> Sums {
    return Sums(lanes.y * scale.x, 0.0);
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

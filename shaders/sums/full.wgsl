// What a row sums up where classes have weights a or the entropy is wanted, gap being m − z: (largest e,
// Σ e of the others, Σ e·gap) and (Σ a·gap/2, Σ a, 0) in a block; in a state, where the e of the maximum
// is 1, (Σ e of all but the maximum, 0, Σ e·gap).
//
// a: the dense labels, smoothed and weighted; the class weights, where index labels are smoothed. For
// a vector v the second is (Σ e·v, 0, 0). 0·inf counts as 0: a masked class without weight is absent.

alias Sums = mat2x3<f32>;

// Whether a slot can be summed up only when the maximum of its block is known.
const TOP_FIRST = true;

override WITH_ENTROPY: bool = false;

fn slot_sums(row: u32, column: u32, slot: Slot, top: Peak, reference: Reference) -> Sums {
    let at = points(slot.x);
    let e = exp_slot(slot, at, reference);
    let pair = pair_of_slot(e);
    // Without the lift of the pairs, lest products overflow.
    let weight = e * select(0x1p-90f, 1.0, FROM_SOFTMAX);
    if LABELS == VECTORS {
        let v = column_weights(row, column, slot);
        return Sums(vec3<f32>(pair, 0.0), vec3<f32>(fold_slot(veil4(weight * v)), 0.0, 0.0));
    }
    let gap = select(half_gaps(at, top.point), vec4<f32>(0.0), slot.masked);
    var entropy = 0.0;
    if WITH_ENTROPY {
        // Where e is not 0 the gap is below 105.
        entropy = fold_slot(veil4(weight * (2.0 * min(gap, vec4<f32>(64.0)))));
    }
    var weighted = vec3<f32>(0.0);
    if has_column_weights() {
        let a = column_weights(row, column, slot);
        weighted = vec3<f32>(fold_slot(veil4(a * gap)), fold_slot(a), 0.0);
    }
    return Sums(vec3<f32>(pair, entropy), weighted);
}

fn add_sums(a: Sums, b: Sums) -> Sums {
    return Sums(vec3<f32>(add_pairs(a[0].xy, b[0].xy), a[0].z + b[0].z), a[1] + b[1]);
}

fn largest(sums: Sums) -> f32 {
    return sums[0].x;
}

// Sums whose terms were relative to a smaller power of two. Never here, where the maximum comes first.
fn lowered(sums: Sums, by: f32) -> Sums {
    return sums;
}

// scale: 1 over the e of the maximum, in the two units that e has.
fn relative_to_top(lanes: Sums, scale: vec2<f32>) -> Sums {
    var weighted = lanes[1];
    if LABELS == VECTORS {
        weighted *= scale.y;
    }
    return Sums(vec3<f32>(lanes[0].y * scale.x, 0.0, lanes[0].z * scale.y), weighted);
}

fn with_maximum(sums: Sums) -> Sums {
    return Sums(vec3<f32>(veil(sums[0].x + 1.0), 0.0, sums[0].z), sums[1]);
}

// drop: how far m rose, halved.
fn merge_sums(high: Sums, low: Sums, rescale: f32, drop: f32) -> Sums {
    let e = high[0].x + veil(low[0].x * rescale);
    // Past a drop of 64 rescale is 0.
    let moved = low[0].z + veil(low[0].x * (2.0 * min(drop, 64.0)));
    let entropy = high[0].z + veil(moved * rescale);
    if LABELS == VECTORS {
        return Sums(vec3<f32>(e, 0.0, 0.0), vec3<f32>(high[1].x + veil(low[1].x * rescale), 0.0, 0.0));
    }
    let gap = high[1].x + (low[1].x + veil(low[1].y * drop));
    return Sums(vec3<f32>(e, 0.0, entropy), vec3<f32>(gap, high[1].y + low[1].y, 0.0));
}

// (Σ e, Σ e·gap, Σ a·gap/2, Σ a).
fn wide(sums: Sums) -> vec4<f32> {
    return vec4<f32>(sums[0].xz, sums[1].xy);
}

fn narrow(sums: vec4<f32>) -> Sums {
    return Sums(vec3<f32>(sums.x, 0.0, sums.y), vec3<f32>(sums.zw, 0.0));
}

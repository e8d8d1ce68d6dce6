// What a row sums up where classes have weights a or the entropy is wanted, gap being m − z:
// (Σ e of the smaller, ties, Σ e·gap) and (Σ a·gap/2, Σ a, 0).
//
// a: the dense labels, smoothed and weighted; the class weights, where index labels are smoothed. For
// a vector v the second is (Σ e·v, 0, 0). 0·inf counts as 0: a masked class without weight is absent.

alias Sums = mat2x3<f32>;

override WITH_ENTROPY: bool = false;

fn slot_sums(row: u32, column: u32, slot: Slot, top: Peak) -> Sums {
    let e = exp_slot(slot, top);
    let exps = exp_sums(slot, e, top);
    if LABELS == VECTORS {
        let v = column_weights(row, column, slot);
        return Sums(vec3<f32>(exps, 0.0), vec3<f32>(fold_slot(veil4(e * v)), 0.0, 0.0));
    }
    var gap = vec4<f32>(0.0);
    for (var i = 0u; i < SLOT; i += 1u) {
        gap[i] = select(0.0, half_gap(point(slot.x[i]), top.point), slot.live[i]);
    }
    var entropy = 0.0;
    if WITH_ENTROPY {
        // Where e is not 0 the gap is below 105.
        entropy = fold_slot(veil4(e * (2.0 * min(gap, vec4<f32>(64.0)))));
    }
    var weighted = vec3<f32>(0.0);
    if has_column_weights() {
        let a = column_weights(row, column, slot);
        weighted = vec3<f32>(fold_slot(veil4(a * gap)), fold_slot(a), 0.0);
    }
    return Sums(vec3<f32>(exps, entropy), weighted);
}

// The sums of a block: one of the ties is left out.
fn without_maximum(lanes: Sums) -> Sums {
    return Sums(vec3<f32>(lanes[0].x + max(lanes[0].y - 1.0, 0.0), 0.0, lanes[0].z), lanes[1]);
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

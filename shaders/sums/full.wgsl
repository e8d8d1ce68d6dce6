// What a row sums up where classes have weights a or the entropy is wanted, gap being m − z.
//
// a: the dense labels, smoothed and weighted; the class weights, where index labels are smoothed. For
// a vector v the weighted sum is (Σ e·v, 0). 0·inf counts as 0: a masked class without weight is absent.

struct Sums {
    // In a block (largest e, Σ e of the others); in a state, where the e of the maximum is 1,
    // (Σ e of all but the maximum, 0).
    pair: vec2<f32>,
    // Σ e·gap.
    entropy: f32,
    // (Σ a·gap/2, Σ a), these gaps being from `top`, the point of the largest z so far.
    weighted: vec2<f32>,
    top: vec2<f32>,
}

override WITH_ENTROPY: bool = false;

fn no_sums() -> Sums {
    return Sums(vec2<f32>(0.0), 0.0, vec2<f32>(0.0), lowest_point());
}

// Whether a slot can be summed up only when the maximum of its block is known.
fn top_first() -> bool {
    return WITH_ENTROPY || LABELS == VECTORS;
}

fn slot_sums(row: u32, column: u32, slot: Slot, top: Peak, reference: Reference) -> Sums {
    let at = points(slot.x);
    let e = exp_slot(slot, at, reference);
    var sums = Sums(pair_of_slot(e), 0.0, vec2<f32>(0.0), highest(at, slot.x));
    // Without the lift of the pairs, lest products overflow.
    let weight = e * select(0x1p-90f, 1.0, FROM_SOFTMAX);
    if LABELS == VECTORS {
        let v = column_weights(row, column, slot);
        sums.weighted.x = fold_slot(veil4(weight * v));
        return sums;
    }
    if WITH_ENTROPY {
        let gap = gaps_from(slot, at, top);
        // Where e is not 0 the gap is below 105.
        sums.entropy = fold_slot(veil4(weight * (2.0 * min(gap, vec4<f32>(64.0)))));
    }
    if has_column_weights() {
        let a = column_weights(row, column, slot);
        let gap = gaps_from(slot, at, Peak(slot_top(slot), sums.top));
        sums.weighted = vec2<f32>(fold_slot(veil4(a * gap)), fold_slot(a));
    }
    return sums;
}

// Half of m − z, of the maximum exactly 0: compilers round the two sides of a difference in ways of their own.
fn gaps_from(slot: Slot, at: Points, top: Peak) -> vec4<f32> {
    return select(half_gaps(at, top.point), vec4<f32>(0.0), slot.masked | (slot.x >= vec4<f32>(top.x)));
}

fn add_sums(a: Sums, b: Sums) -> Sums {
    let pair = add_pairs(a.pair, b.pair);
    let entropy = a.entropy + b.entropy;
    if LABELS == VECTORS || !has_column_weights() {
        return Sums(pair, entropy, a.weighted + b.weighted, a.top);
    }
    // The gaps of the lower one grow by what it is lower.
    let rise = half_gap(a.top, b.top);
    let a_gap = a.weighted.x + select(0.0, veil(a.weighted.y * rise), rise > 0.0);
    let b_gap = b.weighted.x - select(0.0, veil(b.weighted.y * rise), rise < 0.0);
    let weighted = vec2<f32>(a_gap + b_gap, a.weighted.y + b.weighted.y);
    return Sums(pair, entropy, weighted, select(a.top, b.top, rise > 0.0));
}

fn largest(sums: Sums) -> f32 {
    return sums.pair.x;
}

// Sums whose terms were relative to a smaller power of two. The others never are, as the maximum comes first.
fn lowered(sums: Sums, by: f32) -> Sums {
    return Sums(sums.pair * by, sums.entropy, sums.weighted, sums.top);
}

// scale: 1 over the e of the maximum, in the two units that e has.
fn relative_to_top(lanes: Sums, scale: vec2<f32>) -> Sums {
    var weighted = lanes.weighted;
    if LABELS == VECTORS {
        weighted *= scale.y;
    }
    return Sums(vec2<f32>(lanes.pair.y * scale.x, 0.0), lanes.entropy * scale.y, weighted, lanes.top);
}

fn with_maximum(sums: Sums) -> Sums {
    return Sums(vec2<f32>(veil(sums.pair.x + 1.0), 0.0), sums.entropy, sums.weighted, sums.top);
}

// drop: how far m rose, halved.
fn merge_sums(high: Sums, low: Sums, rescale: f32, drop: f32) -> Sums {
    let pair = vec2<f32>(high.pair.x + veil(low.pair.x * rescale), 0.0);
    // Past a drop of 64 rescale is 0.
    let moved = low.entropy + veil(low.pair.x * (2.0 * min(drop, 64.0)));
    let entropy = high.entropy + veil(moved * rescale);
    if LABELS == VECTORS {
        let product = high.weighted.x + veil(low.weighted.x * rescale);
        return Sums(pair, 0.0, vec2<f32>(product, 0.0), high.top);
    }
    let gap = high.weighted.x + (low.weighted.x + veil(low.weighted.y * drop));
    return Sums(pair, entropy, vec2<f32>(gap, high.weighted.y + low.weighted.y), high.top);
}

// (Σ e, Σ e·gap, Σ a·gap/2, Σ a).
fn wide(sums: Sums) -> vec4<f32> {
    return vec4<f32>(sums.pair.x, sums.entropy, sums.weighted);
}

fn narrow(sums: vec4<f32>) -> Sums {
    return Sums(vec2<f32>(sums.x, 0.0), sums.y, sums.zw, lowest_point());
}

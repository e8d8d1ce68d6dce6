// What a row sums up where its labels are weights y: (Σ e, ties, Σ y·(m − x)/2, Σ y).
// 0·inf counts as 0: a masked class without weight is absent.

alias Sums = vec4<f32>;

fn slot_sums(row: u32, column: u32, slot: Slot, top: f32) -> Sums {
    var bits = vec4<u32>(label_bits(row, column), label_bits(row, column + 1u), label_bits(row, column + 2u), label_bits(row, column + 3u));
    if any((bits & vec4<u32>(EXPONENT)) == vec4<u32>(EXPONENT)) {
        seen |= BAD_WEIGHT;
        bits = vec4<u32>(0u);
    }
    let y = bitcast<vec4<f32>>(bits);
    if any(!slot.live & (y > vec4<f32>(0.0))) {
        seen |= LOSS_UP;
    }
    if any(!slot.live & (y < vec4<f32>(0.0))) {
        seen |= LOSS_DOWN;
    }
    var product = vec4<f32>(0.0);
    for (var i = 0u; i < SLOT; i += 1u) {
        product[i] = select(0.0, veil(y[i] * half_gap(slot.x[i], top)), slot.live[i]);
    }
    return Sums(exp_sums(slot, top), fold_slot(product), fold_slot(y));
}

fn without_maximum(lanes: Sums, ties: f32) -> Sums {
    return Sums(lanes.x + ties, 0.0, lanes.z, lanes.w);
}

fn merge_sums(high: Sums, low: Sums, rescale: f32, drop: f32) -> Sums {
    return Sums(
        high.x + veil(low.x * rescale),
        0.0,
        high.z + (low.z + veil(low.w * drop)),
        high.w + low.w,
    );
}

fn wide(sums: Sums) -> vec4<f32> {
    return sums;
}

fn narrow(sums: vec4<f32>) -> Sums {
    return sums;
}

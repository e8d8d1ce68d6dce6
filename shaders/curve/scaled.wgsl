// z = s·x.

fn gaps(at: Points, base: vec2<f32>) -> Four {
    // Below this the difference could overflow.
    let least = max(base.x, 0.0) + LOWEST;
    let gap = params.unit * max(max(at, vec4<f32>(least)) - base.x, vec4<f32>(-params.far));
    // Of the products that make up z the first is exact, and the others are small beside it.
    let short = heads(gap);
    let rest = fma(gap, vec4<f32>(params.factor_rest), (gap - short) * params.factor_head);
    return Four(short * params.factor_head, rest);
}

fn half_gap(here: vec2<f32>, top: vec2<f32>) -> f32 {
    let gap = half_gap_pair(here, top);
    return veil(gap.x + gap.y);
}

fn half_gaps(at: Points, top: vec2<f32>) -> vec4<f32> {
    let whole = veil4(veil4(params.unit * (0.5 * top.x - 0.5 * at)) * params.factor);
    // Not past the largest f32.
    return bitcast<vec4<f32>>(min(bitcast<vec4<u32>>(whole), vec4<u32>(0x7f7fffffu)));
}

fn z_of(x: f32) -> vec2<f32> {
    return z_of_point(point(x));
}

fn is_past(x: f32) -> bool {
    return is_past_point(point(x));
}

// z is x.

fn gaps(at: Points, base: vec2<f32>) -> Four {
    // Below this the difference could overflow.
    let least = max(base.x, 0.0) + LOWEST;
    return Four(max(max(at, vec4<f32>(least)) - base.x, vec4<f32>(-FAR)), vec4<f32>(0.0));
}

fn half_gaps(at: Points, top: vec2<f32>) -> vec4<f32> {
    return 0.5 * top.x - 0.5 * at;
}

fn exp_gap(here: vec2<f32>, top: vec2<f32>) -> f32 {
    // Below this e is 0, and the subtraction could overflow.
    let gone = here.x < top.x - 104.0;
    return select(exp_sum(two_sum(select(here.x, top.x, gone), -top.x)), 0.0, gone);
}

fn half_gap(here: vec2<f32>, top: vec2<f32>) -> f32 {
    return veil(0.5 * top.x - 0.5 * here.x);
}

fn half_gap_pair(here: vec2<f32>, top: vec2<f32>) -> vec2<f32> {
    return two_sum(0.5 * top.x, -0.5 * here.x);
}

fn z_of(x: f32) -> vec2<f32> {
    return vec2<f32>(x, 0.0);
}

fn is_past(x: f32) -> bool {
    return false;
}

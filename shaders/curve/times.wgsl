// What both curves have in common: z is `unit`·point·`factor`, and only differences of points are
// multiplied, with their rounding errors. Rounding z itself would put exp off by up to 471 ULP.

fn exp_gap(here: vec2<f32>, top: vec2<f32>) -> f32 {
    let gone = 0.5 * here.x - 0.5 * top.x < -params.gone;
    var gap = two_sum(params.unit * select(here.x, top.x, gone), -params.unit * top.x);
    gap.y += here.y - top.y;
    return veil(select(exp_sum(times_factor(pair_of(gap.x, gap.y))), 0.0, gone));
}

fn times_factor(gap: vec2<f32>) -> vec2<f32> {
    let product = two_product(gap.x, params.factor);
    return pair_of(product.x, veil(product.y + veil(gap.y * params.factor)));
}

fn half_gap_pair(here: vec2<f32>, top: vec2<f32>) -> vec2<f32> {
    var gap = two_sum(0.5 * top.x, -0.5 * here.x);
    gap.y += 0.5 * (top.y - here.y);
    let whole = veil(veil(gap.x * params.unit) * params.factor);
    if is_large(whole) {
        return vec2<f32>(saturated(whole), 0.0);
    }
    return times_factor(params.unit * pair_of(gap.x, gap.y));
}

fn is_past_point(here: vec2<f32>) -> bool {
    return (bitcast<u32>(veil(veil(here.x * params.unit) * params.factor)) & EXPONENT) == EXPONENT;
}

fn z_of_point(here: vec2<f32>) -> vec2<f32> {
    let whole = veil(veil(here.x * params.unit) * params.factor);
    if is_large(whole) {
        return vec2<f32>(saturated(whole), 0.0);
    }
    return times_factor(params.unit * here);
}

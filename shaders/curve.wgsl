// From the logits x to z, which softmax is taken of: z = s·x, then c·tanh(z/c) where there is a cap.
//
// A point stands for z: z is `unit`·point.x·`factor` for a scale alone, where the point is x itself;
// with a cap the point is tanh(x·s/c), a sum of two, and the factor is c. Either grows with x, so x
// decides which class is the maximum. Only differences of points are multiplied, with their rounding
// errors: rounding z itself would put exp off by up to 471 ULP.
//
// gone: below the top by more than this, exp is 0. slope: s. bound: |x| from which on tanh is 1.

const PLAIN = 0u;
const SCALED = 1u;
const CAPPED = 2u;
override CURVE: u32 = 0u;

fn point(x: f32) -> vec2<f32> {
    if CURVE == CAPPED {
        // tanh(u) = -(q - 1)/(q + 1) with q = exp(-2u).
        let e = exp_minus_1(minus_2u(x));
        let tanh = pair_quotient(-e, pair_sum(vec2<f32>(2.0, 0.0), e));
        return select(tanh, -tanh, x < 0.0);
    }
    return vec2<f32>(x, 0.0);
}

// The largest x of what is looked at, with its point.
struct Peak {
    x: f32,
    point: vec2<f32>,
}

fn peak(x: f32) -> Peak {
    return Peak(x, point(x));
}

// -2·|u|, u = x·s/c.
fn minus_2u(x: f32) -> vec2<f32> {
    let size = -2.0 * min(abs(x), params.bound);
    let product = two_product(size, params.inverse_cap_high);
    return pair_of(product.x, veil(product.y + veil(size * params.inverse_cap_low)));
}

// dz/dx over s: with a cap 4q/(1 + q)², which does not cancel as 1 - tanh² does.
fn cap_slope(x: f32) -> f32 {
    if CURVE == CAPPED {
        let q = exp_sum(minus_2u(x));
        let inverse = reciprocal_sum(q);
        return veil(veil(4.0 * q * inverse) * inverse);
    }
    return 1.0;
}

// exp(z - z of the top) for points that are not above the top.
fn exp_gap(here: vec2<f32>, top: vec2<f32>) -> f32 {
    if CURVE == PLAIN {
        // Below this e is 0, and the subtraction could overflow.
        let gone = here.x < top.x - 104.0;
        return veil(select(exp_sum(two_sum(select(here.x, top.x, gone), -top.x)), 0.0, gone));
    }
    let gone = here.x < top.x - params.gone;
    var gap = two_sum(params.unit * select(here.x, top.x, gone), -params.unit * top.x);
    gap.y += here.y - top.y;
    return veil(select(exp_sum(times_factor(pair_of(gap.x, gap.y))), 0.0, gone));
}

fn times_factor(gap: vec2<f32>) -> vec2<f32> {
    let product = two_product(gap.x, params.factor);
    return pair_of(product.x, veil(product.y + veil(gap.y * params.factor)));
}

// Half of z of the top less z, as a sum of two: halved, because the difference of two finite values
// can overflow. At most the largest f32.
fn half_gap_pair(here: vec2<f32>, top: vec2<f32>) -> vec2<f32> {
    var gap = two_sum(0.5 * top.x, -0.5 * here.x);
    if CURVE == PLAIN {
        return gap;
    }
    gap.y += 0.5 * (top.y - here.y);
    let whole = veil(veil(gap.x * params.unit) * params.factor);
    if is_large(whole) {
        return vec2<f32>(saturated(whole), 0.0);
    }
    return times_factor(params.unit * pair_of(gap.x, gap.y));
}

fn half_gap(here: vec2<f32>, top: vec2<f32>) -> f32 {
    let gap = half_gap_pair(here, top);
    return veil(gap.x + gap.y);
}

// z of a point, as a sum of two.
fn z_of(here: vec2<f32>) -> vec2<f32> {
    if CURVE == PLAIN {
        return here;
    }
    let whole = veil(veil(here.x * params.unit) * params.factor);
    if is_large(whole) {
        return vec2<f32>(saturated(whole), 0.0);
    }
    return times_factor(params.unit * here);
}

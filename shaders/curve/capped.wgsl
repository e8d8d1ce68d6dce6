// z = c·tanh(s·x/c). The point is the tanh, a sum of two. Like z itself it grows with x, so x decides
// which class is the maximum.
//
// Of every curve: `point(x)` stands for z, `points` of four x for theirs and for dz/dx, `spread` of a point
// for four of them; `highest` is the point of the largest of four x, `lowest_point` one that none is
// below; `exp_gap` is exp(z − z of the top) for points that are not above the top; `gaps` are z − z
// of the base, as sums of two, exact where they matter (see `base_of`) and at least -FAR; `half_gap_pair`
// is half of z of the top less z as a sum of two, halved because the difference of two finite values can
// overflow, and at most the largest f32, `half_gap` the same as one f32, `half_gaps` of four; `z_of(x)`
// is z as a sum of two, and at most the largest f32, `is_past` whether z is not; `slopes` are dz/dx over s.

// Caps so low that `low_points` will do, with an s/c that is far from the ends of f32.
override LOW_CAP: bool = false;

// ½·log 2 in two parts; the first has 15 bits.
const HALF_LN_2_HIGH = 0x1.62e4p-2f;
const HALF_LN_2_LOW = 0x1.7f7d1cp-21f;

struct Points {
    tanh: Four,
    slope: vec4<f32>,
}

fn point(x: f32) -> vec2<f32> {
    if LOW_CAP {
        let all = low_points(vec4<f32>(x));
        return vec2<f32>(all.tanh.high.x, all.tanh.low.x);
    }
    return tanh_pair(x);
}

fn points(x: vec4<f32>) -> Points {
    if LOW_CAP {
        return low_points(x);
    }
    var all: Points;
    // A loop, because compilers take their time over four copies of this.
    for (var i = 0u; i < 4u; i += 1u) {
        let tanh = tanh_pair(x[i]);
        all.tanh.high[i] = tanh.x;
        all.tanh.low[i] = tanh.y;
        let q = exp_sum(minus_2u(x[i]));
        let inverse = reciprocal_sum(q);
        // 4q/(1 + q)², which does not cancel as 1 - tanh² does.
        all.slope[i] = veil(veil(4.0 * q * inverse) * inverse);
    }
    return all;
}

fn spread(point: vec2<f32>) -> Points {
    return Points(Four(vec4<f32>(point.x), vec4<f32>(point.y)), vec4<f32>(0.0));
}

fn slopes(at: Points) -> vec4<f32> {
    return at.slope;
}

fn highest(at: Points, x: vec4<f32>) -> vec2<f32> {
    let left = select(vec2<f32>(at.tanh.high.y, at.tanh.low.y), vec2<f32>(at.tanh.high.x, at.tanh.low.x), x.x > x.y);
    let right = select(vec2<f32>(at.tanh.high.w, at.tanh.low.w), vec2<f32>(at.tanh.high.z, at.tanh.low.z), x.z > x.w);
    return select(right, left, max(x.x, x.y) > max(x.z, x.w));
}

fn lowest_point() -> vec2<f32> {
    return vec2<f32>(-1.0, 0.0);
}

fn gaps(at: Points, base: vec2<f32>) -> Four {
    if LOW_CAP {
        // No base: z is never as far from 0 as that.
        return low_gaps(at.tanh);
    }
    var all: Four;
    for (var i = 0u; i < 4u; i += 1u) {
        let here = vec2<f32>(at.tanh.high[i], at.tanh.low[i]);
        let gone = here.x - base.x < -params.far;
        let gap = vec2<f32>(select(here.x, base.x, gone) - base.x, here.y - base.y);
        let z = times_factor(pair_of(gap.x, gap.y));
        all.high[i] = select(z.x, -FAR, gone);
        all.low[i] = select(z.y, 0.0, gone);
    }
    return all;
}

fn half_gap(here: vec2<f32>, top: vec2<f32>) -> f32 {
    if LOW_CAP {
        return low_half_gaps(spread(here).tanh, top).x;
    }
    let gap = half_gap_pair(here, top);
    return veil(gap.x + gap.y);
}

fn half_gaps(at: Points, top: vec2<f32>) -> vec4<f32> {
    if LOW_CAP {
        // tanh may fall by a rounding where x rises.
        return max(low_half_gaps(at.tanh, top), vec4<f32>(0.0));
    }
    var all: vec4<f32>;
    for (var i = 0u; i < 4u; i += 1u) {
        let gap = half_gap_pair(vec2<f32>(at.tanh.high[i], at.tanh.low[i]), top);
        all[i] = veil(gap.x + gap.y);
    }
    return all;
}

// To 2^-44 of its size.
fn tanh_pair(x: f32) -> vec2<f32> {
    // tanh(u) = -(q - 1)/(q + 1) with q = exp(-2u).
    let e = exp_minus_1(minus_2u(x));
    let tanh = pair_quotient(-e, pair_sum(vec2<f32>(2.0, 0.0), e));
    return select(tanh, -tanh, x < 0.0);
}

// -2·|u|, u = x·s/c.
fn minus_2u(x: f32) -> vec2<f32> {
    let size = -2.0 * min(abs(x), params.bound);
    let product = two_product(size, params.inverse_cap_high);
    return pair_of(product.x, veil(product.y + veil(size * params.inverse_cap_low)));
}

// To 2^-31 and 2^-23 of its size, slopes to 5 ULP. With a cap of 64 z is off by less than 2^-25 then, and exp
// of it by half an ULP more than it is anyway.
//
// With |u| = n·½·log 2 + r, |r| up to ¼·log 2, and t = tanh(r):
//
//   tanh|u| = (h − f)/(h + f),  h = 1 + t,  f = 2^-n·(1 − t),  slope = 4·h·f/(h + f)²
//
// Sums of two without their carries: first parts are multiples of GRID, or have the first 12 bits, so
// that their sums and products are exact, and second parts are what is left.
fn low_points(x: vec4<f32>) -> Points {
    let size = min(abs(x), vec4<f32>(params.bound));
    let short = heads(size);
    let u = short * params.inverse_cap_head;
    let u_rest = fma(size, vec4<f32>(params.inverse_cap_rest), (size - short) * params.inverse_cap_head);
    let n = round(u * (2.0 * LOG2_E));
    let r_high = fma(n, vec4<f32>(-HALF_LN_2_HIGH), u);
    let r_low = fma(n, vec4<f32>(-HALF_LN_2_LOW), u_rest);
    let r = r_high + r_low;
    let t = on_grid(r);
    let r_rest = veil4(r_high - t) + r_low;
    // tanh(r) = r − r³/3 + r⁵·q, r³ = t³ + 3·t·r·r_rest but for less than 2^-33; t³ is exact.
    let square = r * r;
    var q = fma(square, vec4<f32>(0x1.5fa81p-6f), vec4<f32>(-0x1.ba11c8p-5f));
    q = fma(square, q, vec4<f32>(0x1.11111p-3f));
    q = fma(square * square * r, q, -(r_rest * (r * t)));
    let t_rest = r_rest + fma(t * t * t, vec4<f32>(-0x1.555556p-2f), q);
    // 2^-n is left out of f until the end, where the slope would be flushed.
    let power = powers(129.0 - n);
    let f = power * (0.25 - 0.25 * t);
    let f_high = on_grid(f);
    let f_low = fma(-0.25 * power, t_rest, veil4(f - f_high));
    let h = 1.0 + t;
    let above = h - f_high;
    let above_rest = t_rest - f_low;
    let below = h + f_high;
    let below_rest = t_rest + f_low;
    let inverse = veil4(1.0 / (below + below_rest));
    let tanh = heads((above + above_rest) * inverse);
    let residual = veil4(fma(tanh, -below, above)) + fma(tanh, -below_rest, above_rest);
    // 1/(h + f) may be off by 2.5 ULP, which only the slope feels: one Newton step on its residual.
    let guess = heads(inverse);
    let missed = veil4(fma(guess, -below, vec4<f32>(1.0))) - guess * below_rest;
    let exact = veil4(fma(inverse, missed, guess));
    let slope = veil4((h + t_rest) * exact) * veil4(power * veil4((1.0 - t) - t_rest) * exact);
    let sign = bitcast<vec4<u32>>(x) & vec4<u32>(0x80000000u);
    let low = bitcast<vec4<u32>>(residual * inverse);
    let high = bitcast<vec4<u32>>(tanh);
    return Points(Four(bitcast<vec4<f32>>(high | sign), bitcast<vec4<f32>>(low ^ sign)), slope);
}

// c·tanh. The first part of tanh has 12 bits.
fn low_gaps(tanh: Four) -> Four {
    let low = fma(tanh.high, vec4<f32>(params.factor_rest), params.factor * tanh.low);
    return Four(tanh.high * params.factor_head, low);
}

fn low_half_gaps(tanh: Four, top: vec2<f32>) -> vec4<f32> {
    let here = low_gaps(tanh);
    let there = low_gaps(spread(top).tanh);
    // In this order: Mesa's compiler would add a second part to a first.
    return 0.5 * (veil4(there.high - here.high) + veil4(there.low - here.low));
}

// The nearest multiple of 2^-10, of values up to 2^12.
fn on_grid(value: vec4<f32>) -> vec4<f32> {
    return veil4(value + 0x1.8p+13f) - 0x1.8p+13f;
}

// Once a row, and without any loss.
fn z_of(x: f32) -> vec2<f32> {
    return z_of_point(tanh_pair(x));
}

fn is_past(x: f32) -> bool {
    return is_past_point(tanh_pair(x));
}

// z = c·tanh(s·x/c). The point is the tanh, a sum of two. Like z itself it grows with x, so x decides
// which class is the maximum.
//
// Of every curve: `point(x)` stands for z; `exp_gap` is exp(z − z of the top) for points that are not
// above the top; `gaps` are z − z of the base for four x, as sums of two, exact where they matter (see
// `base_of`) and at least -FAR; `half_gap_pair` is half of z of the top less z as a sum of
// two, halved because the difference of two finite values can overflow, and at most the largest f32;
// `z_of` is z as a sum of two, and at most the largest f32, `is_past` whether z is not; `cap_slopes` of four x is dz/dx over s.

fn point(x: f32) -> vec2<f32> {
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

// 4q/(1 + q)², which does not cancel as 1 - tanh² does.
fn cap_slopes(x: vec4<f32>) -> vec4<f32> {
    var slopes: vec4<f32>;
    for (var i = 0u; i < 4u; i += 1u) {
        let q = exp_sum(minus_2u(x[i]));
        let inverse = reciprocal_sum(q);
        slopes[i] = veil(veil(4.0 * q * inverse) * inverse);
    }
    return slopes;
}

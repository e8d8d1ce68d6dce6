// Sums of two f32, the second below an ULP of the first: 2^-44 or better, relative to the result.
// Dekker, *A floating-point technique for extending the available precision*, 1971.

const LN_2_TINY = 0x1.ef357ap-45f;

fn pair_of(a: f32, b: f32) -> vec2<f32> {
    let sum = veil(a + b);
    return vec2<f32>(sum, b - veil(sum - a));
}

// a·b and what its rounding lost. Halves of 12 bits, so that their products are exact. Where those
// might be flushed the loss would be wrong, and is left out.
fn two_product(a: f32, b: f32) -> vec2<f32> {
    let product = veil(a * b);
    let a_high = bitcast<f32>(bitcast<u32>(a) & 0xfffff000u);
    let b_high = bitcast<f32>(bitcast<u32>(b) & 0xfffff000u);
    let a_low = veil(a - a_high);
    let b_low = veil(b - b_high);
    var lost = veil(veil(a_high * b_high) - product);
    lost = veil(lost + veil(a_high * b_low));
    lost = veil(lost + veil(a_low * b_high));
    lost = veil(lost + veil(a_low * b_low));
    return vec2<f32>(product, select(lost, 0.0, abs(product) < 0x1p-96f));
}

fn pair_sum(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let sum = two_sum(a.x, b.x);
    return pair_of(sum.x, veil(sum.y + veil(a.y + b.y)));
}

fn pair_product(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let product = two_product(a.x, b.x);
    return pair_of(product.x, veil(product.y + veil(veil(a.x * b.y) + veil(a.y * b.x))));
}

fn pair_quotient(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let guess = veil(a.x / b.x);
    let rest = pair_sum(a, pair_product(b, vec2<f32>(-guess, 0.0)));
    return pair_of(guess, veil(rest.x / b.x));
}

// exp(t) - 1 for t from -105 to 0. The polynomial is Taylor's: from the seventh term on f32 is enough.
fn exp_minus_1(t: vec2<f32>) -> vec2<f32> {
    let n = max(round(t.x * LOG2_E), -126.0);
    let high = two_sum(t.x, veil(n * -LN_2_HIGH));
    let low = two_product(n, -LN_2_LOW);
    let r = pair_sum(high, pair_of(low.x, veil(low.y + fma(n, -LN_2_TINY, t.y))));
    var q = fma(r.x, 0x1.1eed8ep-29f, 0x1.ae6456p-26f);
    q = fma(r.x, q, 0x1.27e4fcp-22f);
    q = fma(r.x, q, 0x1.71de3ap-19f);
    q = fma(r.x, q, 0x1.a01a02p-16f);
    q = fma(r.x, q, 0x1.a01a02p-13f);
    var h = pair_sum(vec2<f32>(0x1.6c16c2p-10f, -0x1.27d27ep-35f), vec2<f32>(veil(r.x * q), 0.0));
    h = pair_sum(vec2<f32>(0x1.111112p-7f, -0x1.ddddep-32f), pair_product(r, h));
    h = pair_sum(vec2<f32>(0x1.555556p-5f, -0x1.555556p-30f), pair_product(r, h));
    h = pair_sum(vec2<f32>(0x1.555556p-3f, -0x1.555556p-28f), pair_product(r, h));
    h = pair_sum(vec2<f32>(0.5, 0.0), pair_product(r, h));
    h = pair_sum(vec2<f32>(1.0, 0.0), pair_product(r, h));
    h = pair_product(r, h);
    let power = bitcast<f32>(u32(i32(n) + 127) << 23u);
    return pair_sum(two_sum(power, -1.0), veil2(h * power));
}

fn veil2(pair: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(veil(pair.x), veil(pair.y));
}

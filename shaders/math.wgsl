// exp, log1p and the reciprocal, to the last bit or two, from f32 additions and multiplications.
//
// What the language promises: `+ - *` are rounded once, `fma` may be fused or not, `/` is within
// 2.5 ULP, and a compiler may fold (a + b) - a or contract a*b + c. So a value whose rounding error
// matters passes through `veil`, products that enter a sum are `fma` or exact, and non-finite values
// never get here.
// Range reductions after Cody & Waite (1980), errors of sums after Knuth, TAOCP 4.2.2.
// Polynomials: minimax by Remez exchange, coefficients rounded to f32 one after the other.

const LOWEST = -0x1.fffffep+127f;
const LOG2_E = 0x1.715476p+0f;
// ln 2 in two parts; the first has 15 bits, so that its product with an 8-bit integer is exact.
const LN_2_HIGH = 0x1.62e4p-1f;
const LN_2_LOW = 0x1.7f7d1cp-20f;
// No gap that matters is below minus this: exp of it is 0, whatever it is relative to.
const FAR = 1000.0;

// The same value, through an integer that no compiler can see through.
fn veil(value: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(value) ^ params.zero);
}

fn veil4(values: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(values) ^ vec4<u32>(params.zero));
}

// Four sums of two f32 each.
struct Four {
    high: vec4<f32>,
    low: vec4<f32>,
}

// The first 12 bits: products of two such are exact.
fn heads(values: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(values) & vec4<u32>(0xfffff000u));
}

// a + b and what its rounding lost.
fn two_sum(a: f32, b: f32) -> vec2<f32> {
    let sum = veil(a + b);
    let b_part = veil(sum - a);
    return vec2<f32>(sum, (a - veil(sum - b_part)) + (b - b_part));
}

// Four exponentials as e·2^n, e from sqrt(1/2) to sqrt(2): powers of two are left for later, because
// multiplying by one is exact.
struct Parts {
    e: vec4<f32>,
    n: vec4<f32>,
}

// exp of gap.high + gap.low, |gap.high| at most 350, within 1 ULP. gap.low, the rounding error of gap.high or
// up to 2^-11 of it, joins the reduced argument; without it, e is off by 64 ULP and more.
fn exp_parts(gap: Four) -> Parts {
    let n = nearest_power(gap);
    return Parts(1.0 + exp_rest(gap, n), n);
}

// The n of these.
fn nearest_power(gap: Four) -> vec4<f32> {
    return round((gap.high + gap.low) * LOG2_E);
}

// exp of gap - n·log 2, less 1.
fn exp_rest(gap: Four, n: vec4<f32>) -> vec4<f32> {
    // The reduced argument in two parts, the first exact.
    let r_high = fma(n, vec4<f32>(-LN_2_HIGH), gap.high);
    let r_low = fma(n, vec4<f32>(-LN_2_LOW), gap.low);
    let r = r_high + r_low;
    var q = fma(r, vec4<f32>(0x1.6fef88p-10f), vec4<f32>(0x1.1257dp-7f));
    q = fma(r, q, vec4<f32>(0x1.5552fep-5f));
    q = fma(r, q, vec4<f32>(0x1.555466p-3f));
    q = fma(r, q, vec4<f32>(0.5));
    // Summed in this order and no other: Mesa's compiler would make it ((1 + r_high) + r²q) + r_low, which
    // rounds three times at the size of 1 and is off by 1.14 ULP.
    return veil4(r_high + veil4(fma(r * r, q, r_low)));
}

// 2^(n - 127) from its bits, 0 where n is not above 0; n an integer below 256. 2^23 + n has n for its last bits.
fn powers(n: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(max(n, vec4<f32>(0.0)) + 0x1p23) << vec4<u32>(23u));
}

// exp of gap.x + gap.y from -105 to 0, within 1 ULP where it is at least 2^-126, else in [0, 2^-126].
fn exp_sum(gap: vec2<f32>) -> f32 {
    let parts = exp_parts(Four(vec4<f32>(gap.x), vec4<f32>(gap.y)));
    return veil(parts.e.x * powers(parts.n + 127.0).x);
}

// The e of `exp_parts` as a sum of two: what its last rounding lost comes second.
fn exp_mantissa(gap: vec2<f32>) -> vec2<f32> {
    let four = Four(vec4<f32>(gap.x), vec4<f32>(gap.y));
    let rest = exp_rest(four, nearest_power(four)).x;
    let e = veil(1.0 + rest);
    return vec2<f32>(e, rest - veil(e - 1.0));
}

// log(1 + s) for finite s >= 0, within 1 ULP.
fn log1p_sum(s: f32) -> f32 {
    let log_sum = log1p_pair(s);
    return log_sum.x + log_sum.y;
}

// The same as a sum of two, within half an ULP of the first.
fn log1p_pair(s: f32) -> vec2<f32> {
    let one_plus = two_sum(1.0, s);
    // 1 + s = (1 + f)·2^k + lost, with 1 + f from sqrt(1/2) to sqrt(2).
    let shifted = bitcast<u32>(one_plus.x) - 0x3f3504f3u;
    let k = f32(i32(shifted) >> 23u);
    let f = bitcast<f32>((shifted & 0x7fffffu) + 0x3f3504f3u) - 1.0;
    let lost = one_plus.y * bitcast<f32>(u32(127 - (i32(shifted) >> 23u)) << 23u);
    var q = fma(f, 0x1.b98b2ap-5f, -0x1.c0cd7p-4f);
    q = fma(f, q, 0x1.f0315ap-4f);
    q = fma(f, q, -0x1.00feecp-3f);
    q = fma(f, q, 0x1.23036cp-3f);
    q = fma(f, q, -0x1.552f1ap-3f);
    q = fma(f, q, 0x1.99a54p-3f);
    q = fma(f, q, -0x1.00007p-2f);
    q = fma(f, q, 0x1.555548p-2f);
    q = fma(f, q, -0.5);
    // log1p(f + lost) = log1p(f) + lost/(1 + f); 1/(1 + f) is 1 - f + f² where `lost` counts.
    let low = fma(lost, fma(f, f - 1.0, 1.0), k * LN_2_LOW);
    // k·LN_2_HIGH and f are exact.
    let high = two_sum(veil(k * LN_2_HIGH), f);
    let sum = two_sum(high.x, veil(fma(f * f, q, low)));
    return vec2<f32>(sum.x, veil(sum.y + high.y));
}

// 1/(1 + s) for finite s >= 0, within 1 ULP.
fn reciprocal_sum(s: f32) -> f32 {
    return reciprocal(two_sum(1.0, s));
}

// 1/(d.x + d.y), d.y being within half an ULP of d.x: one Newton step on the exact residual.
fn reciprocal(d: vec2<f32>) -> f32 {
    let guess = veil(1.0 / d.x);
    // Halves of 12 bits, so that their products are exact.
    let d_high = bitcast<f32>(bitcast<u32>(d.x) & 0xfffff000u);
    let d_low = veil(d.x - d_high);
    let g_high = bitcast<f32>(bitcast<u32>(guess) & 0xfffff000u);
    let g_low = veil(guess - g_high);
    var residual = veil(1.0 - veil(d_high * g_high));
    residual = veil(residual - veil(d_high * g_low));
    residual = veil(residual - veil(d_low * g_high));
    residual = veil(residual - veil(d_low * g_low));
    residual = veil(residual - veil(d.y * guess));
    return veil(guess + veil(guess * residual));
}

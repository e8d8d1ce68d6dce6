// What is known of a row when all its logits have been read, and what follows for its own outputs.

struct Outcome {
    top: f32,
    sums: vec4<f32>,   // Σ e, Σ e·gap, Σ a·gap/2, Σ a; see `sums/`
    seen: u32,
    prediction: u32,
    half_gap: f32,     // of the label: (m − z_y)/2
    weight: f32,       // of the label: w_y
}

// NaN by its logits or its dense labels; a row with a bad index is counted on its own.
fn is_nan_row(seen: u32) -> bool {
    return (seen & (POISONED | BAD_WEIGHT)) != 0u || (seen & (LOSS_UP | LOSS_DOWN)) == (LOSS_UP | LOSS_DOWN);
}

// L.
fn log_sum_of(row: Outcome) -> vec2<f32> {
    return log1p_pair(row.sums.x);
}

// m + L; where m is large, L is no part of it.
fn lse_of(row: Outcome, log_sum: vec2<f32>) -> vec2<f32> {
    let m = z_of(row.top);
    if is_large(m.x) {
        return vec2<f32>(m.x, 0.0);
    }
    return pair_sum(m, log_sum);
}

// The bits of lse, infinite where it is past the largest f32.
fn lse_bits(row: Outcome, lse: vec2<f32>) -> u32 {
    let infinite = select(PLUS_INF, MINUS_INF, lse.x < 0.0);
    return select(bitcast<u32>(lse.x), infinite, is_past(row.top));
}

// A part of the loss: as a sum of two f32 unless it is large, and its bits, which may be those of +inf.
struct Term {
    value: vec2<f32>,
    is_large: bool,
    bits: u32,
}

fn small_term(value: vec2<f32>) -> Term {
    return Term(value, false, bitcast<u32>(value.x));
}

// λ·lse².
fn z_term(lse: vec2<f32>) -> Term {
    let whole = veil(veil(params.z_loss * lse.x) * lse.x);
    if is_large(whole) {
        return Term(vec2<f32>(0.0), true, bitcast<u32>(whole));
    }
    return small_term(pair_product(pair_product(lse, vec2<f32>(params.z_loss, 0.0)), lse));
}

// What is said of a row: nothing if it is ignored, NaN if it is that.
fn row_bits(bits: u32, seen: u32, is_nan: bool) -> u32 {
    return select(select(bits, NAN, is_nan), 0u, (seen & IGNORED) != 0u);
}

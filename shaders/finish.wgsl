// What one invocation per row knows of a row from its state.

const STATE_WORDS = 12u;

@group(0) @binding(9) var<storage, read_write> states: array<u32>;

override WORKGROUP_SIZE: u32 = 64u;

// NaN by its logits or its dense labels; a row with a bad index is counted on its own.
fn is_nan_row(seen: u32) -> bool {
    return (seen & (POISONED | BAD_WEIGHT)) != 0u || (seen & (LOSS_UP | LOSS_DOWN)) == (LOSS_UP | LOSS_DOWN);
}

fn state_f32(row: u32, word: u32) -> f32 {
    return bitcast<f32>(states[STATE_WORDS * row + word]);
}

fn state_u32(row: u32, word: u32) -> u32 {
    return states[STATE_WORDS * row + word];
}

// L.
fn log_sum_of(row: u32) -> vec2<f32> {
    return log1p_pair(state_f32(row, 1u));
}

// m + L; where m is large, L is no part of it.
fn lse_of(row: u32, log_sum: vec2<f32>) -> vec2<f32> {
    let m = z_of(point(state_f32(row, 0u)));
    if is_large(m.x) {
        return vec2<f32>(m.x, 0.0);
    }
    return pair_sum(m, log_sum);
}

// The bits of lse, infinite where it is past the largest f32.
fn lse_bits(row: u32, lse: vec2<f32>) -> u32 {
    let infinite = select(PLUS_INF, MINUS_INF, lse.x < 0.0);
    return select(bitcast<u32>(lse.x), infinite, is_past(point(state_f32(row, 0u))));
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

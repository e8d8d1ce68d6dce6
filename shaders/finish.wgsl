// The outputs of a row, and its share in the sums of the batch.
//
// Loss L·Σa + Σ a·(m − z), two terms that do not cancel for labels that are not negative, plus λ·lse²;
// lse m + L. As sums of two f32, so that what the state of the row lost is all that is lost.

@group(0) @binding(10) var<storage, read_write> losses: array<u32>;
@group(0) @binding(11) var<storage, read_write> lse: array<u32>;
@group(0) @binding(12) var<storage, read_write> predictions: array<u32>;

// L·Σa + Σ a·(m − z).
fn cross_entropy(row: Outcome, log_sum: vec2<f32>) -> Term {
    if LABELS == INDEX && !SMOOTHED && !CLASS_WEIGHTS {
        let bits = doubled_bits(veil(veil(0.5 * log_sum.x) + row.half_gap));
        let small = small_term(pair_sum(log_sum, vec2<f32>(2.0 * row.half_gap, 0.0)));
        if is_large(row.half_gap) {
            return Term(vec2<f32>(0.0), true, bits);
        }
        return small;
    }
    // Index labels: a is c at the label, (1 − ε)·w_y, and h times what was summed up, which has the rest of
    // ε/K.
    var c = vec2<f32>(0.0);
    var h = vec2<f32>(1.0, 0.0);
    if LABELS == INDEX {
        c = pair_product(vec2<f32>(params.keep_high, params.keep_low), vec2<f32>(row.weight, 0.0));
        h = vec2<f32>(params.share_high, params.share_low);
    }
    // Halves, see `half_gap_pair`.
    let label_gap = row.half_gap;
    let sum_gap = row.sums.z;
    let weight = pair_sum(c, pair_product(h, vec2<f32>(row.sums.w, 0.0)));
    let term = veil(weight.x * log_sum.x);
    if is_large(label_gap) || is_large(sum_gap) || is_large(term) {
        let half_gap = veil(veil(c.x * label_gap) + veil(h.x * sum_gap));
        return Term(vec2<f32>(0.0), true, doubled_bits(veil(veil(0.5 * term) + half_gap)));
    }
    let gap = pair_sum(pair_product(c, vec2<f32>(label_gap, 0.0)), pair_product(h, vec2<f32>(sum_gap, 0.0)));
    if is_large(gap.x) {
        return Term(vec2<f32>(0.0), true, doubled_bits(veil(veil(0.5 * term) + gap.x)));
    }
    return small_term(pair_sum(pair_product(weight, log_sum), 2.0 * gap));
}

fn finish(number: u32, row: Outcome) {
    let slot = (number / 16u) % SUM_SLOTS;
    let sums = slot * SLOT_WORDS;
    let seen = row.seen;
    let log_sum = log_sum_of(row);
    let lse_pair = lse_of(row, log_sum);
    if WITH_LSE {
        lse[params.lse_start + number] = select(lse_bits(row, lse_pair), NAN, (seen & POISONED) != 0u);
    }
    if WITH_PREDICTIONS && params.predictions_start != NOT_WANTED {
        predictions[params.predictions_start + number] = row.prediction;
    }
    if (seen & IGNORED) == 0u {
        count(slot, VALID_ROWS);
        if is_nan_row(seen) {
            note(NAN_ROWS, number);
        }
        if (seen & BAD_LABEL) != 0u {
            note(BAD_LABELS, number);
        }
        if WITH_PREDICTIONS && (seen & HIT) != 0u {
            count(slot, CORRECT_ROWS);
        }
    }
    if LABELS == NO_LABELS || LABELS == VECTORS {
        return;
    }
    let is_nan = is_nan_row(seen) || (seen & BAD_LABEL) != 0u;
    let term = cross_entropy(row, log_sum);
    var loss = term.bits;
    if (seen & (LOSS_UP | LOSS_DOWN)) != 0u {
        loss = select(MINUS_INF, PLUS_INF, (seen & LOSS_UP) != 0u);
    }
    var whole = loss;
    if Z_LOSS {
        let z = z_term(lse_pair);
        whole = bitcast<u32>(pair_sum(term.value, z.value).x);
        if term.is_large || z.is_large || loss != term.bits {
            whole = sum_bits(loss, z.bits);
        }
        add_exactly(sums + Z_SUM, sums + Z_SPECIALS, row_bits(z.bits, seen, (seen & POISONED) != 0u));
    }
    loss = row_bits(loss, seen, is_nan);
    whole = row_bits(whole, seen, is_nan);
    if WITH_LOSSES {
        losses[params.losses_start + number] = whole;
    }
    // With two denominators the terms are summed apart.
    let apart = Z_LOSS && has_flag(DENOMINATOR_IS_WEIGHTS);
    add_exactly(sums + LOSS_SUM, sums + LOSS_SPECIALS, select(whole, loss, apart));
}

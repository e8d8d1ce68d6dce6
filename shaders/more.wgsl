// The outputs of a row that are seldom wanted: entropy L + Σ p·(m − z), two terms ≥ 0; whether the
// prediction is the label; λ·lse².

@group(0) @binding(13) var<storage, read_write> entropy: array<u32>;
@group(0) @binding(14) var<storage, read_write> correct: array<u32>;
@group(0) @binding(15) var<storage, read_write> z_losses: array<u32>;

fn finish_more(number: u32, row: Outcome) {
    let seen = row.seen;
    let is_nan = (seen & POISONED) != 0u;
    let log_sum = log_sum_of(row);
    if params.entropy_start != NOT_WANTED {
        let mean_gap = veil(row.sums.y * reciprocal_sum(row.sums.x));
        let bits = bitcast<u32>(log_sum.x + (log_sum.y + mean_gap));
        entropy[params.entropy_start + number] = select(bits, NAN, is_nan);
    }
    if params.correct_start != NOT_WANTED {
        correct[params.correct_start + number] = select(0u, 1u, (seen & HIT) != 0u);
    }
    if params.z_losses_start != NOT_WANTED {
        let bits = z_term(lse_of(row, log_sum)).bits;
        z_losses[params.z_losses_start + number] = row_bits(bits, seen, is_nan);
    }
}

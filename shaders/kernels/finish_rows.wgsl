// One invocation derives a row's outputs from its state and adds the row to the batch.
//
// Reads 24 bytes a row and writes 4 for each output wanted. Loss L·Σy + Σ y·(m − x), two terms that
// do not cancel for labels that are not negative; lse m + L.

override WORKGROUP_SIZE: u32 = 64u;
override HAS_LABELS: bool = true;

@group(0) @binding(8) var<storage, read_write> states: array<u32>;
@group(0) @binding(9) var<storage, read_write> losses: array<u32>;
@group(0) @binding(10) var<storage, read_write> lse: array<u32>;
@group(0) @binding(11) var<storage, read_write> predictions: array<u32>;

const STATE_WORDS = 8u;

const NAN = 0x7fc00000u;
const PLUS_INF = 0x7f800000u;
const MINUS_INF = 0xff800000u;

// NaN by its logits or its dense labels; a row with a bad index is counted on its own.
fn is_nan_row() -> bool {
    return (seen & (POISONED | BAD_WEIGHT)) != 0u || (seen & (LOSS_UP | LOSS_DOWN)) == (LOSS_UP | LOSS_DOWN);
}

fn loss_bits(log_sum: f32, half_gap: f32, weight: f32) -> u32 {
    if (seen & IGNORED) != 0u {
        return 0u;
    }
    if (seen & BAD_LABEL) != 0u || is_nan_row() {
        return NAN;
    }
    if (seen & LOSS_UP) != 0u {
        return PLUS_INF;
    }
    if (seen & LOSS_DOWN) != 0u {
        return MINUS_INF;
    }
    // Small losses as they are, so that halving does not push them below 2^-126; large ones by
    // halves, so that what overflows is seen before it does.
    let term = veil(weight * log_sum);
    if abs(half_gap) < 0x1p+100f && abs(term) < 0x1p+100f {
        return bitcast<u32>(term + veil(2.0 * half_gap));
    }
    let half_loss = veil(veil(0.5 * term) + half_gap);
    // NaN and infinity, where sums of signed terms came that far, keep their bits.
    if (bitcast<u32>(half_loss) & PLUS_INF) == PLUS_INF {
        return bitcast<u32>(half_loss);
    }
    if abs(half_loss) >= 0x1p+127f {
        return select(PLUS_INF, MINUS_INF, half_loss < 0.0);
    }
    return bitcast<u32>(2.0 * half_loss);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn finish_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = workgroup.y * workgroups.x + workgroup.x;
    let row = group * WORKGROUP_SIZE + local;
    if row >= params.rows {
        return;
    }
    let slot = (group + local) % SUM_SLOTS;
    let at = STATE_WORDS * row;
    let top = bitcast<f32>(states[at]);
    let log_sum = log1p_sum(bitcast<f32>(states[at + 1u]));
    let half_gap = bitcast<f32>(states[at + 2u]);
    let weight = bitcast<f32>(states[at + 3u]);
    seen = states[at + 4u];

    if params.lse_start != NOT_WANTED {
        lse[params.lse_start + row] = select(bitcast<u32>(top + log_sum), NAN, (seen & POISONED) != 0u);
    }
    if params.predictions_start != NOT_WANTED {
        predictions[params.predictions_start + row] = states[at + 5u];
    }
    if (seen & IGNORED) == 0u {
        count(slot, VALID_ROWS);
        if is_nan_row() {
            note(NAN_ROWS, row);
        }
        if (seen & BAD_LABEL) != 0u {
            note(BAD_LABELS, row);
        }
        if (seen & HIT) != 0u {
            count(slot, CORRECT_ROWS);
        }
    }
    if HAS_LABELS {
        let loss = loss_bits(log_sum, half_gap, weight);
        if params.losses_start != NOT_WANTED {
            losses[params.losses_start + row] = loss;
        }
        add_exactly(slot, loss);
    }
}

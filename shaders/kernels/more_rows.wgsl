// One invocation per row: the outputs that are seldom wanted.
//
// Reads 48 bytes a row and writes 4 for each output wanted. Entropy L + Σ p·(m − z), two terms ≥ 0;
// whether the prediction is the label; λ·lse².

@group(0) @binding(13) var<storage, read_write> entropy: array<u32>;
@group(0) @binding(14) var<storage, read_write> correct: array<u32>;
@group(0) @binding(15) var<storage, read_write> z_losses: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn more_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = (workgroup.y * workgroups.x + workgroup.x) * WORKGROUP_SIZE + local;
    if row >= params.rows {
        return;
    }
    let seen = state_u32(row, 5u);
    let is_nan = (seen & POISONED) != 0u;
    let log_sum = log_sum_of(row);
    if params.entropy_start != NOT_WANTED {
        let mean_gap = veil(state_f32(row, 2u) * reciprocal_sum(state_f32(row, 1u)));
        let bits = bitcast<u32>(log_sum.x + (log_sum.y + mean_gap));
        entropy[params.entropy_start + row] = select(bits, NAN, is_nan);
    }
    if params.correct_start != NOT_WANTED {
        correct[params.correct_start + row] = select(0u, 1u, (seen & HIT) != 0u);
    }
    if params.z_losses_start != NOT_WANTED {
        let bits = z_term(lse_of(row, log_sum)).bits;
        z_losses[params.z_losses_start + row] = row_bits(bits, seen, is_nan);
    }
}

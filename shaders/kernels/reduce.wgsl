// One workgroup turns the exact sums of the batch into the reduced loss, rounded once, and leaves
// zeros for the next batch.
//
// Invocation l adds up words l, l + 32, … of every slot; then one invocation carries, subtracts,
// divides bit by bit and rounds to nearest, ties to even. Where the z-loss has a denominator of its own
// it is a sum of its own, and the loss is the sum of two roundings.

@group(0) @binding(16) var<storage, read_write> loss: array<u32>;
@group(0) @binding(17) var<storage, read_write> z_loss: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn reduce(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    take_params(workgroup.z);
    gather(local);
    if local != 0u {
        return;
    }
    atomicStore(&status[params.status_start + VALID], totals_low[VALID_ROWS]);
    atomicStore(&status[params.status_start + CORRECT], totals_low[CORRECT_ROWS]);
    atomicStore(&status[params.status_start + VALID_HIGH], totals_high[VALID_ROWS]);
    atomicStore(&status[params.status_start + CORRECT_HIGH], totals_high[CORRECT_ROWS]);
    if params.loss_start != NOT_WANTED {
        var bits = mean_bits(LOSS_SUM, LOSS_SPECIALS, true, divisor());
        if has_flag(DENOMINATOR_IS_WEIGHTS) {
            var z = mean_bits(Z_SUM, Z_SPECIALS, false, z_divisor());
            if z_divisor().empty && !divisor().empty {
                z = 0u;
            }
            bits = sum_bits(bits, z);
        }
        loss[params.loss_start] = bits;
    }
    if params.z_loss_start != NOT_WANTED {
        z_loss[params.z_loss_start] = mean_bits(Z_SUM, Z_SPECIALS, false, z_divisor());
    }
    if has_flag(DENOMINATOR_IN_BUFFER) && (has_flag(DENOMINATOR_IS_COUNT) || has_flag(DENOMINATOR_IS_WEIGHTS)) {
        // What is counted of the next batch begins at 0.
        for (var word = 0u; word < COUNTED_WORDS; word += 1u) {
            denominator[params.denominator_start + word] = 0u;
        }
    }
}

// One workgroup rounds the exact sum of the labels' class weights to an f32, once, and leaves zeros.

@compute @workgroup_size(WORKGROUP_SIZE)
fn round_denominator(@builtin(local_invocation_index) local: u32) {
    params = given;
    gather(local, WEIGHT_SUM, WEIGHT_SPECIALS + 3u);
    if local == 0u {
        denominator[params.denominator_start] = mean_bits(WEIGHT_SUM, WEIGHT_SPECIALS, false, Divisor(1u, true, false));
    }
}

// Third of three passes over split rows: LANES invocations write the outputs of one block.
//
// Reads each logit once and writes each output once. Nobody waits for anybody; the label's logit is
// not read, as the gradient may have taken its place.

override WORKGROUP_SIZE: u32 = 64u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn split_row_apply(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let blocks = (written_columns() + BLOCK - 1u) / BLOCK;
    let unit = (workgroup.y * workgroups.x + workgroup.x) * (WORKGROUP_SIZE / LANES) + local / LANES;
    let row = unit / blocks;
    if row >= params.rows {
        return;
    }
    let done = load_row(row);
    let start = unit % blocks * BLOCK;
    let end = min(written_columns(), start + BLOCK);
    for (var column = start + SLOT * (local % LANES); column < end; column += LANE_STEP) {
        write_slot(row, column, done);
    }
}

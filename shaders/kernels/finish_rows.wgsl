// One invocation derives a row's outputs from its state and adds the row to the batch.
//
// Reads 36 bytes a row and writes 4 for each output wanted.

override WORKGROUP_SIZE: u32 = 64u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn finish_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    take_params(workgroup.z);
    let row = (workgroup.y * workgroups.x + workgroup.x) * WORKGROUP_SIZE + local;
    if row < params.rows {
        finish(row, load_outcome(row));
    }
}

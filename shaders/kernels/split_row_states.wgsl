// First of three passes over split rows: a team leaves the state of one block.
//
// Reads each logit twice, a block of 4 KiB from the cache the second time; writes 48 bytes a block.

override WORKGROUP_SIZE: u32 = 64u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn split_row_states(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    local = index;
    let blocks = blocks_per_row();
    let unit = (workgroup.y * workgroups.x + workgroup.x) * (WORKGROUP_SIZE / TEAM) + local / TEAM;
    let row = unit / blocks;
    let block = unit % blocks;
    let columns = select(0u, params.classes, row < params.rows);
    let start = block * BLOCK;
    let state = team_block(row, start, min(columns, start + BLOCK));
    seen = team_or(seen);
    if row < params.rows && local % TEAM == 0u {
        store_block(row, block, state);
    }
}

// First of two passes over split rows: a team leaves the state of one part.
//
// Reads each logit once; writes 36 bytes a part.

override WORKGROUP_SIZE: u32 = 64u;

// Parts of a row that begin in this dispatch.
fn parts_here() -> u32 {
    return (min(params.classes, params.end_column) - params.first_column + params.part - 1u) / params.part;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn split_row_states(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    take_params(workgroup.z);
    local = index;
    let parts = parts_here();
    let unit = (workgroup.y * workgroups.x + workgroup.x) * (WORKGROUP_SIZE / TEAM) + local / TEAM;
    let here = unit / parts < params.rows;
    let row = min(unit / parts, params.rows - 1u);
    let part = params.first_column / params.part + unit % parts;
    let columns = select(0u, params.classes, here);
    for (var block = 0u; block < (given.part | workgroup.z) / BLOCK; block += 1u) {
        let start = part * params.part + block * BLOCK;
        push(team_block(row, start, min(columns, start + BLOCK)));
    }
    let state = pop_all();
    seen = team_or(seen);
    if here && local % TEAM == 0u {
        store_part(row, part, state);
    }
}

// First of three passes over split rows: a team leaves the state of one part.
//
// Reads each logit once; writes 48 bytes a part.

override WORKGROUP_SIZE: u32 = 64u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn split_row_states(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    params = given;
    local = index;
    let parts = parts_here(params.classes);
    let unit = (workgroup.y * workgroups.x + workgroup.x) * (WORKGROUP_SIZE / TEAM) + local / TEAM;
    let here = unit / parts < params.rows;
    let row = min(unit / parts, params.rows - 1u);
    let part = params.first_column / PART + unit % parts;
    let columns = select(0u, params.classes, here);
    for (var block = 0u; block < PART / BLOCK; block += 1u) {
        let start = part * PART + block * BLOCK;
        push(team_block(row, start, min(columns, start + BLOCK)));
    }
    let state = pop_all();
    seen = team_or(seen);
    if here && local % TEAM == 0u {
        store_part(row, part, state);
    }
}

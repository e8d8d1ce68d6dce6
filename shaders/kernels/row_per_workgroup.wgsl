// A workgroup owns a row: each of its teams takes a block, in rounds.
//
// Reads each logit once for its state, and once more for outputs of its shape where the row is wider than
// a block for each team. Everything around a barrier is uniform: it depends on the workgroup's row and on
// the parameters alone.

override WORKGROUP_SIZE: u32 = 256u;
// The row is a block for each team at most, and stays with them from its state to its outputs.
override RESIDENT: bool = false;

var<workgroup> block_states: array<RowState, WORKGROUP_SIZE / TEAM>;
var<workgroup> row_state: RowState;
var<workgroup> seen_by_any: atomic<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_per_workgroup(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    take_params(workgroup.z);
    local = index;
    let row = workgroup.y * workgroups.x + workgroup.x;
    if row >= given.rows {
        return;
    }
    if local == 0u {
        atomicStore(&seen_by_any, 0u);
    }
    let teams = WORKGROUP_SIZE / TEAM;
    let team = local / TEAM;

    for (var round = 0u; round < (given.classes | workgroup.z); round += teams * BLOCK) {
        let start = round + team * BLOCK;
        let state = team_block(row, start, min(params.classes, start + BLOCK));
        if local % TEAM == 0u {
            block_states[team] = state;
        }
        // The tree over the blocks of this round, in place.
        for (var apart = 1u; apart < teams; apart *= 2u) {
            workgroupBarrier();
            if local < teams && local % (2u * apart) == 0u {
                block_states[local] = merge(block_states[local], block_states[local + apart]);
            }
        }
        if local == 0u {
            push(block_states[0]);
        }
        // The first block's state has been read.
        workgroupBarrier();
    }
    atomicOr(&seen_by_any, seen);
    if local == 0u {
        row_state = pop_all();
    }
    workgroupBarrier();
    seen = atomicLoad(&seen_by_any);
    let done = finish_row(row, row_state);
    if local == 0u {
        hand_over(row, done);
    }
    if writes_matrix() {
        wait_for_label_readers();
        if RESIDENT {
            team_write_held(row, team * BLOCK, done);
        } else {
            write_columns(row, 0u, written_columns(), local, WORKGROUP_SIZE, done);
        }
    }
}

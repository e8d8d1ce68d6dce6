// A team owns a row; a workgroup holds WORKGROUP_SIZE / TEAM of them, and of rows.
//
// Reads each logit once for its state, and once more for outputs of its shape where the row is wider than
// a block. Every member carries the whole state of the row, so nothing has to be handed out. Everything
// around an exchange is uniform: it depends on the parameters alone.

override WORKGROUP_SIZE: u32 = 64u;
// The row is a block at most.
override ONE_BLOCK: bool = false;
// So it is, and stays with its team from its state to its outputs.
override RESIDENT: bool = false;

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_per_subgroup(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    take_params(workgroup.z);
    local = index;
    let unit = (workgroup.y * workgroups.x + workgroup.x) * (WORKGROUP_SIZE / TEAM) + local / TEAM;
    let here = unit < params.rows;
    let row = min(unit, params.rows - 1u);
    let columns = select(0u, params.classes, here);
    var state: RowState;
    if ONE_BLOCK {
        state = team_block(row, 0u, columns);
    } else {
        for (var start = 0u; start < (given.classes | workgroup.z); start += BLOCK) {
            push(team_block(row, start, min(columns, start + BLOCK)));
        }
        state = pop_all();
    }
    seen = team_or(seen);
    var done: Row;
    if here {
        done = finish_row(row, state);
        if local % TEAM == 0u {
            hand_over(row, done);
        }
    }
    if writes_matrix() {
        wait_for_label_readers();
        if RESIDENT {
            if here {
                team_write_held(row, 0u, done);
            }
        } else if here {
            write_columns(row, 0u, written_columns(), local % TEAM, TEAM, done);
        }
    }
}

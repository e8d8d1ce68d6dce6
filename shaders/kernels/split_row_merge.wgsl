// Second of three passes over split rows: one workgroup merges the states of a row's parts.
//
// Each invocation merges a run of a power of two of parts, a subtree of the canonical tree; the
// workgroup merges the runs. Reads 48 bytes a part, writes 48 a row.

override WORKGROUP_SIZE: u32 = 64u;

var<workgroup> runs: array<RowState, WORKGROUP_SIZE>;
var<workgroup> seen_by_any: atomic<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn split_row_merge(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    params = given;
    let row = workgroup.y * workgroups.x + workgroup.x;
    if row >= given.rows {
        return;
    }
    if local == 0u {
        atomicStore(&seen_by_any, 0u);
    }
    let parts = parts_per_row();
    var run = 1u;
    while run * WORKGROUP_SIZE < parts {
        run *= 2u;
    }
    for (var part = local * run; part < min(parts, (local + 1u) * run); part += 1u) {
        push(load_part(row, part));
    }
    runs[local] = pop_all();
    for (var apart = 1u; apart < WORKGROUP_SIZE; apart *= 2u) {
        workgroupBarrier();
        if local % (2u * apart) == 0u {
            runs[local] = merge(runs[local], runs[local + apart]);
        }
    }
    atomicOr(&seen_by_any, seen);
    workgroupBarrier();
    if local == 0u {
        seen = atomicLoad(&seen_by_any);
        let done = finish_row(row, runs[0]);
        store_row(row, done);
        if FINISHES {
            hand_over(row, done);
        }
    }
}

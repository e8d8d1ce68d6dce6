// Second of two passes over split rows: a workgroup merges the states of all parts of a row, and writes the
// outputs of a span of its columns. Whose span is the first hands the row over.
//
// Each invocation merges a run of a power of two of parts, a subtree of the canonical tree; the
// workgroup merges the runs. Reads 36 bytes a part and each logit of the span once.

override WORKGROUP_SIZE: u32 = 64u;

var<workgroup> runs: array<RowState, WORKGROUP_SIZE>;
var<workgroup> seen_by_any: atomic<u32>;

// Spans of a row that begin in this dispatch.
fn spans_here() -> u32 {
    if !writes_matrix() {
        return 1u;
    }
    let columns = min(select(given.classes, given.row_length, PADDED), given.end_column);
    return (columns - given.first_column + given.span - 1u) / given.span;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn split_row_finish(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    take_params(workgroup.z);
    let unit = workgroup.y * workgroups.x + workgroup.x;
    let row = unit / spans_here();
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
    seen = atomicLoad(&seen_by_any);
    let done = finish_row(row, runs[0]);
    let start = params.first_column + unit % spans_here() * params.span;
    if local == 0u && start == 0u {
        hand_over(row, done);
    }
    if writes_matrix() {
        let end = min(params.end_column, start + params.span);
        write_columns(row, start, end, local, WORKGROUP_SIZE, done);
    }
}

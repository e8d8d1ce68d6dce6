// One invocation owns a row.
//
// Reads each logit three times where outputs of its shape are wanted (a block's maximum, its sums,
// the write), twice where not; a block of 4 KiB stays in the cache between the first two. No barriers, so
// nothing has to be uniform. Best for narrow rows, and on drivers that run on a processor.

override WORKGROUP_SIZE: u32 = 64u;

fn block_key(row: u32, start: u32, end: u32) -> u32 {
    var top = Top(LOWEST, false);
    for (var column = start; column < end; column += SLOT) {
        top = raise(top, read_slot(row, column));
    }
    return key_of(top);
}

fn block_sums(row: u32, start: u32, end: u32, top: Peak) -> Sums {
    var groups: array<Sums, 8>;
    var group = 0u;
    for (var column = start; column < min(end, start + LANE_STEP); column += 4u * SLOT) {
        var lanes: array<Sums, 4>;
        for (var lane = 0u; lane < 4u; lane += 1u) {
            // Lanes past the end stay zeros.
            lanes[lane] = lane_sums(row, column + lane * SLOT, end, top);
        }
        groups[group] = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
        group += 1u;
    }
    return fold_groups(groups);
}

fn block_first(row: u32, start: u32, end: u32, top: Peak) -> u32 {
    var first = NO_COLUMN;
    for (var column = start; column < end && first == NO_COLUMN; column += SLOT) {
        first = slot_first(read_slot(row, column), column, top);
    }
    return first;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_per_invocation(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = (workgroup.y * workgroups.x + workgroup.x) * WORKGROUP_SIZE + local;
    if row >= params.rows {
        return;
    }
    for (var start = 0u; start < params.classes; start += BLOCK) {
        let end = min(params.classes, start + BLOCK);
        let key = block_key(row, start, end);
        let top = peak(from_order_key(key));
        var first = NO_COLUMN;
        if WITH_PREDICTIONS {
            first = block_first(row, start, end, top);
        }
        push(close_block(key, first, block_sums(row, start, end, top)));
    }
    let done = finish_row(row, pop_all());
    store_row(row, done);
    if writes_matrix() {
        for (var column = 0u; column < written_columns(); column += SLOT) {
            write_slot(row, column, done);
        }
    }
}

// One workgroup owns a row: LANES invocations a block, WORKGROUP_SIZE / LANES blocks at once.
//
// Reads each logit as often as `row_per_invocation`, neighbours reading neighbours. Everything around
// a barrier is uniform: it depends on the workgroup's row and on the parameters alone.

override WORKGROUP_SIZE: u32 = 256u;

var<workgroup> lane_keys: array<u32, WORKGROUP_SIZE>;
var<workgroup> lane_firsts: array<u32, WORKGROUP_SIZE>;
var<workgroup> lane_totals: array<Sums, WORKGROUP_SIZE>;
var<workgroup> block_states: array<RowState, WORKGROUP_SIZE / 32u>;
var<workgroup> row_state: RowState;
var<workgroup> seen_by_any: atomic<u32>;

// The order key of the maximum of this invocation's block.
fn block_key(row: u32, local: u32, column: u32, end: u32) -> u32 {
    // The keys of the round before have been read by all.
    workgroupBarrier();
    lane_keys[local] = lane_top(row, column, end);
    workgroupBarrier();
    var key = 0u;
    let first_lane = local & ~(LANES - 1u);
    for (var lane = 0u; lane < LANES; lane += 1u) {
        key = max(key, lane_keys[first_lane + lane]);
    }
    return key;
}

fn fold_lanes(first_lane: u32) -> Sums {
    var groups: array<Sums, 8>;
    for (var group = 0u; group < 8u; group += 1u) {
        let lane = first_lane + 4u * group;
        groups[group] = (lane_totals[lane] + lane_totals[lane + 1u])
            + (lane_totals[lane + 2u] + lane_totals[lane + 3u]);
    }
    return fold_groups(groups);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_per_workgroup(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = workgroup.y * workgroups.x + workgroup.x;
    if row >= params.rows {
        return;
    }
    if local == 0u {
        atomicStore(&seen_by_any, 0u);
    }
    let blocks_at_once = WORKGROUP_SIZE / LANES;
    let block = local / LANES;
    let lane = local % LANES;
    let round_columns = blocks_at_once * BLOCK;

    for (var round = 0u; round < params.classes; round += round_columns) {
        let start = round + block * BLOCK;
        let end = min(params.classes, start + BLOCK);
        let column = start + lane * SLOT;
        let key = block_key(row, local, column, end);
        let top = from_order_key(key);
        lane_totals[local] = lane_sums(row, column, end, top);
        if WITH_PREDICTIONS {
            lane_firsts[local] = lane_first(row, column, end, top);
        }
        workgroupBarrier();
        if lane == 0u {
            var first = NO_COLUMN;
            if WITH_PREDICTIONS {
                for (var i = 0u; i < LANES; i += 1u) {
                    first = min(first, lane_firsts[local + i]);
                }
            }
            block_states[block] = close_block(key, first, fold_lanes(local));
        }
        workgroupBarrier();
        if local == 0u {
            // The tree over the blocks of this round, in place.
            for (var apart = 1u; apart < blocks_at_once; apart *= 2u) {
                for (var i = 0u; i < blocks_at_once; i += 2u * apart) {
                    block_states[i] = merge(block_states[i], block_states[i + apart]);
                }
            }
            push(block_states[0]);
        }
    }
    atomicOr(&seen_by_any, seen);
    if local == 0u {
        row_state = pop_all();
    }
    workgroupBarrier();
    seen = atomicLoad(&seen_by_any);
    let done = finish_row(row, row_state);
    if local == 0u {
        store_row(row, done);
    }
    if WRITES_MATRIX {
        // The label's logit has been read by all; from here on it may be overwritten.
        for (var round = 0u; round < params.classes; round += round_columns) {
            let start = round + block * BLOCK;
            let end = min(params.classes, start + BLOCK);
            let column = start + lane * SLOT;
            let top = from_order_key(block_key(row, local, column, end));
            let factor = block_factor(top, done);
            for (var at = column; at < end; at += LANE_STEP) {
                write_slot(row, at, done, top, factor);
            }
        }
    }
}

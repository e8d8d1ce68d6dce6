// One invocation owns a row.
//
// Reads each logit once for its state, and once more where outputs of its shape are wanted and the row is
// wider than what it holds; where sums need the maximum first, twice for its state, the second time from
// the cache. No barriers, so nothing has to be uniform. Best for narrow rows, and on drivers that run on
// a processor.

override WORKGROUP_SIZE: u32 = 64u;
// Slots of a stripe that a row can have.
override SLOTS: u32 = 8u;
// The row is a block at most.
override ONE_BLOCK: bool = false;
// The row is a stripe at most, and stays where it is from its state to its outputs.
override RESIDENT: bool = false;

var<private> held: array<vec4<u32>, LANES>;

// Its maximum, LOWEST where `again` says that it is known.
fn read_stripe(row: u32, start: u32, end: u32, again: bool) -> f32 {
    var top = LOWEST;
    var window = window_at(row, start, end);
    for (var v = 0u; v < SLOTS; v += 1u) {
        let bits = next_bits(&window, row, start + SLOT * v, end);
        held[v] = bits;
        if !again {
            top = max(top, slot_top(slot_of(noted(bits))));
        }
    }
    return top;
}

fn block_top(row: u32, start: u32, end: u32) -> f32 {
    var top = LOWEST;
    for (var stripe = start; stripe < end; stripe += STRIPE) {
        top = max(top, read_stripe(row, stripe, end, false));
    }
    return top;
}

fn block_first(row: u32, start: u32, end: u32, top: f32) -> u32 {
    var first = NO_COLUMN;
    for (var column = start; column < end && first == NO_COLUMN; column += SLOT) {
        first = slot_first(slot_of(slot_bits(row, column, end)), column, top);
    }
    return first;
}

fn fold_lanes(lanes: array<Sums, LANES>) -> Sums {
    return add_sums(
        add_sums(add_sums(lanes[0], lanes[1]), add_sums(lanes[2], lanes[3])),
        add_sums(add_sums(lanes[4], lanes[5]), add_sums(lanes[6], lanes[7])),
    );
}

// The state of the block of the columns from `start` to `end`.
fn block_state(row: u32, start: u32, end: u32) -> RowState {
    var top = LOWEST;
    if top_first() {
        top = block_top(row, start, end);
    }
    var base = base_of(point(top));
    if !top_first() {
        base = vec2<f32>(0.0);
    }
    let none = no_sums();
    var lanes: array<Sums, LANES>;
    // Without knowing the maximum one guesses its base, and begins again where that was wrong.
    for (var guess = 0u; guess < 2u; guess += 1u) {
        lanes = array<Sums, LANES>(none, none, none, none, none, none, none, none);
        var reference = Reference(base, NOTHING_YET);
        for (var stripe = start; stripe < end; stripe += STRIPE) {
            top = max(top, read_stripe(row, stripe, end, top_first()));
            let highest = peak(top);
            let raised = reference_of(highest.point, base);
            let by = powers(vec4<f32>(127.0 + raised.lift - reference.lift)).x;
            reference = raised;
            let up = Reference(base, raised.lift + UP);
            for (var v = 0u; v < SLOTS; v += 1u) {
                let sums = slot_sums(row, stripe + SLOT * v, slot_of(held[v]), highest, up);
                lanes[v] = add_sums(lowered(lanes[v], by), sums);
            }
        }
        let right = base_of(point(top));
        if all(right == base) {
            break;
        }
        base = right;
    }
    let sums = fold_lanes(lanes);
    var first = NO_COLUMN;
    if WITH_PREDICTIONS {
        first = block_first(row, start, end, top);
    }
    note_poison();
    return close_block(top, first, sums);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_per_invocation(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    take_params(workgroup.z);
    let row = (workgroup.y * workgroups.x + workgroup.x) * WORKGROUP_SIZE + local;
    if row >= params.rows {
        return;
    }
    var state: RowState;
    if ONE_BLOCK {
        state = block_state(row, 0u, params.classes);
    } else {
        for (var start = 0u; start < params.classes; start += BLOCK) {
            push(block_state(row, start, min(params.classes, start + BLOCK)));
        }
        state = pop_all();
    }
    let done = finish_row(row, state);
    hand_over(row, done);
    if writes_matrix() {
        if RESIDENT {
            for (var v = 0u; v < SLOTS; v += 1u) {
                write_slot(row, SLOT * v, held[v], done, false);
            }
        } else {
            write_columns(row, 0u, written_columns(), 0u, 1u, done);
        }
    }
}

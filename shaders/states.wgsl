// The states of rows, then those of their blocks where rows are split: STATE_WORDS each.
//
// A row: m, s, Σ y·(m − x)/2, Σ y, what was seen, prediction, Σ of the others, label.
// A block: order key of its maximum, first column of it, four sums, what was seen.

const STATE_WORDS = 8u;

@group(0) @binding(8) var<storage, read_write> states: array<u32>;

fn store_row(row: u32, done: Row) {
    var prediction = done.state.first;
    if (seen & POISONED) != 0u {
        prediction = NO_COLUMN;
    } else if prediction == done.label.column && (seen & (IGNORED | BAD_LABEL)) == 0u {
        seen |= HIT;
    }
    let at = STATE_WORDS * row;
    states[at] = bitcast<u32>(done.state.top);
    states[at + 1u] = bitcast<u32>(done.state.sums[0]);
    states[at + 2u] = bitcast<u32>(done.label.half_gap);
    states[at + 3u] = bitcast<u32>(done.label.weight);
    states[at + 4u] = seen;
    states[at + 5u] = prediction;
    states[at + 6u] = bitcast<u32>(done.label.others);
    states[at + 7u] = done.label.column;
}

// The row as `store_row` left it, so that no one has to look at a label's logit again, which may be
// overwritten by now.
fn load_row(row: u32) -> Row {
    let at = STATE_WORDS * row;
    var state = empty_state();
    state.top = bitcast<f32>(states[at]);
    state.sums[0] = bitcast<f32>(states[at + 1u]);
    seen = states[at + 4u];
    let label = Label(
        states[at + 7u],
        bitcast<f32>(states[at + 2u]),
        bitcast<f32>(states[at + 3u]),
        bitcast<f32>(states[at + 6u]),
    );
    return row_of(row, state, label);
}

fn blocks_per_row() -> u32 {
    return (params.classes + BLOCK - 1u) / BLOCK;
}

fn block_at(row: u32, block: u32) -> u32 {
    return STATE_WORDS * (params.rows + row * blocks_per_row() + block);
}

fn store_block(row: u32, block: u32, state: RowState) {
    let at = block_at(row, block);
    let sums = wide(state.sums);
    states[at] = select(0u, order_key(state.top), state.live);
    states[at + 1u] = state.first;
    for (var i = 0u; i < 4u; i += 1u) {
        states[at + 2u + i] = bitcast<u32>(sums[i]);
    }
    states[at + 6u] = seen;
}

// Adds to `seen` what was seen in the block.
fn load_block(row: u32, block: u32) -> RowState {
    let at = block_at(row, block);
    seen |= states[at + 6u];
    let sums = vec4<u32>(states[at + 2u], states[at + 3u], states[at + 4u], states[at + 5u]);
    return RowState(block_top(row, block), states[at] != 0u, states[at + 1u], narrow(bitcast<vec4<f32>>(sums)));
}

// The maximum of a block, LOWEST where all is masked.
fn block_top(row: u32, block: u32) -> f32 {
    return from_order_key(states[block_at(row, block)]);
}

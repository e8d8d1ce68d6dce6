// The states of rows, then those of their parts where rows are split: STATE_WORDS each.
//
// A row: top, s, Σ e·gap, Σ a·gap/2, Σ a, what was seen, prediction; of its label (m − z_y)/2, w_y,
// Σ of the others, column. A part: order key of its maximum, the four sums, what was seen, first
// column of the maximum.

const STATE_WORDS = 12u;
// Columns of a part: a power of two of blocks.
const PART = 1024u;

@group(0) @binding(9) var<storage, read_write> states: array<u32>;

fn store_sums(at: u32, sums: Sums) {
    let four = bitcast<vec4<u32>>(wide(sums));
    for (var i = 0u; i < 4u; i += 1u) {
        states[at + 1u + i] = four[i];
    }
}

fn load_sums(at: u32) -> Sums {
    let four = vec4<u32>(states[at + 1u], states[at + 2u], states[at + 3u], states[at + 4u]);
    return narrow(bitcast<vec4<f32>>(four));
}

fn store_row(row: u32, done: Row) {
    let prediction = prediction_of(done);
    let at = STATE_WORDS * row;
    states[at] = bitcast<u32>(done.state.top);
    store_sums(at, done.state.sums);
    states[at + 5u] = seen;
    states[at + 6u] = prediction;
    states[at + 7u] = bitcast<u32>(done.label.half_gap);
    states[at + 8u] = bitcast<u32>(done.label.weight);
    states[at + 9u] = bitcast<u32>(done.label.others);
    states[at + 10u] = done.label.column;
}

// The row as `store_row` left it, so that no one has to look at a label's logit again, which may be
// overwritten by now.
fn load_row(row: u32) -> Row {
    let at = STATE_WORDS * row;
    var state = empty_state();
    state.top = bitcast<f32>(states[at]);
    state.sums = load_sums(at);
    seen = states[at + 5u];
    let label = Label(
        states[at + 10u],
        bitcast<f32>(states[at + 7u]),
        bitcast<f32>(states[at + 8u]),
        bitcast<f32>(states[at + 9u]),
    );
    return row_of(row, state, label);
}

fn parts_per_row() -> u32 {
    return (params.classes + PART - 1u) / PART;
}

// Parts of a row of so many columns that begin in this dispatch.
fn parts_here(columns: u32) -> u32 {
    return (min(columns, params.end_column) - params.first_column + PART - 1u) / PART;
}

fn part_at(row: u32, part: u32) -> u32 {
    return STATE_WORDS * (params.rows + row * parts_per_row() + part);
}

fn store_part(row: u32, part: u32, state: RowState) {
    let at = part_at(row, part);
    states[at] = select(0u, order_key(state.top), state.live);
    store_sums(at, state.sums);
    states[at + 5u] = seen;
    states[at + 6u] = state.first;
}

// Adds to `seen` what was seen in the part.
fn load_part(row: u32, part: u32) -> RowState {
    let at = part_at(row, part);
    seen |= states[at + 5u];
    return RowState(from_order_key(states[at]), states[at] != 0u, states[at + 6u], load_sums(at));
}

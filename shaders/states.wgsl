// The states of rows, then those of their parts where rows are split: STATE_WORDS each.
//
// A row: top, s, Σ e·gap, Σ a·gap/2, Σ a, what was seen, prediction; of its label (m − z_y)/2, w_y.

const STATE_WORDS = 9u;

@group(0) @binding(9) var<storage, read_write> states: array<u32>;

fn store_sums(at: u32, sums: Sums) {
    let four = bitcast<vec4<u32>>(wide(sums));
    for (var i = 0u; i < 4u; i += 1u) {
        states[at + 1u + i] = four[i];
    }
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
}

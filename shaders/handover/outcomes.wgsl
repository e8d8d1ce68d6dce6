// What is known of rows, from the states that the row kernels left.

const STATE_WORDS = 9u;

@group(0) @binding(9) var<storage, read_write> states: array<u32>;

fn load_outcome(row: u32) -> Outcome {
    let at = STATE_WORDS * row;
    let sums = vec4<u32>(states[at + 1u], states[at + 2u], states[at + 3u], states[at + 4u]);
    return Outcome(
        bitcast<f32>(states[at]),
        bitcast<vec4<f32>>(sums),
        states[at + 5u],
        states[at + 6u],
        bitcast<f32>(states[at + 7u]),
        bitcast<f32>(states[at + 8u]),
    );
}

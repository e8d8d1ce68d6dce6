// The states of the parts of split rows: order key of the maximum, the four sums, what was seen, first
// column of the maximum; of the part that the label is in, the label's logit and class weight.

fn parts_per_row() -> u32 {
    return (params.classes + params.part - 1u) / params.part;
}

fn part_at(row: u32, part: u32) -> u32 {
    return STATE_WORDS * (params.rows + row * parts_per_row() + part);
}

fn store_part(row: u32, part: u32, state: RowState) {
    let at = part_at(row, part);
    states[at] = select(0u, order_key(state.top), state.live);
    store_sums(at, state.sums);
    states[at + 6u] = state.first;
    if LABELS == INDEX {
        let label = index_label(row);
        if label / params.part == part {
            states[at + 7u] = label_bits(row, label);
            states[at + 8u] = bitcast<u32>(label_class_weight(row, label));
        }
    }
    states[at + 5u] = seen;
}

// Adds to `seen` what was seen in the part.
fn load_part(row: u32, part: u32) -> RowState {
    let at = part_at(row, part);
    seen |= states[at + 5u];
    let sums = vec4<u32>(states[at + 1u], states[at + 2u], states[at + 3u], states[at + 4u]);
    let state = states[at];
    return RowState(from_order_key(state), state != 0u, states[at + 6u], narrow(bitcast<vec4<f32>>(sums)));
}

// The logit of a label and its class weight, from the state of the part that it is in: the logit may have been
// overwritten by now, and neither need be in this window.

fn label_bits(row: u32, column: u32) -> u32 {
    return states[part_at(row, column / params.part) + 7u];
}

fn label_class_weight(row: u32, column: u32) -> f32 {
    if !CLASS_WEIGHTS {
        return 1.0;
    }
    return bitcast<f32>(states[part_at(row, column / params.part) + 8u]);
}

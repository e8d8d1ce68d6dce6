// The logit of a label and its class weight, from where they are given.

fn label_bits(row: u32, column: u32) -> u32 {
    return logit_bits(element(row, column));
}

fn label_class_weight(row: u32, column: u32) -> f32 {
    if !CLASS_WEIGHTS {
        return 1.0;
    }
    return checked_weights(vec4<u32>(class_weight_bits(column))).x;
}

// Class weights by vectors of four, where they begin and end as one does.

@group(0) @binding(3) var<storage, read_write> class_weights: array<Vector>;

// Of a class that there is.
fn class_weight_bits(column: u32) -> u32 {
    let at = params.class_weights_start + column;
    return words_of(class_weights[at / 4u])[at % 4u];
}

// Of a slot; past the end, of the last one.
fn class_weights_bits(column: u32) -> vec4<u32> {
    return words_of(class_weights[(params.class_weights_start + min(column, params.classes - SLOT)) / 4u]);
}

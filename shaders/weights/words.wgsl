// Class weights by the word, wherever they begin.

@group(0) @binding(3) var<storage, read_write> class_weights: array<u32>;

// Of a class that there is.
fn class_weight_bits(column: u32) -> u32 {
    return class_weights[params.class_weights_start + column];
}

// Of a slot; past the end, of the last class.
fn class_weights_bits(column: u32) -> vec4<u32> {
    let columns = vec4<u32>(column, column + 1u, column + 2u, column + 3u);
    let at = min(columns, vec4<u32>(params.classes - 1u));
    return vec4<u32>(
        class_weight_bits(at.x),
        class_weight_bits(at.y),
        class_weight_bits(at.z),
        class_weight_bits(at.w),
    );
}

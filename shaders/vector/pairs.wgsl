// What is read and written at once, four words or two, by numbers of 64 bits: one driver (llvmpipe) takes the numbers
// of a vector one after the other.

alias Vector = vec2<u64>;
alias HalfVector = u64;

fn words_of(vector: Vector) -> vec4<u32> {
    let low = vec2<u32>(vector);
    let high = vec2<u32>(vector >> vec2<u32>(32u));
    return vec4<u32>(low.x, high.x, low.y, high.y);
}

fn vector_of(words: vec4<u32>) -> Vector {
    return Vector(half_vector_of(words.xy), half_vector_of(words.zw));
}

fn half_vector_of(words: vec2<u32>) -> HalfVector {
    return u64(words.x) | (u64(words.y) << 32u);
}

// What is read and written at once, four words or two, as it is.

alias Vector = vec4<u32>;
alias HalfVector = vec2<u32>;

fn words_of(vector: Vector) -> vec4<u32> {
    return vector;
}

fn vector_of(words: vec4<u32>) -> Vector {
    return words;
}

fn half_vector_of(words: vec2<u32>) -> HalfVector {
    return words;
}

// z = s·x: the point is x itself.

fn point(x: f32) -> vec2<f32> {
    return vec2<f32>(x, 0.0);
}

fn cap_slopes(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(1.0);
}

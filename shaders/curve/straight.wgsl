// Of z = x and z = s·x: the point is x itself. See `curve/capped.wgsl` for what the functions say of a curve.

alias Points = vec4<f32>;

fn point(x: f32) -> vec2<f32> {
    return vec2<f32>(x, 0.0);
}

fn points(x: vec4<f32>) -> Points {
    return x;
}

fn spread(point: vec2<f32>) -> Points {
    return vec4<f32>(point.x);
}

fn slopes(at: Points) -> vec4<f32> {
    return vec4<f32>(1.0);
}

fn highest(at: Points, x: vec4<f32>) -> vec2<f32> {
    return vec2<f32>(max(max(at.x, at.y), max(at.z, at.w)), 0.0);
}

fn lowest_point() -> vec2<f32> {
    return vec2<f32>(LOWEST, 0.0);
}

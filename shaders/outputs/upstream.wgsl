@group(0) @binding(3) var<storage, read> upstream: array<f32>;

fn upstream_of(row: u32) -> f32 {
    return upstream[params.upstream_start + row * params.upstream_stride];
}

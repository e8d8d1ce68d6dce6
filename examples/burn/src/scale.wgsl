// Multiplies a gradient, in its place, by the upstream gradient. Where the loss is the end that is 1, and there is
// nothing to do: one read for each invocation, instead of a read and a write for each value.

// Both may be parts of one buffer, which wgpu takes where both are read_write.
@group(0) @binding(0) var<storage, read_write> upstream: array<f32>;
@group(0) @binding(1) var<storage, read_write> grad: array<f32>;

const SIZE = 256u;

@compute @workgroup_size(SIZE)
fn scale(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let factor = upstream[0];
    if factor == 1.0 {
        return;
    }
    for (var i = id.x; i < arrayLength(&grad); i += SIZE * workgroups.x) {
        grad[i] *= factor;
    }
}

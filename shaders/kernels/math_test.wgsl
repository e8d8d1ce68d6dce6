// exp where `params.classes` is 0, else log1p, of the f32 with the bits `params.rows`, and of those that
// follow, their bits `params.row_length` apart.

override WORKGROUP_SIZE: u32 = 64u;

@group(0) @binding(20) var<storage, read_write> probes: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn math_test(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    take_params(workgroup.z);
    let at = (workgroup.y * workgroups.x + workgroup.x) * WORKGROUP_SIZE + local;
    if at >= arrayLength(&probes) {
        return;
    }
    let x = bitcast<f32>(params.rows + at * params.row_length);
    if params.classes != 0u {
        probes[at] = bitcast<u32>(log1p_sum(x));
    } else {
        probes[at] = bitcast<u32>(exp_sum(vec2<f32>(x, 0.0)));
    }
}

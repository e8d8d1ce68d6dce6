// A few values that a sound driver gets right, computed from inputs that no compiler knows.
//
// Writes PROBES words: errors of two sums, the classes of three bit patterns, a tree over a
// workgroup, exp, log1p and a reciprocal.

const WORKGROUP_SIZE = 32u;

@group(0) @binding(20) var<storage, read_write> probes: array<u32>;

var<workgroup> leaves: array<f32, WORKGROUP_SIZE>;

fn is_finite(bits: u32) -> bool {
    return (bits & 0x7f800000u) != 0x7f800000u;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn self_test(@builtin(local_invocation_index) local: u32) {
    leaves[local] = veil(f32(local + 1u));
    for (var apart = 1u; apart < WORKGROUP_SIZE; apart *= 2u) {
        workgroupBarrier();
        if local % (2u * apart) == 0u {
            leaves[local] = leaves[local] + leaves[local + apart];
        }
    }
    workgroupBarrier();
    if local == 0u {
        probes[0] = bitcast<u32>(two_sum(veil(1.0), veil(0x1p-30f)).y);
        probes[1] = bitcast<u32>(two_sum(veil(-16777216.0), veil(-1.0)).y);
        probes[2] = select(0u, 1u, is_finite(0x7fc00000u ^ params.zero))
            | select(0u, 2u, is_finite(0xff800000u ^ params.zero))
            | select(0u, 4u, is_finite(0x7f7fffffu ^ params.zero));
        probes[3] = bitcast<u32>(leaves[0]);
        probes[4] = bitcast<u32>(exp_sum(vec2<f32>(veil(-1.0), 0.0)));
        probes[5] = bitcast<u32>(log1p_sum(veil(1.0)));
        probes[6] = bitcast<u32>(reciprocal_sum(veil(2.0)));
    }
}

// Values that a sound driver gets right, computed from inputs that no compiler knows.
//
// Writes PROBES words: errors of two sums, the classes of three bit patterns, a tree over a workgroup,
// integers, atomics, an array of an invocation's own; then tables of exp, log1p and a reciprocal, an
// invocation each.

const WORKGROUP_SIZE = 32u;
const TABLES = 7u;

@group(0) @binding(20) var<storage, read_write> probes: array<u32>;

var<workgroup> leaves: array<f32, WORKGROUP_SIZE>;
var<workgroup> tickets: atomic<u32>;
var<workgroup> drawn: atomic<u32>;

fn is_finite(bits: u32) -> bool {
    return (bits & 0x7f800000u) != 0x7f800000u;
}

// Wraps around, divides, and shifts both kinds of integers.
fn integers(zero: u32) -> u32 {
    let large = 0xfffffff1u ^ zero;
    let small = 37u ^ zero;
    let wrapped = select(0u, 0x01000000u, large + small < large);
    let negative = bitcast<u32>(bitcast<i32>(large) >> (2u ^ zero));
    return wrapped ^ (large / small) ^ ((large % small) << 24u) ^ negative ^ (large >> (27u ^ zero));
}

// Nine numbers, each put where the one before says.
fn chased(zero: u32) -> u32 {
    var pile: array<u32, 9>;
    for (var i = 0u; i < 9u; i += 1u) {
        pile[(i * 4u) % 9u] = ((i * 4u + 4u) ^ zero) % 9u;
    }
    var at = zero;
    var path = 0u;
    for (var i = 0u; i < 8u; i += 1u) {
        at = pile[at];
        path = (path << 4u) | at;
    }
    return path;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn self_test(@builtin(local_invocation_index) local: u32) {
    take_params(0u);
    if local == 0u {
        atomicStore(&tickets, 0u);
        atomicStore(&drawn, 0u);
    }
    leaves[local] = veil(f32(local + 1u));
    for (var apart = 1u; apart < WORKGROUP_SIZE; apart *= 2u) {
        workgroupBarrier();
        if local % (2u * apart) == 0u {
            leaves[local] = leaves[local] + leaves[local + apart];
        }
    }
    // Every ticket is drawn once.
    let ticket = atomicAdd(&tickets, 1u);
    atomicAdd(&drawn, 1u << ticket);
    workgroupBarrier();
    if local == 0u {
        probes[0] = bitcast<u32>(two_sum(veil(1.0), veil(0x1p-30f)).y);
        probes[1] = bitcast<u32>(two_sum(veil(-16777216.0), veil(-1.0)).y);
        probes[2] = select(0u, 1u, is_finite(0x7fc00000u ^ params.zero))
            | select(0u, 2u, is_finite(0xff800000u ^ params.zero))
            | select(0u, 4u, is_finite(0x7f7fffffu ^ params.zero));
        probes[3] = bitcast<u32>(leaves[0]);
        probes[4] = integers(params.zero);
        probes[5] = atomicLoad(&drawn);
        probes[6] = chased(params.zero);
    }
    // Down to where exp is about to fall below 2^-126.
    let x = veil(-2.75 * f32(local));
    probes[TABLES + local] = bitcast<u32>(exp_sum(vec2<f32>(x, 0.0)));
    // From 2^-24 to 2^8, not quite.
    let s = bitcast<f32>((((103u + local) << 23u) | 0x300000u) ^ params.zero);
    probes[TABLES + WORKGROUP_SIZE + local] = bitcast<u32>(log1p_sum(s));
    probes[TABLES + 2u * WORKGROUP_SIZE + local] = bitcast<u32>(reciprocal_sum(s));
}

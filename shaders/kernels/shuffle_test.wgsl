// Shows who is whose partner in a subgroup: invocations that are neighbours in their workgroup.
//
// Writes, for each distance of 1, 2, 4, … below TEAM, the number that each invocation got.

const WORKGROUP_SIZE = 64u;
override TEAM: u32 = 8u;

@group(0) @binding(20) var<storage, read_write> probes: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn shuffle_test(@builtin(local_invocation_index) local: u32) {
    take_params(0u);
    var at = local;
    for (var apart = 1u; apart < TEAM; apart *= 2u) {
        probes[at] = subgroupShuffleXor(local ^ params.zero, apart);
        at += WORKGROUP_SIZE;
    }
}

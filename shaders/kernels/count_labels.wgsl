// Counts the rows that are not ignored: the denominator of a mean that the host does not know.
//
// Reads 4 bytes a row. `reduce` sets the count back to 0.

override WORKGROUP_SIZE: u32 = 64u;

@group(0) @binding(2) var<storage, read_write> labels: array<i32>;
@group(0) @binding(4) var<storage, read_write> denominator: array<atomic<u32>>;

var<workgroup> counted: atomic<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn count_labels(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = (workgroup.y * workgroups.x + workgroup.x) * WORKGROUP_SIZE + local;
    if local == 0u {
        atomicStore(&counted, 0u);
    }
    workgroupBarrier();
    if row < params.rows && labels[params.labels_start + row] != params.ignore_index {
        atomicAdd(&counted, 1u);
    }
    workgroupBarrier();
    if local == 0u {
        atomicAdd(&denominator[params.denominator_start], atomicLoad(&counted));
    }
}

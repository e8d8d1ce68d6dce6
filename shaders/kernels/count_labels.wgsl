// Counts the rows that are not ignored: the denominator of a mean that the host does not know. With
// class weights it adds those of the labels up too, exactly; `round_denominator` ends that.
//
// Reads 4 bytes a row, and 4 for its weight. `reduce` sets the count back to 0.

override WORKGROUP_SIZE: u32 = 64u;

// Rows that one invocation counts, so that few meet.
const ROWS_EACH = 16u;
override CLASS_WEIGHTS: bool = false;

@group(0) @binding(2) var<storage, read_write> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> class_weights: array<u32>;
@group(0) @binding(5) var<storage, read_write> denominator: array<atomic<u32>>;

var<workgroup> counted: atomic<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn count_labels(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    params = given;
    if local == 0u {
        atomicStore(&counted, 0u);
    }
    workgroupBarrier();
    let group = workgroup.y * workgroups.x + workgroup.x;
    var own = 0u;
    for (var i = 0u; i < ROWS_EACH; i += 1u) {
        let row = (group * ROWS_EACH + i) * WORKGROUP_SIZE + local;
        if row < params.rows {
            let label = bitcast<i32>(labels[params.labels_start + row]);
            if label != params.ignore_index {
                own += 1u;
                // A bad label makes its row NaN, and with it the mean.
                if CLASS_WEIGHTS && label >= 0 && u32(label) < params.classes {
                    let weight = class_weights[params.class_weights_start + u32(label)];
                    // What is negative is no weight, and counts as what is not finite; −0 is 0.
                    let bits = select(weight, 0x7fc00000u, weight > 0x80000000u);
                    add_exactly((group + local) % SUM_SLOTS, WEIGHT_SUM, WEIGHT_SPECIALS, bits & 0x7fffffffu);
                }
            }
        }
    }
    atomicAdd(&counted, own);
    workgroupBarrier();
    if local == 0u {
        atomicAdd(&denominator[params.denominator_start + select(0u, 1u, CLASS_WEIGHTS)], atomicLoad(&counted));
    }
}

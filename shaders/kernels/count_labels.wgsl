// Counts the rows that are not ignored: the denominator of a mean that the host does not know. With
// class weights it adds those of the labels up too.
//
// Reads 4 bytes a row, and 4 for its weight. A workgroup adds up its own rows first. `reduce` sets all of
// it back to 0.

override WORKGROUP_SIZE: u32 = 64u;

// Rows that one invocation counts, so that few meet.
const ROWS_EACH = 16u;

@group(0) @binding(2) var<storage, read_write> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> class_weights: array<u32>;
@group(0) @binding(5) var<storage, read_write> denominator: array<atomic<u32>>;

var<workgroup> counted: array<atomic<u32>, COUNTED_WORDS>;

// Adds and returns the carry.
fn add_limb(at: u32, value: u32) -> u32 {
    let before = atomicAdd(&counted[at], value);
    return select(0u, 1u, before + value < before);
}

// Adds a word of the workgroup's sums to the batch's; a limb carries.
fn hand_on(word: u32) {
    let is_limb = word >= WEIGHT_SUM && word < WEIGHT_SPECIALS;
    var more = atomicLoad(&counted[word]);
    for (var at = params.denominator_start + word; more != 0u; at += 1u) {
        let before = atomicAdd(&denominator[at], more);
        more = select(0u, 1u, is_limb && before + more < before);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn count_labels(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    take_params(workgroup.z);
    let words = select(1u, COUNTED_WORDS, CLASS_WEIGHTS);
    for (var word = local; word < words; word += WORKGROUP_SIZE) {
        atomicStore(&counted[word], 0u);
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
                    add_exactly(WEIGHT_SUM, WEIGHT_SPECIALS, bits & 0x7fffffffu);
                }
            }
        }
    }
    atomicAdd(&counted[COUNTED_ROWS], own);
    workgroupBarrier();
    for (var word = local; word < words; word += WORKGROUP_SIZE) {
        hand_on(word);
    }
}

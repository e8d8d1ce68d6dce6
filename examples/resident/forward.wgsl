// logits = images · weights + bias, one invocation per logit. Reads 4·(2·FEATURES + 1) bytes and
// writes 4 for each.
//
// Nothing here is read-only: the arrays lie in one buffer, and in one dispatch a buffer is either read
// or written as a whole.

override FEATURES: u32;
override CLASSES: u32;

@group(0) @binding(0) var<storage, read_write> images: array<f32>;   // [rows, FEATURES]
@group(0) @binding(1) var<storage, read_write> weights: array<f32>;  // [FEATURES + 1, CLASSES], the bias last
@group(0) @binding(2) var<storage, read_write> logits: array<f32>;   // [rows, CLASSES]

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= arrayLength(&logits) {
        return;
    }
    let i = id.x / CLASSES;
    let k = id.x % CLASSES;
    var sum = weights[FEATURES * CLASSES + k];
    for (var j = 0u; j < FEATURES; j += 1u) {
        sum += images[i * FEATURES + j] * weights[j * CLASSES + k];
    }
    logits[id.x] = sum;
}

// weights_grad = imagesᵀ · logits_grad, one invocation per weight. Reads 8·rows bytes and writes 4 for
// each. Every sum has one owner, who adds the rows in their order: no atomics, and the same bits on
// every run.

override FEATURES: u32;
override CLASSES: u32;

@group(0) @binding(0) var<storage, read_write> images: array<f32>;        // [rows, FEATURES]
@group(0) @binding(1) var<storage, read_write> logits_grad: array<f32>;   // [rows, CLASSES]
@group(0) @binding(2) var<storage, read_write> weights_grad: array<f32>;  // [FEATURES + 1, CLASSES], the bias last

@compute @workgroup_size(64)
fn backward(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= arrayLength(&weights_grad) {
        return;
    }
    let j = id.x / CLASSES;
    let k = id.x % CLASSES;
    let rows = arrayLength(&logits_grad) / CLASSES;
    var sum = 0.0;
    for (var i = 0u; i < rows; i += 1u) {
        var feature = 1.0; // what the bias is multiplied by
        if j < FEATURES {
            feature = images[i * FEATURES + j];
        }
        sum += feature * logits_grad[i * CLASSES + k];
    }
    weights_grad[id.x] = sum;
}

// weights −= LEARNING_RATE · weights_grad, one invocation per weight. Reads 8 bytes and writes 4 for
// each.

override LEARNING_RATE: f32;

@group(0) @binding(0) var<storage, read_write> weights_grad: array<f32>;
@group(0) @binding(1) var<storage, read_write> weights: array<f32>;

@compute @workgroup_size(64)
fn descend(@builtin(global_invocation_id) id: vec3u) {
    if id.x < arrayLength(&weights) {
        weights[id.x] -= LEARNING_RATE * weights_grad[id.x];
    }
}

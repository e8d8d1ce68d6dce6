@group(0) @binding(1) var<storage, read> logits: array<u32>;

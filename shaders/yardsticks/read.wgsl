// What reading costs: every invocation adds up words, neighbours read neighbours, and each leaves one
// word, so that the sum of those tells whether all was read. For benchmarks; no part of any result.
//
// Bytes: 16 read per vec4, 4 written per invocation. No barriers.

@group(0) @binding(0) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;

@compute @workgroup_size(256)
fn read_words(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    var sum = vec4<u32>();
    for (var at = id.x; at < arrayLength(&words); at += 256u * workgroups.x) {
        sum += words[at];
    }
    sums[id.x] = sum.x + sum.y + sum.z + sum.w;
}

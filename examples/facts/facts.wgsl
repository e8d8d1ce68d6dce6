// What WGSL leaves to the driver, computed from values that no compiler knows.

struct Given {
    nan: f32,
    inf: f32,
    one: f32,
    tiny: f32,      // 2^-30
    close: f32,     // 1 + 2^-12
    product: f32,   // −(1 + 2^-11): minus the square of `close`, rounded
    subnormal: f32, // 2^-127
    least: f32,     // 2^-126
}

@group(0) @binding(0) var<storage, read> given: Given;
@group(0) @binding(1) var<storage, read_write> found: array<u32>;

const FACTS = 24u;
const TABLE = 4096u;

@compute @workgroup_size(64)
fn facts() {
    let g = given;
    found[0] = bitcast<u32>(max(g.nan, g.one));
    found[1] = bitcast<u32>(max(g.one, g.nan));
    found[2] = bitcast<u32>(min(g.nan, g.one));
    found[3] = bitcast<u32>(clamp(g.nan, 0.0, 1.0));
    found[4] = select(0u, 1u, g.nan != g.nan);
    found[5] = select(0u, 1u, g.inf > 0x1.fffffep+127f);
    found[6] = bitcast<u32>(g.inf - g.inf);
    found[7] = bitcast<u32>(g.one / (g.one - g.one));
    found[8] = bitcast<u32>(exp(-g.inf));
    found[9] = bitcast<u32>(exp(g.nan));
    // A sum of two, without a veil.
    let sum = g.one + g.tiny;
    let rest = sum - g.one;
    found[10] = bitcast<u32>((g.one - (sum - rest)) + (g.tiny - rest));
    found[11] = bitcast<u32>(fma(g.close, g.close, g.product));
    found[12] = bitcast<u32>(g.close * g.close + g.product);
    found[13] = bitcast<u32>(g.subnormal);
    found[14] = bitcast<u32>(g.subnormal * g.one);
    found[15] = bitcast<u32>(g.subnormal + g.subnormal);
    found[16] = bitcast<u32>(g.least * (0.5 * g.one));
}

// exp from −87 to 0, and 1/x from 1 to 2.
@compute @workgroup_size(64)
fn tables(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = f32(id.x) / f32(TABLE);
    found[FACTS + id.x] = bitcast<u32>(exp(-87.0 * given.one * at));
    found[FACTS + TABLE + id.x] = bitcast<u32>(given.one / (given.one + at));
}

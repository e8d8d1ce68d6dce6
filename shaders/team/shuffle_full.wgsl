fn partner_sums(value: Sums, apart: u32) -> Sums {
    let four = subgroupShuffleXor(vec4<f32>(value.pair, value.weighted), apart);
    let three = subgroupShuffleXor(vec3<f32>(value.top, value.entropy), apart);
    return Sums(four.xy, three.z, four.zw, three.xy);
}

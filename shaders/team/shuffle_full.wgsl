fn partner_sums(value: Sums, apart: u32) -> Sums {
    return Sums(subgroupShuffleXor(value[0], apart), subgroupShuffleXor(value[1], apart));
}

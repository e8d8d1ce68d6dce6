fn partner_sums(value: Sums, apart: u32) -> Sums {
    return subgroupShuffleXor(value, apart);
}

// A team exchanges values within a subgroup, of which it is an aligned part.

override TEAM: u32 = 8u;

fn partner_word(value: u32, apart: u32) -> u32 {
    return subgroupShuffleXor(value, apart);
}

// A team exchanges values through workgroup memory; always a whole block's lanes.

const TEAM = LANES;

var<workgroup> words_of_all: array<u32, WORKGROUP_SIZE>;
var<workgroup> sums_of_all: array<Sums, WORKGROUP_SIZE>;

fn partner_word(value: u32, apart: u32) -> u32 {
    // What was exchanged before has been read by all.
    workgroupBarrier();
    words_of_all[local] = value;
    workgroupBarrier();
    return words_of_all[local ^ apart];
}

fn partner_sums(value: Sums, apart: u32) -> Sums {
    workgroupBarrier();
    sums_of_all[local] = value;
    workgroupBarrier();
    return sums_of_all[local ^ apart];
}

// What a batch adds up: two exact sums and some counts.
//
// There are SUM_SLOTS copies; a row adds to the copy of its workgroup, which keeps neighbours apart. All is
// zero between two batches.

const SUM_SLOTS = 32u;
const SLOT_WORDS = 64u;
// The sums, each followed by its counts of what is not finite.
const LOSS_SUM = 0u;
const LOSS_SPECIALS = 20u;
const Z_SUM = 23u;
const Z_SPECIALS = 33u;
const VALID_ROWS = 36u;
const CORRECT_ROWS = 37u;
const WORDS_IN_USE = 38u;

@group(0) @binding(18) var<storage, read_write> accumulators: array<atomic<u32>>;

fn count(slot: u32, word: u32) {
    atomicAdd(&accumulators[slot * SLOT_WORDS + word], 1u);
}

// Adds and returns the carry.
fn add_limb(at: u32, value: u32) -> u32 {
    let before = atomicAdd(&accumulators[at], value);
    return select(0u, 1u, before + value < before);
}

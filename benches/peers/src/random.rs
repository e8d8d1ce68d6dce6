//! The same logits and labels everywhere.

use std::array;

/// Logits of mean 0 and standard deviation 3, at most 21 apart; labels of equal chances.
pub fn inputs(rows: usize, classes: usize) -> (Vec<f32>, Vec<i32>) {
    let mut state = classes as u64;
    let logits = (0..rows * classes).map(|_| 3.0 * bell(next(&mut state)));
    let logits = logits.collect();
    let label = |_| ((u128::from(next(&mut state)) * classes as u128) >> 64) as i32;
    (logits, (0..rows).map(label).collect())
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Four uniform numbers make a bell of variance 4/12, here 1.
fn bell(bits: u64) -> f32 {
    let parts: [f32; 4] = array::from_fn(|part| ((bits >> (16 * part)) & 0xffff) as f32);
    (parts.iter().sum::<f32>() / 65_535.0 - 2.0) * 3.0_f32.sqrt()
}

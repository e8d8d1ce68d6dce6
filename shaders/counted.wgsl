// What the device counts of the labels of a batch: the rows that are not ignored and, where a mean divides by
// them, the exact sum of their class weights, with its counts of what is not finite.

override CLASS_WEIGHTS: bool = false;

// Words of the number that is an exact sum, see `exact.wgsl`.
const LIMBS = 10u;

const COUNTED_ROWS = 0u;
const WEIGHT_SUM = 1u;
const WEIGHT_SPECIALS = 11u;
const COUNTED_WORDS = 14u;

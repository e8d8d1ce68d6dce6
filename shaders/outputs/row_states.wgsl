// Eight words a row: m, s, Σ y·(m − x)/2, Σ y, what was seen, prediction, two spare.
@group(0) @binding(7) var<storage, read_write> row_states: array<u32>;

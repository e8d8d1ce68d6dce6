// What the caller is told of a batch: the first four words stay until the caller clears them.

const NAN_ROWS = 0u;
const FIRST_NAN_ROW = 1u;   // as ~row, so that 0 means none and the maximum is the first
const BAD_LABELS = 2u;
const FIRST_BAD_LABEL = 3u; // as ~row
const VALID = 4u;           // rows of the last batch that are not ignored
const CORRECT = 5u;         // rows of the last batch whose prediction is their label
const VALID_HIGH = 6u;      // the upper halves of the last two
const CORRECT_HIGH = 7u;

@group(0) @binding(19) var<storage, read_write> status: array<atomic<u32>>;

fn note(word: u32, row: u32) {
    atomicAdd(&status[params.status_start + word], 1u);
    atomicMax(&status[params.status_start + word + 1u], ~(params.rows_before + row));
}

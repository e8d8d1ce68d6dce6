// The values of one dispatch. `zero` is 0 at run time and unknown to every compiler: see `veil`.
// Starts are in elements of 4 bytes; NOT_WANTED marks what nobody asked for or gave.

struct Params {
    rows: u32,
    classes: u32,
    zero: u32,
    ignore_index: i32,
    // Where each array begins in its binding.
    logits_start: u32,
    labels_start: u32,
    upstream_start: u32,
    denominator_start: u32,
    softmax_start: u32,
    log_softmax_start: u32,
    grad_start: u32,
    losses_start: u32,
    lse_start: u32,
    predictions_start: u32,
    loss_start: u32,
    status_start: u32,
    // Rows of the batch before this dispatch.
    rows_before: u32,
    // 0 where one upstream gradient serves every row, 1 where each has its own, NOT_WANTED where it
    // is the number below.
    upstream_stride: u32,
    upstream: f32,
    // A number of rows, or the bits of an f32; see the flags.
    denominator: u32,
    denominator_flags: u32,
    reserved_0: u32,
    reserved_1: u32,
    reserved_2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

const NOT_WANTED = 0xffffffffu;
// The denominator is in its buffer; else in the parameters.
const DENOMINATOR_IN_BUFFER = 1u;
// It is an integer; else an f32.
const DENOMINATOR_IS_COUNT = 2u;

// The values of one dispatch. `zero` is 0 at run time and unknown to every compiler: see `veil`.
// Starts are in elements of 4 bytes; NOT_WANTED marks a per-row output that nobody asked for.

struct Params {
    rows: u32,
    classes: u32,
    zero: u32,
    ignore_index: i32,
    // Where each array begins in its binding.
    logits_start: u32,
    labels_start: u32,
    upstream_start: u32,
    softmax_start: u32,
    log_softmax_start: u32,
    grad_start: u32,
    losses_start: u32,
    lse_start: u32,
    predictions_start: u32,
    row_states_start: u32,
    accumulators_start: u32,
    // 0 where one upstream gradient serves every row, 1 where each has its own.
    upstream_stride: u32,
    // 1/denominator for the gradient; the denominator itself for the reduced loss.
    gradient_scale: f32,
    denominator: u32,
    // Rows of the batch before this dispatch.
    rows_before: u32,
    reserved: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

const NOT_WANTED = 0xffffffffu;

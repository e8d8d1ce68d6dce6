// The values of one dispatch. `zero` is 0 at run time and unknown to every compiler: see `veil`.
// Starts are in elements of their array; NOT_WANTED marks what nobody asked for or gave.

struct Params {
    rows: u32,
    classes: u32,
    // Class k of row r is element ((r / inner)·row_length + k)·inner + r % inner.
    row_length: u32,
    inner: u32,
    zero: u32,
    ignore_index: i32,
    // Rows of the batch before this dispatch.
    rows_before: u32,
    denominator_flags: u32,
    // Where each array begins in its binding.
    logits_start: u32,
    labels_start: u32,
    class_weights_start: u32,
    upstream_start: u32,
    denominator_start: u32,
    softmax_start: u32,
    log_softmax_start: u32,
    grad_start: u32,
    losses_start: u32,
    lse_start: u32,
    predictions_start: u32,
    entropy_start: u32,
    correct_start: u32,
    z_losses_start: u32,
    loss_start: u32,
    z_loss_start: u32,
    status_start: u32,
    // 0 where one upstream gradient serves every row, 1 where each has its own; or the number below is it.
    upstream_stride: u32,
    upstream: f32,
    // A number of rows, or the bits of an f32; see the flags.
    denominator: u32,
    // Label smoothing: 1 − ε as a sum of two, and ε/K as one times a power of two.
    keep_high: f32,
    keep_low: f32,
    share_high: f32,
    share_low: f32,
    share_unit: f32,
    // λ.
    z_loss: f32,
    // From x to z, see `curve/`: s; factor and unit; half of how far below the top exp is 0, and all of FAR, in
    // points; from which |point| on a row has a base; from which |x| on tanh is 1; s/c as a sum of two.
    slope: f32,
    factor: f32,
    unit: f32,
    gone: f32,
    far: f32,
    rebase: f32,
    bound: f32,
    inverse_cap_high: f32,
    inverse_cap_low: f32,
    // factor and s/c once more: their first 12 bits, and the rest.
    factor_head: f32,
    factor_rest: f32,
    inverse_cap_head: f32,
    inverse_cap_rest: f32,
    // The columns of this dispatch, where a row is too wide for one: `first_column` begins a part, and
    // arrays of the shape of the logits, and class weights, begin with it, so their starts are that much
    // less, modulo 2^32. Else 0 and the length of a row.
    first_column: u32,
    end_column: u32,
    // Columns of a part of a split row, and of a span of one, which a workgroup writes.
    part: u32,
    span: u32,
    reserved: u32,
}

@group(0) @binding(0) var<uniform> given: Params;

// What decides on a barrier takes `given`, which is known to be uniform; all else, this copy.
var<private> params: Params;

// Every kernel begins with it. One driver (llvmpipe) reads a uniform lane by lane wherever it is read under control
// flow; so there is a copy. And where nothing but uniforms decides on control flow, it (Mesa 22.3) may compile the
// kernel for their values, at each dispatch again, and keep them all; so `nothing` goes into those: 0 from
// where it does not look, `workgroup_id.z`.
fn take_params(nothing: u32) {
    params = given;
    params.classes |= nothing;
    params.row_length |= nothing;
    params.end_column |= nothing;
    params.part |= nothing;
    params.span |= nothing;
    params.denominator |= nothing;
    params.denominator_flags |= nothing;
    params.predictions_start |= nothing;
    params.entropy_start |= nothing;
    params.correct_start |= nothing;
    params.z_losses_start |= nothing;
    params.loss_start |= nothing;
    params.z_loss_start |= nothing;
}

const NOT_WANTED = 0xffffffffu;

// Of `denominator_flags`: the denominator is in its buffer; else in the parameters.
const DENOMINATOR_IN_BUFFER = 1u;
// It is an integer; else an f32.
const DENOMINATOR_IS_COUNT = 2u;
// It is the sum of class weights that was counted, and the number of rows divides the z-loss.
const DENOMINATOR_IS_WEIGHTS = 4u;
// The mean of nothing is 0; else NaN.
const EMPTY_IS_ZERO = 8u;

fn has_flag(flag: u32) -> bool {
    return (params.denominator_flags & flag) != 0u;
}

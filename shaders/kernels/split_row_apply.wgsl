// Third of three passes over split rows: WRITERS invocations write the outputs of one part.
//
// Reads each logit once and writes each output once. Nobody waits for anybody; the label's logit is
// not read, as the gradient may have taken its place.

override WORKGROUP_SIZE: u32 = 64u;

const WRITERS = 32u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn split_row_apply(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    params = given;
    let parts = parts_here(written_columns());
    let unit = (workgroup.y * workgroups.x + workgroup.x) * (WORKGROUP_SIZE / WRITERS) + local / WRITERS;
    let row = unit / parts;
    if row >= params.rows {
        return;
    }
    let done = load_row(row);
    let start = params.first_column + unit % parts * PART;
    let end = min(written_columns(), start + PART);
    for (var column = start + SLOT * (local % WRITERS); column < end; column += SLOT * WRITERS) {
        write_slot(row, column, slot_bits(row, column, params.classes), done, false);
    }
}

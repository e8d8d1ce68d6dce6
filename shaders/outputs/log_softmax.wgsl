@group(0) @binding(6) var<storage, read_write> log_softmax: array<u32>;
const WRITES_LOG_SOFTMAX = true;

fn write_log_softmax(at: u32, bits: u32) {
    log_softmax[params.log_softmax_start + at] = bits;
}

@group(0) @binding(5) var<storage, read_write> softmax: array<u32>;
const WRITES_SOFTMAX = true;

fn write_softmax(at: u32, bits: u32) {
    softmax[params.softmax_start + at] = bits;
}

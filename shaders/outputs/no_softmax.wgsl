const WRITES_SOFTMAX = false;

fn write_softmax(at: u32, bits: u32) {}

const WRITES_LOG_SOFTMAX = false;

fn write_log_softmax(at: u32, bits: u32) {}

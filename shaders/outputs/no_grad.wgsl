const WRITES_GRAD = false;

fn upstream_of(row: u32) -> f32 {
    return 0.0;
}

fn write_grad(at: u32, bits: u32) {}

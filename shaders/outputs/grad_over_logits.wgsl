// The invocation that writes a gradient is the last reader of that logit.

const WRITES_GRAD = true;

fn write_grad(at: u32, bits: u32) {
    logits[params.logits_start + at] = bits;
}

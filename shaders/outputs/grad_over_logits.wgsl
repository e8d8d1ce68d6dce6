// The invocation that writes a gradient is the last reader of that logit.

const WRITES_GRAD = true;
const GRAD_OVER_LOGITS = true;

fn write_grad(at: u32, bits: u32) {
    logits[params.logits_start + at] = bits;
}

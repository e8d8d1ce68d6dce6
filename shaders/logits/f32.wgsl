fn logit_bits(at: u32) -> u32 {
    return logits[at];
}

// What was seen in a row.
const POISONED = 1u;      // NaN or +inf among the logits, or no finite logit: all outputs NaN
const IGNORED = 2u;
const BAD_LABEL = 4u;     // an index out of range: loss and gradient NaN
const LOSS_UP = 8u;       // a label weight above 0 at a masked class: the loss is +inf
const LOSS_DOWN = 16u;    // one below 0
const HIT = 32u;          // the prediction is the label
const BAD_WEIGHT = 64u;   // a label or class weight that is none: loss and gradient NaN
var<private> seen: u32;

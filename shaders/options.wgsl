// What is known of a problem when a shader is compiled, beside its way from x to z and what it sums up.

const NO_LABELS = 0u;
const INDEX = 1u;
const WEIGHTS = 2u;
const VECTORS = 3u;
override LABELS: u32 = 0u;
override SMOOTHED: bool = false;
override Z_LOSS: bool = false;
// Which outputs are wanted of a row; for predictions the first column of the maximum is looked for.
override WITH_LOSSES: bool = true;
override WITH_LSE: bool = true;
override WITH_PREDICTIONS: bool = true;

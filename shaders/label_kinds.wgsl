// What a row is compared with, known when a shader is compiled.

const NO_LABELS = 0u;
const INDEX = 1u;
const WEIGHTS = 2u;
const VECTORS = 3u;
override LABELS: u32 = 0u;
override CLASS_WEIGHTS: bool = false;
override SMOOTHED: bool = false;
override Z_LOSS: bool = false;

//! Does this device compute what the shaders say? Asked once, before the first result.

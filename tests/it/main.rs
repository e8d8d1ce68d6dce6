//! One integration binary.

mod cli;
mod reference;

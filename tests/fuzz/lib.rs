//! What the fuzzers call: the functions that the tests call with the seeds.

#[path = "../it/any_problem.rs"]
mod any_problem;
#[path = "../../src/cli/mod.rs"]
#[allow(dead_code)] // the rest of the command line
mod cli;

pub use any_problem::problem;
pub use cli::fuzz::{npy, options, safetensors};

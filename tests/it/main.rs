//! The integration tests, one binary.
//!
//! `layout`, `plan`, `problem` and `reference` need no GPU; the others fail where there is none,
//! unless `SOFTXENT_SKIP_GPU=1`. `SOFTXENT_LONG=1` selects the full grids.

mod agreement;
mod cases;
mod checks;
mod cli;
mod common;
mod device;
mod edges;
mod golden;
mod guest;
mod judge;
mod layout;
mod plan;
mod planted;
mod problem;
mod reference;
mod reproducibility;
mod training;

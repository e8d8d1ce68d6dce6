//! The integration tests, one binary.
//!
//! `any_problem`, `files`, `layout`, `plan`, `portable`, `problem`, `readme` and `reference` need no GPU; the
//! others fail where there is none, unless `SOFTXENT_SKIP_GPU=1`. `web` needs Chromium, and says so where there is none.
//! `SOFTXENT_LONG=1` selects the full grids.

mod agreement;
mod any_problem;
mod bench;
mod browser;
mod cases;
mod checks;
mod cli;
mod common;
mod corpus;
mod device;
mod edges;
mod errors;
mod faults;
mod files;
mod golden;
mod guest;
mod job;
mod judge;
mod layout;
mod load;
mod mutate;
mod pieces;
mod plan;
mod planted;
mod portable;
mod problem;
mod random;
mod readme;
mod reference;
mod reference_set;
mod reproducibility;
mod resident;
mod stream;
mod training;
mod web;

//! draft
#![deny(missing_docs)]

pub mod derivation;
mod engine;
mod error;
pub mod kernel;
pub mod plan;
mod problem;
mod record;
pub mod reference;
mod run;
mod self_test;
mod transfer;

pub use engine::{AdapterChoice, Engine, Prepared, adapters};
pub use error::{Error, Result};
pub use kernel::Strategy;
pub use plan::Plan;
pub use problem::{
    Batch, IndexLabels, LabelKind, Labels, MOST_CLASSES, Outputs, Problem, ProblemBuilder,
    Reduction, Results, Upstream, Wanted,
};
pub use record::{Bound, BufferRange, Buffers, Chunk, accumulators_size};
pub use run::Times;
pub use self_test::Accuracy;
pub use wgpu;

//! Softmax, cross-entropy loss and its gradient over batches of logits, on any GPU through wgpu,
//! without losing the digits of confident rows.
//!
//! ```no_run
#![doc = include_str!("../examples/minimal.rs")]
//! ```
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | rows, classes | `N` samples or tokens, `K` classes each |
//! | logits | `x`, `[rows, classes]`, f32 |
//! | labels | one class index per row, or a dense row of label weights `y`, `[rows, classes]` |
//! | lse | `log Σₖ exp xₖ` of a row |
//! | softmax | `pₖ = exp(xₖ − lse)` |
//! | losses | of each row: `Σₖ yₖ·(lse − xₖ)`; with an index label `lse − x_y` |
//! | loss | the losses reduced: their sum, or their mean over the rows that are not ignored |
//! | grad | of the loss with respect to the logits: `pₖ·Σy − yₖ`, times the upstream gradient, over the denominator |
//! | upstream | gradient of whatever follows with respect to the loss |
//!
//! [`derivation`] goes from these formulas to what the kernels compute, step by step, each step
//! checked by a test.
//!
//! # Layers
//!
//! ```text
//! error, problem      what is asked for, validated once
//! plan                problem + device profile → which shaders, how many rows at once (pure)
//! kernel              variant → WGSL text, bindings, parameters (pure)
//! engine              device and queue, pipelines, self-test
//! record, transfer    dispatches into an encoder; buffers and the way back
//! run                 slices in, results out, chunk by chunk
//! reference           the same in f64 on the processor; shares no arithmetic with the shaders
//! ```
//!
//! [`Engine::run`] is the whole job. [`Engine::prepare`], [`Prepared::bind`] and
//! [`Bound::record_rows`] are its parts, for a caller whose data is on the device already.
//!
//! # What holds
//!
//! * Results have the same bits from run to run on the same adapter, driver and crate version; the
//!   bits of a row depend neither on the rows around it nor on the kernel that the planner chose. The
//!   reduced loss is an exact sum, rounded once: no order of rows or chunks changes it.
//! * −∞ is a masked class: p and gradient 0. A row with NaN or +∞ becomes NaN, is counted in
//!   [`Results::nan_rows`], and leaves the others alone. An ignored row has loss 0 and gradient 0
//!   whatever its logits hold.
//! * Results below 2⁻¹²⁶ may be flushed to 0.
//! * Nothing panics on any input or device fault: every failure is an [`Error`].

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
    Batch, Denominator, IndexLabels, LabelKind, Labels, MOST_CLASSES, Outputs, Problem,
    ProblemBuilder, Reduction, Results, Upstream, Wanted,
};
pub use record::{Bound, BufferRange, Buffers, Chunk, STATUS_SIZE, Status};
pub use run::Times;
pub use self_test::Accuracy;
pub use wgpu;

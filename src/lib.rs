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
//! | logits | `x`, `[rows, classes]`, in f32, f16 or bf16; the class axis may be [any](ProblemBuilder::inner), and [padded](ProblemBuilder::row_length) |
//! | z | what softmax is taken of: `x` times the [logit scale](ProblemBuilder::logit_scale) `s`, bounded by the [softcap](ProblemBuilder::softcap): `c·tanh(s·x/c)` |
//! | labels | one class index per row, or a dense row of label weights `y`, `[rows, classes]` |
//! | t | the label row, [smoothed](ProblemBuilder::label_smoothing): `(1 − ε)·y + ε/K` |
//! | w | [class weights](ProblemBuilder::class_weights), `[classes]` |
//! | lse | `log Σₖ exp zₖ` of a row |
//! | softmax | `pₖ = exp(zₖ − lse)` |
//! | losses | of each row: `Σₖ wₖtₖ·(lse − zₖ) + λ·lse²`, the last term being the [z-loss](ProblemBuilder::z_loss); with an index label and no options `lse − x_y` |
//! | loss | the losses reduced: their sum, or their mean over the [denominator](Denominator) |
//! | grad | of the loss with respect to the logits as given: `(pₖ·(Σwt + 2λ·lse) − wₖtₖ)·dz/dx`, times the upstream gradient, over the denominator |
//! | entropy | of softmax: `lse − Σ p·z` |
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
//! engine, guard       device and queue, pipelines, self-test; what becomes of their faults
//! record, transfer    dispatches into an encoder; buffers and the way back
//! run, stream         slices in, results out, chunk by chunk, several at once
//! source              where a batch comes from and its results go, be they of any size
//! reference           the same in f64 on the processor; shares no arithmetic with the shaders
//! ```
//!
//! [`Engine::run`] is the whole job for data on the host, [`Engine::run_stream`] for more of it than fits into
//! memory. [`guarantees`] has what is promised, each line with its test.
//!
//! # On your own device
//!
//! For data that is on the device already, such as a training step's, softxent is a guest:
//! [`Engine::from_device`] takes your device, best one with [`useful_features`], and installs no handlers;
//! [`Engine::self_test`] is yours to call. [`Engine::prepare`] makes the pipelines, [`Prepared::bind`] the bind groups for parts of
//! your buffers (and other pipelines, where these begin off a multiple of 16 bytes or share a buffer), and
//! [`Bound::record`] writes the dispatches into your encoder. Where a row is no multiple of 16 bytes it is faster
//! if the buffers of logits, softmax and gradient go on to the next one behind their ranges. Recording creates nothing
//! and submits nothing, so that a step may be recorded as often as you like; what changes from step to
//! step (logits, labels, the [upstream gradient](Upstream::Shared), the
//! [denominator](Denominator::Buffer)) is read from buffers when the device gets there. What is wrong
//! with labels or logits is counted in a [`Status`] that stays until you clear it.
//!
//! ```no_run
//! # use softxent::{BufferRange, Buffers, Engine, Problem, STATUS_SIZE, Wanted, wgpu};
//! # async fn step(device: wgpu::Device, queue: wgpu::Queue, logits: wgpu::Buffer,
//! #     labels: wgpu::Buffer, grad: wgpu::Buffer, loss: wgpu::Buffer) -> softxent::Result<()> {
//! let engine = Engine::from_device(device.clone(), queue.clone());
//! let problem = Problem::of(64, 1000).index_labels(-100).want([Wanted::Loss, Wanted::Grad]).build()?;
//! let prepared = engine.prepare(&problem).await?;
//! let storage = |size| {
//!     let usage = wgpu::BufferUsages::STORAGE;
//!     device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
//! };
//! let (status, scratch) = (storage(STATUS_SIZE), storage(prepared.scratch_size(&engine)));
//! let whole = BufferRange::whole;
//! let bound = prepared.bind(&engine, &Buffers {
//!     labels: Some(whole(&labels)),
//!     grad: Some(whole(&grad)),
//!     loss: Some(whole(&loss)),
//!     ..Buffers::new(whole(&logits), whole(&status), whole(&scratch))
//! }).await?;
//! let mut encoder = device.create_command_encoder(&Default::default());
//! bound.record(&mut encoder); // after the pass that writes the logits, before the one that reads grad
//! queue.submit([encoder.finish()]);
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! * Results have the same bits from run to run on the same adapter, driver and crate version; the
//!   bits of a row depend neither on the rows around it nor on the kernel that the planner chose. The
//!   reduced loss is an exact sum, rounded once: no order of rows or chunks changes it.
//! * All arithmetic is f32, whatever the logits are stored as; 16-bit outputs are the f32 results rounded
//!   to nearest. No feature such as `shader-f16` is needed, and none changes a bit.
//! * −∞ is a masked class: p and gradient 0. A row with NaN or +∞ becomes NaN, is counted in
//!   [`Results::nan_rows`], and leaves the others alone. An ignored row has loss 0 and gradient 0
//!   whatever its logits hold.
//! * Results below 2⁻¹²⁶ may be flushed to 0.
//! * Nothing panics on any input or device fault: every failure is an [`Error`], and every wait has
//!   [an end](Engine::with_patience). A call that fails leaves nothing behind for the next. An engine whose
//!   device is gone says so, and [gives another](Engine::renewed).

#![deny(missing_docs)]

pub mod derivation;
mod engine;
mod error;
pub mod guarantees;
mod guard;
pub mod kernel;
pub mod plan;
mod problem;
mod processor;
mod record;
pub mod reference;
mod run;
mod self_test;
mod source;
mod stream;
mod threads;
mod transfer;

pub use engine::{AdapterChoice, Engine, Prepared, adapters, useful_features};
pub use error::{Error, Result};
#[doc(hidden)]
pub use guard::{Fault, Operation};
pub use half;
pub use kernel::Strategy;
pub use plan::Plan;
pub use problem::{
    Batch, Denominator, Dtype, EmptyMean, IndexLabels, LabelKind, Labels, Logits, MOST_CLASSES,
    Outputs, Padding, Problem, ProblemBuilder, Reduction, Results, Upstream, Wanted,
};
pub use record::{Bound, BufferRange, Buffers, Chunk, STATUS_SIZE, Status};
pub use run::Times;
pub use self_test::{Accuracy, MathFunction};
pub use source::{Sink, Source, StreamError, Values};
pub use wgpu;

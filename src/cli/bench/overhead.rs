//! What a job costs beside its kernels: the first result, and the host's part of each step.

use std::time::Instant;

use pollster::block_on;
use serde::Serialize;
use softxent::{AdapterChoice, Batch, Dtype, Engine, Plan, Problem, Wanted};

use super::cases::{Case, LabelsOf, Op, With};
use super::data::Data;
use super::gpu::Gpu;
use super::sets::{Job, Sets};
use crate::cli::{Failure, device};

/// From nothing to the first result, the library of the driver being loaded. Drivers that keep compiled
/// shaders on the disk take less the second time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ColdStart {
    /// The device, and the self-test with its pipelines.
    pub engine_seconds: f64,
    /// Then the pipelines of a small problem, its upload, run and read-back.
    pub first_result_seconds: f64,
}

pub fn cold_start(choice: &AdapterChoice) -> Result<(Engine, ColdStart), Failure> {
    let started = Instant::now();
    let engine = device::open(choice)?;
    let engine_seconds = started.elapsed().as_secs_f64();
    let problem = Problem::of(2, 3)
        .index_labels(-100)
        .want([Wanted::Loss, Wanted::Grad])
        .build()?;
    let logits = [2.0, 1.0, 0.1, 0.5, 2.5, 0.0];
    let batch = Batch::of(&logits).index(&[0, 1]);
    block_on(engine.run(&problem, &batch))?;
    let cold_start = ColdStart {
        engine_seconds,
        first_result_seconds: started.elapsed().as_secs_f64() - engine_seconds,
    };
    Ok((engine, cold_start))
}

/// Processor time of the host for a step of loss and gradient; nothing is submitted.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Recording {
    /// A new encoder, one step, and its end.
    pub alone_seconds: f64,
    /// One of many steps in an encoder, its share of the encoder and the end included.
    pub one_of_many_seconds: f64,
}

/// Repetitions of which the median is taken, and steps of an encoder that has many.
const REPETITIONS: usize = 101;
const MANY: usize = 100;

pub fn recording(gpu: &Gpu) -> Result<Recording, Failure> {
    let case = Case {
        op: Op::LossGrad,
        dtype: Dtype::F32,
        labels: Some(LabelsOf::Index),
        options: With::Plain,
        rows: 64,
        classes: 1000,
    };
    let problem = case.problem()?;
    let strategy = Plan::new(&problem, gpu.engine.profile())?.strategy;
    let sets = Sets::new(gpu, &case, &Data::new(&case), false)?;
    let job = Job::new(gpu, &problem, strategy, &sets, &sets.sets)?;
    let median = |steps: usize| {
        let mut times: Vec<f64> = Vec::new();
        for _ in 0..REPETITIONS {
            let started = Instant::now();
            let mut encoder = gpu.encoder();
            for step in 0..steps {
                job.record(step, &mut encoder);
            }
            let commands = encoder.finish();
            times.push(started.elapsed().as_secs_f64());
            drop(commands);
        }
        times.sort_by(f64::total_cmp);
        times.get(REPETITIONS / 2).copied().unwrap_or(f64::NAN)
    };
    let recording = Recording {
        alone_seconds: median(1),
        one_of_many_seconds: median(MANY) / MANY as f64,
    };
    gpu.wait(None)?;
    Ok(recording)
}

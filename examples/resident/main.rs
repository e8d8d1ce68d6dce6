//! Trains a classifier of handwritten digits wholly on the GPU, with softxent as one part of the loop:
//! the device, the memory and the submissions are this program's.
//!
//! ```sh
//! cargo run --release --example resident
//! ```
//!
//! [`regression`] is the part to read.

mod digits;
mod regression;

use std::error::Error;
use std::time::Instant;

use softxent::{Engine, wgpu};

use digits::Digits;
use regression::{BATCH, EPOCHS, HELD_BACK, Regression, STEPS, TRAINED};

fn main() -> Result<(), Box<dyn Error>> {
    pollster::block_on(train())
}

async fn train() -> Result<(), Box<dyn Error>> {
    let digits = Digits::load()?;
    let started = Instant::now();
    let (device, queue) = device().await?;
    // A wgpu device is a handle: softxent takes clones, and this program could go on using its own.
    let mut engine = Engine::from_device(device, queue);
    engine.self_test().await?;
    let regression = Regression::new(&engine, &digits).await?;
    println!(
        "{}: {TRAINED} rows to train on, {HELD_BACK} held back; ready after {:.1} s",
        engine.adapter_info().name,
        started.elapsed().as_secs_f64()
    );

    let started = Instant::now();
    println!("epoch  loss (mean over {STEPS} steps of {BATCH} rows)");
    for epoch in 1..=EPOCHS {
        let losses = regression.epoch()?;
        let mean = losses.iter().sum::<f32>() / STEPS as f32;
        println!("{epoch:5}  {mean:.5}");
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{EPOCHS} epochs in {seconds:.2} s");

    let correct = regression.held_back_correct()?;
    let percent = 100.0 * correct as f64 / HELD_BACK as f64;
    println!("{correct} of {HELD_BACK} held-back rows are right: {percent:.1} %");
    let weights = regression.weights()?;
    let largest = weights.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
    println!("{} weights, the largest {largest:.2}", weights.len());
    Ok(())
}

/// A device of this program, with subgroups where there are any: softxent's faster kernels use them.
async fn device() -> Result<(wgpu::Device, wgpu::Queue), Box<dyn Error>> {
    let instance =
        wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = instance.request_adapter(&options).await;
    let adapter = adapter.map_err(|error| format!("there is no GPU: {error}"))?;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: adapter.features() & wgpu::Features::SUBGROUP,
        ..Default::default()
    };
    Ok(adapter.request_device(&descriptor).await?)
}

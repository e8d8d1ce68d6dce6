//! What a driver does where WGSL leaves it open. The shaders of softxent rest on none of it; who wonders why
//! they are written as they are, or why another driver is faster, begins here.
//!
//! `cargo run --release --example facts [ADAPTER]`, an index or a part of a name that `softxent info` lists.

use softxent::wgpu::{self, util::DeviceExt};
use softxent::{AdapterChoice, Engine};

const FACTS: usize = 24;
const TABLE: usize = 4096;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let choice = match std::env::args().nth(1) {
        None => AdapterChoice::Auto,
        Some(text) => text.parse()?,
    };
    let engine = Engine::new_blocking(&choice)?;
    let info = engine.device().adapter_info();
    println!("{}, {} {}", info.name, info.driver, info.driver_info);
    println!("{:#?}", engine.profile());
    let features = engine.device().features();
    println!(
        "f16 in shaders: {}",
        features.contains(wgpu::Features::SHADER_F16)
    );

    let found = found(&engine)?;
    let f = |at: usize| f32::from_bits(found[at]);
    println!(
        "max(NaN, 1) {}, max(1, NaN) {}, min(NaN, 1) {}",
        f(0),
        f(1),
        f(2)
    );
    println!("clamp(NaN, 0, 1) {}", f(3));
    println!("NaN != NaN is seen: {}", found[4] == 1);
    println!("inf > the largest f32 is seen: {}", found[5] == 1);
    println!(
        "inf - inf {}, 1 / 0 {}, exp(-inf) {}, exp(NaN) {}",
        f(6),
        f(7),
        f(8),
        f(9)
    );
    println!("(a + b) - a is left alone: {}", f(10) == 2f32.powi(-30));
    println!("fma rounds once: {}", f(11) == 2f32.powi(-24));
    println!("a * b + c is contracted: {}", f(12) == 2f32.powi(-24));
    println!(
        "2^-127 that is copied {:e}, times 1 {:e}, doubled {:e}; half of 2^-126 {:e}",
        f(13),
        f(14),
        f(15),
        f(16)
    );
    let worst = |first: usize, exact: &dyn Fn(f64) -> f64| {
        (0..TABLE)
            .map(|i| ulps(f(first + i), exact(i as f64 / TABLE as f64)))
            .fold(0.0, f64::max)
    };
    println!(
        "exp from -87 to 0: {:.2} ULP at most",
        worst(FACTS, &|at| (-87.0 * at).exp())
    );
    println!(
        "1/x from 1 to 2: {:.2} ULP at most",
        worst(FACTS + TABLE, &|at| 1.0 / (1.0 + at))
    );
    Ok(())
}

/// How far off, in units of the last place of what is exact; below 2^-126 in units of 2^-149.
fn ulps(found: f32, exact: f64) -> f64 {
    let exponent = exact.abs().log2().floor().max(-126.0) as i32;
    (f64::from(found) - exact).abs() / 2f64.powi(exponent - 23)
}

fn found(engine: &Engine) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    use wgpu::BufferUsages as Usage;
    let (device, queue) = (engine.device(), engine.queue());
    let given = [
        f32::NAN,
        f32::INFINITY,
        1.0,
        2f32.powi(-30),
        1.0 + 2f32.powi(-12),
        -(1.0 + 2f32.powi(-11)),
        2f32.powi(-127),
        2f32.powi(-126),
    ];
    let given = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: Some("given"),
        contents: bytemuck::cast_slice(&given),
        usage: Usage::STORAGE,
    });
    let buffer = |usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("found"),
            size: 4 * (FACTS + 2 * TABLE) as u64,
            usage,
            mapped_at_creation: false,
        })
    };
    let found = buffer(Usage::STORAGE | Usage::COPY_SRC);
    let back = buffer(Usage::MAP_READ | Usage::COPY_DST);
    let module = device.create_shader_module(wgpu::include_wgsl!("facts.wgsl"));
    let mut encoder = device.create_command_encoder(&Default::default());
    for (entry_point, workgroups) in [("facts", 1), ("tables", TABLE as u32 / 64)] {
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry_point),
            layout: None,
            module: &module,
            entry_point: Some(entry_point),
            compilation_options: Default::default(),
            cache: None,
        });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(entry_point),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry {
                    binding: 0,
                    resource: given.as_entire_binding(),
                },
                wgpu::BindGroupEntry {
                    binding: 1,
                    resource: found.as_entire_binding(),
                },
            ],
        });
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(workgroups, 1, 1);
    }
    encoder.copy_buffer_to_buffer(&found, 0, &back, 0, found.size());
    queue.submit([encoder.finish()]);
    back.slice(..).map_async(wgpu::MapMode::Read, |_| {});
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let view = back.slice(..).get_mapped_range()?;
    Ok(bytemuck::pod_collect_to_vec(&view))
}

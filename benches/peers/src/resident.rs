//! softxent's side: loss and gradient of arrays that are on the device, in as many parts as its bindings
//! need.

use std::error::Error;
use std::time::Instant;

use pollster::block_on;
use softxent::wgpu::{self, BufferUsages as Usage};
use softxent::{
    Bound, BufferRange, Buffers, Chunk, Denominator, Engine, Problem, STATUS_SIZE, Wanted, adapters,
};

pub fn engine() -> Result<Engine, Box<dyn Error>> {
    let found = block_on(adapters());
    let adapter = found.first().ok_or("no adapter: see `softxent info`")?;
    let (device, queue) = block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: softxent::useful_features(adapter),
        required_limits: adapter.limits(),
        ..Default::default()
    }))?;
    let mut engine = Engine::from_device(device, queue);
    block_on(engine.self_test())?;
    Ok(engine)
}

pub struct Case<'a> {
    engine: &'a Engine,
    parts: Vec<Part>,
    loss: wgpu::Buffer,
}

struct Part {
    bound: Bound,
    grad: wgpu::Buffer,
    /// Of the gradient, whose buffer may be longer.
    elements: usize,
}

impl<'a> Case<'a> {
    pub fn new(
        engine: &'a Engine,
        classes: usize,
        logits: &[f32],
        labels: &[i32],
    ) -> Result<Case<'a>, Box<dyn Error>> {
        let rows = labels.len();
        let limits = engine.device().limits();
        let most = limits
            .max_storage_buffer_binding_size
            .min(limits.max_buffer_size);
        let problem = Problem::of(rows, classes)
            .index_labels(-100)
            .want([Wanted::Loss, Wanted::Grad]);
        let mut prepared = block_on(engine.prepare(&problem.clone().build()?))?;
        let mut rows_per_part = rows;
        let largest = prepared
            .scratch_size(engine)
            .max(size_of_val(logits) as u64);
        if largest > most {
            // All labels would have to be counted before the first part: the denominator is said instead.
            let problem = problem.denominator(Denominator::Number(rows as f32));
            prepared = block_on(engine.prepare(&problem.build()?))?;
            rows_per_part = prepared.plan().rows_per_chunk.min(rows);
        }
        // With room for the last vector of a matrix.
        let buffer = |size: u64, usage| {
            engine.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: size.next_multiple_of(16),
                usage: Usage::STORAGE | usage,
                mapped_at_creation: false,
            })
        };
        let filled = |bytes: &[u8]| {
            let buffer = buffer(bytes.len() as u64, Usage::COPY_DST);
            engine.queue().write_buffer(&buffer, 0, bytes);
            // Else what was staged for every part is in memory at once.
            engine.queue().submit([]);
            buffer
        };
        let scratch = prepared.scratch_size_for(engine, rows_per_part);
        let (scratch, status) = (
            buffer(scratch, Usage::empty()),
            buffer(STATUS_SIZE, Usage::empty()),
        );
        let loss = buffer(4, Usage::COPY_SRC);
        let mut parts = Vec::new();
        let parts_of = logits
            .chunks(rows_per_part * classes)
            .zip(labels.chunks(rows_per_part));
        for (logits, labels) in parts_of {
            let elements = logits.len();
            let grad = buffer(size_of_val(logits) as u64, Usage::COPY_SRC);
            let logits = filled(bytemuck::cast_slice(logits));
            let chunk = Chunk {
                rows: labels.len(),
                rows_before: parts.len() * rows_per_part,
            };
            let labels = filled(bytemuck::cast_slice(labels));
            let whole = BufferRange::whole;
            let buffers = Buffers {
                labels: Some(whole(&labels)),
                grad: Some(whole(&grad)),
                loss: Some(whole(&loss)),
                ..Buffers::new(whole(&logits), whole(&status), whole(&scratch))
            };
            let bound = block_on(prepared.bind_chunk(engine, &buffers, chunk))?;
            parts.push(Part {
                bound,
                grad,
                elements,
            });
        }
        Ok(Case {
            engine,
            parts,
            loss,
        })
    }

    /// Seconds from the first word of the recording to the last of the device.
    pub fn run(&self) -> Result<f64, Box<dyn Error>> {
        let (device, queue) = (self.engine.device(), self.engine.queue());
        let started = Instant::now();
        let mut encoder = device.create_command_encoder(&Default::default());
        for part in &self.parts {
            part.bound.record_rows(&mut encoder);
        }
        if let Some(last) = self.parts.last() {
            last.bound.record_reduce(&mut encoder);
        }
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok(started.elapsed().as_secs_f64())
    }

    pub fn loss(&self) -> Result<f32, Box<dyn Error>> {
        let values = self.read(&self.loss)?;
        Ok(*values.first().ok_or("no loss came back")?)
    }

    pub fn grad(&self) -> Result<Vec<f32>, Box<dyn Error>> {
        let mut grad = Vec::new();
        for part in &self.parts {
            let values = self.read(&part.grad)?;
            grad.extend(values.iter().take(part.elements));
        }
        Ok(grad)
    }

    fn read(&self, buffer: &wgpu::Buffer) -> Result<Vec<f32>, Box<dyn Error>> {
        let device = self.engine.device();
        let staging = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: buffer.size(),
            usage: Usage::MAP_READ | Usage::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        self.engine.queue().submit([encoder.finish()]);
        // Whether it worked shows when the mapped bytes are asked for.
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let bytes = staging.get_mapped_range(..)?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}

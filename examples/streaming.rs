//! Logits that do not fit at once: a stream of rows through a small, fixed part of the device's memory.
//!
//! ```sh
//! cargo run --release --example streaming
//! ```
//!
//! The rows come in chunks, as from a file or another program; only their number is known beforehand.
//! At the end there is one loss, with the bits that one call over everything gives.

use std::error::Error;
use std::time::Instant;

use softxent::wgpu::{self, BufferUsages as Usage, PollType};
use softxent::{
    AdapterChoice, Batch, BufferRange, Buffers, Chunk, Denominator, Engine, Problem, STATUS_SIZE,
    Status, Wanted,
};

const ROWS: usize = 100_000;
const CLASSES: usize = 256;
const CHUNK_ROWS: usize = 3_000;
const MIB: f64 = (1 << 20) as f64;

fn main() -> Result<(), Box<dyn Error>> {
    pollster::block_on(compare())
}

async fn compare() -> Result<(), Box<dyn Error>> {
    let engine = Engine::new(&AdapterChoice::Auto).await?;
    // A gradient is over the number of all rows, and the first is due long before the last row comes.
    let problem = Problem::of(ROWS, CLASSES)
        .index_labels(-100)
        .denominator(Denominator::Number(ROWS as f32))
        .want([Wanted::Loss]);
    let with_grad = problem.clone().want([Wanted::Grad]).grad_over_logits(true);
    let started = Instant::now();
    let streamed = stream(&engine, &with_grad.build()?).await?;
    let seconds = started.elapsed().as_secs_f64();
    println!("loss {streamed} after {seconds:.2} s");

    let (logits, labels): (Vec<_>, Vec<_>) = source().unzip();
    let (logits, labels) = (logits.concat(), labels.concat());
    let batch = Batch::of(&logits).index(&labels);
    let at_once = engine.run(&problem.build()?, &batch).await?;
    if at_once.loss.map(f32::to_bits) != Some(streamed.to_bits()) {
        return Err(format!("in one call the loss is {:?}", at_once.loss).into());
    }
    println!("in one call: the same bits");
    Ok(())
}

/// The loss of the stream; the gradient stays on the device.
async fn stream(engine: &Engine, problem: &Problem) -> Result<f32, Box<dyn Error>> {
    let prepared = engine.prepare(problem).await?;

    let (device, queue) = (engine.device(), engine.queue());
    let mut all_sizes = 0;
    let mut buffer = |size, usage| {
        all_sizes += size;
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    };
    // Two sets of logits and labels: while the device works on one, the other is filled.
    let labels_size = 4 * CHUNK_ROWS as u64;
    let logits_size = labels_size * CLASSES as u64;
    let input = Usage::STORAGE | Usage::COPY_DST;
    let mut sets = [(); 2].map(|()| (buffer(logits_size, input), buffer(labels_size, input), None));
    // The losses add up in the scratch and the counts in the status, so both sets share these. Their
    // kernels therefore run one after the other, which wgpu sees to; it is the uploads that overlap.
    let scratch = prepared.scratch_size_for(engine, CHUNK_ROWS);
    let scratch = buffer(scratch, Usage::STORAGE);
    let status = buffer(STATUS_SIZE, Usage::STORAGE | Usage::COPY_SRC);
    let loss = buffer(4, Usage::STORAGE | Usage::COPY_SRC);
    let staging = buffer(STATUS_SIZE + 4, Usage::MAP_READ | Usage::COPY_DST);

    let mut rows_before = 0;
    for (values, classes) in source() {
        sets.swap(0, 1);
        let (logits, labels, last_use) = &mut sets[0];
        // The queue keeps the order anyway; this keeps what it holds for uploads to two chunks.
        if let Some(submission_index) = last_use.take() {
            device.poll(PollType::Wait {
                submission_index: Some(submission_index),
                timeout: None,
            })?;
        }
        queue.write_buffer(logits, 0, bytemuck::cast_slice(&values));
        queue.write_buffer(labels, 0, bytemuck::cast_slice(&classes));
        let [logits, labels, loss, status, scratch] =
            [&*logits, labels, &loss, &status, &scratch].map(BufferRange::whole);
        let buffers = Buffers {
            labels: Some(labels),
            loss: Some(loss),
            ..Buffers::new(logits, status, scratch)
        };
        let rows = classes.len();
        let chunk = Chunk { rows, rows_before };
        let bound = prepared.bind_chunk(engine, &buffers, chunk).await?;
        let mut encoder = device.create_command_encoder(&Default::default());
        bound.record_rows(&mut encoder);
        // Here the gradient of these rows lies where their logits were, for the next kernel.
        rows_before += rows;
        if rows_before == ROWS {
            bound.record_reduce(&mut encoder);
            encoder.copy_buffer_to_buffer(status.buffer, 0, &staging, 0, STATUS_SIZE);
            encoder.copy_buffer_to_buffer(loss.buffer, 0, &staging, STATUS_SIZE, 4);
        }
        *last_use = Some(queue.submit([encoder.finish()]));
    }
    println!(
        "{ROWS} rows, {:.1} MiB, through {:.1} MiB on the device and as much again for uploads",
        ((logits_size + labels_size) * ROWS as u64) as f64 / CHUNK_ROWS as f64 / MIB,
        all_sizes as f64 / MIB,
    );

    staging.map_async(wgpu::MapMode::Read, .., |_| {});
    device.poll(PollType::wait_indefinitely())?;
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..)?);
    let (loss, status) = words.split_last().ok_or("nothing came back")?;
    let status = Status::from_words(status.try_into()?);
    if status.valid_rows as usize != ROWS || status.nan_rows > 0 {
        return Err(format!("{ROWS} rows were sent, and the device saw {status:?}").into());
    }
    Ok(f32::from_bits(*loss))
}

/// The stream: chunks of logits from −16 to 16 and of labels.
fn source() -> impl Iterator<Item = (Vec<f32>, Vec<i32>)> {
    // A multiplicative congruential generator with Knuth's multiplier; its high bits are random.
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005);
        (state >> 32) as u32
    };
    (0..ROWS).step_by(CHUNK_ROWS).map(move |rows_before| {
        let rows = CHUNK_ROWS.min(ROWS - rows_before);
        let logit = |_| random() as i32 as f32 / (1 << 27) as f32;
        let logits = (0..rows * CLASSES).map(logit).collect();
        let label = |_| (random() % CLASSES as u32) as i32;
        (logits, (0..rows).map(label).collect())
    })
}

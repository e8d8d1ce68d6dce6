//! What the memory of the device can do: a copy, and a shader that only reads.

use std::collections::BTreeMap;
use std::time::Duration;

use softxent::wgpu;

use super::cases::Op;
use super::gpu::Gpu;
use super::sets::Sets;
use crate::cli::Failure;

/// Invocations of a workgroup of the shader, and words of 16 bytes that each should read, at least.
const WORKGROUP: u64 = 256;
const READS: u64 = 32;
const MOST_WORKGROUPS: u64 = 32_768;

/// What a job is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Yardstick {
    Copy,
    Read,
}

impl Yardstick {
    pub fn of(op: Op) -> Yardstick {
        match op.has_matrix() {
            true => Yardstick::Copy,
            false => Yardstick::Read,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Yardstick::Copy => "copy",
            Yardstick::Read => "read",
        }
    }
}

/// Bytes per second, by the size of the buffers.
#[derive(Default)]
pub struct Yardsticks {
    known: BTreeMap<(Yardstick, u64), f64>,
    reader: Option<wgpu::ComputePipeline>,
}

impl Yardsticks {
    /// Measured once for each size, on the sets of the first case that asks.
    pub fn rate(
        &mut self,
        gpu: &Gpu,
        yardstick: Yardstick,
        sets: &Sets,
        min_time: Duration,
        max_time: Duration,
    ) -> Result<f64, Failure> {
        let size = sets.sets.first().map_or(0, |set| set.logits.size());
        if let Some(&rate) = self.known.get(&(yardstick, size)) {
            return Ok(rate);
        }
        let (bytes, timing) = match yardstick {
            Yardstick::Copy => {
                let fence = gpu.buffer("fence", 4)?;
                let timing = gpu.settle(min_time, max_time, |run, encoder| {
                    // Copies between different buffers may overlap; this one they all have to wait for.
                    encoder.clear_buffer(&fence, 0, None);
                    let set = &sets.sets[run % sets.sets.len()];
                    encoder.copy_buffer_to_buffer(&set.logits, 0, &set.output, 0, size);
                })?;
                (2 * size, timing)
            }
            Yardstick::Read => {
                let reader = self.reader.get_or_insert_with(|| reader(gpu.device()));
                let workgroups = (size / (16 * READS * WORKGROUP)).clamp(1, MOST_WORKGROUPS);
                let sums = gpu.buffer("sums", 4 * WORKGROUP * workgroups)?;
                let bind_group = |logits: &wgpu::Buffer| {
                    let bindings = [(0, logits), (1, &sums)];
                    gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                        label: Some("read"),
                        layout: &reader.get_bind_group_layout(0),
                        entries: &bindings.map(|(binding, buffer)| wgpu::BindGroupEntry {
                            binding,
                            resource: buffer.as_entire_binding(),
                        }),
                    })
                };
                let sets_of = sets.sets.iter().map(|set| bind_group(&set.logits));
                let bind_groups: Vec<wgpu::BindGroup> = sets_of.collect();
                let timing = gpu.settle(min_time, max_time, |run, encoder| {
                    let mut pass = encoder.begin_compute_pass(&Default::default());
                    pass.set_pipeline(reader);
                    pass.set_bind_group(0, &bind_groups[run % bind_groups.len()], &[]);
                    pass.dispatch_workgroups(workgroups as u32, 1, 1);
                })?;
                let word = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
                let added = |words: &mut dyn Iterator<Item = u32>| words.fold(0, u32::wrapping_add);
                let found = gpu.read(&sums, |bytes| added(&mut bytes.chunks_exact(4).map(word)))?;
                let pattern: Vec<u32> = sets.pattern.chunks_exact(4).map(word).collect();
                let read = (size / 16 * 4) as usize;
                let expected = added(&mut pattern.iter().copied().cycle().take(read));
                if found != expected {
                    let why = format!("the read yardstick is wrong: {found:#x}, not {expected:#x}");
                    return Err(Failure::Message(why));
                }
                (size + sums.size(), timing)
            }
        };
        let rate = bytes as f64 / timing.seconds;
        self.known.insert((yardstick, size), rate);
        Ok(rate)
    }
}

fn reader(device: &wgpu::Device) -> wgpu::ComputePipeline {
    let text = include_str!("../../../shaders/yardsticks/read.wgsl");
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("read"),
        source: wgpu::ShaderSource::Wgsl(text.into()),
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("read"),
        layout: None,
        module: &module,
        entry_point: Some("read_words"),
        compilation_options: Default::default(),
        cache: None,
    })
}

//! The clock that jobs are timed with: the device's, where it can be read, else the host's.

use std::time::Instant;

use softxent::wgpu::{self, BufferUsages as Usage};

use super::gpu::Gpu;
use crate::cli::Failure;

/// Jobs in one submission, at most.
pub const MOST_JOBS: usize = 64;
/// Host time that a submission should take, so that what submitting costs does not matter.
const HOST_SUBMISSION: f64 = 0.02;
/// And device time, so that it does not idle between jobs.
const DEVICE_SUBMISSION: f64 = 0.005;
/// Bytes that a clock is tried on.
const TRIAL: u64 = 1 << 20;

/// Where time stamps can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamps {
    /// Between passes.
    BetweenPasses,
    /// At the edges of passes only: empty ones stand before and after a job.
    AtPasses,
}

pub struct Clock(Option<DeviceClock>);

struct DeviceClock {
    stamps: Stamps,
    /// Nanoseconds of a tick.
    period: f64,
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
}

impl Clock {
    pub const FEATURES: wgpu::Features =
        wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);

    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Clock {
        let features = device.features();
        let stamps = if features.contains(Clock::FEATURES) {
            Stamps::BetweenPasses
        } else if features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            Stamps::AtPasses
        } else {
            return Clock(None);
        };
        let count = 2 * MOST_JOBS as u32;
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("time stamps"),
                size: 8 * u64::from(count),
                usage,
                mapped_at_creation: false,
            })
        };
        Clock(Some(DeviceClock {
            stamps,
            period: f64::from(queue.get_timestamp_period()),
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("time stamps"),
                ty: wgpu::QueryType::Timestamp,
                count,
            }),
            resolved: buffer(Usage::QUERY_RESOLVE | Usage::COPY_SRC),
            staging: buffer(Usage::MAP_READ | Usage::COPY_DST),
        }))
    }

    pub fn name(&self) -> &'static str {
        match self.0 {
            Some(_) => "gpu",
            None => "host",
        }
    }

    /// How many jobs to time at once, of which one takes so many seconds.
    pub fn jobs(&self, seconds: f64) -> usize {
        let submission = match self.0 {
            Some(_) => DEVICE_SUBMISSION,
            None => HOST_SUBMISSION,
        };
        // A time of 0 makes infinity, which is cut.
        ((submission / seconds) as usize).clamp(1, MOST_JOBS)
    }
}

impl DeviceClock {
    fn stamp(&self, encoder: &mut wgpu::CommandEncoder, at: u32) {
        match self.stamps {
            Stamps::BetweenPasses => encoder.write_timestamp(&self.queries, at),
            Stamps::AtPasses => {
                let (first, second) = match at % 2 {
                    0 => (None, Some(at)),
                    _ => (Some(at), None),
                };
                encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some("time stamp"),
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &self.queries,
                        beginning_of_pass_write_index: first,
                        end_of_pass_write_index: second,
                    }),
                });
            }
        }
    }
}

impl Gpu {
    /// Runs `jobs` jobs, one after the other: the seconds of each by the device's clock, or their mean by
    /// the host's. Jobs have to write to something that they share, so that none begins before the last
    /// has ended.
    pub fn time(
        &self,
        jobs: usize,
        mut record: impl FnMut(usize, &mut wgpu::CommandEncoder),
    ) -> Result<Vec<f64>, Failure> {
        let jobs = jobs.clamp(1, MOST_JOBS);
        let mut encoder = self.encoder();
        for job in 0..jobs {
            let clock = self.clock.0.as_ref();
            if let Some(clock) = clock {
                clock.stamp(&mut encoder, 2 * job as u32);
            }
            record(job, &mut encoder);
            if let Some(clock) = clock {
                clock.stamp(&mut encoder, 2 * job as u32 + 1);
            }
        }
        let Some(clock) = &self.clock.0 else {
            let commands = encoder.finish();
            let started = Instant::now();
            let submission = self.engine.queue().submit([commands]);
            self.wait(Some(submission))?;
            return Ok(vec![started.elapsed().as_secs_f64() / jobs as f64]);
        };
        let size = 16 * jobs as u64;
        encoder.resolve_query_set(&clock.queries, 0..2 * jobs as u32, &clock.resolved, 0);
        encoder.copy_buffer_to_buffer(&clock.resolved, 0, &clock.staging, 0, size);
        self.submit(encoder)?;
        self.mapped(&clock.staging, |bytes| {
            let stamp = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
            let stamps: Vec<u64> = bytes.chunks_exact(8).map(stamp).collect();
            let pairs = stamps.chunks_exact(2).take(jobs);
            let ticks = pairs.map(|pair| pair[1].wrapping_sub(pair[0]));
            ticks
                .map(|ticks| ticks as f64 * clock.period * 1e-9)
                .collect()
        })
    }

    /// Does without a device clock that stands still or runs ahead of the host's: there are drivers that
    /// have one in name only.
    pub fn try_clock(&mut self) -> Result<(), Failure> {
        if self.clock.0.is_none() {
            return Ok(());
        }
        let (from, to) = (self.buffer("trial", TRIAL)?, self.buffer("trial", TRIAL)?);
        let trial = || {
            let started = Instant::now();
            let times = self.time(4, |_, encoder| {
                encoder.copy_buffer_to_buffer(&from, 0, &to, 0, TRIAL);
            })?;
            let host = started.elapsed().as_secs_f64();
            let all_run = times.iter().all(|&seconds| seconds > 0.0);
            Ok::<_, Failure>(all_run && times.iter().sum::<f64>() <= host)
        };
        trial()?;
        if !trial()? {
            self.clock = Clock(None);
        }
        Ok(())
    }
}

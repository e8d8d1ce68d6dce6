//! The buffers of a case: some sets of them that hold the same numbers and take turns.

use pollster::block_on;
use softxent::wgpu;
use softxent::{
    Bound, BufferRange, Buffers, Engine, Prepared, Problem, STATUS_SIZE, Status, Strategy, Wanted,
};

use super::cases::{Case, LabelsOf, Op, With};
use super::data::Data;
use super::gpu::Gpu;
use crate::cli::Failure;

/// Bytes that all sets hold together before the first one's turn comes again: more than the cache of any
/// GPU holds.
const ROTATION: u64 = 256 << 20;
/// The caches of a processor are smaller.
const ROTATION_OF_SOFTWARE: u64 = 64 << 20;
const FEWEST_SETS: u64 = 3;
const MOST_SETS: u64 = 64;
/// Patterns are uploaded in pieces of about so many bytes.
const PIECE: usize = 4 << 20;

/// One batch and its outputs.
pub struct Set {
    pub logits: wgpu::Buffer,
    /// Class indices, label weights or vectors.
    pub labels: Option<wgpu::Buffer>,
    pub class_weights: Option<wgpu::Buffer>,
    /// In the shape of the logits.
    pub output: wgpu::Buffer,
}

pub struct Sets {
    case: Case,
    pub sets: Vec<Set>,
    /// The words of a pattern, again and again, that the logits are.
    pub pattern: Vec<u8>,
}

impl Sets {
    /// Two sets, of which kernels are compared, or as many as timing needs.
    pub fn new(gpu: &Gpu, case: &Case, data: &Data, timed: bool) -> Result<Sets, Failure> {
        let profile = gpu.engine.profile();
        let size = case.buffer_bytes();
        let beside = case.beside_bytes();
        let rotation = if profile.software {
            ROTATION_OF_SOFTWARE
        } else {
            ROTATION
        };
        let count = match timed {
            true => rotation
                .div_ceil(2 * size + beside)
                .clamp(FEWEST_SETS, MOST_SETS),
            false => 2,
        };
        let pattern = data.logit_bytes();
        let logits = Pieces::of(gpu, &pattern)?;
        let beside = match beside {
            0 => None,
            size => Some((Pieces::of(gpu, &data.beside_bytes())?, size)),
        };
        let index = match case.labels {
            Some(LabelsOf::Index) => {
                let labels = data.labels();
                Some(gpu.upload("labels", bytemuck::cast_slice(&labels))?)
            }
            _ => None,
        };
        let class_weights = match case.options.has(With::Weights) {
            true => Some(gpu.upload("class weights", bytemuck::cast_slice(&data.class_weights()))?),
            false => None,
        };
        let set = |_| {
            let labels = match (&beside, &index) {
                (Some((pieces, size)), _) => Some(pieces.fill(gpu, "labels", *size)?),
                (None, Some(labels)) => {
                    let copied = gpu.buffer("labels", labels.size())?;
                    let mut encoder = gpu.encoder();
                    encoder.copy_buffer_to_buffer(labels, 0, &copied, 0, labels.size());
                    gpu.submit(encoder)?;
                    Some(copied)
                }
                (None, None) => None,
            };
            Ok(Set {
                logits: logits.fill(gpu, "logits", size)?,
                labels,
                class_weights: class_weights.clone(),
                output: gpu.buffer("output", size)?,
            })
        };
        Ok(Sets {
            case: *case,
            sets: (0..count).map(set).collect::<Result<_, Failure>>()?,
            pattern,
        })
    }
}

/// A pattern on the device, some times over.
struct Pieces(wgpu::Buffer);

impl Pieces {
    fn of(gpu: &Gpu, pattern: &[u8]) -> Result<Pieces, Failure> {
        let piece = pattern.repeat((PIECE / pattern.len().max(1)).max(1));
        Ok(Pieces(gpu.upload("pattern", &piece)?))
    }

    /// A buffer of this many bytes of it.
    fn fill(&self, gpu: &Gpu, what: &str, size: u64) -> Result<wgpu::Buffer, Failure> {
        let filled = gpu.buffer(what, size)?;
        let mut encoder = gpu.encoder();
        let mut offset = 0;
        while offset < filled.size() {
            let now = self.0.size().min(filled.size() - offset);
            encoder.copy_buffer_to_buffer(&self.0, 0, &filled, offset, now);
            offset += now;
        }
        gpu.submit(encoder)?;
        Ok(filled)
    }
}

/// A case in one kernel, bound to some sets.
pub struct Job {
    pub bound: Vec<Bound>,
    loss: wgpu::Buffer,
    status: wgpu::Buffer,
}

impl Job {
    pub fn new(
        gpu: &Gpu,
        problem: &Problem,
        strategy: Strategy,
        sets: &Sets,
        of: &[Set],
    ) -> Result<Job, Failure> {
        let engine = &gpu.engine;
        let prepared = block_on(engine.prepare_with(problem, strategy))?;
        let scratch = gpu.buffer("scratch", prepared.scratch_size(engine))?;
        let mut job = Job {
            bound: Vec::new(),
            loss: gpu.buffer("loss", 4)?,
            status: gpu.buffer("status", STATUS_SIZE)?,
        };
        for set in of {
            let bound = job.bind(engine, &prepared, sets.case.op, set, &scratch)?;
            job.bound.push(bound);
        }
        Ok(job)
    }

    fn bind(
        &self,
        engine: &Engine,
        prepared: &Prepared,
        op: Op,
        set: &Set,
        scratch: &wgpu::Buffer,
    ) -> softxent::Result<Bound> {
        let wants = |wanted| prepared.problem().wants(wanted);
        let whole = BufferRange::whole;
        let buffers = Buffers {
            labels: set.labels.as_ref().map(whole),
            class_weights: set.class_weights.as_ref().map(whole),
            softmax: wants(Wanted::Softmax).then(|| whole(&set.output)),
            grad: wants(Wanted::Grad).then(|| whole(&set.output)),
            loss: op.has_loss().then(|| whole(&self.loss)),
            ..Buffers::new(whole(&set.logits), whole(&self.status), whole(scratch))
        };
        block_on(prepared.bind(engine, &buffers))
    }

    /// Runs it once, on the first of its sets.
    pub fn run(&self, gpu: &Gpu) -> Result<(), Failure> {
        let mut encoder = gpu.encoder();
        if let Some(bound) = self.bound.first() {
            bound.record(&mut encoder);
        }
        gpu.submit(encoder)
    }

    /// Records it on the set whose turn it is.
    pub fn record(&self, run: usize, encoder: &mut wgpu::CommandEncoder) {
        if let Some(bound) = self.bound.get(run % self.bound.len().max(1)) {
            bound.record(encoder);
        }
    }

    pub fn loss(&self, gpu: &Gpu) -> Result<f32, Failure> {
        let value = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
        gpu.read(&self.loss, value)
    }

    /// What the device found in all runs so far.
    pub fn status(&self, gpu: &Gpu) -> Result<Status, Failure> {
        gpu.read(&self.status, |bytes| {
            let mut words = [0; STATUS_SIZE as usize / 4];
            for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = bytes.try_into().map_or(0, u32::from_le_bytes);
            }
            Status::from_words(&words)
        })
    }
}

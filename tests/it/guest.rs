//! Arrays of a caller on the device, for the tests of the resident calls: each at an odd place, in a
//! buffer of its own or all in one, with poison on both sides.

use softxent::half::{bf16, f16};
use softxent::wgpu::{self, BufferUsages as Usage};
use softxent::{
    Bound, BufferRange, Buffers, Denominator, Dtype, Engine, Padding, Prepared, Reduction, Results,
    STATUS_SIZE, Status, Strategy, Upstream, Wanted,
};

use crate::common::{Case, stored_bytes};

/// What lies around and, before the call, in every output: no result is ever made of it.
const POISON: [u32; 2] = [0xdead_beef, 0x7fc0_beef];
/// Words of poison after an array.
const AFTER: usize = 5;

fn poison(words: usize) -> Vec<u32> {
    (0..words).map(|i| POISON[i % 2]).collect()
}

pub fn floats(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Values as they lie in whole words of a buffer.
pub fn stored_words(dtype: Dtype, values: &[f32]) -> Vec<u32> {
    let mut bytes = stored_bytes(dtype, values);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytemuck::pod_collect_to_vec(&bytes)
}

/// The bits as f32 of the first values in such words, and the half that is left over.
pub fn loaded(dtype: Dtype, words: &[u32], count: usize) -> (Vec<u32>, Option<u16>) {
    let halves: &[u16] = bytemuck::cast_slice(words);
    let widen: fn(u16) -> f32 = match dtype {
        Dtype::F32 => return (words.to_vec(), None),
        Dtype::F16 => |half| f16::from_bits(half).to_f32(),
        Dtype::Bf16 => |half| bf16::from_bits(half).to_f32(),
    };
    let (values, rest) = halves.split_at(count);
    let bits = |&half: &u16| widen(half).to_bits();
    (values.iter().map(bits).collect(), rest.first().copied())
}

/// Columns past the last class that are to stay: an error unless they did; then zeros, which is what the
/// host has there.
pub fn kept(case: &Case, what: &str, values: &mut [u32], before: &[u32]) -> Result<(), String> {
    if case.padding == Padding::Masked {
        return Ok(());
    }
    for i in 0..case.rows {
        for column in case.classes..case.columns() {
            let at = case.element(i, column);
            if values[at] != before[at] {
                return Err(format!(
                    "{}: {what} of row {i} was written in column {column}, past the last class",
                    case.name
                ));
            }
            values[at] = 0;
        }
    }
    Ok(())
}

/// Where the arrays lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// Each in a buffer of its own, at this element.
    Apart(usize),
    /// Each in a buffer of its own, the first at its beginning, the others at 1, 2, 3, 0, 1, …
    Uneven,
    /// All in one buffer, this many elements apart.
    Pooled(usize),
}

struct Array {
    name: &'static str,
    buffer: usize,
    start: usize,
    words: usize,
    /// The values of an input, which is to stay as it is.
    input: Option<Vec<u32>>,
}

/// A case with its arrays on the device of an engine, bound.
pub struct Guest<'a> {
    engine: &'a Engine,
    case: Case,
    arrays: Vec<Array>,
    buffers: Vec<wgpu::Buffer>,
    pub prepared: Prepared,
    pub bound: Bound,
}

impl<'a> Guest<'a> {
    pub fn new(
        engine: &'a Engine,
        kernel: Strategy,
        case: &Case,
        home: Home,
    ) -> Result<Guest<'a>, String> {
        let text = |error: softxent::Error| format!("{}, {}: {error}", case.name, kernel.name());
        let problem = case.problem().map_err(text)?;
        let prepared = pollster::block_on(engine.prepare_with(&problem, kernel)).map_err(text)?;
        let (n, matrix) = (case.rows, problem.elements());
        let labels = match (&case.index, &case.dense, &case.vector) {
            (Some(index), ..) => Some(index.iter().map(|&y| y as i32 as u32).collect()),
            (_, Some(values), _) | (_, _, Some(values)) => Some(floats(values)),
            _ => None,
        };
        let upstream = (case.upstream_kind() != Upstream::Number(case.upstream[0])
            && problem.wants(Wanted::Grad))
        .then(|| floats(&case.upstream));
        let denominator = match case.denominator {
            Denominator::Buffer => Some(floats(&[case.denominator_value])),
            _ => None,
        };
        let weights = (!case.class_weights.is_empty()).then(|| floats(&case.class_weights));
        let scratch = prepared.scratch_size(engine) as usize / 4;
        let has = |wanted| problem.wants(wanted);
        let output = |wanted, words| if has(wanted) { words } else { 0 };
        let reduced = |wanted| usize::from(case.reduction != Reduction::None && has(wanted));
        let own_grad = has(Wanted::Grad) && !case.over_logits;
        let out = (matrix * problem.dtype_out().size()).div_ceil(4);
        let length = |values: &Option<Vec<u32>>| values.as_ref().map_or(0, Vec::len);
        let logits = stored_words(case.dtype, &case.logits);
        let mut arrays = vec![("logits", logits.len(), Some(logits))];
        arrays.extend([
            ("labels", length(&labels), labels),
            ("class_weights", length(&weights), weights),
            ("upstream", length(&upstream), upstream),
            ("denominator", length(&denominator), denominator),
            ("softmax", output(Wanted::Softmax, out), None),
            ("log_softmax", output(Wanted::LogSoftmax, out), None),
            ("grad", if own_grad { out } else { 0 }, None),
            ("losses", output(Wanted::Losses, n), None),
            ("lse", output(Wanted::Lse, n), None),
            ("predictions", output(Wanted::Predictions, n), None),
            ("entropy", output(Wanted::Entropy, n), None),
            ("correct", output(Wanted::Correct, n), None),
            ("z_losses", output(Wanted::ZLosses, n), None),
            ("loss", reduced(Wanted::Loss), None),
            ("z_loss", reduced(Wanted::ZLoss), None),
            ("status", STATUS_SIZE as usize / 4, None),
            ("scratch", scratch, None),
        ]);

        let (mut placed, mut contents) = (Vec::new(), Vec::new());
        for (name, words, input) in arrays {
            if words == 0 {
                continue;
            }
            let gap = match home {
                Home::Apart(gap) => {
                    contents.push(Vec::new());
                    gap
                }
                Home::Uneven => {
                    contents.push(Vec::new());
                    (contents.len() - 1) % 4
                }
                Home::Pooled(gap) => {
                    contents.resize(1, Vec::new());
                    gap
                }
            };
            let buffer = contents.len() - 1;
            let all: &mut Vec<u32> = &mut contents[buffer];
            all.extend(poison(gap));
            let start = all.len();
            match (&input, name) {
                (Some(values), _) => all.extend(values),
                // Scratch and status begin as zeros.
                (None, "status" | "scratch") => all.extend(vec![0; words]),
                (None, _) => all.extend(poison(words)),
            }
            all.extend(poison(AFTER));
            let stays = name != "logits" || !case.over_logits;
            placed.push(Array {
                name,
                buffer,
                start,
                words,
                input: input.filter(|_| stays),
            });
        }
        let buffers: Vec<wgpu::Buffer> = contents
            .iter()
            .map(|words| {
                let buffer = engine.device().create_buffer(&wgpu::BufferDescriptor {
                    label: Some("test"),
                    size: 4 * words.len() as u64,
                    usage: Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST,
                    mapped_at_creation: false,
                });
                engine
                    .queue()
                    .write_buffer(&buffer, 0, bytemuck::cast_slice(words));
                buffer
            })
            .collect();
        let bound =
            pollster::block_on(prepared.bind(engine, &views(&placed, &buffers))).map_err(text)?;
        Ok(Guest {
            engine,
            case: case.clone(),
            arrays: placed,
            buffers,
            prepared,
            bound,
        })
    }

    fn array(&self, name: &str) -> &Array {
        let found = self.arrays.iter().find(|array| array.name == name);
        found.unwrap_or_else(|| panic!("{}: no array {name}", self.case.name))
    }

    /// Words of an array for a later step; queued, not submitted.
    pub fn write(&mut self, name: &str, words: &[u32]) {
        let (buffer, start) = (self.array(name).buffer, self.array(name).start);
        self.engine.queue().write_buffer(
            &self.buffers[buffer],
            4 * start as u64,
            bytemuck::cast_slice(words),
        );
        for array in &mut self.arrays {
            if array.name == name && array.input.is_some() {
                array.input = Some(words.to_vec());
            }
        }
    }

    /// Records a copy from a buffer of the test into an array.
    pub fn record_write(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        name: &str,
        from: &wgpu::Buffer,
    ) {
        let array = self.array(name);
        let to = &self.buffers[array.buffer];
        encoder.copy_buffer_to_buffer(from, 0, to, 4 * array.start as u64, from.size());
    }

    /// A buffer that holds the words.
    pub fn source(&self, words: &[u32]) -> wgpu::Buffer {
        let buffer = self.engine.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("source"),
            size: 4 * words.len() as u64,
            usage: Usage::COPY_SRC | Usage::COPY_DST,
            mapped_at_creation: false,
        });
        self.engine
            .queue()
            .write_buffer(&buffer, 0, bytemuck::cast_slice(words));
        buffer
    }

    pub fn encoder(&self) -> wgpu::CommandEncoder {
        self.engine
            .device()
            .create_command_encoder(&Default::default())
    }

    /// Records a copy of all buffers as they are at that moment.
    pub fn record_copy(&self, encoder: &mut wgpu::CommandEncoder) -> wgpu::Buffer {
        let staging = self.engine.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("test"),
            size: self.buffers.iter().map(|buffer| buffer.size()).sum(),
            usage: Usage::MAP_READ | Usage::COPY_DST,
            mapped_at_creation: false,
        });
        let mut at = 0;
        for buffer in &self.buffers {
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, at, buffer.size());
            at += buffer.size();
        }
        staging
    }

    /// The results of a copy, after its submission; poison and inputs have to be as they were.
    pub fn results(&self, copy: &wgpu::Buffer) -> Result<(Results<u32>, Status), String> {
        self.read(copy, true)
    }

    /// The same where the inputs were other ones at the time of the copy.
    pub fn results_of_a_step(&self, copy: &wgpu::Buffer) -> Result<(Results<u32>, Status), String> {
        self.read(copy, false)
    }

    fn read(
        &self,
        copy: &wgpu::Buffer,
        same_inputs: bool,
    ) -> Result<(Results<u32>, Status), String> {
        copy.slice(..).map_async(wgpu::MapMode::Read, |_| {});
        self.engine
            .device()
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|error| error.to_string())?;
        let all: Vec<u32> = {
            let view = copy.slice(..).get_mapped_range();
            bytemuck::pod_collect_to_vec(&view.map_err(|error| error.to_string())?)
        };
        let mut rest = &all[..];
        let mut contents = Vec::new();
        for buffer in &self.buffers {
            let (here, more) = rest.split_at(buffer.size() as usize / 4);
            contents.push(here);
            rest = more;
        }
        let name = &self.case.name;
        let mut ends = vec![0; contents.len()];
        for array in &self.arrays {
            let words = contents[array.buffer];
            let (start, end) = (array.start, array.start + array.words);
            let before = &words[ends[array.buffer]..start];
            let after = &words[end..end + AFTER];
            if before != poison(before.len()) || after != poison(AFTER) {
                return Err(format!(
                    "{name}: something around {} was written",
                    array.name
                ));
            }
            let input = array.input.as_ref().filter(|_| same_inputs);
            if input.is_some_and(|input| *input != words[start..end]) {
                return Err(format!("{name}: the input {} was written", array.name));
            }
            ends[array.buffer] = end + AFTER;
        }
        let of = |name: &str| -> Option<Vec<u32>> {
            let array = self.arrays.iter().find(|array| array.name == name)?;
            Some(contents[array.buffer][array.start..][..array.words].to_vec())
        };
        let status = of("status").unwrap_or_default();
        let status = Status::from_words(&status.try_into().map_err(|_| "no status")?);
        let problem = self.prepared.problem();
        // Of an odd number of halves the last word's upper one belongs to nobody.
        let matrix = |name: &str| -> Result<Option<Vec<u32>>, String> {
            let Some(words) = of(name) else {
                return Ok(None);
            };
            let array = self.array(name);
            let before = match &array.input {
                Some(input) => input.clone(),
                None if name == "logits" => stored_words(self.case.dtype, &self.case.logits),
                None => poison(array.words),
            };
            let load = |words: &[u32]| loaded(problem.dtype_out(), words, problem.elements());
            let ((mut values, rest), before) = (load(&words), load(&before));
            if rest != before.1 {
                return Err(format!(
                    "{}: the half after {name} was written",
                    self.case.name
                ));
            }
            kept(&self.case, name, &mut values, &before.0)?;
            Ok(Some(values))
        };
        let predictions = of("predictions");
        let wants_grad = self.case.wanted.contains(&Wanted::Grad);
        let results = Results {
            softmax: matrix("softmax")?,
            log_softmax: matrix("log_softmax")?,
            grad: match self.case.over_logits {
                true => matrix("logits")?.filter(|_| wants_grad),
                false => matrix("grad")?,
            },
            losses: of("losses"),
            lse: of("lse"),
            loss: of("loss").map(|words| words[0]),
            correct: (self.case.index.is_some()
                && (predictions.is_some() || of("correct").is_some()))
            .then_some(status.correct),
            predictions: predictions
                .map(|words| words.iter().map(|&word| i64::from(word as i32)).collect()),
            entropy: of("entropy"),
            correct_rows: of("correct").map(|words| words.iter().map(|&word| word == 1).collect()),
            z_losses: of("z_losses"),
            z_loss: of("z_loss").map(|words| words[0]),
            valid_rows: status.valid_rows,
            nan_rows: u64::from(status.nan_rows),
            first_nan_row: status.first_nan_row.map(u64::from),
        };
        Ok((results, status))
    }

    /// Records, submits and reads one step.
    pub fn step(&self) -> Result<(Results<u32>, Status), String> {
        let mut encoder = self.encoder();
        self.bound.record(&mut encoder);
        let copy = self.record_copy(&mut encoder);
        self.engine.queue().submit([encoder.finish()]);
        self.results(&copy)
    }
}

fn views<'a>(arrays: &[Array], buffers: &'a [wgpu::Buffer]) -> Buffers<'a> {
    let range = |name: &str| {
        let array = arrays.iter().find(|array| array.name == name)?;
        Some(BufferRange {
            buffer: &buffers[array.buffer],
            offset: 4 * array.start as u64,
            size: 4 * array.words as u64,
        })
    };
    let always = |name| range(name).unwrap_or_else(|| panic!("no array {name}"));
    Buffers {
        logits: always("logits"),
        labels: range("labels"),
        class_weights: range("class_weights"),
        upstream: range("upstream"),
        denominator: range("denominator"),
        softmax: range("softmax"),
        log_softmax: range("log_softmax"),
        grad: range("grad"),
        losses: range("losses"),
        lse: range("lse"),
        predictions: range("predictions"),
        entropy: range("entropy"),
        correct: range("correct"),
        z_losses: range("z_losses"),
        loss: range("loss"),
        z_loss: range("z_loss"),
        status: always("status"),
        scratch: always("scratch"),
    }
}

/// One step of a case from and into arrays of the test.
pub fn resident(
    engine: &Engine,
    kernel: Strategy,
    case: &Case,
    home: Home,
) -> Result<(Results<u32>, Status), String> {
    Guest::new(engine, kernel, case, home)?.step()
}

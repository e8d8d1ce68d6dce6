//! How fast the kernels are: bytes that have to move over the time they take, beside a copy.
//!
//! ```text
//! cargo bench --bench throughput                    the grid, one line a case
//! cargo bench --bench throughput -- --csv FILE      and a CSV
//! cargo bench --bench throughput -- --check         verifies the cases on a small grid, times nothing
//! cargo bench --bench throughput -- --shapes 32768x1000,1x262144 --megabytes 64 --no-subgroups
//! ```
//!
//! Each case is verified against the f64 reference before it is timed. Times come from the GPU's
//! clock where the adapter has timestamps within an encoder, else from the host's, and the median of
//! at least 20 runs is taken; batches rotate, so that the cache of one run does not serve the next.
//! Bytes are those no kernel can do without: one read of the logits, one write where there is an
//! output of their shape, and 16 per row. The yardstick is a copy of a buffer of the size of the
//! logits, its bytes read and written counted.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use pollster::block_on;
use softxent::plan::DeviceProfile;
use softxent::reference::{self, Target};
use softxent::wgpu::{self, BufferUsages as Usage};
use softxent::{
    Bound, BufferRange, Buffers, Engine, Plan, Prepared, Problem, ProblemBuilder, STATUS_SIZE,
    Strategy, Wanted, adapters,
};

type Error = Box<dyn std::error::Error>;

/// Rows and classes; 0 rows stand for as many as the megabytes hold.
const SHAPES: [(usize, usize); 21] = [
    (0, 2),
    (0, 10),
    (0, 16),
    (0, 64),
    (0, 100),
    (0, 1000),
    (0, 1024),
    (0, 4096),
    (0, 8192),
    (0, 32_000),
    (0, 50_257),
    (0, 128_256),
    (0, 262_144),
    (1, 1000),
    (16, 1000),
    (1, 32_768),
    (4, 32_768),
    (16, 50_257),
    (1, 262_144),
    (4, 262_144),
    (1, 2_000_000),
];
const CHECK_SHAPES: [(usize, usize); 5] =
    [(2048, 2), (2048, 100), (255, 1025), (64, 4096), (1, 70_001)];
/// Fewer classes leave most of a workgroup idle, for minutes on a software driver.
const WORKGROUP_CLASSES: usize = 256;
const RUNS: usize = 20;
const CASE_TIME: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq)]
enum Op {
    Loss,
    LossGrad,
    Softmax,
}

impl Op {
    const ALL: [Op; 3] = [Op::Loss, Op::LossGrad, Op::Softmax];

    fn name(self) -> &'static str {
        match self {
            Op::Loss => "loss",
            Op::LossGrad => "loss-grad",
            Op::Softmax => "softmax",
        }
    }

    fn of(self, problem: ProblemBuilder) -> softxent::Result<Problem> {
        match self {
            Op::Loss => problem.index_labels(-100).want([Wanted::Loss]),
            Op::LossGrad => problem
                .index_labels(-100)
                .want([Wanted::Loss, Wanted::Grad]),
            Op::Softmax => problem.want([Wanted::Softmax]),
        }
        .build()
    }

    fn bytes(self, rows: usize, classes: usize) -> u64 {
        let matrices = if self == Op::Loss { 1 } else { 2 };
        (matrices * 4 * rows * classes + 16 * rows) as u64
    }
}

struct Options {
    check: bool,
    csv: Option<String>,
    shapes: Vec<(usize, usize)>,
    megabytes: usize,
    subgroups: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        check: false,
        csv: None,
        shapes: Vec::new(),
        megabytes: 0,
        subgroups: true,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--check" => options.check = true,
            "--csv" => options.csv = Some(value()?),
            "--no-subgroups" => options.subgroups = false,
            "--shapes" => {
                for shape in value()?.split(',') {
                    let parts = shape.split_once('x');
                    let numbers = parts.and_then(|(n, k)| Some((n.parse().ok()?, k.parse().ok()?)));
                    let known = numbers.filter(|&(_, classes)| classes > 0);
                    options
                        .shapes
                        .push(known.ok_or(format!("{shape}: not ROWSxCLASSES"))?);
                }
            }
            "--megabytes" => {
                options.megabytes = value()?.parse().map_err(|_| "--megabytes N".to_owned())?;
            }
            // Cargo says so to every bench.
            "--bench" => {}
            _ => return Err(format!("{word} is not known")),
        }
    }
    if options.shapes.is_empty() {
        options.shapes = match options.check {
            true => CHECK_SHAPES.to_vec(),
            false => SHAPES.to_vec(),
        };
    }
    Ok(options)
}

/// The same numbers everywhere: a linear congruence, its high bits summed four times to a bell.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    fn bell(&mut self) -> f32 {
        (0..4).map(|_| self.next() - 0.5).sum::<f32>() * 3.464
    }
}

/// The device side of one batch.
struct Set {
    logits: wgpu::Buffer,
    labels: wgpu::Buffer,
    output: wgpu::Buffer,
}

struct Bench {
    engine: Engine,
    /// Nanoseconds of a tick of the GPU's clock, where there is one.
    clock: Option<(f64, wgpu::QuerySet, wgpu::Buffer, wgpu::Buffer)>,
}

impl Bench {
    fn new(subgroups: bool) -> Result<Bench, Error> {
        let found = block_on(adapters());
        let adapter = found.first().ok_or("no adapter: see `softxent info`")?;
        let timed =
            wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
        let features = (timed | wgpu::Features::SUBGROUP) & adapter.features();
        let (device, queue) = block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            required_features: features,
            required_limits: adapter.limits(),
            ..Default::default()
        }))?;
        let clock = features.contains(timed).then(|| {
            let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            });
            let buffer = |usage| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("timestamps"),
                    size: 16,
                    usage,
                    mapped_at_creation: false,
                })
            };
            let resolve = buffer(Usage::QUERY_RESOLVE | Usage::COPY_SRC);
            let read = buffer(Usage::MAP_READ | Usage::COPY_DST);
            (
                f64::from(queue.get_timestamp_period()),
                queries,
                resolve,
                read,
            )
        });
        let mut engine = Engine::from_device(device, queue);
        block_on(engine.self_test())?;
        if !subgroups {
            let profile = DeviceProfile {
                subgroup: None,
                ..engine.profile().clone()
            };
            engine = engine.with_profile(profile);
        }
        Ok(Bench { engine, clock })
    }

    fn buffer(&self, size: u64, data: Option<&[u8]>) -> wgpu::Buffer {
        let buffer = self.engine.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC,
            mapped_at_creation: false,
        });
        if let Some(data) = data {
            self.engine.queue().write_buffer(&buffer, 0, data);
        }
        buffer
    }

    /// Seconds that the recorded work takes.
    fn seconds(&self, record: impl Fn(&mut wgpu::CommandEncoder)) -> f64 {
        let (device, queue) = (self.engine.device(), self.engine.queue());
        let mut encoder = device.create_command_encoder(&Default::default());
        if let Some((_, queries, ..)) = &self.clock {
            encoder.write_timestamp(queries, 0);
        }
        record(&mut encoder);
        if let Some((_, queries, resolve, read)) = &self.clock {
            encoder.write_timestamp(queries, 1);
            encoder.resolve_query_set(queries, 0..2, resolve, 0);
            encoder.copy_buffer_to_buffer(resolve, 0, read, 0, 16);
        }
        let commands = encoder.finish();
        let started = Instant::now();
        queue.submit([commands]);
        let wait = || device.poll(wgpu::PollType::wait_indefinitely());
        wait().expect("the device answers");
        let host = started.elapsed().as_secs_f64();
        match &self.clock {
            None => host,
            Some((period, _, _, read)) => {
                read.slice(..).map_async(wgpu::MapMode::Read, |_| {});
                wait().expect("the device answers");
                let ticks: Vec<u64> = {
                    let view = read.slice(..).get_mapped_range().expect("it was mapped");
                    bytemuck::pod_collect_to_vec(&view)
                };
                read.unmap();
                ticks[1].wrapping_sub(ticks[0]) as f64 * period * 1e-9
            }
        }
    }

    /// The median time and the spread from the first to the last decile, relative to it.
    fn median(&self, record: impl Fn(usize, &mut wgpu::CommandEncoder)) -> (f64, f64) {
        for warm in 0..3 {
            let seconds = self.seconds(|encoder| record(warm, encoder));
            // A kernel that is this far off needs no median.
            if seconds > CASE_TIME.as_secs_f64() {
                return (seconds, f64::NAN);
            }
        }
        let started = Instant::now();
        let mut times = Vec::new();
        while times.len() < RUNS && (times.len() < 5 || started.elapsed() < CASE_TIME) {
            let run = times.len();
            times.push(self.seconds(|encoder| record(run, encoder)));
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        (at(0.5), (at(0.9) - at(0.1)) / at(0.5))
    }

    fn bind(&self, prepared: &Prepared, set: &Set, shared: &Shared) -> softxent::Result<Bound> {
        let problem = prepared.problem();
        let when = |wanted, buffer| problem.wants(wanted).then_some(BufferRange::whole(buffer));
        let labelled = problem.wants(Wanted::Loss);
        let buffers = Buffers {
            labels: labelled.then_some(BufferRange::whole(&set.labels)),
            softmax: when(Wanted::Softmax, &set.output),
            grad: when(Wanted::Grad, &set.output),
            loss: when(Wanted::Loss, &shared.loss),
            ..Buffers::new(
                BufferRange::whole(&set.logits),
                BufferRange::whole(&shared.status),
                BufferRange::whole(&shared.scratch),
            )
        };
        block_on(prepared.bind(&self.engine, &buffers))
    }
}

struct Shared {
    loss: wgpu::Buffer,
    status: wgpu::Buffer,
    scratch: wgpu::Buffer,
}

impl Bench {
    fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer) -> Result<Vec<T>, Error> {
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
        staging.slice(..).map_async(wgpu::MapMode::Read, |_| {});
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let view = staging.slice(..).get_mapped_range()?;
        Ok(bytemuck::pod_collect_to_vec(&view))
    }
}

/// Compares the loss, and what a case wrote for some rows, with the reference: ten units of the last
/// place for values of a row, four for a loss. Results below 2^-126 may be flushed, those of a mean
/// before they are divided.
fn verify(
    bench: &Bench,
    op: Op,
    output: &wgpu::Buffer,
    loss: &wgpu::Buffer,
    logits: &[f32],
    labels: &[i32],
) -> Result<(), Error> {
    let (rows, classes) = (labels.len(), logits.len() / labels.len());
    let near = |value: f32, exact: f64, ulps: f64| {
        let allowed = ulps * f64::from(f32::EPSILON) * exact.abs() + f64::from(f32::MIN_POSITIVE);
        (f64::from(value) - exact).abs() <= allowed
    };
    let row = |row: usize| {
        let cells = row * classes..(row + 1) * classes;
        reference::row(&logits[cells], Target::Index(labels[row] as usize))
    };
    if op != Op::Softmax {
        let loss = bench.read::<f32>(loss)?[0];
        let exact = (0..rows).map(|i| row(i).loss).sum::<f64>() / rows as f64;
        if !near(loss, exact, 4.0) {
            return Err(format!("loss {loss:e}, expected {exact:e}").into());
        }
    }
    if op != Op::Loss {
        let values: Vec<f32> = bench.read(output)?;
        for i in [0, rows / 2, rows - 1] {
            let expected = row(i);
            for (column, &value) in values[i * classes..(i + 1) * classes].iter().enumerate() {
                let exact = match op {
                    Op::Softmax => expected.p(column),
                    _ => expected.grad(column) / rows as f64,
                };
                if !near(value, exact, 10.0) {
                    let at = format!("row {i}, class {column}");
                    return Err(format!("{at}: {value:e}, expected {exact:e}").into());
                }
            }
        }
    }
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("throughput: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Error> {
    let options = options()?;
    let bench = Bench::new(options.subgroups)?;
    let info = bench.engine.adapter_info().clone();
    let software = info.device_type == wgpu::DeviceType::Cpu;
    let megabytes = match options.megabytes {
        0 if options.check => 1,
        0 if software => 8,
        0 => 256,
        given => given,
    };
    println!(
        "{}, {} {}; at most {} MiB of logits a case; {} clock; subgroups {}",
        info.name,
        info.driver,
        info.driver_info,
        megabytes,
        if bench.clock.is_some() { "GPU" } else { "host" },
        match bench.engine.profile().subgroup {
            Some(size) => format!("of {size}"),
            None => "not used".to_owned(),
        }
    );
    println!(
        "{:>8} {:>8}  {:<10} {:<20} {:>9} {:>8} {:>7} {:>7}",
        "rows", "classes", "op", "kernel", "ms", "GB/s", "share", "spread"
    );
    let mut csv = format!(
        "# cargo bench --bench throughput -- {}\n\
         adapter,driver,subgroup,rows,classes,op,kernel,chosen,seconds,spread,bytes,copy_bytes_per_second\n",
        std::env::args()
            .skip(1)
            .filter(|word| word != "--bench")
            .collect::<Vec<_>>()
            .join(" ")
    );
    let mut failed = 0;
    for &(rows, classes) in &options.shapes {
        let most = ((megabytes << 20) / 4 / classes).max(1);
        let rows = if rows == 0 { most } else { rows };
        let mut random = Random(classes as u64);
        let logits: Vec<f32> = (0..rows * classes).map(|_| random.bell()).collect();
        let labels: Vec<i32> = (0..rows)
            .map(|_| (random.next() * classes as f32) as i32 % classes as i32)
            .collect();
        let size = 4 * logits.len() as u64;
        if size > bench.engine.profile().max_binding {
            println!("{rows:>8} {classes:>8}  skipped: needs {size} bytes in one binding");
            continue;
        }
        let sets: Vec<Set> = (0..if options.check { 1 } else { 3 })
            .map(|_| Set {
                logits: bench.buffer(size, Some(bytemuck::cast_slice(&logits))),
                labels: bench.buffer(4 * rows as u64, Some(bytemuck::cast_slice(&labels))),
                output: bench.buffer(size, None),
            })
            .collect();
        let copy = match options.check {
            true => f64::NAN,
            false => {
                let (seconds, _) = bench.median(|run, encoder| {
                    let set = &sets[run % sets.len()];
                    encoder.copy_buffer_to_buffer(&set.logits, 0, &set.output, 0, size);
                });
                2.0 * size as f64 / seconds
            }
        };
        for op in Op::ALL {
            let problem = op.of(Problem::of(rows, classes))?;
            let chosen = Plan::new(&problem, bench.engine.profile())?.strategy;
            for strategy in Strategy::ALL {
                let line = format!(
                    "{rows:>8} {classes:>8}  {:<10} {:<20}",
                    op.name(),
                    strategy.name()
                );
                let whole_workgroup =
                    matches!(strategy, Strategy::RowPerWorkgroup | Strategy::SplitRow);
                if whole_workgroup && classes < WORKGROUP_CLASSES && !options.check {
                    println!("{line} skipped: fewer than {WORKGROUP_CLASSES} classes");
                    continue;
                }
                let prepared = match block_on(bench.engine.prepare_with(&problem, strategy)) {
                    Ok(prepared) => prepared,
                    Err(error) => {
                        println!("{line} skipped: {error}");
                        continue;
                    }
                };
                let shared = Shared {
                    loss: bench.buffer(4, None),
                    status: bench.buffer(STATUS_SIZE, None),
                    scratch: bench.buffer(prepared.scratch_size(&bench.engine), None),
                };
                let bound: Vec<Bound> = sets
                    .iter()
                    .map(|set| bench.bind(&prepared, set, &shared))
                    .collect::<Result<_, _>>()?;
                let record = |run: usize, encoder: &mut wgpu::CommandEncoder| {
                    bound[run % bound.len()].record(encoder);
                };
                bench.seconds(|encoder| record(0, encoder));
                if let Err(error) =
                    verify(&bench, op, &sets[0].output, &shared.loss, &logits, &labels)
                {
                    println!("{line} WRONG: {error}");
                    failed += 1;
                    continue;
                }
                if options.check {
                    println!("{line} verified");
                    continue;
                }
                let (seconds, spread) = bench.median(record);
                let bytes = op.bytes(rows, classes);
                let rate = bytes as f64 / seconds;
                println!(
                    "{line} {:>9.3} {:>8.2} {:>6.0}% {:>6.0}%{}",
                    seconds * 1e3,
                    rate / 1e9,
                    100.0 * rate / copy,
                    100.0 * spread,
                    if strategy == chosen { "  chosen" } else { "" }
                );
                writeln!(
                    csv,
                    "\"{}\",\"{} {}\",{},{rows},{classes},{},{},{},{seconds:e},{spread:.3},{bytes},{copy:e}",
                    info.name,
                    info.driver,
                    info.driver_info,
                    bench.engine.profile().subgroup.unwrap_or(0),
                    op.name(),
                    strategy.name(),
                    strategy == chosen
                )?;
            }
        }
    }
    if let Some(path) = options.csv {
        std::fs::write(&path, csv).map_err(|error| format!("{path}: {error}"))?;
    }
    match failed {
        0 => Ok(()),
        cases => Err(format!("{cases} cases disagree with the reference").into()),
    }
}

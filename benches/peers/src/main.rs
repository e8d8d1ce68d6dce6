//! softxent beside burn and PyTorch: loss and gradient of the same logits, in one run on one machine.
//!
//! ```sh
//! cargo run --release -- --python python3 --csv FILE --md FILE
//! ```
//!
//! * softxent: recorded into an encoder, submitted, waited for.
//! * burn: its wgpu backend on the same adapter; `CrossEntropyLoss::forward`, `backward`, `Device::sync`.
//! * PyTorch: on the processor, as many threads as it has cores; `cross_entropy`, `backward`.
//!
//! All have their arrays where they compute, and no transfer is timed. softxent writes into arrays that
//! its caller gave; the others take new ones for what they return, as they do for everybody. Threads that
//! compute on the processor are pinned, each to a core of its own. Clocks are the host's. What a peer computes is compared with softxent's before it is timed; the contestants then
//! take turns, so that what else the machine does hits all of them.

mod burn_child;
mod child;
mod random;
mod resident;
mod table;
#[path = "../../../src/cli/bench/workers.rs"]
mod workers;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use softxent::wgpu::AdapterInfo;

use child::Peer;
use table::{Measured, Outcome, Table};

const CLASSES: [usize; 13] = [
    2, 10, 16, 64, 100, 1000, 1024, 4096, 8192, 32_000, 50_257, 128_256, 262_144,
];
const ELEMENTS: [usize; 4] = [1 << 20, 1 << 22, 1 << 24, 1 << 26];

/// Rounds of a case, at least while they take less than [`CASE_TIME`].
const ROUNDS: std::ops::Range<usize> = 5..25;
const CASE_TIME: Duration = Duration::from_secs(1);
/// A contestant that has used this up in a case leaves it with one run to warm up and two that count.
const PEER_TIME: Duration = Duration::from_secs(8);
/// Threads of a contestant that has finished look for more work before they sleep.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Parser)]
#[command(about = "softxent beside burn and PyTorch: loss and gradient of the same logits")]
struct Options {
    /// Classes of a row
    #[arg(long, value_name = "K,…", value_delimiter = ',', default_values_t = CLASSES)]
    classes: Vec<usize>,
    /// Logits of a batch, at most
    #[arg(long, value_name = "N·K,…", value_delimiter = ',', default_values_t = ELEMENTS)]
    elements: Vec<usize>,
    /// Who is left out
    #[arg(long, value_name = "PEER,…", value_delimiter = ',')]
    skip: Vec<Skip>,
    /// A Python that has PyTorch
    #[arg(long, env = "PYTHON", default_value = "python3")]
    python: PathBuf,
    /// Where the results go
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Where a table of the ratios goes, in Markdown
    #[arg(long, value_name = "FILE")]
    md: Option<PathBuf>,
    /// Be burn, on an adapter of this type
    #[arg(long, hide = true)]
    burn_child: Option<String>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Skip {
    Burn,
    Torch,
}

fn main() -> ExitCode {
    // As in the `softxent` command: else Mesa complains about it in our name.
    #[cfg(target_os = "linux")]
    if !std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|folder| Path::new(&folder).is_absolute()) {
        // SAFETY: there is no other thread yet that could read the environment.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", "/nonexistent") };
    }
    let options = Options::parse();
    let done = match &options.burn_child {
        Some(device_type) => burn_child::serve(device_type),
        None => compare(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("softxent-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The version of a package that this program was built with.
fn locked_version(package: &str) -> &'static str {
    let name = format!("name = \"{package}\"\nversion = \"");
    let found = include_str!("../Cargo.lock").split_once(&name);
    found
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or("?")
}

fn driver(info: &AdapterInfo) -> String {
    format!("{} {}", info.driver, info.driver_info)
}

fn compare(options: &Options) -> Result<(), Box<dyn Error>> {
    if options.classes.contains(&0) || options.elements.contains(&0) {
        return Err("neither classes nor elements can be 0".into());
    }
    let engine = resident::engine()?;
    workers::pin();
    let info = engine.adapter_info();
    let cores = std::thread::available_parallelism()?.get();
    let adapter = [info.name.clone(), driver(info)];

    let mut peers = Vec::new();
    if !options.skip.contains(&Skip::Burn) {
        let (program, device_type) = (std::env::current_exe()?, info.device_type);
        peers.push(Peer::new("burn", move || {
            let mut command = Command::new(&program);
            command.args(["--burn-child", burn_child::type_name(device_type)]);
            command
        })?);
    }
    if !options.skip.contains(&Skip::Torch) {
        let python = options.python.clone();
        peers.push(Peer::new("torch", move || {
            let mut command = Command::new(&python);
            command.args(["-c", include_str!("torch_child.py"), &cores.to_string()]);
            command.env("OMP_PROC_BIND", "true");
            command
        })?);
    }
    for peer in &peers {
        if let Some(other) = peer.adapter.as_ref().filter(|&other| *other != adapter) {
            let [other, adapter] = [other.join(", "), adapter.join(", ")];
            return Err(format!("{} runs on {other}, softxent on {adapter}", peer.name).into());
        }
    }

    let mut table = Table::new(adapter, cores, &peers);
    eprintln!("{}", table.heading());
    for &elements in &options.elements {
        for &classes in &options.classes {
            let rows = (elements / classes).max(1);
            let outcomes = case(&engine, &mut peers, rows, classes)?;
            let measured = Measured {
                elements,
                rows,
                classes,
                outcomes,
            };
            eprintln!("{}", table.line(&measured));
            table.push(measured);
            // What has been measured is not lost if a later case ends the program.
            if let Some(path) = &options.csv {
                write(path, &table.csv())?;
            }
            if let Some(path) = &options.md {
                write(path, &table.markdown())?;
            }
        }
    }
    if options.csv.is_none() && options.md.is_none() {
        print!("{}", table.markdown());
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// One contestant's runs of a case.
#[derive(Default)]
struct Turns {
    seconds: Vec<f64>,
    failed: Option<String>,
    /// What is wrong with its results.
    wrong: Option<String>,
    used: Duration,
    warm_ups: usize,
}

impl Turns {
    fn take(&mut self, run: impl FnOnce() -> Result<f64, String>) {
        if self.failed.is_some() || (self.used > PEER_TIME && self.seconds.len() >= 2) {
            return;
        }
        std::thread::sleep(PAUSE);
        let started = Instant::now();
        match run() {
            // The first run was the one that was verified.
            Ok(_) if self.warm_ups < 2 && self.used < PEER_TIME => self.warm_ups += 1,
            Ok(seconds) => self.seconds.push(seconds),
            Err(error) => self.failed = Some(error),
        }
        self.used += started.elapsed();
    }

    fn outcome(self) -> Outcome {
        match self.failed {
            Some(reason) => Outcome::Failed(reason),
            None => Outcome::of(self.seconds, self.wrong),
        }
    }
}

/// What softxent and each of the peers take.
fn case(
    engine: &softxent::Engine,
    peers: &mut [Peer],
    rows: usize,
    classes: usize,
) -> Result<Vec<Outcome>, Box<dyn Error>> {
    let (logits, labels) = random::inputs(rows, classes);
    let ours = resident::Case::new(engine, classes, &logits, &labels)?;
    let first = Duration::from_secs_f64(ours.run()?);
    let (loss, grad) = (ours.loss()?, ours.grad()?);

    let folder = tempfile::tempdir()?;
    std::fs::write(
        folder.path().join("logits"),
        bytemuck::cast_slice::<f32, u8>(&logits),
    )?;
    std::fs::write(
        folder.path().join("labels"),
        bytemuck::cast_slice::<i32, u8>(&labels),
    )?;
    drop((logits, labels));

    let warm = |failed, wrong, used| Turns {
        warm_ups: 1,
        failed,
        wrong,
        used,
        ..Turns::default()
    };
    let mut turns = vec![warm(None, None, first)];
    for peer in &mut *peers {
        let grad_file = folder.path().join("grad");
        std::fs::write(&grad_file, vec![0xff; size_of_val(&grad[..])])?;
        let started = Instant::now();
        let first = peer.case(rows, classes, folder.path());
        let used = started.elapsed();
        let read = first.and_then(|peer_loss| {
            let bytes = std::fs::read(&grad_file).map_err(|error| error.to_string())?;
            let peer_grad: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
            Ok((peer_loss, peer_grad))
        });
        turns.push(match read {
            Err(failed) => warm(Some(failed), None, used),
            Ok((peer_loss, peer_grad)) => {
                let verified = verify(rows, loss, &grad, peer_loss, &peer_grad);
                warm(None, verified.err(), used)
            }
        });
    }
    drop((grad, folder));

    let started = Instant::now();
    for round in 0.. {
        let (ours_turns, peers_turns) = turns.split_first_mut().ok_or("no contestants")?;
        ours_turns.take(|| ours.run().map_err(|error| error.to_string()));
        for (turns, peer) in peers_turns.iter_mut().zip(&mut *peers) {
            turns.take(|| peer.run());
        }
        let rounds = round + 1;
        // The first is the second run to warm up.
        if rounds > ROUNDS.end || rounds > ROUNDS.start && started.elapsed() > CASE_TIME {
            break;
        }
    }
    for peer in peers {
        peer.end();
    }
    Ok(turns.into_iter().map(Turns::outcome).collect())
}

/// Compares a peer's results with softxent's, which are within 10 ULP of the exact ones.
///
/// The peers take `exp(x − m − log Σ exp(x − m)) − y` in f32, u = 2⁻²⁴. The logits are at most 21 apart,
/// so each difference is below 36 and off by at most 2⁻¹⁹ = 2e-6, a relative error of p; `exp` in WGSL
/// adds (3 + 2·36)·2u = 9e-6 at that distance, and K ≤ 2²⁰ terms summed in any usual order some √K·u ≤
/// 6e-5. Hence 1e-4. Near p = 1 the differences are near 0, and a few u remain of p − 1: hence 1e-6. What
/// leaves out a class of usual weight is off by more, 1/K = 4e-6 for the most classes. A loss adds the
/// rounding of its N terms, in blocks or lanes of thousands at most: √2¹⁴·u = 8e-6, hence 1e-5.
fn verify(
    rows: usize,
    loss: f32,
    grad: &[f32],
    peer_loss: f64,
    peer_grad: &[f32],
) -> Result<(), String> {
    // A NaN is near nothing.
    let near = |ours: f32, theirs: f64, share: f64, slack: f64| {
        let ours = f64::from(ours);
        (ours - theirs).abs() <= share * ours.abs() + slack
    };
    if !near(loss, peer_loss, 1e-5, 0.0) {
        return Err(format!("loss {peer_loss:.7}, softxent has {loss:.7}"));
    }
    if grad.len() != peer_grad.len() {
        return Err(format!("a gradient of {} numbers", peer_grad.len()));
    }
    let slack = 1e-6 / rows as f64;
    let mut pairs = grad.iter().zip(peer_grad);
    match pairs.position(|(&ours, &theirs)| !near(ours, theirs.into(), 1e-4, slack)) {
        None => Ok(()),
        Some(at) => Err(format!(
            "gradient {:e} at {at}, softxent has {:e}",
            peer_grad[at], grad[at]
        )),
    }
}

//! An adapter or the processor: where a problem is run, and what is reported of it.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use softxent::wgpu::{AdapterInfo, DeviceType};
use softxent::{
    Accuracy, AdapterChoice, Batch, Engine, Error, Plan, Problem, Results, Sink, Source, Times,
    reference,
};

use super::args::DeviceArg;

/// Where problems are run.
pub struct Device {
    /// `None` is the processor.
    engine: Option<Engine>,
    /// What it took to get here.
    setup: Duration,
    /// What to tell the user about the choice.
    pub note: Option<String>,
    /// Bytes that chunks may take.
    memory: Option<u64>,
}

/// A problem that has been run.
pub struct Outcome {
    pub results: Results,
    pub times: Times,
    /// The name of the loop over the rows.
    pub strategy: &'static str,
}

impl Device {
    /// Opens what was asked for; only [`DeviceArg::Auto`] settles for the processor, and only where
    /// there is no adapter at all.
    pub fn open(choice: &DeviceArg) -> Result<Device, Error> {
        let started = Instant::now();
        let (engine, note) = match choice {
            DeviceArg::Cpu => (None, None),
            DeviceArg::Gpu(choice) => (Some(open(choice)?), None),
            DeviceArg::Auto => match open(&AdapterChoice::Auto) {
                Ok(engine) => (Some(engine), None),
                Err(error @ Error::NoAdapter { .. }) => (
                    None,
                    Some(format!(
                        "note: {error}.\nnote: computing on the processor instead (f64)"
                    )),
                ),
                Err(error) => return Err(error),
            },
        };
        let setup = match engine {
            Some(_) => started.elapsed(),
            None => Duration::ZERO,
        };
        Ok(Device {
            engine,
            setup,
            note,
            memory: None,
        })
    }

    /// The same with so many bytes for chunks.
    pub fn with_memory(mut self, memory: Option<u64>) -> Device {
        self.memory = memory;
        if let Some(bytes) = memory {
            self.engine = self.engine.map(|engine| engine.with_memory(bytes));
        }
        self
    }

    /// Runs a problem.
    pub fn run(&self, problem: &Problem, batch: &Batch<'_>) -> Result<Outcome, Error> {
        let Some(engine) = &self.engine else {
            let started = Instant::now();
            let results = reference::run(problem, batch)?.to_f32();
            let times = Times {
                waiting: started.elapsed(),
                ..Times::default()
            };
            return Ok(Outcome {
                results,
                times,
                strategy: "reference",
            });
        };
        let strategy = Plan::new(problem, engine.profile())?.strategy.name();
        let (results, mut times) = pollster::block_on(engine.run_timed(problem, batch))?;
        times.setup += self.setup;
        Ok(Outcome {
            results,
            times,
            strategy,
        })
    }

    /// Runs a problem on a batch of any size.
    pub fn run_stream(
        &self,
        problem: &Problem,
        source: &mut dyn Source,
        sink: &mut dyn Sink,
    ) -> Result<Outcome, Error> {
        let Some(engine) = &self.engine else {
            let started = Instant::now();
            let results = reference::run_stream(problem, source, sink, self.memory)?.to_f32();
            let times = Times {
                waiting: started.elapsed(),
                ..Times::default()
            };
            return Ok(Outcome {
                results,
                times,
                strategy: "reference",
            });
        };
        let strategy = Plan::new(problem, engine.profile())?.strategy.name();
        let run = engine.run_stream(problem, source, sink);
        let (results, mut times) = pollster::block_on(run)?;
        times.setup += self.setup;
        Ok(Outcome {
            results,
            times,
            strategy,
        })
    }

    /// What [`Device::run`] will do, for `--explain`.
    pub fn explain(&self, problem: &Problem) -> Result<String, Error> {
        match &self.engine {
            Some(engine) => Ok(Plan::new(problem, engine.profile())?.to_string()),
            None => Ok(format!(
                "{} rows × {} classes on the processor, one row at a time per core, in f64",
                problem.rows(),
                problem.classes()
            )),
        }
    }

    /// The adapter; `None` is the processor.
    pub fn adapter(&self) -> Option<&AdapterInfo> {
        self.engine.as_ref().map(Engine::adapter_info)
    }

    /// What the self-test found; the processor computes in f64.
    pub fn accuracy(&self) -> Accuracy {
        self.engine
            .as_ref()
            .map_or(Accuracy::Full, Engine::accuracy)
    }

    /// The adapter in words.
    pub fn describe(&self) -> String {
        self.adapter().map_or_else(
            || "none, computed on the processor in f64".to_owned(),
            describe,
        )
    }
}

/// An engine that has passed the self-test, on the driver that is there or on the one that
/// `SOFTXENT_SIMULATE` makes of it.
pub fn open(choice: &AdapterChoice) -> Result<Engine, Error> {
    let engine = Engine::new_blocking(choice)?;
    if simulation().is_none_or(|driver| driver != "two_sum") {
        return Ok(engine);
    }
    let mut engine = simulated(engine);
    pollster::block_on(engine.self_test())?;
    Ok(engine)
}

fn simulation() -> Option<OsString> {
    std::env::var_os("SOFTXENT_SIMULATE")
}

/// An engine on another driver, for tests of this program only. `two_sum` takes (a + b) − a for b, so that
/// the rounding errors of sums are lost; `idle`, which passes the self-test first, then leaves out every
/// row that one invocation should take.
pub fn simulated(engine: Engine) -> Engine {
    let Some(driver) = simulation() else {
        return engine;
    };
    engine.with_edited_shaders(move |variant, text| {
        if driver == "two_sum" {
            return text
                .replace("(a - veil(sum - b_part)) + (b - b_part)", "0.0")
                .replace("(a - veil4(sum - b_part)) + (b - b_part)", "vec4<f32>(0.0)");
        }
        let entry = variant.entry_point();
        match text.split_once(&format!("fn {entry}(")) {
            Some((before, after)) if driver == "idle" && entry == "row_per_invocation" => {
                let idle = after.replacen('{', "{ if true { return; }", 1);
                format!("{before}fn {entry}({idle}")
            }
            _ => text,
        }
    })
}

/// The self-test in words.
pub const FULL: &str = "passed, full accuracy";
pub const REDUCED: &str = "passed, reduced accuracy: the driver rearranges floating-point sums";

/// The self-test in one word.
pub fn accuracy_name(accuracy: Accuracy) -> &'static str {
    match accuracy {
        Accuracy::Full => "full",
        Accuracy::Reduced => "reduced",
    }
}

/// An adapter in words.
pub fn describe(info: &AdapterInfo) -> String {
    let software = match is_software(info) {
        true => ", a software driver on the processor",
        false => "",
    };
    format!("{}, {}{software}", info.name, info.backend)
}

/// Whether the driver computes on the processor.
pub fn is_software(info: &AdapterInfo) -> bool {
    info.device_type == DeviceType::Cpu
}

/// Its driver and the version.
pub fn driver(info: &AdapterInfo) -> String {
    format!("{} {}", info.driver, info.driver_info)
        .trim()
        .to_owned()
}

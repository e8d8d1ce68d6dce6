//! `softxent` alone and `softxent info`: what is here and what to type.

use serde::Serialize;
use softxent::wgpu::{Adapter, DeviceType};
use softxent::{AdapterChoice, Engine, Error, adapters};

use super::args::{Cli, InfoArgs};
use super::device::{FULL, REDUCED, accuracy_name, describe, driver, is_software};
use super::origin::VERSION;
use super::report::{Table, json};
use super::{Failure, print};

/// The adapter, one example, the subcommands.
pub fn bare() -> Result<(), Failure> {
    let adapter = match Engine::new_blocking(&AdapterChoice::Auto) {
        Ok(engine) => describe(engine.adapter_info()),
        Err(Error::NoAdapter { advice }) => format!("none{}", without(&advice)),
        Err(error) => format!("unusable: {error}"),
    };
    let mut commands = Table::default();
    let described = <Cli as clap::CommandFactory>::command();
    let about = |name| {
        let command = described.find_subcommand(name);
        command
            .and_then(|command| command.get_about())
            .map_or_else(String::new, ToString::to_string)
    };
    for name in ["demo", "run", "info", "check", "bench"] {
        commands.line(name, about(name));
    }
    print(&format!(
        "softxent {VERSION}: softmax, cross-entropy and its gradient on any GPU\n\
         \n\
         adapter  {adapter}\n\
         try      softxent demo\n\
         \n\
         {}\n\
         softxent run --help lists every option.\n",
        commands.finish()
    ))
}

/// What to install, and what happens until then.
fn without(advice: &str) -> String {
    format!("\n\n{advice}.\nUntil then everything is computed on the processor, in f64.\n")
}

#[derive(Serialize)]
struct Info {
    version: &'static str,
    adapters: Vec<AdapterLine>,
    /// The index of the adapter that `--device auto` takes; none is the processor.
    auto: Option<usize>,
    /// `full`, `reduced`, `failed`; none without an adapter.
    self_test: Option<&'static str>,
    /// Why there is no adapter to use.
    error: Option<String>,
    #[serde(skip)]
    advice: Option<String>,
}

#[derive(Serialize)]
struct AdapterLine {
    index: usize,
    name: String,
    backend: &'static str,
    driver: String,
    r#type: &'static str,
    software: bool,
    largest_binding: u64,
    largest_buffer: u64,
    largest_workgroup: u32,
}

impl AdapterLine {
    fn new((index, adapter): (usize, &Adapter)) -> Self {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        AdapterLine {
            index,
            driver: driver(&info),
            backend: info.backend.to_str(),
            r#type: match info.device_type {
                DeviceType::DiscreteGpu => "discrete",
                DeviceType::IntegratedGpu => "integrated",
                DeviceType::VirtualGpu => "virtual",
                DeviceType::Cpu => "cpu",
                DeviceType::Other => "other",
            },
            software: is_software(&info),
            name: info.name,
            largest_binding: limits.max_storage_buffer_binding_size,
            largest_buffer: limits.max_buffer_size,
            largest_workgroup: limits.max_compute_invocations_per_workgroup,
        }
    }
}

/// Every adapter, which one is used, whether it computes what it should.
pub fn info(args: &InfoArgs) -> Result<(), Failure> {
    let found = pollster::block_on(adapters());
    let mut info = Info {
        version: VERSION,
        adapters: found.iter().enumerate().map(AdapterLine::new).collect(),
        auto: None,
        self_test: None,
        error: None,
        advice: None,
    };
    match Engine::new_blocking(&AdapterChoice::Auto) {
        Ok(engine) => {
            let used = engine.adapter_info();
            info.auto = found.iter().position(|adapter| adapter.get_info() == *used);
            info.self_test = Some(accuracy_name(engine.accuracy()));
        }
        Err(error) => {
            info.self_test = matches!(error, Error::SelfTest { .. }).then_some("failed");
            info.error = Some(error.to_string());
            if let Error::NoAdapter { advice } = error {
                info.advice = Some(advice);
            }
        }
    }
    print(&match args.json {
        true => json(&info),
        false => info.table(),
    })
}

impl Info {
    fn table(&self) -> String {
        let mut text = format!("softxent {VERSION}\n");
        for adapter in &self.adapters {
            let mut table = Table::default();
            let used = match self.auto == Some(adapter.index) {
                true => "  (--device auto takes this one)",
                false => "",
            };
            table.line("adapter", format!("{}{used}", adapter.index));
            table.line("name", &adapter.name);
            table.line("backend", adapter.backend);
            table.line("driver", &adapter.driver);
            table.line(
                "type",
                match adapter.software {
                    true => "cpu: a software driver on the processor",
                    false => adapter.r#type,
                },
            );
            table.line("largest binding", bytes(adapter.largest_binding));
            table.line("largest buffer", bytes(adapter.largest_buffer));
            table.line(
                "largest workgroup",
                format!("{} invocations", adapter.largest_workgroup),
            );
            if self.auto == Some(adapter.index) {
                table.line(
                    "self-test",
                    match self.self_test {
                        Some("full") => FULL,
                        _ => REDUCED,
                    },
                );
            }
            text += "\n";
            text += &table.finish();
        }
        match (&self.advice, &self.error) {
            (Some(advice), _) => text += &format!("\nadapters  none{}", without(advice)),
            (None, Some(error)) => {
                text += &format!("\n{error}\nhint: --device cpu computes without a GPU\n");
            }
            (None, None) => {}
        }
        text
    }
}

fn bytes(count: u64) -> String {
    let (value, unit) = match count {
        b if b >= 1 << 30 => (b as f64 / f64::from(1 << 30), "GiB"),
        b => (b as f64 / f64::from(1 << 20), "MiB"),
    };
    format!("{} {unit}", (value * 10.0).round() / 10.0)
}

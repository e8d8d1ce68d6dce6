//! `softxent` alone and `softxent info`: what is here and what to type.

use serde::Serialize;
use softxent::wgpu::{Adapter, DeviceType, Features};
use softxent::{AdapterChoice, Engine, Error, adapters};

use super::args::{Cli, InfoArgs};
use super::device::{FULL, REDUCED, accuracy_name, describe, driver, is_software};
use super::origin::{VERSION, machine};
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
    storage_buffers: u32,
    /// Invocations of a subgroup, the fewest and the most; none where a driver has no subgroup operations.
    subgroup: Option<[u32; 2]>,
    /// Logits in f32 that a dispatch takes at once; a row that has more goes in windows.
    largest_f32_logits: u64,
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
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            subgroup: adapter
                .features()
                .contains(Features::SUBGROUP)
                .then_some([info.subgroup_min_size, info.subgroup_max_size]),
            largest_f32_logits: limits
                .max_storage_buffer_binding_size
                .min(limits.max_buffer_size)
                / 4,
        }
    }

    /// What its limits mean for a run.
    fn limits(&self, table: &mut Table) {
        table.line("largest binding", bytes(self.largest_binding));
        table.line("largest buffer", bytes(self.largest_buffer));
        let most = self.largest_f32_logits;
        table.line(
            "at once",
            format!(
                "{most} f32 logits, such as {} rows × 1000 classes; more of them go in parts",
                most / 1000
            ),
        );
        table.line(
            "largest workgroup",
            format!("{} invocations", self.largest_workgroup),
        );
        let passes = match self.storage_buffers {
            16.. => "losses leave the kernel that reads the row",
            _ => "fewer than 16, so losses take a pass of their own",
        };
        let buffers = self.storage_buffers;
        table.line(
            "storage buffers",
            format!("{buffers} for a shader: {passes}"),
        );
        let subgroups = match self.subgroup {
            None => "none: rows are shared through workgroup memory".to_owned(),
            Some([least, most]) if least == most => format!("of {least}, which share rows"),
            Some([least, most]) => {
                format!("of {least} to {most}: rows are shared through workgroup memory")
            }
        };
        table.line("subgroups", subgroups);
    }
}

/// Why `auto` takes the adapter that it takes.
fn reason() -> String {
    let named = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default();
    let backends = match std::env::var("WGPU_BACKEND") {
        Ok(backend) => format!(", of the backend {backend} alone (WGPU_BACKEND)"),
        Err(_) => String::new(),
    };
    match named.as_str() {
        "" => format!("the first, where GPUs come before software drivers{backends}"),
        name => format!("the first whose name has `{name}` (WGPU_ADAPTER_NAME){backends}"),
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
        let mut text = format!("softxent {VERSION}, {}\n", machine());
        for adapter in &self.adapters {
            let mut table = Table::default();
            let used = match self.auto == Some(adapter.index) {
                true => format!("  (--device auto takes this one: {})", reason()),
                false => String::new(),
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
            adapter.limits(&mut table);
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

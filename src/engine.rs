//! The engine: a device, its queue, and the pipelines made so far.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::guard::{Faults, locked};
use crate::kernel::{Access, Slot, Strategy, Variant};
use crate::plan::{DeviceProfile, Pass, Plan};
use crate::problem::{Batch, Problem, Results};
use crate::self_test::Accuracy;
#[cfg(not(target_arch = "wasm32"))]
use crate::threads;

/// Which adapter an [`Engine`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AdapterChoice {
    /// The one that `WGPU_ADAPTER_NAME` names, else a discrete GPU, an integrated one, a software
    /// driver, in that order. `WGPU_BACKEND` narrows what is looked at.
    #[default]
    Auto,
    /// By its place in [`adapters`].
    Index(usize),
    /// By a part of its name, in any case.
    Name(String),
}

impl FromStr for AdapterChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(match text.parse() {
            Ok(index) => AdapterChoice::Index(index),
            Err(_) if text.is_empty() || text == "auto" => AdapterChoice::Auto,
            Err(_) => AdapterChoice::Name(text.to_owned()),
        })
    }
}

/// The adapters of this system, best first: discrete, integrated, other, software.
pub async fn adapters() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.flags = wgpu::InstanceFlags::empty();
    descriptor.backends = wgpu::Backends::from_env().unwrap_or_else(wgpu::Backends::all);
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    adapters.retain(|adapter| adapter.get_info().backend != wgpu::Backend::Noop);
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}

/// What a person without an adapter has to install.
fn no_adapter_advice() -> String {
    let nvidia = ["/proc/driver/nvidia/version", "/dev/nvidiactl"]
        .iter()
        .any(|path| std::path::Path::new(path).exists());
    let advice = if nvidia {
        "There is an NVIDIA device, but no Vulkan driver for it: in a container, start it with the \
         graphics capability of the driver (NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility) \
         and install `libvulkan1`"
    } else if cfg!(target_os = "linux") {
        "Install a Vulkan driver; `apt-get install mesa-vulkan-drivers` (or your system's package \
         of that name) brings drivers for AMD and Intel and a software driver"
    } else {
        "Install the driver of your graphics card"
    };
    match std::env::var("WGPU_BACKEND") {
        Ok(backend) => {
            format!("{advice}; or unset WGPU_BACKEND, which allows `{backend}` only")
        }
        Err(_) => advice.to_owned(),
    }
}

async fn choose(choice: &AdapterChoice) -> Result<wgpu::Adapter> {
    let from_environment = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default();
    let choice = match choice {
        AdapterChoice::Auto if !from_environment.is_empty() => {
            &AdapterChoice::Name(from_environment)
        }
        other => other,
    };
    let mut adapters = adapters().await;
    if adapters.is_empty() {
        return Err(Error::NoAdapter {
            advice: no_adapter_advice(),
        });
    }
    let (at, wanted) = match choice {
        AdapterChoice::Auto => (Some(0), String::new()),
        AdapterChoice::Index(index) => (
            Some(*index).filter(|&i| i < adapters.len()),
            index.to_string(),
        ),
        AdapterChoice::Name(part) => {
            let part = part.to_lowercase();
            let is_it = |adapter: &wgpu::Adapter| {
                let name = adapter.get_info().name;
                name.to_lowercase().contains(&part)
            };
            (adapters.iter().position(is_it), part)
        }
    };
    match at {
        Some(at) => Ok(adapters.swap_remove(at)),
        None => Err(not_found(wanted, &adapters)),
    }
}

fn not_found(wanted: String, adapters: &[wgpu::Adapter]) -> Error {
    let listed: Vec<String> = adapters
        .iter()
        .enumerate()
        .map(|(index, adapter)| format!("{index} = {}", adapter.get_info().name))
        .collect();
    Error::AdapterNotFound {
        wanted,
        available: listed.join(", "),
    }
}

/// A pipeline with the layout of its bindings.
pub(crate) struct Pipeline {
    pub pass: Pass,
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// How long a device may take, unless its engine says otherwise.
const PATIENCE: Duration = Duration::from_secs(300);

/// A device with the pipelines made for it so far. Cheap to share: all methods take `&self`.
pub struct Engine {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    pub(crate) profile: DeviceProfile,
    pipelines: Mutex<HashMap<Pass, Arc<Pipeline>>>,
    pub(crate) faults: Arc<Mutex<Faults>>,
    pub(crate) patience: Duration,
    pub(crate) accuracy: Accuracy,
    edit: Option<Edit>,
    shader_checks: bool,
}

/// Changes the text of a shader before it is compiled.
type Edit = Arc<dyn Fn(Variant, String) -> String + Send + Sync>;

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("adapter", &self.info.name)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// The features that make kernels faster, as far as an adapter has them: what a device of your own is worth
/// asking for. Nothing needs them.
pub fn useful_features(adapter: &wgpu::Adapter) -> wgpu::Features {
    let mut useful = wgpu::Features::SUBGROUP;
    if adapter.get_info().device_type == wgpu::DeviceType::Cpu {
        useful |= wgpu::Features::SHADER_INT64;
    }
    adapter.features() & useful
}

impl Engine {
    /// Takes an adapter, asks it for all it has, and passes the self-test.
    ///
    /// # Errors
    /// [`Error::NoAdapter`], [`Error::AdapterNotFound`], [`Error::DeviceRefused`], and what
    /// [`Engine::self_test`] fails with.
    pub async fn new(choice: &AdapterChoice) -> Result<Engine> {
        let adapter = choose(choice).await?;
        let mut engine = Engine::untested(&adapter, adapter.limits()).await?;
        engine.self_test().await?;
        Ok(engine)
    }

    /// [`Engine::new`] without its choice and its self-test.
    #[doc(hidden)]
    pub async fn untested(adapter: &wgpu::Adapter, limits: wgpu::Limits) -> Result<Engine> {
        let info = adapter.get_info();
        let mut features = useful_features(adapter);
        if info.device_type == wgpu::DeviceType::Cpu {
            features |= adapter.features() & wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("softxent"),
                required_features: features,
                required_limits: limits,
                ..Default::default()
            })
            .await
            .map_err(|error| Error::DeviceRefused {
                adapter: info.name,
                reason: error.to_string(),
            })?;
        let engine = Engine::from_device(device, queue);
        let faults = Arc::clone(&engine.faults);
        engine
            .device
            .set_device_lost_callback(move |reason, message| {
                locked(&faults).lost = Some(format!("{reason:?}: {message}"));
            });
        let faults = Arc::clone(&engine.faults);
        engine
            .device
            .on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
                locked(&faults).uncaptured = Some(error.to_string());
            }));
        Ok(engine)
    }

    /// A new engine with the settings of this one, on a device of its own from the same adapter: for when the
    /// device of this one [is lost](Self::is_lost). It passes the self-test first.
    ///
    /// ```no_run
    /// # use softxent::{Engine, Error, Problem, Results};
    /// # async fn resume(mut engine: Engine, problem: &Problem) -> softxent::Result<()> {
    /// let prepared = match engine.prepare(problem).await {
    ///     Err(Error::DeviceLost { .. }) => {
    ///         engine = engine.renewed().await?;
    ///         engine.prepare(problem).await?
    ///     }
    ///     done => done?,
    /// };
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub async fn renewed(&self) -> Result<Engine> {
        let adapters = adapters().await;
        let same = |adapter: &&wgpu::Adapter| adapter.get_info() == self.info;
        let Some(adapter) = adapters.iter().find(same) else {
            return Err(not_found(self.info.name.clone(), &adapters));
        };
        let mut engine = Engine::untested(adapter, adapter.limits()).await?;
        engine.profile = self.profile.clone();
        engine.patience = self.patience;
        engine.edit = self.edit.clone();
        engine.shader_checks = self.shader_checks;
        engine.self_test().await?;
        Ok(engine)
    }

    /// [`Engine::run`]; where the device turns out to be lost, once more on a [renewed](Self::renewed) engine,
    /// which takes the place of this one.
    ///
    /// # Errors
    /// As [`Engine::run`], and as [`Engine::renewed`] where the device is lost.
    pub async fn run_retrying(&mut self, problem: &Problem, batch: &Batch<'_>) -> Result<Results> {
        match self.run(problem, batch).await {
            Err(Error::DeviceLost { .. }) => {
                *self = self.renewed().await?;
                self.run(problem, batch).await
            }
            done => done,
        }
    }

    /// [`Engine::new`], waiting for it.
    ///
    /// # Errors
    /// As [`Engine::new`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new_blocking(choice: &AdapterChoice) -> Result<Engine> {
        pollster::block_on(Engine::new(choice))
    }

    /// Uses the caller's device. Installs no handler of its own and runs no [self-test](Self::self_test).
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Engine {
        let info = device.adapter_info();
        let profile = DeviceProfile::new(&device);
        Engine {
            device,
            queue,
            info,
            profile,
            pipelines: Mutex::default(),
            faults: Arc::default(),
            patience: PATIENCE,
            accuracy: Accuracy::Full,
            edit: None,
            shader_checks: false,
        }
    }

    /// What the [self-test](Self::self_test) found; [`Accuracy::Full`] where none was made.
    pub fn accuracy(&self) -> Accuracy {
        self.accuracy
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Its queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// The adapter behind it.
    pub fn adapter_info(&self) -> &wgpu::AdapterInfo {
        &self.info
    }

    /// What the planner knows of the device.
    pub fn profile(&self) -> &DeviceProfile {
        &self.profile
    }

    /// Plans as if the device were another one; for tests of the planner's branches.
    #[must_use]
    pub fn with_profile(mut self, profile: DeviceProfile) -> Engine {
        self.profile = profile;
        self
    }

    /// Lets the chunks of a host call take so many bytes, on the device and for staging together, where they
    /// would take more; results have the same bits. Scratch comes on top: 12 KiB, and 36 bytes for each
    /// row, or 1024 classes of one, whose state is kept.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Engine {
        self.profile.memory = Some(bytes);
        self
    }

    /// Waits for the device no longer than this, 5 minutes unless it is said, before a call ends with
    /// [`Error::Timeout`]. In a browser that is the browser's affair.
    #[must_use]
    pub fn with_patience(mut self, limit: Duration) -> Engine {
        self.patience = limit;
        self
    }

    /// Compiles the shaders with the bounds checks and loop counters that wgpu puts into those of which it
    /// knows nothing. They change no result and cost up to a third of the speed; for those who would rather
    /// not rely on the proof that they are not needed, which is where shaders are compiled. Forgets all
    /// pipelines.
    #[must_use]
    pub fn with_shader_checks(mut self) -> Engine {
        locked(&self.pipelines).clear();
        self.shader_checks = true;
        self
    }

    /// Compiles other text than the shaders'; for tests that plant bugs. Forgets all pipelines.
    #[doc(hidden)]
    #[must_use]
    pub fn with_edited_shaders(
        mut self,
        edit: impl Fn(Variant, String) -> String + Send + Sync + 'static,
    ) -> Engine {
        locked(&self.pipelines).clear();
        self.edit = Some(Arc::new(edit));
        self
    }

    /// Plans a problem, and makes what pipelines it still lacks.
    ///
    /// # Errors
    /// As [`Plan::new`]; [`Error::Driver`], [`Error::DeviceLost`].
    pub async fn prepare(&self, problem: &Problem) -> Result<Prepared> {
        let plan = Plan::new(problem, &self.resident_profile())?;
        self.prepare_resident(problem, plan).await
    }

    /// [`Engine::prepare`] with a strategy of the caller's choice; results have the same bits.
    ///
    /// # Errors
    /// As [`Engine::prepare`].
    pub async fn prepare_with(&self, problem: &Problem, strategy: Strategy) -> Result<Prepared> {
        let plan = Plan::with_strategy(problem, &self.resident_profile(), strategy)?;
        self.prepare_resident(problem, plan).await
    }

    /// The profile where the arrays are the caller's, whatever memory they take.
    fn resident_profile(&self) -> DeviceProfile {
        DeviceProfile {
            memory: None,
            ..self.profile.clone()
        }
    }

    /// Makes what pipelines a plan lacks; windows of rows are for host calls.
    async fn prepare_resident(&self, problem: &Problem, plan: Plan) -> Result<Prepared> {
        if plan.has_windows(problem) {
            return Err(Error::RowTooWide {
                what: Slot::Logits.name(),
                needed: (problem.dtype().size() * problem.row_length()) as u64,
                limit: self.profile.max_binding,
            });
        }
        self.prepare_plan(problem, plan).await
    }

    /// Makes what pipelines a plan lacks.
    pub(crate) async fn prepare_plan(&self, problem: &Problem, plan: Plan) -> Result<Prepared> {
        let passes = plan.count.iter().chain(&plan.passes).chain([&plan.reduce]);
        self.make_pipelines(passes.copied().collect()).await?;
        Ok(Prepared {
            problem: problem.clone(),
            plan,
        })
    }

    /// Makes what pipelines are missing, side by side where there are threads.
    pub(crate) async fn make_pipelines(&self, mut passes: Vec<Pass>) -> Result<()> {
        {
            let made = locked(&self.pipelines);
            let mut seen = HashSet::new();
            passes.retain(|pass| !made.contains_key(pass) && seen.insert(*pass));
        }
        #[cfg(target_arch = "wasm32")]
        for pass in passes {
            self.pipeline(pass).await?;
        }
        #[cfg(not(target_arch = "wasm32"))]
        {
            let failure = Mutex::new(None);
            threads::in_parallel(threads::available(), passes, |pass| {
                if let Err(error) = pollster::block_on(self.pipeline(pass)) {
                    locked(&failure).get_or_insert(error);
                }
            });
            if let Some(error) = locked(&failure).take() {
                return Err(error);
            }
        }
        Ok(())
    }

    pub(crate) async fn pipeline(&self, pass: Pass) -> Result<Arc<Pipeline>> {
        if let Some(made) = locked(&self.pipelines).get(&pass) {
            return Ok(Arc::clone(made));
        }
        let label = pass.to_string();
        let mut text = pass.variant.wgsl(self.profile.pairs);
        if let Some(edit) = &self.edit {
            text = edit(pass.variant, text);
        }
        // Of edited text nothing is proven.
        let checked = self.shader_checks || self.edit.is_some();
        let made = self
            .guarded(&format!("the pipeline {label}"), 0, |device| {
                make_pipeline(device, pass, &label, text, checked)
            })
            .await?;
        // A device that is gone refuses no pipeline.
        self.notice_loss();
        self.alive()?;
        let mut pipelines = locked(&self.pipelines);
        Ok(Arc::clone(
            pipelines.entry(pass).or_insert_with(|| Arc::new(made)),
        ))
    }
}

/// Compiles a shader; without checks unless they are asked for, which are a quarter of the time of a kernel
/// on llvmpipe (`benches/results/2026-11-25_llvmpipe_shader_checks.csv` beside `…_throughput.csv`).
///
/// Why no shader reaches beyond what is bound: `Prepared::bind` refuses ranges smaller than
/// `Problem::size_of` says and binds exactly those, or scratch of the size that the plan asks for. A kernel
/// that works on a row has row < params.rows, by an early return or by `min`, and columns below the row's
/// length, by its loop's end, `min` or `select`, so that `element` is below rows · row_length; arrays with
/// an entry a row are indexed by the row, those with an entry a class by min(column, classes − 1). A vector
/// of four is read, or written, where rows are whole vectors, or where the binding was made longer, up to the
/// vector of the row's last column. The denominator is one word or, where the flags say that it was counted, the
/// scratch's, which has room for all that is. States have a place for each row and part. Labels come from the device and are
/// compared with the number of classes before they index. Private and workgroup arrays are indexed by
/// constants, by numbers of invocations, and by the height of the pile, the number of bits of the number of
/// blocks.
///
/// Of a window of a row that holds the columns from `first_column` to `end_column`, what is bound begins with
/// the first and its start is that much less, modulo 2³², so that start plus column is again below its
/// length: kernels of windows look at columns between the two alone, and so at the label's where it is in a part
/// of the window. Rows begin there where a vector does.
///
/// Why every shader ends: each loop counts up to a number from the parameters, or halves or doubles a
/// number; the carry of an exact sum meets a limb that is not full, since 2³² terms fit.
fn make_pipeline(
    device: &wgpu::Device,
    pass: Pass,
    label: &str,
    text: String,
    checked: bool,
) -> Pipeline {
    let entries: Vec<wgpu::BindGroupLayoutEntry> = pass
        .variant
        .slots()
        .into_iter()
        .map(|(slot, access)| wgpu::BindGroupLayoutEntry {
            binding: slot as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match access {
                    Access::Uniform => wgpu::BufferBindingType::Uniform,
                    Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(label),
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(label),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let source = wgpu::ShaderModuleDescriptor {
        label: Some(label),
        source: wgpu::ShaderSource::Wgsl(text.into()),
    };
    let module = if checked {
        device.create_shader_module(source)
    } else {
        // SAFETY: no shader reaches beyond what is bound, and every one ends; the proof is at the
        // function's head.
        unsafe {
            device.create_shader_module_trusted(source, wgpu::ShaderRuntimeChecks::unchecked())
        }
    };
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(label),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(pass.variant.entry_point()),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &pass.constants(),
            // Every kernel writes what it reads of workgroup memory.
            zero_initialize_workgroup_memory: false,
        },
        cache: None,
    });
    Pipeline {
        pass,
        pipeline,
        layout,
    }
}

/// A problem with its plan and pipelines, ready to be bound to buffers.
#[derive(Debug, Clone)]
pub struct Prepared {
    problem: Problem,
    plan: Plan,
}

impl Prepared {
    /// The problem.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

//! burn's side of the protocol of [`crate::child`]: its own cross entropy loss and autodiff, on its wgpu
//! backend with the features that it has by default (fusion, autotune).

use std::error::Error;
use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::tensor::{Device, DeviceKind, Int, Tensor, TensorData};
use softxent::wgpu::DeviceType;

/// What the first panic of a case said. burn reports a kernel that cannot run by one, on any of its threads.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Serves until the input ends.
pub fn serve(device_type: &str) -> Result<(), Box<dyn Error>> {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("a panic").to_owned();
        first_panic().get_or_insert(message);
    }));
    match catch_unwind(AssertUnwindSafe(|| answer_all(device_type))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => tell(&["failed", &reason(&error.to_string())]),
        Err(_) => tell(&["failed", &reason("a panic")]),
    }
}

fn first_panic() -> MutexGuard<'static, Option<String>> {
    PANIC
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The panic, or the error, in one line: the cause at the end of burn's list of causes.
fn reason(otherwise: &str) -> String {
    let first = first_panic();
    let text = first.as_deref().unwrap_or(otherwise);
    let cause = text.rsplit("Caused by:").next().unwrap_or(text);
    let cause = cause.split("No backtrace").next().unwrap_or(cause);
    cause.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn tell(words: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", words.join("\t"))?;
    Ok(out.flush()?)
}

fn answer_all(device_type: &str) -> Result<(), Box<dyn Error>> {
    let (device, setup) = Device::wgpu_options()
        .device_kind(kind(device_type))
        .init_with_setup()?;
    let info = setup.adapter.get_info();
    crate::workers::pin();
    let version = crate::locked_version("burn");
    tell(&["hello", version, &info.name, &crate::driver(&info)])?;
    let mut case = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["case", rows, classes, folder] => {
                // A kernel that was only tried may have left one.
                *first_panic() = None;
                let folder = Path::new(folder);
                let new = Case::new(&device, rows.parse()?, classes.parse()?, folder)?;
                let loss = new.verified(folder)?;
                case = Some(new);
                tell(&["loss", &loss.to_string()])?;
            }
            ["run"] => {
                let case = case.as_ref().ok_or("no case")?;
                tell(&["seconds", &case.run()?.0.to_string()])?;
            }
            _ => {
                case = None;
                device.memory_cleanup();
                tell(&["ended"])?;
            }
        }
    }
    Ok(())
}

pub fn type_name(device_type: DeviceType) -> &'static str {
    match device_type {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "cpu",
        DeviceType::Other => "other",
    }
}

/// The first adapter of a type: that softxent has the same is for the parent to see.
fn kind(device_type: &str) -> DeviceKind {
    match device_type {
        "discrete" => DeviceKind::DiscreteGpu(0),
        "integrated" => DeviceKind::IntegratedGpu(0),
        "virtual" => DeviceKind::VirtualGpu(0),
        "cpu" => DeviceKind::Cpu,
        _ => DeviceKind::DefaultDevice,
    }
}

struct Case {
    device: Device,
    criterion: CrossEntropyLoss,
    logits: Tensor<2>,
    labels: Tensor<1, Int>,
}

impl Case {
    fn new(
        device: &Device,
        rows: usize,
        classes: usize,
        folder: &Path,
    ) -> Result<Case, Box<dyn Error>> {
        let logits: Vec<f32> = bytemuck::pod_collect_to_vec(&std::fs::read(folder.join("logits"))?);
        let labels: Vec<i32> = bytemuck::pod_collect_to_vec(&std::fs::read(folder.join("labels"))?);
        let device = device.clone().autodiff();
        let logits = Tensor::from_data(TensorData::new(logits, [rows, classes]), &device);
        let case = Case {
            criterion: CrossEntropyLossConfig::new().init(&device),
            logits: logits.require_grad(),
            labels: Tensor::from_data(TensorData::new(labels, [rows]), &device),
            device,
        };
        case.sync()?;
        Ok(case)
    }

    fn sync(&self) -> Result<(), Box<dyn Error>> {
        let synced = self.device.sync();
        Ok(synced.map_err(|error| format!("{error:?}"))?)
    }

    /// Seconds, loss and gradient. Both results are there when the clock stops: they are alive and the
    /// device has nothing left to do.
    fn run(&self) -> Result<(f64, Tensor<1>, Tensor<2>), Box<dyn Error>> {
        let started = Instant::now();
        let logits = self.logits.clone();
        let loss = self.criterion.forward(logits, self.labels.clone());
        let mut grads = loss.backward();
        let grad = self.logits.grad_remove(&mut grads);
        let grad = grad.ok_or("burn gave no gradient")?;
        self.sync()?;
        Ok((started.elapsed().as_secs_f64(), loss, grad))
    }

    /// Writes the gradient, returns the loss.
    fn verified(&self, folder: &Path) -> Result<f32, Box<dyn Error>> {
        let (_, loss, grad) = self.run()?;
        let values = |data: TensorData| {
            data.try_to_vec::<f32>()
                .map_err(|error| format!("{error:?}"))
        };
        let grad = values(grad.try_into_data()?)?;
        std::fs::write(folder.join("grad"), bytemuck::cast_slice::<f32, u8>(&grad))?;
        let loss = values(loss.try_into_data()?)?;
        Ok(*loss.first().ok_or("burn gave no loss")?)
    }
}

//! One step of a language model's size: 512 rows of 50257 logits, padded rows, label smoothing. burn's loss and
//! softxent's take turns on the same tensors; softxent's also with a z-loss, which burn has not.
//!
//! ```sh
//! cargo run --release --bin language_model
//! ```

use std::time::Instant;

use burn::backend::wgpu::WgpuSetup;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Distribution, Int, Tensor};
use clap::Parser;
use softxent_burn::{CrossEntropy, Error, Options};

/// Loss and gradient of a batch of tokens, by burn and by softxent
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 512)]
    rows: usize,
    #[arg(long, default_value_t = 50_257)]
    classes: usize,
    /// Turns of each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
}

/// The token that pads sequences.
const PADDING: i32 = 0;
const SMOOTHING: f32 = 0.1;

type Criterion = Box<dyn Fn(Tensor<2>, Tensor<1, Int>) -> Result<Tensor<1>, Error>>;

struct Contestant {
    name: &'static str,
    criterion: Criterion,
    seconds: Vec<f64>,
    /// Bytes of the device that were not allocated before its first turn.
    extra: u64,
    loss: f32,
}

fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let (plain, setup) = Device::wgpu_options().init_with_setup()?;
    let device = plain.clone().autodiff();
    let info = setup.adapter.get_info();
    println!("{}, {} {}", info.name, info.driver, info.driver_info);

    let shape = [arguments.rows, arguments.classes];
    device.seed(1);
    let logits = Tensor::<2>::random(shape, Distribution::Normal(0.0, 3.0), &device);
    let labels = labels(arguments.rows, arguments.classes, &device);
    let mut contestants = contestants(&plain, &setup, &device);
    for contestant in &mut contestants {
        contestant.take_turn(&setup, &device, &logits, &labels)?;
    }
    for _ in 0..arguments.turns {
        for contestant in &mut contestants {
            let (seconds, _) = step(&contestant.criterion, &device, &logits, &labels)?;
            contestant.seconds.push(seconds);
        }
    }
    println!(
        "{} × {} f32, padding {PADDING}, smoothing {SMOOTHING}; forward and backward, median and range of {} turns",
        arguments.rows, arguments.classes, arguments.turns
    );
    for contestant in &mut contestants {
        contestant.seconds.sort_by(f64::total_cmp);
        let seconds = &contestant.seconds;
        println!(
            "{:<20} {:8.1} ms ({:.1} to {:.1})  {:7.1} MiB more  loss {}",
            contestant.name,
            1e3 * seconds[seconds.len() / 2],
            1e3 * seconds[0],
            1e3 * seconds[seconds.len() - 1],
            contestant.extra as f64 / 1048576.0,
            contestant.loss
        );
    }
    Ok(())
}

/// Every eighth row is padding.
fn labels(rows: usize, classes: usize, device: &Device) -> Tensor<1, Int> {
    let label = |row: usize| match row % 8 {
        7 => PADDING,
        _ => (1 + row * 7919 % (classes - 1)) as i32,
    };
    let labels: Vec<i32> = (0..rows).map(label).collect();
    Tensor::from_data(labels.as_slice(), device)
}

fn contestants(plain: &Device, setup: &WgpuSetup, device: &Device) -> [Contestant; 3] {
    let burns = CrossEntropyLossConfig::new()
        .with_pad_tokens(Some(vec![PADDING as usize]))
        .with_smoothing(Some(SMOOTHING))
        .init(device);
    let options = Options {
        ignore_index: PADDING,
        label_smoothing: SMOOTHING,
        ..Options::default()
    };
    let ours = CrossEntropy::new(plain, setup, options);
    let z_loss = CrossEntropy::new(
        plain,
        setup,
        Options {
            z_loss: 1e-4,
            ..options
        },
    );
    let new = |name, criterion| Contestant {
        name,
        criterion,
        seconds: Vec::new(),
        extra: 0,
        loss: 0.0,
    };
    [
        new("burn", Box::new(move |x, y| Ok(burns.forward(x, y)))),
        new("softxent", Box::new(move |x, y| ours.forward(x, y))),
        new(
            "softxent, z-loss",
            Box::new(move |x, y| z_loss.forward(x, y)),
        ),
    ]
}

impl Contestant {
    /// A turn that compiles, and one that shows what memory it takes: burn keeps what it allocated for the next
    /// time, so that what is there after a turn is the most that there was.
    fn take_turn(
        &mut self,
        setup: &WgpuSetup,
        device: &Device,
        logits: &Tensor<2>,
        labels: &Tensor<1, Int>,
    ) -> Result<(), Error> {
        step(&self.criterion, device, logits, labels)?;
        device.memory_cleanup();
        sync(device)?;
        let before = allocated(setup)?;
        (_, self.loss) = step(&self.criterion, device, logits, labels)?;
        self.extra = allocated(setup)?.saturating_sub(before);
        device.memory_cleanup();
        sync(device)
    }
}

/// Seconds and loss. Loss and gradient are there when the clock stops, and the device has nothing left to do.
fn step(
    criterion: &Criterion,
    device: &Device,
    logits: &Tensor<2>,
    labels: &Tensor<1, Int>,
) -> Result<(f64, f32), Error> {
    sync(device)?;
    let started = Instant::now();
    let logits = logits.clone().require_grad();
    let loss = criterion(logits.clone(), labels.clone())?;
    let grads = loss.backward();
    let grad = logits.grad(&grads).ok_or("no gradient")?;
    sync(device)?;
    let seconds = started.elapsed().as_secs_f64();
    drop(grad);
    Ok((seconds, loss.into_scalar::<f32>()))
}

fn sync(device: &Device) -> Result<(), Error> {
    Ok(device.sync().map_err(|error| format!("{error:?}"))?)
}

fn allocated(setup: &WgpuSetup) -> Result<u64, Error> {
    let report = setup.device.generate_allocator_report();
    Ok(report
        .ok_or("the driver does not say what it allocates")?
        .total_allocated_bytes)
}

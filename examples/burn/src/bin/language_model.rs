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
use softxent::{Batch, Problem, Wanted, reference};
use softxent_burn::{CrossEntropy, Error, Options, own_device};

/// Loss and gradient of a batch of tokens, by burn and by softxent
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 512)]
    rows: usize,
    #[arg(long, default_value_t = 50_257)]
    classes: usize,
    #[arg(long, default_value_t = 0.1)]
    smoothing: f32,
    /// Turns of each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
}

/// The token that pads sequences.
const PADDING: i32 = 0;

type Criterion = Box<dyn Fn(Tensor<2>, Tensor<1, Int>) -> Result<Tensor<1>, Error>>;

#[derive(Clone, Copy)]
enum Contestant {
    Burn,
    Ours(Options),
}

impl Contestant {
    fn criterion(self, options: Options, device: &Device, setup: &WgpuSetup) -> Criterion {
        match self {
            Contestant::Burn => {
                let smoothing = Some(options.label_smoothing).filter(|smoothing| *smoothing > 0.0);
                let criterion = CrossEntropyLossConfig::new()
                    .with_pad_tokens(Some(vec![PADDING as usize]))
                    .with_smoothing(smoothing)
                    .init(&device.clone().autodiff());
                Box::new(move |logits, labels| Ok(criterion.forward(logits, labels)))
            }
            Contestant::Ours(options) => {
                let criterion = CrossEntropy::new(device, setup, options);
                Box::new(move |logits, labels| criterion.forward(logits, labels))
            }
        }
    }
}

fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let options = Options {
        ignore_index: PADDING,
        label_smoothing: arguments.smoothing,
        ..Options::default()
    };
    let with_z_loss = Options {
        z_loss: 1e-4,
        ..options
    };
    let contestants = [
        ("burn", Contestant::Burn),
        ("softxent", Contestant::Ours(options)),
        ("softxent, z-loss", Contestant::Ours(with_z_loss)),
    ];

    let (device, setup) = Device::wgpu_options().init_with_setup()?;
    let info = setup.adapter.get_info();
    println!("{}, {} {}", info.name, info.driver, info.driver_info);
    println!(
        "{} × {} f32, an eighth of the rows padding, smoothing {}; forward and backward",
        arguments.rows, arguments.classes, arguments.smoothing
    );
    let batch = Tokens::new(&arguments, &device);
    println!("{:<17} {:.7}", "exact loss", batch.exact_loss(&options)?);

    let criteria = contestants.map(|(_, who)| who.criterion(options, &device, &setup));
    let mut seconds = [const { Vec::new() }; 3];
    for turn in 0..=arguments.turns {
        for (criterion, seconds) in criteria.iter().zip(&mut seconds) {
            let turn_seconds = batch.step(criterion)?.0;
            // The first turn compiles.
            if turn > 0 {
                seconds.push(turn_seconds);
            }
        }
    }
    for ((name, who), (criterion, mut seconds)) in
        contestants.iter().zip(criteria.iter().zip(seconds))
    {
        seconds.sort_by(f64::total_cmp);
        println!(
            "{name:<17} loss {:.7}, median {:.1} ms of {} turns ({:.1} to {:.1}), {:.1} MiB",
            batch.step(criterion)?.1,
            1e3 * seconds[seconds.len() / 2],
            seconds.len(),
            1e3 * seconds[0],
            1e3 * seconds[seconds.len() - 1],
            extra_memory(*who, options, &arguments)? as f64 / 1_048_576.0,
        );
    }
    Ok(())
}

struct Tokens {
    device: Device,
    logits: Tensor<2>,
    labels: Tensor<1, Int>,
}

impl Tokens {
    fn new(arguments: &Arguments, device: &Device) -> Tokens {
        let (rows, classes) = (arguments.rows, arguments.classes);
        let device = device.clone().autodiff();
        device.seed(1);
        // Every eighth row is padding.
        let label = |row: usize| match row % 8 {
            7 => PADDING,
            _ => (1 + row * 7919 % (classes - 1)) as i32,
        };
        let labels: Vec<i32> = (0..rows).map(label).collect();
        Tokens {
            logits: Tensor::random([rows, classes], Distribution::Normal(0.0, 3.0), &device),
            labels: Tensor::from_data(labels.as_slice(), &device),
            device,
        }
    }

    /// Seconds and loss. Loss and gradient are there when the clock stops, and the device has nothing left to do.
    fn step(&self, criterion: &Criterion) -> Result<(f64, f32), Error> {
        self.sync()?;
        let started = Instant::now();
        let logits = self.logits.clone().require_grad();
        let loss = criterion(logits.clone(), self.labels.clone())?;
        let grads = loss.backward();
        let grad = logits.grad(&grads).ok_or("no gradient")?;
        self.sync()?;
        let seconds = started.elapsed().as_secs_f64();
        drop(grad);
        Ok((seconds, loss.into_scalar::<f32>()))
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(self.device.sync().map_err(|error| format!("{error:?}"))?)
    }

    /// In f64, on the processor.
    fn exact_loss(&self, options: &Options) -> Result<f64, Error> {
        let [rows, classes] = self.logits.dims();
        let problem = Problem::of(rows, classes)
            .index_labels(options.ignore_index.into())
            .label_smoothing(options.label_smoothing)
            .want([Wanted::Loss])
            .build()?;
        let logits = self.logits.to_data().try_to_vec::<f32>();
        let logits = logits.map_err(|error| format!("{error:?}"))?;
        let labels = self.labels.to_data().try_to_vec::<i32>();
        let labels = labels.map_err(|error| format!("{error:?}"))?;
        let results = reference::run(&problem, &Batch::of(&logits).index(&labels))?;
        Ok(results.loss.ok_or("no loss")?)
    }
}

/// The most bytes that a step has on the device beside its inputs, on a device of its own. burn keeps what it
/// allocates, so that they are still there when the step is done.
fn extra_memory(who: Contestant, options: Options, arguments: &Arguments) -> Result<u64, Error> {
    let (device, setup) = pollster::block_on(own_device())?;
    let batch = Tokens::new(arguments, &device);
    let criterion = who.criterion(options, &device, &setup);
    // burn tries kernels in the first step, and with them copies of the inputs.
    batch.step(&criterion)?;
    batch.sync()?;
    device.memory_cleanup();
    batch.sync()?;
    let before = allocated(&setup)?;
    batch.step(&criterion)?;
    Ok(allocated(&setup)?.saturating_sub(before))
}

fn allocated(setup: &WgpuSetup) -> Result<u64, Error> {
    let report = setup.device.generate_allocator_report();
    let report = report.ok_or("the driver does not say what it allocates")?;
    Ok(report.total_allocated_bytes)
}

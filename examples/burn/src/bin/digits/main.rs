//! Trains a small network on handwritten digits twice from the same weights: with burn's cross-entropy, then with
//! softxent's. Prints and draws both loss curves.
//!
//! ```sh
//! cargo run --release -- --svg curve.svg
//! ```

mod chart;
#[path = "../../../../resident/digits.rs"]
mod images;
mod training;

use std::path::PathBuf;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::Device;
use clap::Parser;
use softxent_burn::{CrossEntropy, Error, Options};

use images::Digits;
use training::{Batches, HELD_BACK, Net, Run, STEPS};

/// A network for handwritten digits, trained with burn's loss and with softxent's
#[derive(Parser)]
struct Arguments {
    /// Where the loss curves are drawn
    #[arg(long, default_value = "digits.svg")]
    svg: PathBuf,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..))]
    epochs: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let (plain, setup) = Device::wgpu_options().init_with_setup()?;
    let device = plain.clone().autodiff();
    println!("{}", setup.adapter.get_info().name);
    device.seed(arguments.seed);
    let net = Net::new(&device);
    let batches = Batches::new(&Digits::load()?, &device);

    let burns = CrossEntropyLossConfig::new().init(&device);
    let burns = |logits, labels| Ok(burns.forward(logits, labels));
    let burns = Run::train("burn", net.clone(), &batches, arguments.epochs, burns)?;
    let ours = CrossEntropy::new(&plain, &setup, Options::default());
    let ours = |logits, labels| ours.forward(logits, labels);
    let ours = Run::train("softxent", net, &batches, arguments.epochs, ours)?;

    let runs = [burns, ours];
    print_curves(&runs);
    for run in &runs {
        println!(
            "{:<9} {} of {HELD_BACK} held-back rows right, {:.2} ms a step, {:.1} s in all",
            run.name,
            run.correct,
            1e3 * run.step_seconds,
            run.seconds
        );
    }
    println!(
        "losses of a step differ by at most {:.1e} of themselves",
        apart(&runs)
    );
    std::fs::write(&arguments.svg, chart::svg(&runs))?;
    println!("{}", arguments.svg.display());
    Ok(())
}

/// The mean loss of each epoch, with a bar that loses a cell for each fifth that the loss falls.
fn print_curves(runs: &[Run; 2]) {
    println!("epoch  {:<9}  {:<9}", runs[0].name, runs[1].name);
    let means = runs
        .each_ref()
        .map(|run| run.losses.chunks(STEPS).map(mean));
    let [burns, ours] = means;
    for (epoch, (burns, ours)) in burns.zip(ours).enumerate() {
        let cells = ((ours / 1e-3).max(1.0).ln() / 1.25_f32.ln()) as usize;
        println!(
            "{:5}  {burns:<9.6}  {ours:<9.6}  {}",
            epoch + 1,
            "█".repeat(cells)
        );
    }
}

fn mean(losses: &[f32]) -> f32 {
    losses.iter().sum::<f32>() / losses.len() as f32
}

fn apart([burns, ours]: &[Run; 2]) -> f32 {
    let pairs = burns.losses.iter().zip(&ours.losses);
    let apart = pairs.map(|(burns, ours)| (burns - ours).abs() / burns.abs());
    apart.fold(0.0, f32::max)
}

//! Where the time of a call with data on the host goes.
//!
//! ```sh
//! cargo run --release --example host -- [ROWS CLASSES]
//! ```
//!
//! Upload, kernels and download of a batch of several chunks overlap. Beside each call is the rate of its
//! logits and gradients, each counted once.

use std::error::Error;

use softxent::{AdapterChoice, Batch, Engine, Problem, Wanted};

const CALLS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<usize> = std::env::args()
        .skip(1)
        .map(|number| number.parse())
        .collect::<Result<_, _>>()?;
    let shapes = match given[..] {
        [] => vec![(65_536, 1000), (2048, 50_257)],
        [rows, classes] => vec![(rows, classes)],
        _ => return Err("the numbers are ROWS and CLASSES".into()),
    };
    let engine = Engine::new_blocking(&AdapterChoice::Auto)?;
    println!("{}", engine.adapter_info().name);
    for (rows, classes) in shapes {
        // Fibonacci hashing: logits from −8 to 8 without a pattern.
        let logit =
            |i: usize| (i as u32).wrapping_mul(2_654_435_761) as f32 / (1 << 28) as f32 - 8.0;
        let logits: Vec<f32> = (0..rows * classes).map(logit).collect();
        let labels: Vec<usize> = (0..rows).map(|row| row % classes).collect();
        let batch = Batch::of(&logits).index(&labels);
        for wanted in [&[Wanted::Loss][..], &[Wanted::Loss, Wanted::Grad]] {
            let problem = Problem::of(rows, classes).index_labels(-100);
            let problem = problem.want(wanted.iter().copied()).build()?;
            let bytes = 4 * rows * classes * wanted.len();
            println!("{rows} × {classes}, {wanted:?}");
            for _ in 0..CALLS {
                let (_, times) = pollster::block_on(engine.run_timed(&problem, &batch))?;
                let total = times.setup + times.upload + times.waiting + times.download;
                let rate = bytes as f64 / total.as_secs_f64() / 1e9;
                println!("  {total:.1?}, {rate:.2} GB/s: {times:.1?}");
            }
        }
    }
    Ok(())
}

//! The README's snippet.

use softxent::{AdapterChoice, Batch, Engine, Labels, Problem, Wanted};

fn main() -> softxent::Result<()> {
    let engine = Engine::new_blocking(&AdapterChoice::Auto)?;
    let problem = Problem::of(2, 3)
        .index_labels(-100)
        .want([Wanted::Loss, Wanted::Grad])
        .build()?;
    let logits = [2.0, 1.0, 0.1, 0.5, 2.5, 0.0];
    let batch = Batch {
        logits: &logits,
        labels: Labels::Index(&[0_i64, 1]),
        upstream: &[],
    };
    let results = engine.run_blocking(&problem, &batch)?;
    println!("loss {:?}, gradient {:?}", results.loss, results.grad);
    Ok(())
}

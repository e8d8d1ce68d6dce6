//! The README's snippet.

use softxent::{AdapterChoice, Batch, Engine, Problem, Wanted};

fn main() -> softxent::Result<()> {
    let engine = Engine::new_blocking(&AdapterChoice::Auto)?;
    let problem = Problem::of(2, 3)
        .index_labels(-100)
        .want([Wanted::Loss, Wanted::Grad])
        .build()?;
    let logits = [2.0, 1.0, 0.1, 0.5, 2.5, 0.0];
    let batch = Batch::of(&logits).index(&[0, 1]);
    let results = engine.run_blocking(&problem, &batch)?;
    println!("loss {:?}, gradient {:?}", results.loss, results.grad);
    Ok(())
}

//! Many calls, from many threads, for a long time: the results of one call after the other, and no memory
//! that grows.

use std::time::{Duration, Instant};

use softxent::{Engine, Results, Strategy, Wanted};

use crate::cases::{Kind, Shape, generate};
use crate::common::{Case, bits, gpu, long, report};

/// Small jobs for every kernel, with their results. The entropy of split rows is not among them: that kernel
/// Mesa 22.3's llvmpipe compiles again for each dispatch, in 5 ms and more, and keeps 0.6 MB every time.
fn jobs(engine: &Engine) -> Vec<(Case, Strategy, Results<u32>)> {
    [
        (Kind::Index, 3, 5, Strategy::RowPerInvocation),
        (Kind::Dense, 7, 33, Strategy::RowPerWorkgroup),
        (Kind::Vector, 2, 300, Strategy::SplitRow),
        (Kind::Index, 1, 1000, Strategy::SplitRow),
        (Kind::Index, 40, 17, Strategy::RowPerSubgroup),
        (Kind::Signed, 9, 70, Strategy::RowPerInvocation),
    ]
    .into_iter()
    .map(|(kind, rows, k, kernel)| {
        let mut case = generate(Shape::Normal, kind, rows, k);
        if kernel == Strategy::SplitRow {
            case.wanted.retain(|output| *output == Wanted::Grad);
        }
        let expected = bits(&case.run(engine, kernel));
        (case, kernel, expected)
    })
    .collect()
}

#[test]
fn threads_on_one_engine_get_the_results_of_one() {
    let engine = gpu!();
    let (threads, calls) = if long() { (64, 1000) } else { (8, 50) };
    let jobs = jobs(engine);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let jobs = &jobs;
            scope.spawn(move || {
                for call in 0..calls {
                    let (case, kernel, expected) = &jobs[(thread + 3 * call) % jobs.len()];
                    let found = bits(&case.run(engine, *kernel));
                    assert_eq!(found, *expected, "{}, call {call}", case.name);
                }
            });
        }
    });
    report(&format!(
        "{threads} threads, {calls} calls each: the bits of one call after the other"
    ));
}

/// Memory of this process that is not swapped out, in KiB.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Two threads for ten minutes; `SOFTXENT_LOAD_SECONDS` says another time. Prints what is in `benches/results/…_load.txt`.
///
/// ```text
/// cargo test --release --test it -- load::memory_does_not_grow --ignored --nocapture
/// ```
#[test]
#[ignore = "takes ten minutes"]
fn memory_does_not_grow() {
    let engine = gpu!();
    let seconds = std::env::var("SOFTXENT_LOAD_SECONDS");
    let seconds: u64 = seconds.map_or(600, |text| text.parse().unwrap());
    let jobs = jobs(engine);
    let info = engine.adapter_info();
    println!(
        "# adapter: {}, {} {}",
        info.name, info.driver, info.driver_info
    );
    println!("seconds,calls,rss_kib");
    let start = Instant::now();
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let mut samples = Vec::new();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (jobs, calls) = (&jobs, &calls);
            scope.spawn(move || {
                while start.elapsed() < Duration::from_secs(seconds) {
                    let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let (case, kernel, expected) = &jobs[(thread + call) % jobs.len()];
                    assert_eq!(bits(&case.run(engine, *kernel)), *expected, "{}", case.name);
                }
            });
        }
        for sample in 0..=seconds / 10 {
            let at = Duration::from_secs(10 * sample);
            std::thread::sleep(at.saturating_sub(start.elapsed()));
            let rss = resident().expect("/proc/self/status");
            let calls = calls.load(std::sync::atomic::Ordering::Relaxed);
            println!("{},{calls},{rss}", 10 * sample);
            samples.push(rss);
        }
    });
    // After a tenth of the time everything has been made that is kept.
    let settled = &samples[samples.len() / 10..];
    let (first, second) = settled.split_at(settled.len() / 2);
    let most = |samples: &[u64]| samples.iter().copied().max().unwrap_or_default();
    assert!(
        most(second) <= most(first) + 1024,
        "{} KiB in the first half, {} in the second",
        most(first),
        most(second)
    );
}

//! Repeats until the median is known.

use std::time::{Duration, Instant};

use softxent::wgpu;

use super::clock::MOST_JOBS;
use super::gpu::Gpu;
use crate::cli::Failure;

/// How far the median may be off, with 95 % confidence, before it is repeated no more.
const SETTLED: f64 = 0.01;
/// Runs that are worth a confidence interval.
const RUNS: usize = 20;
/// Runs before those that count.
const WARM_UP: usize = 3;

/// What a job took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// The median.
    pub seconds: f64,
    /// From the first to the last decile, relative to it; none of one run.
    pub spread: Option<f64>,
    pub runs: usize,
}

impl Gpu {
    /// Times a job. `record` gets the number of the run, for buffers that take turns.
    pub fn settle(
        &self,
        min_time: Duration,
        max_time: Duration,
        mut record: impl FnMut(usize, &mut wgpu::CommandEncoder),
    ) -> Result<Timing, Failure> {
        let mut run = 0;
        let mut time = |jobs: usize| {
            let first = run;
            run += jobs;
            self.time(jobs, |job, encoder| record(first + job, encoder))
        };
        let mut times = Vec::new();
        for _ in 0..WARM_UP {
            let started = Instant::now();
            times = time(1)?;
            // A kernel that is this slow needs no median.
            if started.elapsed() > max_time {
                return Ok(summary(&mut times));
            }
        }
        let estimate = times.first().copied().unwrap_or(0.0);
        let jobs = self.clock.jobs(estimate).min(MOST_JOBS);
        times.clear();
        // Clocks rise under load, and should have before it counts.
        let started = Instant::now();
        while started.elapsed() < min_time / 2 {
            time(jobs)?;
        }
        let started = Instant::now();
        loop {
            times.extend(time(jobs)?);
            let elapsed = started.elapsed();
            if elapsed >= max_time || elapsed >= min_time && is_settled(&mut times) {
                return Ok(summary(&mut times));
            }
        }
    }
}

/// Whether the ranks that the median lies between with 95 % confidence are close: a binomial number of
/// times is below it, of variance n/4.
fn is_settled(times: &mut [f64]) -> bool {
    let count = times.len();
    if count < RUNS {
        return false;
    }
    times.sort_by(f64::total_cmp);
    let (middle, half) = (count as f64 / 2.0, 0.98 * (count as f64).sqrt());
    let low = times[(middle - half).floor().max(0.0) as usize];
    let high = times[((middle + half).ceil() as usize).min(count - 1)];
    high - low <= SETTLED * times[count / 2]
}

fn summary(times: &mut [f64]) -> Timing {
    times.sort_by(f64::total_cmp);
    let last = times.len().saturating_sub(1) as f64;
    let at = |share: f64| {
        times
            .get((last * share).round() as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    Timing {
        seconds: at(0.5),
        spread: (times.len() > 1).then(|| (at(0.9) - at(0.1)) / at(0.5)),
        runs: times.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let mut times: Vec<f64> = (0..=100)
            .rev()
            .map(|i| 1.0 + f64::from(i) / 1000.0)
            .collect();
        let timing = summary(&mut times);
        assert_eq!((timing.seconds, timing.runs), (1.05, 101));
        assert!((timing.spread.unwrap() - 0.08 / 1.05).abs() < 1e-9);
        assert_eq!(summary(&mut [2.0]).spread, None);

        // 1 ‰ a rank, and 40 ± 9.8 ranks are too many where 101 ± 10 of a tenth of that are not.
        assert!(!is_settled(&mut times));
        let mut close: Vec<f64> = (0..100).map(|i| 1.0 + f64::from(i) * 1e-4).collect();
        assert!(is_settled(&mut close));
        assert!(!is_settled(&mut close[..19]));
    }
}

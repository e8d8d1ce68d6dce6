//! The threads of a software driver, each on a core of its own.
//!
//! Left to itself, Linux often wakes both of two such threads on one core, and a kernel of a few milliseconds
//! is over before one of them is moved: every other time is twice as long.

/// Pins them, as far as the system lets them be pinned; how many.
#[cfg(target_os = "linux")]
pub fn pin() -> usize {
    use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

    let Ok(all) = sched_getaffinity(None) else {
        return 0;
    };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&core| all.is_set(core))
        .collect();
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let pinned = threads.flatten().filter(|thread| {
        let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        let worker = name.trim_end().strip_prefix("llvmpipe-");
        let (Some(worker), Some(id)) = (
            worker.and_then(|worker| worker.parse::<usize>().ok()),
            thread
                .file_name()
                .to_str()
                .and_then(|id| id.parse().ok())
                .and_then(Pid::from_raw),
        ) else {
            return false;
        };
        let mut core = CpuSet::new();
        core.set(cores[worker % cores.len()]);
        sched_setaffinity(Some(id), &core).is_ok()
    });
    pinned.count()
}

/// There is no such driver.
#[cfg(not(target_os = "linux"))]
pub fn pin() -> usize {
    0
}

//! Work of the host that is cut into parts.

#[cfg(not(target_arch = "wasm32"))]
use std::sync::{Mutex, PoisonError};

/// More threads than this get no more out of the memory of a machine.
const MOST: usize = 8;

/// How many threads are worth having here.
pub(crate) fn available() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST))
}

/// Does each part once, on up to so many threads. Where the system has fewer, this one does the rest.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn in_parallel<T: Send>(threads: usize, parts: Vec<T>, work: impl Fn(T) + Sync) {
    let threads = threads.min(parts.len());
    let parts = Mutex::new(parts.into_iter());
    let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
    let worker = || {
        while let Some(part) = next() {
            work(part);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let thread = std::thread::Builder::new().spawn_scoped(scope, worker);
            if thread.is_err() {
                break;
            }
        }
        worker();
    });
}

/// In a browser there is one thread.
#[cfg(target_arch = "wasm32")]
pub(crate) fn in_parallel<T>(_: usize, parts: Vec<T>, work: impl Fn(T)) {
    parts.into_iter().for_each(work);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_done_once() {
        for threads in [0, 1, 3, 100] {
            for count in [0, 1, 2, 50] {
                let done = Mutex::new(Vec::new());
                let parts = (0..count).collect();
                in_parallel(threads, parts, |part| done.lock().unwrap().push(part));
                let mut done = done.into_inner().unwrap();
                done.sort_unstable();
                assert_eq!(done, (0..count).collect::<Vec<_>>());
            }
        }
    }
}

//! Work on all cores.

use std::sync::Mutex;
use std::thread;

/// The results of `work` on each item, in the order of the items.
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let open = Mutex::new(items.iter().enumerate());
    let next = || open.lock().ok().and_then(|mut open| open.next());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let of_worker = || {
        let mut done = Vec::new();
        while let Some((at, item)) = next() {
            done.push((at, work(item)));
        }
        done
    };
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(of_worker)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect()
    });
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

//! Many small parallel products in a row, without the pool falling asleep between them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Looks for work so many times before it lets other programs run.
const TRIES: usize = 200;

/// The longest that a run waits for the other threads to watch before it begins.
const WAKING: Duration = Duration::from_micros(200);

/// How many runs keep their pools awake.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// Whether a pool is being kept awake, so that a small product may be shared out at little cost.
pub(crate) fn is_awake() -> bool {
    RUNS.load(Ordering::Relaxed) > 0
}

/// Runs `f` in the pool, whose other threads look for work until it ends. A thread that has nothing to do would else go to
/// sleep, and waking it costs as much as a small product does.
pub fn awake<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    /// Ends the watch of the others, whatever becomes of `f`.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
            RUNS.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let (begun, ended, watching) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    rayon::scope(|scope| {
        let here = rayon::current_thread_index();
        let (begun, ended, watching) = (&begun, &ended, &watching);
        // Each thread runs this once, so none waits for itself; the one that runs `f` leaves at once. So does one that comes late: it may
        // be in the midst of a part of `f` that waits for another, and a watch on top of it would wait for itself. So a watch only lies on
        // parts of runs that began before its own, and no two runs wait for each other.
        scope.spawn_broadcast(move |_, _| {
            if begun.load(Ordering::Acquire) {
                return;
            }
            watching.fetch_add(1, Ordering::Relaxed);
            let mut idle = 0;
            while rayon::current_thread_index() != here && !ended.load(Ordering::Acquire) {
                if rayon::yield_now() == Some(rayon::Yield::Executed) {
                    idle = 0;
                } else if idle < TRIES {
                    idle += 1;
                    std::hint::spin_loop();
                } else {
                    std::thread::yield_now();
                }
            }
        });
        let (others, since) = (rayon::current_num_threads() - 1, Instant::now());
        while watching.load(Ordering::Relaxed) < others && since.elapsed() < WAKING {
            std::hint::spin_loop();
        }
        begun.store(true, Ordering::Release);
        RUNS.fetch_add(1, Ordering::Relaxed);
        let _end = End(ended);
        f()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn parallel_work_within_ends_nested_and_after_a_panic() {
        // So often that threads come late, and in the midst of a part.
        for threads in [1, 2, 5].repeat(20) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let sum = || -> u64 {
                (0..100).map(|_| (0..64u64).into_par_iter().map(|i| (0..i).into_par_iter().sum::<u64>()).sum::<u64>()).sum()
            };
            let right: u64 = (0..64u64).map(|i| i * i.saturating_sub(1) / 2).sum::<u64>() * 100;
            assert_eq!(pool.install(|| awake(|| awake(sum))), right);
            let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.install(|| awake(|| panic!("as asked")))));
            assert!(panics.is_err());
            assert_eq!(pool.install(|| awake(sum)), right);
        }
    }
}

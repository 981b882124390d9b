//! Several networks trained at once, a thread for each.
//!
//! A product of one small batch is too little work for many threads: two networks on a thread each are trained sooner than one
//! after the other on both. What comes out is the same to the bit, as no result depends on the number of threads.

use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// `job(0)`, `job(1)` and so on to `jobs`, side by side on as many threads as the pool has, begun in order; each has its thread to
/// itself. The results are in order.
///
/// ```
/// use lacuna::train::side_by_side;
/// assert_eq!(side_by_side(4, |job| Ok(job * job))?, [0, 1, 4, 9]);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// That of the first job, by its number, that fails; later ones are then not begun. If no thread can be had.
pub fn side_by_side<T: Send>(jobs: usize, job: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = Mutex::new(Vec::with_capacity(jobs));
    let work = || -> Result<()> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let pool = pool.map_err(|e| Error::invalid_option("threads", e.to_string()))?;
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= jobs {
                break;
            }
            let result = pool.install(|| job(number));
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
        }
        Ok(())
    };
    let threads = rayon::current_num_threads().min(jobs);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ends = workers.into_iter().map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ends.collect::<Result<Vec<()>>>()
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

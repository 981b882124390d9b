//! Work shared out among the threads of the pool. Nothing here is generic, so that the pool's code is compiled once and not for each kernel.

use rayon::prelude::*;

/// Runs `task(0)` to `task(count - 1)`, on the pool if `parallel`, some of them one after another on a thread.
pub(crate) fn tasks(count: usize, parallel: bool, task: &(dyn Fn(usize) + Sync)) {
    if parallel {
        (0..count).into_par_iter().for_each(task);
    } else {
        (0..count).for_each(task);
    }
}

/// As [`tasks`], where each is worth a thread of its own.
pub(crate) fn large_tasks(count: usize, parallel: bool, task: &(dyn Fn(usize) + Sync)) {
    if parallel {
        (0..count).into_par_iter().with_max_len(1).for_each(task);
    } else {
        (0..count).for_each(task);
    }
}

//! What the targets share. See the README beside.

#![warn(missing_docs)]

pub mod check;
pub mod feed;
pub mod frame;
mod guard;
pub mod model;
pub mod room;
pub mod run;

pub use check::clean;

/// Before each input: its limit of memory.
pub fn begin(input: &[u8]) {
    guard::limit(input.len());
}

/// Before the first input: parallel loops run on this thread, without another that has to be woken.
pub fn alone() {
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global().expect("the first pool");
}

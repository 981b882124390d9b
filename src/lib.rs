//! Lacuna decides which weights of a network may go, removes them, stores what is left compactly, multiplies by it, and
//! reports what was lost.

// In dependency order: a module uses only those above it (`tests/layering.rs`).
pub mod error;
pub mod rng;
pub mod kernels;
pub mod linalg;
pub mod mask;
pub mod sparse;
pub mod criteria;
pub mod allocate;
pub mod nn;
pub mod io;
pub mod models;
pub mod calibrate;
pub mod metrics;
pub mod recover;
pub mod prune;
pub mod report;

pub use error::{Error, Result};

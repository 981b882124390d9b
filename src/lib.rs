//! Lacuna decides which weights of a network may go, removes them, stores what is left compactly, multiplies by it, and
//! reports what was lost.

pub mod allocate;
pub mod calibrate;
pub mod criteria;
pub mod error;
pub mod io;
pub mod kernels;
pub mod linalg;
pub mod mask;
pub mod metrics;
pub mod models;
pub mod nn;
pub mod prune;
pub mod recover;
pub mod rng;
pub mod sparse;

pub use error::{Error, Result};

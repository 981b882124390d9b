//! Lacuna decides which weights of a network may go, removes them, stores what is left compactly, multiplies by it, and
//! reports what was lost.

// In order of dependency: none uses one that stands after it (tests/layering.rs).
pub mod error;
pub mod rng;
pub mod kernels;
pub mod linalg;
pub mod mask;
pub mod sparse;
pub mod criteria;
pub mod allocate;
pub mod nn;

pub use error::{Error, Result};

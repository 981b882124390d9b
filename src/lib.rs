//! Lacuna decides which weights of a network may go, removes them, stores what is left compactly, multiplies by it, and
//! reports what was lost.

pub mod error;
pub mod kernels;
pub mod linalg;
pub mod mask;
pub mod report;
pub mod rng;

pub use error::{Error, Result};

//! Weights of few values.

mod discretise;
mod levels;

pub use discretise::discretise;
pub use levels::Grid;

//! Weights of few values.

mod affine;
mod discretise;
mod levels;

pub use affine::{Affine, Grids};
pub use discretise::discretise;
pub use levels::Grid;

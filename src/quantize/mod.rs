//! Weights of few values.

mod affine;
mod levels;
mod discretise;

pub use affine::{AffineGrid, Grids};
pub use discretise::discretise;
pub use levels::Grid;

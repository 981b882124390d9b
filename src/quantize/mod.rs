//! Grids of few values, which weights are rounded to.

mod affine;

pub use affine::{Grid, Grids};

//! Weights of few values: grids, codes with their scales, levels. Who chooses codes from what was measured, [`Quantizer`](crate::solve::Quantizer) says.

mod affine;
mod levels;
mod discretise;
mod code_grid;
mod codes;

pub use affine::{AffineGrid, Grids};
pub use code_grid::{CodeGrid, Granularity, ScaleType, Step};
pub use codes::Codes;
pub use discretise::discretise;
pub use levels::Grid;

//! Whole weights: `gemv` multiplies up to six tokens, `rows` more, and the crate `gemm` operands of any strides.

mod gemm;
mod numbers;
mod gemv;
mod rows;
mod product;

pub use gemm::{Threads, gemm};
pub use gemv::FEW;
pub(crate) use numbers::{GROUP, Grouped, HalfBytes, Numbers};
pub(crate) use product::linear;
pub use product::{gemm_by_rows, is_by_rows};
pub use rows::PARALLEL;

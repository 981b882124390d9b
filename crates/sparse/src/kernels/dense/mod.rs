//! Whole weights: `gemv` multiplies up to six tokens by rows as they lie, `rows` more, `panels` what was packed, and the crate `gemm` operands of any strides.

mod gemm;
mod numbers;
mod gemv;
mod rows;
mod panels;
mod product;

pub use gemm::{Threads, gemm};
pub use gemv::FEW;
pub(crate) use numbers::Numbers;
pub(crate) use panels::{PanelNumbers, Panels, panel_of, panels_product, width as panel_width};
pub(crate) use product::linear;
pub use product::{gemm_by_rows, is_by_rows};
pub use rows::PARALLEL;

//! The machine: SIMD and raw pointers. The only module with `unsafe` code.
//!
//! What leaves this module is safe to call with any arguments that meet the `# Panics` contracts. `LACUNA_ISA` forces the
//! kernels of one [`Isa`].
//!
//! A storage walks its weights in its own way (`bitmask`, and as lists `csr` and `tile_csr`); what is done with them is written
//! once: `few` for one token, `strip` for more, with `turn` between token-major arrays and strips. `gemv` is one token and a dense weight, `awake` runs many small
//! products in a row; `vector` has functions of
//! whole slices.

mod awake;
mod bitmask;
mod csr;
mod epilogue;
mod expand;
mod few;
mod gemm;
mod gemv;
mod isa;
mod lists;
mod simd;
mod strip;
mod tile_csr;
mod turn;
mod value;
pub(crate) mod vector;

pub(crate) use awake::awake;
pub(crate) use bitmask::{BitmaskSlices, SLACK, bitmask_product};
pub(crate) use csr::{CsrSlices, csr_product};
pub use epilogue::Epilogue;
pub use expand::Expand;
pub use gemm::{Threads, gemm};
pub(crate) use gemv::gemv;
pub use isa::Isa;
pub(crate) use lists::lists_product;
pub(crate) use strip::strips;
pub(crate) use tile_csr::TileCsrSlices;
pub use value::Value;

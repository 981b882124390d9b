//! The machine: SIMD and raw pointers. The only module with `unsafe` code.
//!
//! What leaves this module is safe to call with any arguments that meet the `# Panics` contracts. `LACUNA_ISA` forces the
//! kernels of one [`Isa`].
//!
//! A storage walks its weights in its own way (`bitmask`, and as lists `csr` and `tile_csr`); what is done with them is written
//! once: `few` for one token, `strip` for more, with `turn` between token-major arrays and strips.

mod bitmask;
mod bsr;
mod bsr_strip;
mod correlate;
mod csr;
mod epilogue;
mod expand;
mod few;
mod gemm;
mod isa;
mod lists;
mod nm;
mod nm_strip;
mod pairs;
mod pull;
mod scratch;
mod simd;
mod strip;
mod tile_csr;
mod turn;
mod value;

pub(crate) use bitmask::{BitmaskSlices, SLACK, bitmask_product};
pub(crate) use bsr::{BsrSlices, bsr_product};
pub(crate) use correlate::correlate;
pub(crate) use csr::{CsrSlices, csr_product, csr_pull};
pub use epilogue::Epilogue;
pub use expand::Expand;
pub use gemm::{Threads, gemm};
pub use isa::Isa;
pub(crate) use lists::lists_product;
pub(crate) use nm::{NmSlices, nm_product};
pub use pairs::Pair;
pub(crate) use pairs::PairSlices;
pub(crate) use pull::pull;
pub(crate) use strip::{product, strips};
pub(crate) use tile_csr::TileCsrSlices;
pub use value::Value;

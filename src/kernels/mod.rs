//! The machine: SIMD and raw pointers. The only module with `unsafe` code.
//!
//! What leaves this module is safe to call with any arguments that meet the `# Panics` contracts. `LACUNA_ISA` forces the
//! kernels of one [`Isa`].
//!
//! A storage walks its weights in its own way (`bitmask`, and as lists `csr` and `tile_csr`); what is done with them is written
//! once: `few` for few tokens (`sell` has its own way), `strip` for more, with `turn` between token-major arrays and strips. Of a dense weight `gemv` is
//! few tokens and `dense` more; `awake` runs many small products in a row; `vector` has functions of whole slices.

// Loops over registers are unrolled; several arrays of them share an index.
#![allow(clippy::needless_range_loop)]

mod awake;
mod bitmask;
mod bsr;
mod bsr_strip;
mod correlate;
mod csr;
mod dense;
mod epilogue;
mod expand;
mod few;
mod gemm;
mod gemv;
mod isa;
mod lists;
mod nm;
mod nm_strip;
mod numbers;
mod pairs;
mod pull;
mod scratch;
mod sell;
#[cfg(target_arch = "x86_64")]
mod sell_steps;
mod simd;
mod strip;
mod tile_csr;
mod turn;
mod value;
pub(crate) mod vector;

pub(crate) use awake::awake;
pub(crate) use bitmask::{BitmaskSlices, SLACK, bitmask_product};
pub(crate) use bsr::{BsrSlices, bsr_product};
pub(crate) use correlate::correlate;
pub(crate) use csr::{CsrSlices, csr_product, csr_pull};
pub(crate) use dense::{PARALLEL, dense_product};
pub use epilogue::Epilogue;
pub use expand::Expand;
pub use gemm::Threads;
pub(crate) use gemm::gemm;
pub(crate) use gemv::FEW;
pub use isa::{Isa, check_environment};
pub(crate) use lists::lists_product;
pub(crate) use nm::{NmSlices, nm_product};
pub(crate) use numbers::{GROUP, Grouped, HalfBytes, Numbers};
pub use pairs::Pair;
pub(crate) use pairs::{PairSlices, widest_pairs};
pub(crate) use pull::pull;
pub(crate) use sell::{A_WORD, LANES as SELL_LANES, PLACE, SellSlices, sell_blocks, sell_product, sell_slices};
pub(crate) use simd::Float;
pub(crate) use strip::{product, strips};
pub(crate) use tile_csr::TileCsrSlices;
pub(crate) use value::Scales;
pub use value::Value;

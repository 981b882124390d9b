//! SIMD and raw pointers: the only module with `unsafe` code.
//!
//! What leaves this module is safe to call with any arguments that meet the `# Panics` contracts. `LACUNA_ISA` forces the
//! kernels of one [`Isa`].
//!
//! An instruction set is a value, made in a function that is compiled for it: who has one may use its vectors. What is unsafe beside the call of
//! such functions is about memory, by indices that the constructors of storages have checked.
//!
//! | room | what it holds |
//! |---|---|
//! | `simd` | instruction sets, vectors of each, numbers and columns as they are stored, functions of whole slices |
//! | `frame` | what all products share: strips of tokens and their transposition, epilogues, scratch memory, few tokens, threads kept awake |
//! | `dense` | whole weights: one token and more, numbers of few bits, the crate `gemm` |
//! | `gradient` | `dX = dY · W` of any storage, `dW = dYᵀ · X` at a mask |
//! | `codes` | whole weights of four and eight bits with scales |
//! | `csr`, `pairs`, `bitmask`, `sell`, `nm`, `bsr` | the storages |
//!
//! A storage shows its weights through `frame::Rows` (or names their columns through `csr::Lists`); what is done with them is written once.

// Loops over registers are unrolled; several arrays of them share an index.
#![allow(clippy::needless_range_loop)]

mod simd;
mod frame;
mod dense;
mod gradient;
mod codes;
mod csr;
mod pairs;
mod bitmask;
mod sell;
mod nm;
mod bsr;

pub(crate) use bitmask::{BitmaskSlices, bitmask_product};
pub(crate) use bsr::{BsrSlices, bsr_product};
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) use codes::by_each_set;
pub(crate) use codes::{
    BLOCK as CODE_BLOCK, CODE_SLACK, CodeAt, CodeSlices, Factors, MaskedSlices, NONE as NO_PLACE, Offsets as CodeOffsets,
    Pattern as CodePattern, SparseCodeSlices, WINDOW, Width as CodeWidth, WindowSlices, bases, bytes_of, codes_product,
    column_of as code_column, part_of_mask, place as code_place, place_of_step as code_place_of_step, side_by_side,
    sparse_codes_product, step_size, unpack_rows,
};
pub(crate) use csr::{CsrSlices, TileCsrSlices, csr_apply_transpose, csr_product, lists_product};
pub use dense::{FEW, PARALLEL, Threads, gemm, gemm_by_rows, is_by_rows};
pub(crate) use dense::{Numbers, PanelNumbers, Panels, linear, panel_of, panel_width, panels_product};
pub(crate) use frame::Aligned;
pub use frame::{Epilogue, awake};
pub(crate) use frame::{product, strips};
pub(crate) use gradient::{apply_transpose, weight_gradient};
pub(crate) use nm::{NmSlices, nm_product};
pub use pairs::Pair;
pub(crate) use pairs::{PairSlices, widest_pairs};
pub(crate) use sell::{A_WORD, LANES as SELL_LANES, PLACE, SellSlices, sell_blocks, sell_product, sell_slices};
pub use simd::{Expand, Isa, Value, Values, check_environment, slices as vector};
pub(crate) use simd::{Float, SLACK, Scales, all_finite};

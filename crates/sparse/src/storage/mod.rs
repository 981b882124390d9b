//! What is left of a weight, stored compactly, and products with it.
//!
//! Every storage of a weight is a [`LinearOp`]: `y = x · Wᵀ`. [`Compress`] makes one from a weight and its mask; a kept
//! weight that happens to be 0 is stored, so `nnz == mask.kept()`.

mod precision;
mod codes;
mod csr;
mod csr_sprs;
mod entries;
mod op;
mod blocks;
mod scale;
mod kept;
mod csr_product;
mod bitmask;
mod bsr;
mod gradient;
mod quantized;
mod quantized_nm;
mod quantized_sparse;
mod quantize;
mod narrow;
mod dense;
mod packed;
mod nm;
mod slots;
mod sell_block;
mod sell;
mod tile_csr;
mod tile_pairs;
mod parts;
mod stored;
mod format;
mod hint;
mod machine;
mod exact_codes;
mod cost;
mod plan;

pub use crate::kernels::{Epilogue, Expand, Pair, Value, Values};
pub use bitmask::{Bitmask, BitmaskParts};
pub use bsr::{BlockColumns, Bsr, BsrParts};
pub use codes::{ActivationBits, Offsets};
pub use csr::{Csr, CsrView};
pub use dense::Dense;
pub use entries::Entries;
pub use exact_codes::exact_codes;
pub use format::Format;
pub use gradient::weight_gradient;
pub use hint::Hint;
pub use machine::Machine;
pub use narrow::{exact, narrow};
pub use nm::{Nm, NmParts};
pub use op::{Compress, LinearOp, apply, apply_transpose};
pub use packed::PackedDense;
pub use parts::{Part, Parts, Sizes};
pub use plan::{Plan, median_seconds};
pub use precision::Precision;
pub use quantized::{Quantized, QuantizedParts};
pub use quantized_nm::{QuantizedNm, QuantizedNmParts};
pub use quantized_sparse::{CodeLayout, QuantizedSparse, QuantizedSparseParts};
pub use scale::Scaling;
pub use sell::{Sell, SellParts};
pub use slots::Slots;
pub use stored::Stored;
pub use tile_csr::{Columns, TileCsr, TileCsrParts};
pub use tile_pairs::{TilePairs, TilePairsParts};

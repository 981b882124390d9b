//! What is left of a weight, stored compactly, and products with it.
//!
//! Every storage of a weight is a [`LinearOp`]: `y = x · Wᵀ`. [`Compress`] makes one from a weight and its mask; a kept
//! weight that happens to be 0 is stored, so `nnz == mask.kept()`.

mod csr;
mod dense;
mod op;

pub use csr::{Csr, CsrView};
pub use dense::Dense;
pub use op::{Compress, LinearOp, apply};

//! Dense linear algebra: products, Gram matrices, factorisations.
//!
//! Products are f32, each by the fastest kernel that is linked ([`Product`]); [`Gram`] and every factorisation are f64. The factorisations exist as
//! free functions, which use [`Backend::default`], and as methods of [`Backend`]:
//!
//! ```text
//! x (tokens, in) ── Gram ──> XᵀX ─┬─ cholesky             L,  A   = L Lᵀ
//!                                 ├─ cholesky_of_inverse  U,  A⁻¹ = Uᵀ U     (SparseGPT, GPTQ)
//!                                 ├─ spd_inverse, solve_spd
//!                                 └─ eigh                 V,  A   = V D Vᵀ
//! any matrix ──────────────────────┬─ svd                 A   = U S Vᵀ
//!                                  └─ lstsq               min ‖A x − b‖
//! ```
//!
//! Symmetric arguments are assumed symmetric: **only the lower triangle is read**. All arguments may have any strides; all
//! results are in standard (row-major) layout.

mod entries;
mod factors;
mod layout;
#[cfg(feature = "lapack")]
mod lapack;
mod faer;
mod backend;
mod spd;
mod eigh;
mod lstsq;
mod svd;
mod product;
mod cross;
mod gram;
mod matmul;

pub use crate::kernels::Threads;
pub use backend::Backend;
pub use cross::Cross;
pub use eigh::eigh;
pub(crate) use entries::{dot_f64, for_entries};
pub use factors::{Eigh, Svd};
pub use gram::Gram;
pub use lstsq::lstsq;
pub use matmul::{matmul, matmul_nt, matmul_tn};
pub use product::{Product, gemm};
pub use spd::{cholesky, cholesky_of_inverse, cholesky_of_inverse_f32, solve_spd, spd_inverse};
pub use svd::svd;

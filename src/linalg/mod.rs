//! Dense linear algebra: products, Gram matrices, factorisations.

mod gram;
mod layout;
mod matmul;

pub use crate::kernels::{Threads, gemm};
pub use gram::Gram;
pub use matmul::{matmul, matmul_nt, matmul_tn};

//! Dense linear algebra: products, Gram matrices, factorisations.

mod matmul;

pub use crate::kernels::{Threads, gemm};
pub use matmul::{matmul, matmul_nt, matmul_tn};

//! The machine: SIMD and raw pointers. The only module with `unsafe` code.
//!
//! What leaves this module is safe to call with any arguments that meet the `# Panics` contracts. `LACUNA_ISA=portable`
//! or `avx2` forces the kernels of one [`Isa`].

mod csr;
mod gemm;
mod isa;

pub(crate) use csr::{CsrSlices, csr_product};
pub use gemm::{Threads, gemm};
pub use isa::Isa;

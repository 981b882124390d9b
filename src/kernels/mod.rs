//! The machine: SIMD and raw pointers. The only module with `unsafe` code.
//!
//! What leaves this module is safe to call with any arguments that meet the `# Panics` contracts. `LACUNA_ISA=portable`
//! forces the kernels that run everywhere.

mod csr;
mod gemm;
mod isa;

pub(crate) use csr::{CsrSlices, csr_product};
pub use gemm::{Threads, gemm};

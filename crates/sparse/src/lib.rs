//! Exact masks, sparse storages of weights, and products with them.
//!
//! ```
//! use lacuna_sparse::mask::{Pattern, Scope, select};
//! use lacuna_sparse::storage::{Compress, Csr, LinearOp, apply};
//! use ndarray::array;
//!
//! let weight = array![[3., -1., 0.5, -4.], [0.1, 2., -0.2, 0.3]]; // (out, in)
//! let budget = Pattern::Unstructured.budget(2, 4, 0.5)?; // keep 4 of 8
//! let mask = select(&weight.mapv(f32::abs), Pattern::Unstructured, Scope::Layer, budget)?;
//! let sparse = Csr::compress(&weight, &mask)?; // keeps 3, -1, -4 and 2
//! assert_eq!((mask.kept(), sparse.nnz()), (4, 4));
//! assert_eq!(apply(&sparse, &array![[1., 1., 1., 1.]]), array![[-2., 2.]]); // y = x · Wᵀ
//! # Ok::<(), lacuna_sparse::Error>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`error`] | one error type, one `Result` |
//! | [`kernels`] | SIMD and raw pointers: the only module with `unsafe` code |
//! | [`mask`] | masks, patterns, budgets, selection |
//! | [`storage`] | storages of what is left, and products with them; [`Plan`](storage::Plan), which picks one |
//!
//! A weight is `(out, in)`, inputs are `(tokens, in)`, outputs `y = x · Wᵀ` are `(tokens, out)`. **true = kept.** A kept weight that happens to
//! be 0 is stored. The bits of a product do not depend on the number of threads. The crate `lacuna` has the criteria, pruners, models and files
//! that masks come from; it re-exports this one as `lacuna::{mask, sparse}`.

#![deny(missing_debug_implementations)]

// In dependency order: a module uses only those above it (`tests/layering.rs` of the workspace).
pub mod error;
pub mod kernels;
pub mod mask;
pub mod storage;

pub use error::{Error, Result};
pub use ndarray;

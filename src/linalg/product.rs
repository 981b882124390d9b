//! Dense products: which of those that are linked runs.
//!
//! ```text
//! y = x · Wᵀ    the rows of W read where they lie (`Lacuna`); few outputs, or many tokens and a small W: `Gemm`
//! dx = dy · W   one token: `Gemm`; up to eight, or up to four and a W from memory: `Faer`; up to 64 and a W from memory: `MatrixMultiply`;
//!               more: `Gemm`
//! dW = dyᵀ · x  two to eight tokens: `Faer`; others: `Gemm`
//! ```
//!
//! With AVX-512, where `matrixmultiply` has no kernels: dx of two to four, seven and eight tokens, and of thirteen and more with a W from memory: `Faer`; dW
//! of two: `Faer`; others: `Gemm`.
//!
//! Measured on a core of AMD's family 25 with AVX2, all in turns, minima (`cargo bench --bench dense` does it again): 4096 x 4096, 8, 16, 32 and 64 tokens
//! took this library's 7.7, 8.7, 14 and 27 ms, `gemm` 22, 26, 33 and 42, `faer` 20, 24, 32 and 43, `matrixmultiply` 16, 18, 27 and 42; from 500
//! tokens on all take as long. Back through the same W, 4, 8, 16 and 32 tokens took `gemm` 21, 38, 55 and 63 ms, `faer` 19, 27, 37 and 42,
//! `matrixmultiply` 20, 21, 27 and 30; where W lies in a cache, `faer` takes the least up to eight tokens. Its gradient from 4, 8 and 16 tokens took `gemm`
//! 12, 12 and 13 ms, `faer` 8, 10 and 14. On a core of family 26 with AVX-512, forwards through 4096 x 4096, 8, 16, 32 and 64 tokens took this library's 3.4,
//! 3.6, 5.0 and 8.8 ms, `faer` 6.0, 7.2, 9.5 and 14.5, `matrixmultiply` 7.5, 10, 14 and 23, `gemm` 27, 28, 30 and 35; back 4, 16 and 64 tokens took `gemm` 2.9, 5.4 and
//! 12.5, `faer` 3.0, 5.0 and 10.9; the gradient from 4, 16 and 64 tokens `gemm` 2.7, 3.6 and 8.7, `faer` 3.2, 4.1 and 9.8.

use super::faer::{self, COLUMNS};
use crate::kernels::{Isa, PARALLEL, Threads, gemm as crate_gemm, gemm_by_rows, is_by_rows};
use ndarray::{ArrayRef2, Axis};
use rayon::prelude::*;

/// The dense products that are linked. [`gemm()`] chooses among them by shapes and strides alone; none of them depends on the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// This library's: the rows of one operand meet the other, turned, where they lie.
    Lacuna,
    /// The crate `gemm`'s.
    Gemm,
    /// The crate `faer`'s, in tasks of a fixed number of columns.
    Faer,
    /// The crate `matrixmultiply`'s, by way of `ndarray`, in tasks of a fixed number of columns.
    MatrixMultiply,
}

/// Numbers of a weight that mostly comes from memory.
const FROM_MEMORY: usize = 1 << 20;

impl Product {
    /// All of them, this library's first.
    pub const ALL: [Product; 4] = [Product::Lacuna, Product::Gemm, Product::Faer, Product::MatrixMultiply];

    /// The name, for tables.
    pub fn name(self) -> &'static str {
        match self {
            Product::Lacuna => "lacuna",
            Product::Gemm => "gemm",
            Product::Faer => "faer",
            Product::MatrixMultiply => "matrixmultiply",
        }
    }

    /// The one that [`gemm()`] takes for `c = a · b`.
    pub fn chosen(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Product {
        let ((m, k), n) = (a.dim(), b.ncols());
        if b.t().is_standard_layout() {
            let (tokens, rows) = if a.is_standard_layout() { (m.min(n), m.max(n)) } else { (m, n) };
            return if is_by_rows(tokens, rows, k) { Product::Lacuna } else { Product::Gemm };
        }
        let from_memory = k * n >= FROM_MEMORY;
        let wide = Isa::current() == Isa::Avx512;
        match b.is_standard_layout() {
            true if a.is_standard_layout() && wide => match m {
                2..=4 | 7..=8 => Product::Faer,
                13.. if from_memory => Product::Faer,
                _ => Product::Gemm,
            },
            true if a.is_standard_layout() => match m {
                2..=4 => Product::Faer,
                5..=8 if !from_memory => Product::Faer,
                5..=64 if from_memory => Product::MatrixMultiply,
                _ => Product::Gemm,
            },
            true if a.t().is_standard_layout() => match k {
                3.. if wide => Product::Gemm,
                2..=8 => Product::Faer,
                _ => Product::Gemm,
            },
            _ => Product::Gemm,
        }
    }

    /// As [`gemm()`], by this product.
    ///
    /// # Panics
    /// If the shapes do not agree.
    pub fn run(self, alpha: f32, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>, beta: f32, c: &mut ArrayRef2<f32>, threads: Threads) {
        let (to, of) = (c.dim(), (a.dim(), b.dim()));
        assert!(a.ncols() == b.nrows() && to == (a.nrows(), b.ncols()), "gemm: {to:?} <- {:?} x {:?}", of.0, of.1);
        match self {
            Product::Lacuna => gemm_by_rows(alpha, a, b, beta, c, threads),
            Product::Gemm => crate_gemm(alpha, a, b, beta, c, threads),
            Product::Faer => faer::product(alpha, a, b, beta, c, threads),
            Product::MatrixMultiply => {
                if beta == 0.0 {
                    // What c holds may be no number.
                    c.fill(0.0);
                }
                let parallel = threads == Threads::Pool && to.0 * to.1 * a.ncols() >= PARALLEL;
                let (tasks, columns) = (c.axis_chunks_iter_mut(Axis(1), COLUMNS), b.axis_chunks_iter(Axis(1), COLUMNS));
                if parallel {
                    let tasks = tasks.into_par_iter().zip(columns.into_par_iter());
                    tasks.for_each(|(mut c, b)| ndarray::linalg::general_mat_mul(alpha, a, &b, beta, &mut c));
                } else {
                    tasks.zip(columns).for_each(|(mut c, b)| ndarray::linalg::general_mat_mul(alpha, a, &b, beta, &mut c));
                }
            }
        }
    }
}

/// `c <- alpha * a * b + beta * c` in f32, where `a` is `(m, k)`, `b` is `(k, n)` and `c` is `(m, n)`, each with any strides, by
/// [`Product::chosen`].
///
/// If `beta` is 0, `c` is not read: it may hold anything. The result does not depend on the number of threads: work is
/// split over the entries of `c`, never over `k`.
///
/// # Panics
/// If the shapes do not agree.
pub fn gemm(alpha: f32, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>, beta: f32, c: &mut ArrayRef2<f32>, threads: Threads) {
    Product::chosen(a, b).run(alpha, a, b, beta, c, threads);
}

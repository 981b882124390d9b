//! Dense products: which of those that are linked runs.

use super::faer;
use crate::kernels::{Epilogue, Threads, dense_product, gemm as crate_gemm};
use ndarray::{Array2, ArrayRef2};

/// The dense products that are linked. [`gemm`] chooses among them; the others are there to be compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// This library's.
    Lacuna,
    /// The crate `gemm`'s.
    Gemm,
    /// The crate `faer`'s.
    Faer,
    /// The crate `matrixmultiply`'s, by way of `ndarray`, on the calling thread alone.
    MatrixMultiply,
}

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

    /// As [`gemm`], by this product.
    ///
    /// # Panics
    /// If the shapes do not agree.
    pub fn run(self, alpha: f32, c: &mut ArrayRef2<f32>, beta: f32, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>, threads: Threads) {
        check(c, a, b);
        match self {
            Product::Lacuna => own(alpha, c, beta, a, b, threads),
            Product::Gemm => crate_gemm(alpha, c, beta, a, b, threads),
            Product::Faer => faer::product(alpha, c, beta, a, b, threads),
            Product::MatrixMultiply => {
                if alpha == 0.0 {
                    // What c holds may be no number.
                    c.fill(0.0);
                }
                ndarray::linalg::general_mat_mul(beta, a, b, alpha, c);
            }
        }
    }
}

fn check(c: &ArrayRef2<f32>, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) {
    let shapes = (c.dim(), a.dim(), b.dim());
    assert!(
        a.ncols() == b.nrows() && c.dim() == (a.nrows(), b.ncols()),
        "gemm: {:?} <- {:?} x {:?}",
        shapes.0,
        shapes.1,
        shapes.2
    );
}

/// The product of rows of a, or of columns of b, as they lie.
fn own(alpha: f32, c: &mut ArrayRef2<f32>, beta: f32, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>, threads: Threads) {
    let accumulate = alpha != 0.0;
    if beta != 1.0 || !(alpha == 0.0 || alpha == 1.0) {
        let mut product = Array2::zeros(c.dim());
        own(0.0, &mut product, 1.0, a, b, threads);
        c.zip_mut_with(&product, |c, p| *c = beta * p + if accumulate { alpha * *c } else { 0.0 });
        return;
    }
    let epilogue = Epilogue { accumulate, ..Epilogue::default() };
    let (rows, columns) = (a, b.t());
    // The larger of those that can be read where they lie is read there, the other is turned.
    let by_columns = match (rows.is_standard_layout(), columns.is_standard_layout()) {
        (true, true) => rows.nrows() <= columns.nrows(),
        (_, yes) => yes,
    };
    let (w, x) = if by_columns { (&*columns, rows) } else { (rows, &*columns) };
    let w = w.as_standard_layout();
    let w = w.as_slice().expect("an array in standard layout is a slice");
    if by_columns {
        dense_product(w, x, c, &epilogue, threads);
    } else {
        dense_product(w, x, &mut c.view_mut().reversed_axes(), &epilogue, threads);
    }
}

/// `c <- alpha * c + beta * a * b` in f32, where `a` is `(m, k)`, `b` is `(k, n)` and `c` is `(m, n)`, each with any strides.
///
/// If `alpha` is 0, `c` is not read: it may hold anything. The result does not depend on the number of threads: work is
/// split over the entries of `c`, never over `k`.
///
/// # Panics
/// If the shapes do not agree.
pub fn gemm(alpha: f32, c: &mut ArrayRef2<f32>, beta: f32, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>, threads: Threads) {
    chosen(c, a, b).run(alpha, c, beta, a, b, threads);
}

fn chosen(_: &ArrayRef2<f32>, _: &ArrayRef2<f32>, _: &ArrayRef2<f32>) -> Product {
    Product::Lacuna
}

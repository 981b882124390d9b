//! Dense products that allocate their result.

use crate::linalg::{Threads, gemm};
use ndarray::{Array2, ArrayRef2};

/// `a · b` for `a (m, k)`, `b (k, n)`.
///
/// # Panics
/// If the inner dimensions differ.
pub fn matmul(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Array2<f32> {
    let mut c = Array2::zeros((a.nrows(), b.ncols()));
    gemm(1.0, a, b, 0.0, &mut c, Threads::Pool);
    c
}

/// `a · bᵀ` for `a (m, k)`, `b (n, k)`: a linear layer, `y = x · Wᵀ`.
///
/// ```
/// use ndarray::array;
/// assert_eq!(lacuna::linalg::matmul_nt(&array![[1., 2.]], &array![[3., 4.], [5., 6.]]), array![[11., 17.]]);
/// ```
///
/// # Panics
/// If the inner dimensions differ.
pub fn matmul_nt(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Array2<f32> {
    matmul(a, &b.t())
}

/// `aᵀ · b` for `a (k, m)`, `b (k, n)`: a weight gradient, `dW = dYᵀ · X`.
///
/// # Panics
/// If the inner dimensions differ.
pub fn matmul_tn(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Array2<f32> {
    matmul(&a.t(), b)
}

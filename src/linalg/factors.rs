//! What factorisations give.

use ndarray::{Array1, Array2};

/// A = V D Vᵀ with V orthogonal.
#[derive(Debug, Clone)]
pub struct Eigh {
    /// The diagonal of D `(n)`, ascending.
    pub values: Array1<f64>,
    /// V `(n, n)`: column j belongs to `values[j]`. Its sign is arbitrary.
    pub vectors: Array2<f64>,
}

/// A = U diag(s) Vᵀ `(m, n)`, with r = min(m, n).
#[derive(Debug, Clone)]
pub struct Svd {
    /// U `(m, r)`, with orthonormal columns.
    pub u: Array2<f64>,
    /// The singular values `(r)`, descending, none negative.
    pub s: Array1<f64>,
    /// Vᵀ `(r, n)`, with orthonormal rows. The sign of a row, together with that of the same column of U, is arbitrary.
    pub vt: Array2<f64>,
}

/// A sentence of a back end that did not come to an end.
pub(super) type Failure = String;

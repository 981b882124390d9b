//! The one place where a factorisation chooses who computes it.

use super::factors::{Eigh, Failure, Svd};
use super::faer;
#[cfg(feature = "lapack")]
use super::lapack;
use ndarray::{Array2, ArrayRef2};

/// Who factorises. Every factorisation of [`linalg`](crate::linalg) is a method of it; the free functions of the same names
/// use [`Backend::default`].
///
/// The back ends agree up to rounding (and the signs of eigenvectors and singular vectors); the tests hold them equal.
///
/// ```
/// use lacuna::linalg::Backend;
/// use ndarray::array;
/// assert_eq!(Backend::Faer.cholesky(&array![[4.]])?, array![[2.]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// [faer](https://docs.rs/faer), in Rust. It gives the same bits for any number of threads: Cholesky, inverses and solving
    /// use the current rayon pool; eigenvalues, singular values and least squares, where faer's bits would depend on it, use
    /// the calling thread alone.
    Faer,
    /// LAPACK, through [ndarray-linalg](https://docs.rs/ndarray-linalg): OpenBLAS or MKL. It has threads of its own (set
    /// `OPENBLAS_NUM_THREADS` or `MKL_NUM_THREADS`), and its last bits may depend on their number.
    #[cfg(feature = "lapack")]
    Lapack,
}

impl Default for Backend {
    /// LAPACK if one of the features that link it is on, else faer.
    fn default() -> Self {
        #[cfg(feature = "lapack")]
        return Backend::Lapack;
        #[cfg(not(feature = "lapack"))]
        Backend::Faer
    }
}

/// Declares the private methods that both back ends have under the same name.
macro_rules! both {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)?;)*) => {
        impl Backend {
            $($(#[$doc])* pub(super) fn $name(self, $($arg: $ty),*) $(-> $out)? {
                match self {
                    Backend::Faer => faer::$name($($arg),*),
                    #[cfg(feature = "lapack")]
                    Backend::Lapack => lapack::$name($($arg),*),
                }
            })*
        }
    };
}

// What a back end has to know. Orders and shapes are at least 1, entries are finite, `columns` means column-major.
both! {
    /// a `(n, n)`, columns, lower triangle: its Cholesky factor L in its place, or the column of the first pivot that is not
    /// positive. What is above the diagonal is not read, and holds anything afterwards.
    fn factor_llt(a: &mut Array2<f64>) -> Result<(), usize>;
    /// L⁻¹ of L `(n, n)`, columns, lower triangle; zero above the diagonal.
    fn invert_lower(l: Array2<f64>) -> Array2<f64>;
    /// Columns `from..to` of L⁻¹, from row `from` on; above there they are 0.
    fn invert_lower_strip(l: &ArrayRef2<f64>, from: usize, to: usize) -> Array2<f64>;
    /// (L Lᵀ)⁻¹ of L `(n, n)`, columns, lower triangle; full, any layout.
    fn invert_llt(l: Array2<f64>) -> Array2<f64>;
    /// L⁻¹ b of the lower triangle L `(n, n)`, b `(n, k)`, both columns.
    fn solve_lower(l: &ArrayRef2<f64>, b: Array2<f64>) -> Array2<f64>;
    /// R⁻¹ b of the upper triangle R `(n, n)`, of any layout without gaps, b `(n, k)`, columns.
    fn solve_upper(r: &ArrayRef2<f64>, b: Array2<f64>) -> Array2<f64>;
    /// a `(n, n)`, columns, lower triangle: values ascending, vectors in columns of any layout.
    fn eigh_lower(a: Array2<f64>) -> Result<Eigh, Failure>;
    /// The thin decomposition of a `(m, n)`, columns; descending, any layout.
    fn thin_svd(a: Array2<f64>) -> Result<Svd, Failure>;
    /// Of a = Q R `(m, n)`, m >= n, and b `(m, k)`, both columns: R `(n, n)` and the first n rows of Qᵀ b, both columns.
    fn qr_apply(a: Array2<f64>, b: Array2<f64>) -> (Array2<f64>, Array2<f64>);
}

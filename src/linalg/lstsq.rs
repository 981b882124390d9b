//! Least squares.

use super::Backend;
use super::layout::{to_columns, to_rows};
use super::spd::finite;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, s};

/// X `(n, k)`, the one that makes ‖A X − B‖ least, for a `(m, n)` of n independent columns and b `(m, k)`.
///
/// By Householder QR, A = Q R and R X = Qᵀ B: the columns of A may differ in scale by any factor, and the condition number
/// is not squared as in the normal equations. A column of which at most `m · 2⁻⁵²` of its length is not a combination of the
/// columns before it counts as dependent; then the answer is not unique, and that is an error. Whoever wants the shortest of
/// many answers has [`svd`](super::svd()).
///
/// ```
/// use ndarray::array;
/// // The line a + b t nearest to (0, 1), (1, 3), (2, 5), (3, 6): residuals -0.2, 0.1, 0.4, -0.3.
/// let x = lacuna::linalg::lstsq(&array![[1., 0.], [1., 1.], [1., 2.], [1., 3.]], &array![[1.], [3.], [5.], [6.]])?;
/// assert!((x - array![[1.2], [1.7]]).iter().all(|d| d.abs() < 1e-12));
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] if b has not m rows; [`Error::NotFinite`] if a or b holds a NaN or an infinity; [`Error::Numerical`]
/// naming the first dependent column, which exists whenever m < n.
pub fn lstsq(a: &ArrayRef2<f64>, b: &ArrayRef2<f64>) -> Result<Array2<f64>> {
    Backend::default().lstsq(a, b)
}

impl Backend {
    /// [`lstsq`] by this back end.
    ///
    /// # Errors
    /// As [`lstsq`].
    pub fn lstsq(self, a: &ArrayRef2<f64>, b: &ArrayRef2<f64>) -> Result<Array2<f64>> {
        let ((m, n), k) = (a.dim(), b.ncols());
        if b.nrows() != m {
            return Err(Error::shape("right-hand side of least squares", &[m, k], &[b.nrows(), k]));
        }
        finite("matrix of least squares", a)?;
        finite("right-hand side of least squares", b)?;
        let dependent = |reason: String| Error::Numerical { what: format!("least squares with {m} x {n}"), reason };
        if m < n {
            return Err(dependent(format!("{m} rows cannot determine {n} unknowns: give more rows or fewer columns")));
        }
        if n == 0 || k == 0 {
            return Ok(Array2::zeros((n, k)));
        }
        let (r, qtb) = self.qr_apply(to_columns(a), to_columns(b));
        for j in 0..n {
            // Column j of R has the length of column j of A; its last entry is what the columns before it do not explain.
            let length = r.slice(s![..=j, j]).fold(0.0, |h: f64, &v| h.hypot(v));
            let own = r[[j, j]].abs();
            // NaN, which overflow could make, is not greater either.
            let independent = own > m as f64 * f64::EPSILON * length;
            if !independent {
                return Err(dependent(format!(
                    "column {j} of length {length:e} depends on the columns before it (only {own:.1e} is its own)"
                )));
            }
        }
        Ok(to_rows(self.solve_upper(&r, qtb)))
    }
}

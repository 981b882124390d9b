//! The thin singular value decomposition.

use super::backend::Backend;
use super::factors::Svd;
use super::layout::{to_columns, to_rows};
use super::spd::finite;
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef2};

/// The thin singular value decomposition of a `(m, n)`.
///
/// ```
/// use ndarray::array;
/// let d = lacuna::linalg::svd(&array![[0., 2., 0.], [-3., 0., 0.]])?;
/// assert_eq!(d.s, array![3., 2.]);
/// assert_eq!(d.u.mapv(f64::abs), array![[0., 1.], [1., 0.]]);
/// assert_eq!(d.vt.mapv(f64::abs), array![[1., 0., 0.], [0., 1., 0.]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::NotFinite`] if a holds a NaN or an infinity, [`Error::Numerical`] if the iteration does not converge.
pub fn svd(a: &ArrayRef2<f64>) -> Result<Svd> {
    Backend::default().svd(a)
}

impl Backend {
    /// [`svd`] by this back end.
    ///
    /// # Errors
    /// As [`svd`].
    pub fn svd(self, a: &ArrayRef2<f64>) -> Result<Svd> {
        const WHAT: &str = "singular values";
        finite(WHAT, a)?;
        let (m, n) = a.dim();
        if a.is_empty() {
            return Ok(Svd { u: Array2::zeros((m, 0)), s: Array1::zeros(0), vt: Array2::zeros((0, n)) });
        }
        let d = self.thin_svd(to_columns(a)).map_err(|reason| Error::Numerical { what: WHAT.into(), reason })?;
        Ok(Svd { u: to_rows(d.u), s: d.s, vt: to_rows(d.vt) })
    }
}

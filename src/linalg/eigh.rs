//! Eigenvalues and eigenvectors of a symmetric matrix.

use super::backend::Backend;
use super::factors::Eigh;
use super::layout::{lower_to_columns, to_rows};
use super::spd::square;
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef2, s};

/// Eigenvalues, ascending, and eigenvectors of the symmetric a `(n, n)`, of which only the lower triangle is read.
///
/// ```
/// use ndarray::array;
/// let e = lacuna::linalg::eigh(&array![[3., 0.], [0., -2.]])?;
/// assert_eq!(e.values, array![-2., 3.]);
/// assert_eq!(e.vectors.mapv(f64::abs), array![[0., 1.], [1., 0.]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] if a is not square, [`Error::NotFinite`] if its lower triangle holds a NaN or an infinity,
/// [`Error::Numerical`] if the iteration does not converge.
pub fn eigh(a: &ArrayRef2<f64>) -> Result<Eigh> {
    Backend::default().eigh(a)
}

impl Backend {
    /// [`eigh`] by this back end.
    ///
    /// # Errors
    /// As [`eigh`].
    pub fn eigh(self, a: &ArrayRef2<f64>) -> Result<Eigh> {
        const WHAT: &str = "symmetric eigenvalues";
        square(WHAT, a)?;
        for (row, entries) in a.rows().into_iter().enumerate() {
            if let Some((col, &value)) = entries.slice(s![..=row]).indexed_iter().find(|(_, v)| !v.is_finite()) {
                return Err(Error::NotFinite { what: WHAT.into(), row, col, value });
            }
        }
        if a.is_empty() {
            return Ok(Eigh { values: Array1::zeros(0), vectors: Array2::zeros((0, 0)) });
        }
        let e = self.eigh_lower(lower_to_columns(a)).map_err(|reason| Error::Numerical { what: WHAT.into(), reason })?;
        Ok(Eigh { values: e.values, vectors: to_rows(e.vectors) })
    }
}

//! The inverse of a sum of outer products, built and taken apart by rank one: what Optimal Brain Surgeon and WoodFisher share.
//!
//! ```text
//! H = α I + 1/P Σ_m x_m x_mᵀ
//!
//! absorb:  H⁻¹ ← H⁻¹ − (H⁻¹ x)(H⁻¹ x)ᵀ / (P + xᵀ H⁻¹ x)          Sherman and Morrison; begins at α⁻¹ I
//! remove:  H⁻¹ ← H⁻¹ − H⁻¹_{:,q} H⁻¹_{q,:} / [H⁻¹]_qq            the inverse of H without row and column q
//! ```
//!
//! All in f64: with a small α the first entries are of the order of α⁻¹, and what is left of them after P patterns is a
//! difference of large numbers. `absorb` costs n² for each x, `remove` n².

use crate::linalg::spd_inverse;
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef1, ArrayRef2, Axis};

/// H⁻¹ over the parameters that are left; rows and columns of those removed are 0.
///
/// # Invariants
/// - The matrix is `(n, n)`, symmetric to the bit, positive definite on what is left.
/// - Row and column of what was removed are exactly 0.
///
/// ```
/// use lacuna::solve::InverseHessian;
/// use ndarray::array;
/// let mut inverse = InverseHessian::new(2, 2.0)?; // ½ I
/// inverse.absorb(&array![1., 1.], 1.0);           // H = [[3, 1], [1, 3]]
/// assert_eq!(inverse.matrix(), array![[0.375, -0.125], [-0.125, 0.375]]);
/// inverse.remove(0); // H = [[3]]
/// assert!((inverse.matrix()[[1, 1]] - 1. / 3.).abs() < 1e-15 && inverse.matrix()[[0, 1]] == 0.);
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct InverseHessian {
    matrix: Array2<f64>,
    left: Vec<bool>,
}

impl InverseHessian {
    /// α⁻¹ I for `n` parameters.
    ///
    /// # Errors
    /// If α is not a positive number whose inverse is finite.
    pub fn new(n: usize, alpha: f64) -> Result<Self> {
        if !(alpha > 0.0 && alpha.is_finite() && alpha.recip().is_finite()) {
            return Err(Error::invalid_option(
                "alpha",
                format!("{alpha}: the inverse begins at 1/alpha, so it must be positive"),
            ));
        }
        Ok(InverseHessian { matrix: Array2::from_diag_elem(n, alpha.recip()), left: vec![true; n] })
    }

    /// The inverse of a whole Hessian `(n, n)`, of which the lower triangle is read.
    ///
    /// # Errors
    /// If it is not square, not finite or not positive definite.
    pub fn of(hessian: &ArrayRef2<f64>) -> Result<Self> {
        Ok(InverseHessian { matrix: spd_inverse(hessian)?, left: vec![true; hessian.nrows()] })
    }

    /// The inverse of a diagonal Hessian.
    ///
    /// # Errors
    /// If an entry is not a positive number, or its inverse is not finite.
    pub fn of_diagonal(hessian: &[f64]) -> Result<Self> {
        let sound = |h: f64| h > 0.0 && h.is_finite() && h.recip().is_finite();
        if let Some((column, h)) = hessian.iter().enumerate().find(|(_, h)| !sound(**h)) {
            let hint = format!("its entry is {h}; add damping, or take the Gauss-Newton curvature");
            let what = "diagonal Hessian".into();
            return Err(Error::NotPositiveDefinite { what, order: hessian.len(), column, hint });
        }
        let inverse: Array1<f64> = hessian.iter().map(|h| h.recip()).collect();
        let matrix = Array2::from_diag(&inverse);
        Ok(InverseHessian { matrix, left: vec![true; hessian.len()] })
    }

    /// The inverse after [`InverseHessian::absorb`] of every row of `x (m, n)`.
    ///
    /// # Errors
    /// As [`InverseHessian::new`]; a row that is not finite.
    ///
    /// # Panics
    /// If `patterns` is not positive.
    pub fn of_rows(x: &ArrayRef2<f32>, patterns: f64, alpha: f64) -> Result<Self> {
        if let Some(((row, col), &value)) = x.indexed_iter().find(|(_, v)| !v.is_finite()) {
            return Err(Error::NotFinite { what: "derivatives".into(), row, col, value: f64::from(value) });
        }
        let mut inverse = InverseHessian::new(x.ncols(), alpha)?;
        for row in x.axis_iter(Axis(0)) {
            inverse.absorb(&row.mapv(f64::from), patterns);
        }
        Ok(inverse)
    }

    /// Adds `x xᵀ / patterns` to H. Entries of x at what was removed count as 0.
    ///
    /// # Panics
    /// If x has not `n` entries or `patterns` is not positive.
    pub fn absorb(&mut self, x: &ArrayRef1<f64>, patterns: f64) {
        assert!(x.len() == self.left.len() && patterns > 0.0, "{} entries for {}, {patterns}", x.len(), self.left.len());
        let hx: Array1<f64> = self.matrix.dot(x);
        let scale = (patterns + hx.dot(x)).recip();
        self.subtract(&hx, scale);
    }

    /// Takes parameter `q` out of H.
    ///
    /// # Panics
    /// If it was taken out before, or there is no such parameter.
    pub fn remove(&mut self, q: usize) {
        assert!(self.left[q], "parameter {q} was removed before");
        let column = self.matrix.column(q).to_owned();
        self.subtract(&column, column[q].recip());
        self.matrix.row_mut(q).fill(0.0);
        self.matrix.column_mut(q).fill(0.0);
        self.left[q] = false;
    }

    /// `M ← M − scale v vᵀ`, symmetric to the bit.
    fn subtract(&mut self, v: &Array1<f64>, scale: f64) {
        for (mut row, &a) in self.matrix.rows_mut().into_iter().zip(v) {
            if a != 0.0 {
                row.zip_mut_with(v, |m, &b| *m -= a * b * scale);
            }
        }
    }

    /// H⁻¹, `(n, n)`.
    pub fn matrix(&self) -> &Array2<f64> {
        &self.matrix
    }

    /// Which parameters are left.
    pub fn left(&self) -> &[bool] {
        &self.left
    }

    /// Number of parameters, left or not.
    pub fn len(&self) -> usize {
        self.left.len()
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }
}

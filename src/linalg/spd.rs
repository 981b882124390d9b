//! Symmetric positive definite matrices: Cholesky, inverse, the Cholesky factor of the inverse, solving.
//!
//! A pivot is what is left of a diagonal entry after elimination, the part of that input which the inputs eliminated before
//! it do not explain. In exact arithmetic it is positive; a pivot of at most `n · 2⁻⁵² · a_jj` is rounding error, so that
//! column counts as dependent and the matrix as not positive definite. This is what a Gram matrix of fewer tokens than
//! inputs looks like. There is no fall-back: damp the diagonal, or gather more tokens.

use super::Backend;
use super::layout::{lower_to_columns, lower_to_rows, reversed_lower_to_columns, to_columns, to_rows};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Zip, s};

/// The lower triangular L `(n, n)` with A = L Lᵀ; zero above the diagonal.
///
/// Reads only the lower triangle of a `(n, n)`.
///
/// ```
/// use ndarray::array;
/// let l = lacuna::linalg::cholesky(&array![[4., 2.], [2., 10.]])?;
/// assert_eq!(l, array![[2., 0.], [1., 3.]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] if a is not square; [`Error::NotPositiveDefinite`] naming the first column whose pivot is not positive,
/// or is at most `n · 2⁻⁵²` of its diagonal entry (which is rounding error: that input depends on those before it), or the
/// column of the first NaN or infinity.
pub fn cholesky(a: &ArrayRef2<f64>) -> Result<Array2<f64>> {
    Backend::default().cholesky(a)
}

/// A⁻¹ `(n, n)`: full, and symmetric to the bit.
///
/// Reads only the lower triangle of a `(n, n)`.
///
/// ```
/// use ndarray::array;
/// assert_eq!(lacuna::linalg::spd_inverse(&array![[4., 0.], [0., 16.]])?, array![[0.25, 0.], [0., 0.0625]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// As [`cholesky`].
pub fn spd_inverse(a: &ArrayRef2<f64>) -> Result<Array2<f64>> {
    Backend::default().spd_inverse(a)
}

/// The upper triangular U `(n, n)` with A⁻¹ = Uᵀ U: what SparseGPT and GPTQ read their updates from. Zero below the diagonal.
///
/// Reads only the lower triangle of a `(n, n)`. The inverse itself is never formed. Elimination runs from the last column
/// to the first, A = R Rᵀ with R upper triangular; then A⁻¹ = R⁻ᵀ R⁻¹, so that U = R⁻¹.
///
/// ```
/// use ndarray::array;
/// // A = R Rᵀ with R = [[2, 1], [0, 1]], and U = R⁻¹.
/// let u = lacuna::linalg::cholesky_of_inverse(&array![[5., 1.], [1., 1.]])?;
/// assert_eq!(u, array![[0.5, -0.5], [0., 1.]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// As [`cholesky`]; since the order is reversed, the column that is named is the *last* one whose pivot fails.
pub fn cholesky_of_inverse(a: &ArrayRef2<f64>) -> Result<Array2<f64>> {
    Backend::default().cholesky_of_inverse(a)
}

/// [`cholesky_of_inverse`] of a `(n, n)` with another `diagonal`, each entry rounded to f32 at the end.
///
/// For matrices that fill the memory: one copy of a is made, and the result a strip of columns at a time, where the other has
/// three matrices of f64 beside a.
///
/// # Errors
/// As [`cholesky_of_inverse`].
///
/// # Panics
/// If the diagonal is not as long as that of a.
pub fn cholesky_of_inverse_f32(a: &ArrayRef2<f64>, diagonal: &[f64]) -> Result<Array2<f32>> {
    Backend::default().cholesky_of_inverse_f32(a, diagonal)
}

/// X `(n, k)` with A X = B, for a `(n, n)` and b `(n, k)`.
///
/// Reads only the lower triangle of a.
///
/// ```
/// use ndarray::array;
/// let x = lacuna::linalg::solve_spd(&array![[4., 2.], [2., 10.]], &array![[8.], [22.]])?;
/// assert_eq!(x, array![[1.], [2.]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// As [`cholesky`]; also [`Error::Shape`] if b has not n rows, and [`Error::NotFinite`] if b holds a NaN or an infinity.
pub fn solve_spd(a: &ArrayRef2<f64>, b: &ArrayRef2<f64>) -> Result<Array2<f64>> {
    Backend::default().solve_spd(a, b)
}

impl Backend {
    /// [`cholesky`] by this back end.
    ///
    /// # Errors
    /// As [`cholesky`].
    pub fn cholesky(self, a: &ArrayRef2<f64>) -> Result<Array2<f64>> {
        Ok(lower_to_rows(&self.factor("Cholesky", a, None, Order::Forward)?))
    }

    /// [`spd_inverse`] by this back end.
    ///
    /// # Errors
    /// As [`spd_inverse`].
    pub fn spd_inverse(self, a: &ArrayRef2<f64>) -> Result<Array2<f64>> {
        let l = self.factor("inverse", a, None, Order::Forward)?;
        if l.is_empty() {
            return Ok(l);
        }
        let mut inverse = self.invert_llt(l);
        if !inverse.is_standard_layout() {
            inverse = inverse.reversed_axes();
        }
        Ok(inverse)
    }

    /// [`cholesky_of_inverse`] by this back end.
    ///
    /// # Errors
    /// As [`cholesky_of_inverse`].
    pub fn cholesky_of_inverse(self, a: &ArrayRef2<f64>) -> Result<Array2<f64>> {
        let l = self.factor("Cholesky of the inverse", a, None, Order::Backward)?;
        if l.is_empty() {
            return Ok(l);
        }
        let mut u = self.invert_lower(l);
        u.invert_axis(ndarray::Axis(0));
        u.invert_axis(ndarray::Axis(1));
        Ok(to_rows(u))
    }

    /// [`cholesky_of_inverse_f32`] by this back end.
    ///
    /// # Errors
    /// As [`cholesky_of_inverse_f32`].
    ///
    /// # Panics
    /// As [`cholesky_of_inverse_f32`].
    pub fn cholesky_of_inverse_f32(self, a: &ArrayRef2<f64>, diagonal: &[f64]) -> Result<Array2<f32>> {
        assert_eq!(diagonal.len(), a.nrows(), "a number for each entry of the diagonal");
        let l = self.factor("Cholesky of the inverse", a, Some(diagonal), Order::Backward)?;
        let n = l.nrows();
        let mut u = Array2::zeros((n, n));
        for from in (0..n).step_by(STRIP) {
            let to = (from + STRIP).min(n);
            let strip = self.invert_lower_strip(&l, from, to);
            let mut place = u.slice_mut(s![..n - from; -1, n - to..n - from; -1]);
            Zip::from(place.rows_mut())
                .and(strip.rows())
                .par_for_each(|mut u, strip| u.zip_mut_with(&strip, |u, v| *u = *v as f32));
        }
        Ok(u)
    }

    /// [`solve_spd`] by this back end.
    ///
    /// # Errors
    /// As [`solve_spd`].
    pub fn solve_spd(self, a: &ArrayRef2<f64>, b: &ArrayRef2<f64>) -> Result<Array2<f64>> {
        if b.nrows() != a.nrows() {
            return Err(Error::shape("right-hand side of A X = B", &[a.nrows(), b.ncols()], &[b.nrows(), b.ncols()]));
        }
        finite("right-hand side of A X = B", b)?;
        let l = self.factor("A X = B", a, None, Order::Forward)?;
        if b.is_empty() {
            return Ok(Array2::zeros(b.dim()));
        }
        let y = self.solve_lower(&l, to_columns(b));
        Ok(to_rows(self.solve_upper(&l.t(), y)))
    }

    /// L of A = L Lᵀ, column-major, or of A with rows and columns in reverse order; A may have another diagonal than a. Above the diagonal it
    /// holds anything.
    fn factor(self, what: &str, a: &ArrayRef2<f64>, diagonal: Option<&[f64]>, order: Order) -> Result<Array2<f64>> {
        square(what, a)?;
        let n = a.nrows();
        let index = |j: usize| if order == Order::Forward { j } else { n - 1 - j };
        let fail = |column: usize, hint: String| Error::NotPositiveDefinite { what: what.into(), order: n, column, hint };
        let help = "add damping to the diagonal, or give more tokens";
        // Cholesky reads every entry, so an infinity would come out as a pivot somewhere else: look for it first.
        for (row, entries) in a.rows().into_iter().enumerate() {
            if let Some((column, v)) = entries.slice(s![..=row]).indexed_iter().find(|(_, v)| !v.is_finite()) {
                return Err(fail(column, format!("its entry in row {row} is {v}; look for overflow in what it was made of")));
            }
        }
        // Where a back end stops is up to rounding: a dependent column may have passed with a tiny positive pivot before. So
        // after a failure the columns up to there are factored again, and their pivots looked at like those of a success.
        let (mut size, mut failed) = (n, None);
        let l = loop {
            let mut l = match order {
                Order::Forward => lower_to_columns(&a.slice(s![..size, ..size])),
                Order::Backward => reversed_lower_to_columns(&a.slice(s![n - size.., n - size..])),
            };
            if size == 0 {
                break l;
            }
            if let Some(diagonal) = diagonal {
                l.diag_mut().iter_mut().enumerate().for_each(|(j, d)| *d = diagonal[index(j)]);
            }
            match self.factor_llt(&mut l) {
                Ok(()) => break l,
                Err(j) => (size, failed) = (j, Some(j)),
            }
        };
        for (j, &root) in l.diag().iter().enumerate() {
            let (column, pivot) = (index(j), root * root);
            let whole = diagonal.map_or(a[[column, column]], |d| d[column]);
            // NaN, which overflow could make, is not greater either.
            if !(pivot > n as f64 * f64::EPSILON * whole && pivot.is_finite()) {
                return Err(fail(column, format!("of its {whole:e} on the diagonal only {pivot:.1e} is its own: {help}")));
            }
        }
        match failed {
            None => Ok(l),
            Some(j) => Err(fail(index(j), help.into())),
        }
    }
}

/// Columns of an inverse that are made at a time.
const STRIP: usize = 512;

/// From which end columns are eliminated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Forward,
    Backward,
}

/// a is `(n, n)`.
pub(super) fn square(what: &str, a: &ArrayRef2<f64>) -> Result<()> {
    let (rows, cols) = a.dim();
    if rows == cols { Ok(()) } else { Err(Error::shape(what, &[rows, rows], &[rows, cols])) }
}

/// a has only finite entries.
pub(super) fn finite(what: &str, a: &ArrayRef2<f64>) -> Result<()> {
    match a.indexed_iter().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some(((row, col), &value)) => Err(Error::NotFinite { what: what.into(), row, col, value }),
    }
}

//! The product AᵀB of two arrays of the same tokens, a few rows at a time.

use crate::linalg::{Threads, gemm};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis, s};
use rayon::prelude::*;

/// Tokens whose products are summed in f32, as in [`Gram`](super::Gram).
const CHUNK: usize = 256;
/// Rows of the product that are one task.
const PANEL: usize = 64;

/// AᵀB `(left, right)`, summed over as many batches of a `(tokens, left)` and b `(tokens, right)` as one likes.
///
/// ```
/// use lacuna::linalg::Cross;
/// use ndarray::array;
/// let mut cross = Cross::new(1, 2);
/// cross.update(&array![[1.], [2.]], &array![[3., 4.], [5., 6.]])?;
/// assert_eq!(cross.matrix(), &array![[13., 16.]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// Precision and cost are those of [`Gram`](super::Gram), without its symmetry.
#[derive(Debug, Clone)]
pub struct Cross {
    sum: Array2<f64>,
}

impl Cross {
    /// The product of no tokens: zero.
    pub fn new(left: usize, right: usize) -> Self {
        Cross { sum: Array2::zeros((left, right)) }
    }

    /// Adds aᵀb.
    ///
    /// # Errors
    /// [`Error::Shape`] if the widths or the numbers of tokens do not fit, [`Error::NotFinite`] if the product is not finite.
    pub fn update(&mut self, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Result<()> {
        let (left, right) = self.sum.dim();
        if (a.ncols(), b.ncols()) != (left, right) || a.nrows() != b.nrows() {
            let found = [a.nrows(), a.ncols(), b.nrows(), b.ncols()];
            return Err(Error::shape("tokens and widths of two arrays", &[a.nrows(), left, a.nrows(), right], &found));
        }
        // Panels are tasks, as in `Gram`.
        let panels: Vec<_> = self.sum.axis_chunks_iter_mut(Axis(0), PANEL).enumerate().collect();
        panels.into_par_iter().with_max_len(1).for_each(|(i, mut sum)| {
            let (first, last) = (i * PANEL, i * PANEL + sum.nrows());
            let mut product = Array2::<f32>::zeros(sum.dim());
            for (a, b) in a.axis_chunks_iter(Axis(0), CHUNK).zip(b.axis_chunks_iter(Axis(0), CHUNK)) {
                gemm(1.0, &a.slice(s![.., first..last]).t(), &b, 0.0, &mut product, Threads::One);
                sum.zip_mut_with(&product, |sum, &p| *sum += f64::from(p));
            }
        });
        match self.sum.indexed_iter().find(|(_, v)| !v.is_finite()) {
            None => Ok(()),
            Some(((row, col), &value)) => Err(Error::NotFinite { what: "product AᵀB".into(), row, col, value }),
        }
    }

    /// Adds what other tokens have given.
    ///
    /// # Panics
    /// If the widths differ.
    pub fn merge(&mut self, other: &Cross) {
        assert!(self.sum.dim() == other.sum.dim(), "merge: products {:?} and {:?}", self.sum.dim(), other.sum.dim());
        self.sum += &other.sum;
    }

    /// AᵀB.
    pub fn matrix(&self) -> &Array2<f64> {
        &self.sum
    }
}

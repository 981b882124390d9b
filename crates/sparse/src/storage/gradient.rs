//! The gradient of a masked weight.

use super::Csr;
use crate::kernels;
use crate::mask::Mask;
use crate::{Error, Result};
use ndarray::ArrayRef2;

/// The gradient of a loss by the weights that a mask keeps, and by no others: `dW = mask ⊙ (dYᵀ · X)` for the gradient `dy (tokens, out)` by the
/// outputs of `y = x · Wᵀ` and the inputs `x (tokens, in)`. Its values stand in the order of those of [`Csr::compress`](super::Compress::compress), so a step
/// of training is one loop over both:
///
/// ```
/// use lacuna_sparse::{mask::Mask, storage::{Compress, Csr, LinearOp, apply, weight_gradient, apply_transpose}};
/// use ndarray::array;
/// let (w, mask) = (array![[1., 2., 0.], [0., 0., 3.]], Mask::from_fn(2, 3, |r, c| r != c));
/// let mut op = Csr::compress(&w, &mask).unwrap();
/// let x = array![[1., 10., 100.]];
/// let dy = apply(&op, &x) - array![[19., 301.]]; // of half the squared distance: [[1, -1]]
/// assert_eq!(apply_transpose(&op, &dy), array![[0., 2., -3.]]);
/// let dw = weight_gradient(&mask, &dy, &x).unwrap();
/// assert_eq!(dw.to_dense(), array![[0., 10., 100.], [-1., 0., -100.]]);
/// op.values_mut().iter_mut().zip(dw.view().values()).for_each(|(w, d)| *w -= 0.01 * d);
/// ```
///
/// Cost: as many multiplications as kept weights times tokens. The bits do not depend on the number of threads.
///
/// # Errors
/// If there are 2³² kept weights or columns or more.
///
/// # Panics
/// If the shapes do not fit.
pub fn weight_gradient(mask: &Mask, dy: &ArrayRef2<f32>, x: &ArrayRef2<f32>) -> Result<Csr> {
    let (rows, cols) = mask.dim();
    let (found, tokens) = ((dy.ncols(), x.ncols()), (dy.nrows(), x.nrows()));
    assert!(found == (rows, cols) && tokens.0 == tokens.1, "mask {rows} x {cols}: dy {:?}, x {:?}", dy.dim(), x.dim());
    let kept = mask.kept();
    if u32::try_from(kept.max(cols)).is_err() {
        return Err(Error::invalid_option("csr", format!("{kept} weights in {rows} x {cols} do not fit 32-bit indices")));
    }
    let mut offsets = vec![0u32; rows + 1];
    for (r, count) in mask.row_counts().into_iter().enumerate() {
        offsets[r + 1] = offsets[r] + count as u32;
    }
    let mut values = vec![0.0; kept];
    kernels::weight_gradient(|r| mask.row_words(r), &offsets, dy, x, &mut values);
    let indices = mask.iter_kept().map(|(_, c)| c as u32).collect();
    Csr::new(rows, cols, offsets, indices, values)
}

//! A weight in any storage.

use crate::kernels::Epilogue;
use crate::mask::Mask;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};

/// A weight `W (out, in)` in some storage, and the product with it.
pub trait LinearOp: Send + Sync {
    /// The storage, for tables: `csr`.
    fn format(&self) -> &str;

    /// `(out, in)`.
    fn shape(&self) -> (usize, usize);

    /// `y = x · Wᵀ` for `x (tokens, in)` and `y (tokens, out)`, each with any strides; what `y` held is lost. Dropped weights
    /// are skipped: an infinity or a NaN in x at an input that a row of W drops does not reach that row's outputs (a dense
    /// storage cannot keep this, and its type says so).
    ///
    /// # Panics
    /// If the shapes do not fit.
    fn apply_into(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>) {
        self.apply_with(x, y, &Epilogue::default());
    }

    /// As [`LinearOp::apply_into`], with a bias, an activation or accumulation on the way into y.
    ///
    /// # Panics
    /// If the shapes do not fit.
    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>);

    /// `dx = dy · W` for `dy (tokens, out)` and `dx (tokens, in)`, each with any strides; what `dx` held is lost. It is the way of a gradient back
    /// to the inputs. Dropped weights are skipped, as in [`LinearOp::apply_into`].
    ///
    /// # Panics
    /// If the shapes do not fit.
    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>);

    /// The weight with zeros where nothing is stored.
    fn to_dense(&self) -> Array2<f32>;

    /// Row `row` of [`LinearOp::to_dense`], `(in)`, into `to`: what an embedding is read by. The storages of this library read what they store of
    /// that row, or of the few rows beside it; unless a type says how, the whole weight is made dense.
    ///
    /// # Panics
    /// If there is no such row, or `to` has not `in` numbers.
    fn row_into(&self, row: usize, to: &mut [f32]) {
        check_row(self.shape(), row, to);
        self.to_dense().row(row).iter().zip(to).for_each(|(w, to)| *to = *w);
    }

    /// Number of weights stored.
    fn nnz(&self) -> usize;

    /// Bytes of everything stored.
    fn bytes(&self) -> usize;
}

/// A storage that can walk its weights.
pub(super) trait Entries {
    /// `(out, in)`.
    fn dim(&self) -> (usize, usize);

    /// Calls `f(row, column, value)` for each weight, in whatever order they are stored.
    fn for_each(&self, f: impl FnMut(usize, usize, f32));

    /// Calls `f(column, value)` for each weight of a row that there is, in whatever order they are stored.
    fn for_each_of(&self, row: usize, f: impl FnMut(usize, f32));

    /// One row with zeros where nothing is stored.
    fn row(&self, row: usize, to: &mut [f32]) {
        check_row(self.dim(), row, to);
        to.fill(0.0);
        self.for_each_of(row, |c, value| to[c] = value);
    }

    /// The weight with zeros where nothing is stored.
    fn dense(&self) -> Array2<f32> {
        let mut dense = Array2::zeros(self.dim());
        self.for_each(|r, c, value| dense[[r, c]] = value);
        dense
    }

    /// The mask of what is stored.
    fn stored(&self) -> Mask {
        let (rows, cols) = self.dim();
        let mut mask = Mask::empty(rows, cols);
        self.for_each(|r, c, _| mask.set(r, c, true));
        mask
    }
}

/// Refuses a mask of another shape, and sizes that 32 bits do not count; else the number of weights to store.
pub(super) fn check_sizes(format: &'static str, weight: &ArrayRef2<f32>, mask: &Mask) -> Result<usize> {
    let (rows, cols) = weight.dim();
    if mask.dim() != (rows, cols) {
        return Err(Error::shape("mask", &[rows, cols], &[mask.rows(), mask.cols()]));
    }
    let kept = mask.kept();
    if u32::try_from(kept.max(rows).max(cols)).is_err() {
        return Err(Error::setting(format, format!("{kept} weights in {rows} x {cols} do not fit 32-bit indices")));
    }
    Ok(kept)
}

/// Panics if a weight has no such row, or `to` has not room for it alone.
pub(super) fn check_row((out, inputs): (usize, usize), row: usize, to: &[f32]) {
    assert!(row < out && to.len() == inputs, "row {row} of {out} x {inputs} into {} numbers", to.len());
}

/// Panics with both shapes if they do not fit.
pub(super) fn check_shapes(op: &dyn LinearOp, x: &ArrayRef2<f32>, y: &ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
    let (out, inputs) = op.shape();
    let (x, y) = (x.dim(), y.dim());
    assert!(x.1 == inputs && y == (x.0, out), "{} {out} x {inputs}: x {x:?}, y {y:?}", op.format());
    let bias = epilogue.bias.map_or(out, <[f32]>::len);
    assert!(bias == out, "{} {out} x {inputs}: a bias of {bias}", op.format());
}

/// Panics with both shapes if those of a transposed product do not fit.
pub(super) fn check_transpose(op: &dyn LinearOp, dy: &ArrayRef2<f32>, dx: &ArrayRef2<f32>) {
    let (out, inputs) = op.shape();
    let (dy, dx) = (dy.dim(), dx.dim());
    assert!(dy.1 == out && dx == (dy.0, inputs), "{} {out} x {inputs}: dy {dy:?}, dx {dx:?}", op.format());
}

/// `dy · W` as a new array.
///
/// # Panics
/// If the shapes do not fit.
pub fn apply_transpose(op: &(impl LinearOp + ?Sized), dy: &ArrayRef2<f32>) -> Array2<f32> {
    let mut dx = Array2::zeros((dy.nrows(), op.shape().1));
    op.apply_transpose_into(dy, &mut dx);
    dx
}

/// `x · Wᵀ` as a new array.
///
/// # Panics
/// If the shapes do not fit.
pub fn apply(op: &(impl LinearOp + ?Sized), x: &ArrayRef2<f32>) -> Array2<f32> {
    let mut y = Array2::zeros((x.nrows(), op.shape().0));
    op.apply_into(x, &mut y);
    y
}

/// A storage that can be made from a weight and a mask.
pub trait Compress: LinearOp + Sized {
    /// Stores what the mask keeps of a weight `(out, in)`, and nothing else.
    ///
    /// # Errors
    /// If the shapes differ, or the storage cannot hold this mask or this size.
    fn compress(weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Self>;
}

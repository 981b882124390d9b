//! A weight in any storage.

use super::csr::Csr;
use super::entries::{Entries, check_row};
use crate::Result;
use crate::kernels::Epilogue;
use crate::mask::Mask;
use ndarray::{Array2, ArrayRef2};

/// A weight `W (out, in)` in some storage, and the product with it.
pub trait LinearOp: Send + Sync + std::fmt::Debug {
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

    /// The kept weights row by row, in the numbers that the storage keeps: no array of `(out, in)` is made. A dense storage knows no mask: all of
    /// its weights are kept, zeros and all, and so are those of a type that does not say how.
    ///
    /// # Panics
    /// If there are 2³² kept weights or more.
    fn entries(&self) -> Entries {
        Entries::of_all(self.shape(), |row, to| self.row_into(row, to))
    }

    /// Which weights are kept: those of [`LinearOp::entries`].
    fn mask(&self) -> Mask {
        self.entries().mask()
    }

    /// The kept weights in compressed rows, to the bit those of [`LinearOp::to_dense`], in memory of their number. Of a dense storage all are
    /// kept, as in [`LinearOp::entries`].
    ///
    /// ```
    /// use lacuna_sparse::{mask::Mask, storage::{Bitmask, Compress, Csr, LinearOp}};
    /// use ndarray::array;
    /// let (w, mask) = (array![[1., 2., 0.], [0., 0., 3.]], Mask::from_fn(2, 3, |r, c| r != c));
    /// let csr = Bitmask::<f32>::compress(&w, &mask)?.to_csr();
    /// assert_eq!(csr, Csr::compress(&w, &mask)?); // the kept 0 is there too
    /// # Ok::<(), lacuna_sparse::Error>(())
    /// ```
    ///
    /// # Panics
    /// If there are 2³² kept weights or more.
    fn to_csr(&self) -> Csr {
        self.entries().into_csr()
    }

    /// Number of weights stored.
    fn nnz(&self) -> usize;

    /// Bytes of everything stored.
    fn bytes(&self) -> usize;
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

//! The weight whole, in 16 bits.

use crate::kernels::{Epilogue, FEW, Float, dense_few};
use crate::linalg::{Threads, gemm};
use crate::sparse::{LinearOp, Precision};
use half::{bf16, f16};
use ndarray::{Array2, ArrayRef2, ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

/// A whole weight `(out, in)` in numbers of 16 bits, multiplied in `f32`: half the bytes of [`Dense`](super::Dense), and with few tokens
/// half the time where the weight comes from memory. Holds only what these numbers hold exactly, so that products are those of the
/// `f32` weight.
///
/// Invariants: `out · in` numbers, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Half<T> {
    values: Vec<T>,
    shape: (usize, usize),
}

/// Rows that are widened at once: their numbers stay in the second cache.
const WIDE: usize = 1 << 18;

impl<T: Float> Half<T> {
    /// The weight, if every number of it is one of `T`, to the bit.
    pub fn exactly(weight: &ArrayRef2<f32>) -> Option<Self> {
        let weight = weight.as_standard_layout();
        let numbers = weight.as_slice()?;
        let part = |part: &[f32]| -> Option<Vec<T>> {
            let narrow = |&w: &f32| Some(T::encode(w)).filter(|t| t.decode().to_bits() == w.to_bits());
            part.iter().map(narrow).collect()
        };
        let parts: Vec<Vec<T>> = numbers.par_chunks(1 << 16).map(part).collect::<Option<_>>()?;
        Some(Half { values: parts.concat(), shape: weight.dim() })
    }

    /// Calls `f` with the first row and the numbers of one run of rows after another.
    fn widened(&self, mut f: impl FnMut(usize, ArrayView2<'_, f32>)) {
        let (rows, cols) = self.shape;
        let height = (WIDE / cols.max(1)).max(16).min(rows.max(1));
        let mut wide = vec![0.0f32; height * cols];
        for first in (0..rows).step_by(height) {
            let count = height.min(rows - first);
            let wide = &mut wide[..count * cols];
            let from = self.values[first * cols..][..count * cols].par_chunks(1 << 14);
            wide.par_chunks_mut(1 << 14).zip(from).for_each(|(to, from)| {
                to.iter_mut().zip(from).for_each(|(to, v)| *to = v.decode());
            });
            if let Ok(wide) = ArrayView2::from_shape((count, cols), wide) {
                f(first, wide);
            }
        }
    }
}

/// A whole weight whose rows can be read.
pub(crate) trait Narrow: LinearOp {
    /// One row, widened into `to`.
    ///
    /// # Panics
    /// If there is no such row, or `to` has not `in` numbers.
    fn row_into(&self, row: usize, to: &mut [f32]);
}

/// The weight in 16 bits, if a kind of them holds it exactly.
pub(crate) fn narrow(weight: &ArrayRef2<f32>) -> Option<Box<dyn Narrow>> {
    let bf16 = || Half::<bf16>::exactly(weight).map(|h| Box::new(h) as Box<dyn Narrow>);
    bf16().or_else(|| Half::<f16>::exactly(weight).map(|h| Box::new(h) as Box<dyn Narrow>))
}

/// The fewest bits that hold every number of the weight exactly.
pub(crate) fn exact(weight: &ArrayRef2<f32>) -> Precision {
    let numbers = weight.as_standard_layout();
    let numbers = numbers.as_slice().unwrap_or_default();
    fn all<T: Float>(numbers: &[f32]) -> bool {
        numbers.par_chunks(1 << 16).all(|part| part.iter().all(|w| T::encode(*w).decode().to_bits() == w.to_bits()))
    }
    match () {
        () if all::<bf16>(numbers) => Precision::Bf16,
        () if all::<f16>(numbers) => Precision::F16,
        () => Precision::F32,
    }
}

impl<T: Float> Narrow for Half<T> {
    fn row_into(&self, row: usize, to: &mut [f32]) {
        assert!(row < self.shape.0 && to.len() == self.shape.1, "row {row} of {:?} into {} numbers", self.shape, to.len());
        to.iter_mut().zip(&self.values[row * self.shape.1..]).for_each(|(to, v)| *to = v.decode());
    }
}

impl<T: Float> LinearOp for Half<T> {
    fn format(&self) -> &str {
        T::NAME
    }

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        super::op::check_shapes(self, x, y, epilogue);
        match (x.nrows(), x.as_slice()) {
            (1..=FEW, Some(x)) => dense_few(&self.values, x, y, epilogue),
            _ if epilogue.accumulate && epilogue.bias.is_none() && epilogue.activation.is_none() => {
                self.widened(|first, w| product(1.0, x, w, y.slice_mut(s![.., first..first + w.nrows()])));
            }
            _ => epilogue.after(y, |y| {
                self.widened(|first, w| product(0.0, x, w, y.slice_mut(s![.., first..first + w.nrows()])));
            }),
        }
    }

    fn pull_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        super::op::check_pull(self, dy, dx);
        dx.fill(0.0);
        self.widened(|first, w| gemm(1.0, dx, 1.0, &dy.slice(s![.., first..first + w.nrows()]), &w, Threads::Pool));
    }

    fn to_dense(&self) -> Array2<f32> {
        let mut dense = Array2::zeros(self.shape);
        self.widened(|first, w| dense.slice_mut(s![first..first + w.nrows(), ..]).assign(&w));
        dense
    }

    fn nnz(&self) -> usize {
        self.values.len()
    }

    fn bytes(&self) -> usize {
        size_of_val(self.values.as_slice())
    }
}

fn product(alpha: f32, x: &ArrayRef2<f32>, w: ArrayView2<'_, f32>, mut y: ArrayViewMut2<'_, f32>) {
    gemm(alpha, &mut y, 1.0, x, &w.t(), Threads::Pool);
}

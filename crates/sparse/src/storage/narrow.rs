//! The weight whole, in 16 bits; and in as few as hold it.

use super::quantized::Quantized;
use crate::kernels::{Epilogue, Float, Numbers, Threads, gemm, linear};
use crate::mask::Mask;
use crate::storage::{Entries, LinearOp, Precision};
use crate::{Error, Result};
use half::{bf16, f16};
use ndarray::{Array2, ArrayRef2, ArrayView2, s};
use rayon::prelude::*;

/// A whole weight `(out, in)` in numbers of 16 bits, multiplied in `f32`: half of the bytes of [`Dense`](super::Dense), and with few tokens
/// as much less time where the weight comes from memory.
///
/// Invariants: `out · in` numbers, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Narrowed<T> {
    numbers: Vec<T>,
    shape: (usize, usize),
    nnz: usize,
}

/// What `as_standard_layout` gives.
const STANDARD: &str = "an array in standard layout is a slice";

/// Rows that are widened at once: their numbers stay in the second cache.
const WIDE: usize = 1 << 18;
/// Numbers that a task widens, whole groups.
const TASK: usize = 1 << 14;

impl<T: Float> Narrowed<T> {
    /// The weight, if these numbers hold all of its own.
    pub fn exactly(weight: &ArrayRef2<f32>) -> Option<Self> {
        let weight = weight.as_standard_layout();
        let numbers = weight.as_slice().expect(STANDARD);
        let part = |part: &[f32]| -> Option<Vec<T>> {
            let narrow = |&w: &f32| Some(T::encode(w)).filter(|t| t.decode().to_bits() == w.to_bits());
            part.iter().map(narrow).collect()
        };
        let parts: Vec<Vec<T>> = numbers.par_chunks(1 << 16).map(part).collect::<Option<_>>()?;
        Some(Narrowed { numbers: parts.concat(), shape: weight.dim(), nnz: weight.len() })
    }

    /// What a mask keeps of the weight, each number rounded to the nearest of these.
    pub fn rounded(weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Self> {
        if weight.dim() != mask.dim() {
            return Err(Error::shape("mask", &[weight.nrows(), weight.ncols()], &[mask.rows(), mask.cols()]));
        }
        let numbers = mask.applied(weight).iter().map(|&w| T::encode(w)).collect();
        Ok(Narrowed { numbers, shape: weight.dim(), nnz: mask.kept() })
    }

    /// Calls `f` with the first row and the numbers of one run of rows after another.
    fn widened(&self, mut f: impl FnMut(usize, ArrayView2<'_, f32>)) {
        let (rows, cols) = self.shape;
        let height = (WIDE / cols.max(1)).max(16).min(rows.max(1));
        let mut wide = vec![0.0f32; height * cols];
        let numbers = &self.numbers[..];
        for first in (0..rows).step_by(height) {
            let count = height.min(rows - first);
            let wide = &mut wide[..count * cols];
            wide.par_chunks_mut(TASK).enumerate().for_each(|(i, to)| {
                let from = first * cols + i * TASK;
                numbers.part(from..from + to.len()).widen(to);
            });
            if let Ok(wide) = ArrayView2::from_shape((count, cols), wide) {
                f(first, wide);
            }
        }
    }
}

/// The weight in 4, 8 or 16 bits, if a kind of them holds it exactly: as [`Quantized::exactly`] finds it, else in bf16 or f16.
pub fn narrow(weight: &ArrayRef2<f32>) -> Option<Box<dyn LinearOp>> {
    fn by<T: Float>(weight: &ArrayRef2<f32>) -> Option<Box<dyn LinearOp>> {
        Narrowed::<T>::exactly(weight).map(|h| Box::new(h) as Box<dyn LinearOp>)
    }
    let codes = Quantized::exactly(weight).map(|w| Box::new(w) as Box<dyn LinearOp>);
    codes.or_else(|| by::<bf16>(weight)).or_else(|| by::<f16>(weight))
}

/// The fewest bits that hold every number of the weight exactly.
pub fn exact(weight: &ArrayRef2<f32>) -> Precision {
    let numbers = weight.as_standard_layout();
    let numbers = numbers.as_slice().expect(STANDARD);
    fn all<T: Float>(numbers: &[f32]) -> bool {
        numbers.par_chunks(1 << 16).all(|part| part.iter().all(|w| T::encode(*w).decode().to_bits() == w.to_bits()))
    }
    match () {
        () if all::<bf16>(numbers) => Precision::Bf16,
        () if all::<f16>(numbers) => Precision::F16,
        () => Precision::F32,
    }
}

impl<T: Float> LinearOp for Narrowed<T> {
    fn format(&self) -> &str {
        T::NAME
    }

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        super::op::check_shapes(self, x, y, epilogue);
        linear(&self.numbers[..], x, y, epilogue);
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        super::op::check_transpose(self, dy, dx);
        dx.fill(0.0);
        self.widened(|first, w| gemm(1.0, &dy.slice(s![.., first..first + w.nrows()]), &w, 1.0, dx, Threads::Pool));
    }

    fn to_dense(&self) -> Array2<f32> {
        let mut dense = Array2::zeros(self.shape);
        self.widened(|first, w| dense.slice_mut(s![first..first + w.nrows(), ..]).assign(&w));
        dense
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        super::entries::check_row(self.shape, row, to);
        (&self.numbers[row * to.len()..(row + 1) * to.len()]).widen(to);
    }

    fn entries(&self) -> Entries {
        Entries::whole(self.shape, T::list(self.numbers.clone()))
    }

    fn nnz(&self) -> usize {
        self.nnz
    }

    fn bytes(&self) -> usize {
        size_of_val(self.numbers.as_slice())
    }
}

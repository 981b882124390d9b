//! The weight as it is.

use super::entries::Entries;
use crate::kernels::{Epilogue, Threads, Values, gemm, linear};
use crate::mask::Mask;
use crate::storage::{Compress, LinearOp};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};

/// What every constructor sees to.
const STANDARD: &str = "a dense weight is in standard layout";

/// A weight stored whole, zeros and all, multiplied by dense products: what every sparse storage is measured against.
///
/// Dropped weights are multiplied as zeros, so an infinity in x makes NaNs. It does not remember which they were: to
/// [`LinearOp::entries`] all weights are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    weight: Array2<f32>,
    nnz: usize,
}

impl Dense {
    /// A weight `(out, in)`.
    pub fn new(weight: Array2<f32>) -> Self {
        let weight = if weight.is_standard_layout() { weight } else { weight.as_standard_layout().into_owned() };
        Dense { nnz: weight.len(), weight }
    }

    /// The weight, in standard layout.
    pub fn weight(&self) -> &Array2<f32> {
        &self.weight
    }

    /// The weight's numbers, row by row.
    fn numbers(&self) -> &[f32] {
        self.weight.as_slice().expect(STANDARD)
    }

    /// The weight's numbers, row by row, to be changed.
    pub fn as_slice_mut(&mut self) -> &mut [f32] {
        self.weight.as_slice_mut().expect(STANDARD)
    }
}

impl LinearOp for Dense {
    fn format(&self) -> &str {
        "dense"
    }

    fn shape(&self) -> (usize, usize) {
        self.weight.dim()
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        super::op::check_shapes(self, x, y, epilogue);
        linear(self.numbers(), x, y, epilogue);
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        super::op::check_transpose(self, dy, dx);
        gemm(1.0, dy, &self.weight, 0.0, dx, Threads::Pool);
    }

    fn to_dense(&self) -> Array2<f32> {
        self.weight.clone()
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        super::entries::check_row(self.shape(), row, to);
        to.copy_from_slice(&self.numbers()[row * to.len()..(row + 1) * to.len()]);
    }

    fn entries(&self) -> Entries {
        Entries::whole(self.shape(), Values::F32(self.numbers().to_vec()))
    }

    fn nnz(&self) -> usize {
        self.nnz
    }

    fn bytes(&self) -> usize {
        self.weight.len() * size_of::<f32>()
    }
}

impl Compress for Dense {
    fn compress(weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Self> {
        if weight.dim() != mask.dim() {
            return Err(Error::shape("mask", &[weight.nrows(), weight.ncols()], &[mask.rows(), mask.cols()]));
        }
        Ok(Dense { weight: mask.applied(weight).as_standard_layout().into_owned(), nnz: mask.kept() })
    }
}

//! The weight as it is.

use crate::kernels::{Epilogue, gemv};
use crate::linalg::{Threads, gemm};
use crate::mask::Mask;
use crate::sparse::{Compress, LinearOp};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};

/// A weight stored whole, zeros and all, multiplied by dense products: what every sparse storage is measured against.
///
/// Dropped weights are multiplied as zeros, so an infinity in x makes NaNs.
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

    /// The weight's numbers, row by row, to be changed.
    pub fn as_slice_mut(&mut self) -> &mut [f32] {
        self.weight.as_slice_mut().unwrap_or_default()
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
        let one = if x.nrows() == 1 { x.as_slice().zip(self.weight.as_slice()) } else { None };
        if epilogue.accumulate && epilogue.bias.is_none() && epilogue.activation.is_none() && one.is_none() {
            return gemm(1.0, y, 1.0, x, &self.weight.t(), Threads::Pool);
        }
        epilogue.after(y, |y| match (one, y.as_slice_mut()) {
            (Some((x, w)), Some(y)) => gemv(w, x, y),
            _ => gemm(0.0, y, 1.0, x, &self.weight.t(), Threads::Pool),
        });
    }

    fn to_dense(&self) -> Array2<f32> {
        self.weight.clone()
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

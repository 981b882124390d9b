//! A whole weight in panels.

use super::csr::Csr;
use crate::kernels::{Aligned, Epilogue, PanelNumbers, Panels, Threads, gemm, panel_of, panel_width, panels_product};
use crate::mask::Mask;
use crate::storage::{Compress, LinearOp};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, ArrayView2, Axis, s};
use rayon::prelude::*;

/// A weight stored whole, packed once for many products: some outputs side by side, column by column, as this machine's vectors take them.
///
/// It takes the bytes of a [`Dense`](super::Dense) weight (the last outputs are padded to a whole panel) and takes up to a quarter less time: weights are read
/// in few streams, in whole vectors. The sums of a token are the same bits whatever tokens stand beside it. Making it takes as
/// long as one to three products of 128 tokens. Its numbers cannot be changed; it is not for files.
///
/// As in [`Dense`](super::Dense), dropped weights are multiplied as zeros, and all weights are kept.
///
/// ```
/// use lacuna_sparse::storage::{LinearOp, PackedDense, apply};
/// use ndarray::array;
/// let w = array![[1., 2., 0.], [0., 4., 3.]];
/// let op = PackedDense::new(&w);
/// assert_eq!(apply(&op, &array![[1., 10., 100.]]), array![[21., 340.]]);
/// assert_eq!(op.to_dense(), w);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PackedDense {
    rows: usize,
    cols: usize,
    /// Outputs of a panel.
    width: usize,
    /// Panels one behind the other, each `(in, width)`.
    numbers: Aligned,
    nnz: usize,
}

impl PackedDense {
    /// A weight `(out, in)` of any strides.
    pub fn new(weight: &ArrayRef2<f32>) -> Self {
        let ((rows, cols), width) = (weight.dim(), panel_width());
        let mut numbers = Aligned::zeros(rows.div_ceil(width) * cols * width);
        if cols > 0 {
            let panels = numbers.par_chunks_exact_mut(cols * width).enumerate();
            panels.for_each(|(panel, to)| panel_of(weight, panel, to));
        }
        PackedDense { rows, cols, width, numbers, nnz: rows * cols }
    }

    /// The weight of compressed rows, with zeros where they have none.
    pub(super) fn of_csr(csr: &Csr) -> Self {
        PackedDense { nnz: csr.nnz(), ..PackedDense::new(&csr.to_dense()) }
    }

    /// The panel that begins at output `panel * width`: its outputs, `(in, outputs)`.
    fn panel(&self, panel: usize) -> ArrayView2<'_, f32> {
        let (size, outputs) = (self.cols * self.width, self.width.min(self.rows - panel * self.width));
        let whole = ArrayView2::from_shape((self.cols, self.width), &self.numbers[panel * size..(panel + 1) * size]);
        whole.expect("a panel has `width` numbers a column").slice_move(s![.., ..outputs])
    }

    /// Some outputs as they were, the first of them that of a panel.
    fn dense_rows(&self, first: usize, many: usize) -> Array2<f32> {
        let mut weight = Array2::zeros((many, self.cols));
        for (panel, mut rows) in weight.axis_chunks_iter_mut(Axis(0), self.width).enumerate() {
            let outputs = rows.nrows();
            rows.assign(&self.panel(first / self.width + panel).slice(s![.., ..outputs]).t());
        }
        weight
    }
}

/// Outputs that are unpacked at once on the way back.
const SOME: usize = 256;

impl LinearOp for PackedDense {
    fn format(&self) -> &str {
        "dense"
    }

    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        super::op::check_shapes(self, x, y, epilogue);
        let w = Panels { rows: self.rows, cols: self.cols, numbers: PanelNumbers::Packed(&self.numbers) };
        panels_product(w, x, y, epilogue, Threads::Pool);
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        super::op::check_transpose(self, dy, dx);
        dx.fill(0.0);
        let some = SOME.next_multiple_of(self.width);
        for first in (0..self.rows).step_by(some) {
            let many = some.min(self.rows - first);
            let w = self.dense_rows(first, many);
            gemm(1.0, &dy.slice(s![.., first..first + many]), &w, 1.0, dx, Threads::Pool);
        }
    }

    fn to_dense(&self) -> Array2<f32> {
        self.dense_rows(0, self.rows)
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        super::entries::check_row(self.shape(), row, to);
        let panel = self.panel(row / self.width);
        panel.index_axis(Axis(1), row % self.width).iter().zip(to).for_each(|(w, to)| *to = *w);
    }

    fn nnz(&self) -> usize {
        self.nnz
    }

    fn bytes(&self) -> usize {
        self.numbers.len() * size_of::<f32>()
    }
}

impl Compress for PackedDense {
    fn compress(weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Self> {
        if weight.dim() != mask.dim() {
            return Err(Error::shape("mask", &[weight.nrows(), weight.ncols()], &[mask.rows(), mask.cols()]));
        }
        Ok(PackedDense { nnz: mask.kept(), ..PackedDense::new(&mask.applied(weight)) })
    }
}

//! Products with compressed sparse rows, and how they are made.

use super::csr::{Csr, CsrView};
use super::entries::{Entries, Weights};
use super::kept::Kept;
use super::op::{check_shapes, check_transpose};
use crate::Result;
use crate::kernels::{CsrSlices, Epilogue, Values, csr_apply_transpose, csr_product};
use crate::mask::Mask;
use crate::storage::{Compress, LinearOp};
use ndarray::{Array2, ArrayRef2};

impl Weights for CsrView<'_> {
    type Number = f32;

    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn for_each(&self, mut f: impl FnMut(usize, usize, f32, f32)) {
        for r in 0..self.rows {
            for i in self.offsets[r] as usize..self.offsets[r + 1] as usize {
                f(r, self.indices[i] as usize, self.values[i], 1.0);
            }
        }
    }

    fn for_each_of(&self, row: usize, mut f: impl FnMut(usize, f32, f32)) {
        (self.offsets[row] as usize..self.offsets[row + 1] as usize)
            .for_each(|i| f(self.indices[i] as usize, self.values[i], 1.0));
    }
}

impl LinearOp for CsrView<'_> {
    fn format(&self) -> &str {
        "csr"
    }

    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        check_shapes(self, x, y, epilogue);
        let slices = CsrSlices { cols: self.cols, offsets: self.offsets, indices: self.indices, values: self.values };
        csr_product(slices, x, y, epilogue);
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        check_transpose(self, dy, dx);
        let slices = CsrSlices { cols: self.cols, offsets: self.offsets, indices: self.indices, values: self.values };
        csr_apply_transpose(slices, dy, dx);
    }

    fn to_dense(&self) -> Array2<f32> {
        self.dense()
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        Weights::row(self, row, to);
    }

    fn entries(&self) -> Entries {
        let (offsets, indices) = (self.offsets.to_vec(), self.indices.to_vec());
        let values = Values::F32(self.values.to_vec());
        Entries { rows: self.rows, cols: self.cols, offsets, indices, values, group: None, scales: Vec::new() }
    }

    fn nnz(&self) -> usize {
        self.values.len()
    }

    fn bytes(&self) -> usize {
        size_of_val(self.offsets) + size_of_val(self.indices) + size_of_val(self.values)
    }
}

impl LinearOp for Csr {
    fn format(&self) -> &str {
        "csr"
    }

    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        self.view().apply_with(x, y, epilogue);
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        self.view().apply_transpose_into(dy, dx);
    }

    fn to_dense(&self) -> Array2<f32> {
        self.view().to_dense()
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        self.view().row_into(row, to);
    }

    fn entries(&self) -> Entries {
        LinearOp::entries(&self.view())
    }

    fn to_csr(&self) -> Csr {
        self.clone()
    }

    fn nnz(&self) -> usize {
        self.values.len()
    }

    fn bytes(&self) -> usize {
        self.view().bytes()
    }
}

impl Csr {
    /// What the mask keeps.
    pub(super) fn pack(kept: &Kept<'_, f32>) -> Result<Self> {
        let (rows, cols) = kept.dim();
        let n = kept.check_sizes("csr")?;
        let mut csr = Csr { rows, cols, offsets: vec![0], indices: Vec::with_capacity(n), values: Vec::with_capacity(n) };
        for r in 0..rows {
            for c in kept.mask.row_indices(r) {
                csr.indices.push(c as u32);
                csr.values.push(kept.value(r, c, 1.0));
            }
            csr.offsets.push(csr.indices.len() as u32);
        }
        Ok(csr)
    }

    /// The mask of what is stored.
    pub fn mask(&self) -> Mask {
        self.view().stored()
    }
}

impl Compress for Csr {
    /// # Errors
    /// If the shapes differ, or there are 2³² weights or columns or more.
    fn compress(weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Self> {
        Csr::pack(&Kept::of(weight, mask))
    }
}

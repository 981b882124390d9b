//! Compressed sparse rows, the interchange form.

use super::op::{Entries, check_shapes, check_sizes, check_transpose};
use crate::kernels::{CsrSlices, Epilogue, csr_apply_transpose, csr_product};
use crate::mask::Mask;
use crate::storage::{Compress, LinearOp};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use sprs::{CsMatBase, CsMatI, CsMatViewI, SpIndex};
use std::any::Any;
use std::ops::Deref;

/// A weight in compressed sparse rows, with 32-bit indices: 8 bytes a weight, so smaller than dense above 50 % sparsity.
///
/// # Invariants
/// - `offsets.len() == rows + 1`, `offsets[0] == 0`, `offsets[rows] == indices.len() == values.len()`.
/// - `offsets` never decreases.
/// - Within a row, `indices` increase strictly and are below `cols`.
///
/// ```
/// use lacuna_sparse::{mask::Mask, storage::{apply, Compress, Csr, LinearOp}};
/// use ndarray::array;
/// let w = array![[1., 2., 0.], [0., 0., 3.]];
/// let csr = Csr::compress(&w, &Mask::from_fn(2, 3, |r, c| r != c)).unwrap();
/// assert_eq!(csr.nnz(), 4); // a kept weight that is 0 is stored
/// assert_eq!(apply(&csr, &array![[1., 10., 100.]]), array![[20., 300.]]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Csr {
    rows: usize,
    cols: usize,
    offsets: Vec<u32>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

/// A borrowed [`Csr`]: the same invariants over somebody's slices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CsrView<'a> {
    rows: usize,
    cols: usize,
    offsets: &'a [u32],
    indices: &'a [u32],
    values: &'a [f32],
}

impl Csr {
    /// A weight from its parts, checked.
    ///
    /// # Errors
    /// As [`CsrView::new`].
    pub fn new(rows: usize, cols: usize, offsets: Vec<u32>, indices: Vec<u32>, values: Vec<f32>) -> Result<Self> {
        CsrView::new(rows, cols, &offsets, &indices, &values)?;
        Ok(Csr { rows, cols, offsets, indices, values })
    }

    /// The whole as a view.
    pub fn view(&self) -> CsrView<'_> {
        CsrView { rows: self.rows, cols: self.cols, offsets: &self.offsets, indices: &self.indices, values: &self.values }
    }

    /// The values, row by row, to be changed: training moves them where they are.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The mask of what is stored.
    pub fn mask(&self) -> Mask {
        self.view().stored()
    }

    /// A matrix of `sprs`, or a slice of one that owns its numbers (`slice_outer(1..3).to_owned()`), whose offsets do not begin at 0. Memory
    /// with indices of `u32` is taken over without a copy; indices of other types become `u32`.
    ///
    /// ```
    /// use lacuna_sparse::storage::{Csr, LinearOp};
    /// let eye: sprs::CsMatI<f32, u32> = sprs::CsMatI::eye(4);
    /// let rows = Csr::from_sprs(eye.slice_outer(1..3).to_owned())?;
    /// assert_eq!(rows.to_dense(), ndarray::array![[0., 1., 0., 0.], [0., 0., 1., 0.]]);
    /// # Ok::<(), lacuna_sparse::Error>(())
    /// ```
    ///
    /// # Errors
    /// If it is stored by columns (convert it with `to_csr` first), or an index does not fit `u32`.
    pub fn from_sprs<I: SpIndex + 'static, Iptr: SpIndex + 'static>(matrix: CsMatI<f32, I, Iptr>) -> Result<Self> {
        if !matrix.is_csr() {
            return Err(Error::setting("csr", "the sprs matrix is stored by columns; convert it with to_csr()"));
        }
        let (rows, cols) = matrix.shape();
        let (offsets, indices, values) = matrix.into_raw_storage();
        let (mut offsets, indices) = (narrowed(offsets)?, narrowed(indices)?);
        if let Some(first) = offsets.first().copied().filter(|first| *first != 0) {
            // sprs keeps the offsets of the whole matrix with the numbers of the slice alone.
            offsets.iter_mut().for_each(|at| *at = at.saturating_sub(first));
        }
        Csr::new(rows, cols, offsets, indices, values)
    }

    /// This weight as a matrix of `sprs`, which takes its memory over without a copy.
    ///
    /// # Errors
    /// Never for a weight that keeps the invariants.
    pub fn into_sprs(self) -> Result<CsMatI<f32, u32>> {
        CsMatI::try_new((self.rows, self.cols), self.offsets, self.indices, self.values)
            .map_err(|(_, _, _, e)| Error::setting("csr", e.to_string()))
    }
}

impl<'a> CsrView<'a> {
    /// A weight over slices, checked.
    ///
    /// # Errors
    /// Names the first invariant that is broken, with the numbers.
    pub fn new(rows: usize, cols: usize, offsets: &'a [u32], indices: &'a [u32], values: &'a [f32]) -> Result<Self> {
        let refuse = |reason: String| Err(Error::setting("csr", reason));
        if indices.len() != values.len() {
            return refuse(format!("{} indices for {} values", indices.len(), values.len()));
        }
        if offsets.is_empty() || offsets.len() - 1 != rows {
            return refuse(format!("{} offsets for {rows} rows, where each row has one and the end another", offsets.len()));
        }
        if offsets[0] != 0 || offsets[rows] as usize != indices.len() {
            return refuse(format!("offsets run from {} to {} over {} values", offsets[0], offsets[rows], indices.len()));
        }
        if let Some(r) = (0..rows).find(|&r| offsets[r] > offsets[r + 1]) {
            return refuse(format!("offsets of row {r} decrease from {} to {}", offsets[r], offsets[r + 1]));
        }
        for r in 0..rows {
            let row = &indices[offsets[r] as usize..offsets[r + 1] as usize];
            if let Some(w) = row.windows(2).find(|w| w[0] >= w[1]) {
                return refuse(format!("indices of row {r} do not increase: {} before {}", w[0], w[1]));
            }
            if let Some(&c) = row.last().filter(|&&c| c as usize >= cols) {
                return refuse(format!("row {r} has index {c} in {cols} columns"));
            }
        }
        Ok(CsrView { rows, cols, offsets, indices, values })
    }

    /// The memory of an `sprs` matrix, or of a view of one, as a view, without a copy.
    ///
    /// # Errors
    /// If it is stored by columns, or is a slice whose offsets do not begin at 0, which [`Csr::from_sprs`] takes as its own
    /// (`matrix.to_owned()`).
    pub fn from_sprs<P, I, V>(matrix: &'a CsMatBase<f32, u32, P, I, V>) -> Result<Self>
    where
        P: Deref<Target = [u32]>,
        I: Deref<Target = [u32]>,
        V: Deref<Target = [f32]>,
    {
        let indptr = matrix.proper_indptr();
        let (true, std::borrow::Cow::Borrowed(offsets)) = (matrix.is_csr(), indptr) else {
            return Err(Error::setting("csr", "the sprs matrix is stored by columns or is a slice of another"));
        };
        let (rows, cols) = matrix.shape();
        CsrView::new(rows, cols, offsets, matrix.indices(), matrix.data())
    }

    /// This weight as a view of `sprs`, without a copy.
    ///
    /// # Errors
    /// Never for a weight that keeps the invariants.
    pub fn to_sprs(&self) -> Result<CsMatViewI<'a, f32, u32>> {
        CsMatViewI::try_new((self.rows, self.cols), self.offsets, self.indices, self.values)
            .map_err(|(_, _, _, e)| Error::setting("csr", e.to_string()))
    }

    /// First entry of each row among indices and values, and one past the last.
    pub fn offsets(&self) -> &'a [u32] {
        self.offsets
    }

    /// Column of each value.
    pub fn indices(&self) -> &'a [u32] {
        self.indices
    }

    /// The values, row by row.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }
}

/// Offsets or indices as `u32`, without a copy if they are.
fn narrowed<I: SpIndex + 'static>(numbers: Vec<I>) -> Result<Vec<u32>> {
    let mut numbers = Some(numbers);
    if let Some(same) = (&mut numbers as &mut dyn Any).downcast_mut::<Option<Vec<u32>>>().and_then(Option::take) {
        return Ok(same);
    }
    let one = |i: I| {
        let fits = i.try_index().and_then(|i| u32::try_from(i).ok());
        fits.ok_or_else(|| Error::setting("csr", format!("index {i:?} of the sprs matrix does not fit 32 bits")))
    };
    numbers.into_iter().flatten().map(one).collect()
}

impl Entries for CsrView<'_> {
    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn for_each(&self, mut f: impl FnMut(usize, usize, f32)) {
        for r in 0..self.rows {
            for i in self.offsets[r] as usize..self.offsets[r + 1] as usize {
                f(r, self.indices[i] as usize, self.values[i]);
            }
        }
    }

    fn for_each_of(&self, row: usize, mut f: impl FnMut(usize, f32)) {
        (self.offsets[row] as usize..self.offsets[row + 1] as usize).for_each(|i| f(self.indices[i] as usize, self.values[i]));
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
        Entries::row(self, row, to);
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

    fn nnz(&self) -> usize {
        self.values.len()
    }

    fn bytes(&self) -> usize {
        self.view().bytes()
    }
}

impl Compress for Csr {
    /// # Errors
    /// If the shapes differ, or there are 2³² weights or columns or more.
    fn compress(weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Self> {
        let (rows, cols) = weight.dim();
        let kept = check_sizes("csr", weight, mask)?;
        let mut csr = Csr { rows, cols, offsets: vec![0], indices: Vec::with_capacity(kept), values: Vec::with_capacity(kept) };
        for r in 0..rows {
            for c in mask.row_indices(r) {
                csr.indices.push(c as u32);
                csr.values.push(weight[[r, c]]);
            }
            csr.offsets.push(csr.indices.len() as u32);
        }
        Ok(csr)
    }
}

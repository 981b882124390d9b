//! Matrices of the crate `sprs`, and back.

use super::csr::{Csr, CsrView, check_lines};
use crate::{Error, Result};
use sprs::{CsMat, CsMatBase, CsMatI, CsMatViewI, SpIndex};
use std::any::Any;
use std::ops::Deref;

impl Csr {
    /// A matrix of `sprs` by rows or by columns, its default [`CsMat`] too, or a slice of one that owns its numbers
    /// (`slice_outer(1..3).to_owned()`), whose offsets do not begin at 0. Of a matrix by rows the values are taken over without a copy, and so are
    /// indices of `u32`; those of other types become `u32`. One by columns is transposed in time of its entries. Stored zeros stay.
    ///
    /// ```
    /// use lacuna_sparse::storage::{Csr, LinearOp};
    /// let by_rows: sprs::CsMat<f32> = sprs::CsMat::new((2, 3), vec![0, 1, 3], vec![1, 0, 2], vec![5., 6., 7.]);
    /// let csr = Csr::from_sprs(by_rows.clone())?;
    /// assert_eq!(csr.to_dense(), ndarray::array![[0., 5., 0.], [6., 0., 7.]]);
    /// assert_eq!(Csr::from_sprs(by_rows.to_csc())?, csr);
    /// assert_eq!(csr.to_sprs()?, by_rows);
    /// # Ok::<(), lacuna_sparse::Error>(())
    /// ```
    ///
    /// # Errors
    /// If an index or a count does not fit `u32`, or indices of a row or column do not increase or lie outside of the matrix: the first place
    /// is named.
    pub fn from_sprs<I: SpIndex + 'static, Iptr: SpIndex + 'static>(matrix: CsMatI<f32, I, Iptr>) -> Result<Self> {
        let ((rows, cols), by_rows) = (matrix.shape(), matrix.is_csr());
        if !by_rows && u32::try_from(rows).is_err() {
            return Err(Error::invalid_option("csr", format!("the sprs matrix has {rows} rows, which do not fit 32 bits")));
        }
        let (offsets, indices, values) = matrix.into_raw_storage();
        let (mut offsets, indices) = (narrowed(offsets, "offset")?, narrowed(indices, "index")?);
        if let Some(first) = offsets.first().copied().filter(|first| *first != 0) {
            // sprs keeps the offsets of the whole matrix with the numbers of the slice alone.
            offsets.iter_mut().for_each(|at| *at = at.saturating_sub(first));
        }
        if by_rows {
            return Csr::new(rows, cols, offsets, indices, values);
        }
        check_lines(["column", "columns", "rows"], (cols, rows), &offsets, &indices, values.len())?;
        Ok(Csr { rows: cols, cols: rows, offsets, indices, values }.transpose())
    }

    /// This weight as a matrix of `sprs`'s default type, whose indices are `usize`: a copy. [`Csr::into_sprs`] makes none, and
    /// [`CsrView::to_sprs`] is a view, with indices of `u32`.
    ///
    /// # Errors
    /// Never for a weight that keeps the invariants.
    pub fn to_sprs(&self) -> Result<CsMat<f32>> {
        let wide = |list: &[u32]| list.iter().map(|&i| i as usize).collect::<Vec<usize>>();
        CsMat::try_new((self.rows, self.cols), wide(&self.offsets), wide(&self.indices), self.values.clone())
            .map_err(|(_, _, _, e)| Error::invalid_option("csr", e.to_string()))
    }

    /// This weight as a matrix of `sprs`, which takes its memory over without a copy.
    ///
    /// # Errors
    /// Never for a weight that keeps the invariants.
    pub fn into_sprs(self) -> Result<CsMatI<f32, u32>> {
        CsMatI::try_new((self.rows, self.cols), self.offsets, self.indices, self.values)
            .map_err(|(_, _, _, e)| Error::invalid_option("csr", e.to_string()))
    }
}

impl<'a> CsrView<'a> {
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
            return Err(Error::invalid_option("csr", "the sprs matrix is stored by columns or is a slice of another"));
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
            .map_err(|(_, _, _, e)| Error::invalid_option("csr", e.to_string()))
    }
}

/// Offsets or indices as `u32`, without a copy if they are.
fn narrowed<I: SpIndex + 'static>(numbers: Vec<I>, what: &str) -> Result<Vec<u32>> {
    let mut numbers = Some(numbers);
    if let Some(same) = (&mut numbers as &mut dyn Any).downcast_mut::<Option<Vec<u32>>>().and_then(Option::take) {
        return Ok(same);
    }
    let one = |i: I| {
        let fits = i.try_index().and_then(|i| u32::try_from(i).ok());
        fits.ok_or_else(|| Error::invalid_option("csr", format!("{what} {i:?} of the sprs matrix does not fit 32 bits")))
    };
    numbers.into_iter().flatten().map(one).collect()
}

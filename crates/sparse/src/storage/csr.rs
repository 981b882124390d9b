//! Compressed sparse rows, the interchange form.

use crate::{Error, Result};

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
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) offsets: Vec<u32>,
    pub(super) indices: Vec<u32>,
    pub(super) values: Vec<f32>,
}

/// A borrowed [`Csr`]: the same invariants over somebody's slices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CsrView<'a> {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) offsets: &'a [u32],
    pub(super) indices: &'a [u32],
    pub(super) values: &'a [f32],
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

    /// The transposed weight `(in, out)`, in time of its entries: `apply(&csr.transpose(), dy)` is `dy · W`.
    pub fn transpose(&self) -> Csr {
        let mut offsets = vec![0u32; self.cols + 1];
        self.indices.iter().for_each(|&c| offsets[c as usize + 1] += 1);
        (0..self.cols).for_each(|c| offsets[c + 1] += offsets[c]);
        let (mut next, n) = (offsets.clone(), self.values.len());
        let (mut indices, mut values) = (vec![0u32; n], vec![0.0f32; n]);
        for r in 0..self.rows {
            for i in self.offsets[r] as usize..self.offsets[r + 1] as usize {
                let to = &mut next[self.indices[i] as usize];
                (indices[*to as usize], values[*to as usize]) = (r as u32, self.values[i]);
                *to += 1;
            }
        }
        Csr { rows: self.cols, cols: self.rows, offsets, indices, values }
    }

    /// The values, row by row, to be changed: training moves them where they are.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

impl<'a> CsrView<'a> {
    /// A weight over slices, checked.
    ///
    /// # Errors
    /// Names the first invariant that is broken, with the numbers.
    pub fn new(rows: usize, cols: usize, offsets: &'a [u32], indices: &'a [u32], values: &'a [f32]) -> Result<Self> {
        check_lines(["row", "rows", "columns"], (rows, cols), offsets, indices, values.len())?;
        Ok(CsrView { rows, cols, offsets, indices, values })
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

/// The invariants of compressed lines, of so many entries of so many numbers at most: rows, or columns where a matrix is stored by them.
pub(super) fn check_lines(
    [line, lines, across]: [&str; 3],
    (rows, cols): (usize, usize),
    offsets: &[u32],
    indices: &[u32],
    values: usize,
) -> Result<()> {
    let refuse = |reason: String| Err(Error::invalid_option("csr", reason));
    if indices.len() != values {
        return refuse(format!("{} indices for {values} values", indices.len()));
    }
    if offsets.is_empty() || offsets.len() - 1 != rows {
        return refuse(format!("{} offsets for {rows} {lines}, where each {line} has one and the end another", offsets.len()));
    }
    if offsets[0] != 0 || offsets[rows] as usize != indices.len() {
        return refuse(format!("offsets run from {} to {} over {} values", offsets[0], offsets[rows], indices.len()));
    }
    if let Some(r) = (0..rows).find(|&r| offsets[r] > offsets[r + 1]) {
        return refuse(format!("offsets of {line} {r} decrease from {} to {}", offsets[r], offsets[r + 1]));
    }
    for r in 0..rows {
        let of = &indices[offsets[r] as usize..offsets[r + 1] as usize];
        if let Some(w) = of.windows(2).find(|w| w[0] >= w[1]) {
            return refuse(format!("indices of {line} {r} do not increase: {} before {}", w[0], w[1]));
        }
        if let Some(&c) = of.last().filter(|&&c| c as usize >= cols) {
            return refuse(format!("{line} {r} has index {c} in {cols} {across}"));
        }
    }
    Ok(())
}

//! [`Mask`]: one bit a weight.

use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, ArrayViewMut1, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Weights from which on threads share the setting of zeros.
const PARALLEL: usize = 1 << 18;

/// Which weights of one `(rows, cols)` matrix stay: one bit each, true = kept.
///
/// A mask is saved and never inferred from `w == 0`: a kept weight may happen to be zero.
///
/// # Invariants
/// - `words.len() == rows * cols.div_ceil(64)`: each row starts at a new word.
/// - Bit `c % 64` of word `c / 64` of a row stands for column `c`.
/// - Bits past the last column are 0.
///
/// ```
/// use lacuna_sparse::mask::Mask;
/// use ndarray::array;
/// let mask = Mask::from_array(&array![[true, false, true], [false, false, true]]);
/// assert_eq!((mask.kept(), mask.len()), (3, 6));
/// assert_eq!(mask.row_counts(), [2, 1]);
/// assert_eq!(mask.applied(&array![[1., 2., 3.], [4., 5., 6.]]), array![[1., 0., 3.], [0., 0., 6.]]);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Packed", into = "Packed")]
pub struct Mask {
    rows: usize,
    cols: usize,
    words: Vec<u64>,
}

/// The serialised form: `bits` are [`Mask::to_bytes`].
#[derive(Serialize, Deserialize)]
struct Packed {
    rows: usize,
    cols: usize,
    bits: Vec<u8>,
}

impl From<Mask> for Packed {
    fn from(mask: Mask) -> Self {
        Packed { rows: mask.rows, cols: mask.cols, bits: mask.to_bytes() }
    }
}

impl TryFrom<Packed> for Mask {
    type Error = Error;
    fn try_from(p: Packed) -> Result<Self> {
        Mask::from_bytes(p.rows, p.cols, &p.bits)
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({} x {}, {} kept)", self.rows, self.cols, self.kept())
    }
}

impl Mask {
    /// A mask that keeps nothing.
    pub fn empty(rows: usize, cols: usize) -> Self {
        Mask { rows, cols, words: vec![0; rows * cols.div_ceil(64)] }
    }

    /// A mask that keeps everything.
    pub fn full(rows: usize, cols: usize) -> Self {
        Mask::empty(rows, cols).not()
    }

    /// The mask that keeps `(row, col)` where `keep(row, col)` says so.
    pub fn from_fn(rows: usize, cols: usize, mut keep: impl FnMut(usize, usize) -> bool) -> Self {
        let mut mask = Mask::empty(rows, cols);
        for r in 0..rows {
            for c in 0..cols {
                mask.set(r, c, keep(r, c));
            }
        }
        mask
    }

    /// The mask of a boolean array, true = kept.
    pub fn from_array(keep: &ArrayRef2<bool>) -> Self {
        Mask::from_fn(keep.nrows(), keep.ncols(), |r, c| keep[[r, c]])
    }

    /// How many numbers of a matrix that are not 0 the mask drops.
    ///
    /// ```
    /// use lacuna_sparse::mask::Mask;
    /// use ndarray::array;
    /// let mask = Mask::from_fn(2, 2, |r, c| r == c);
    /// assert_eq!(mask.dropped_nonzeros(&array![[1., 2.], [0., 0.]]), 1);
    /// ```
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn dropped_nonzeros(&self, weight: &ArrayRef2<f32>) -> usize {
        assert!(weight.dim() == self.dim(), "a mask of {:?} on {:?}", self.dim(), weight.dim());
        let rows = weight.outer_iter().into_par_iter().enumerate();
        rows.map(|(r, row)| row.iter().enumerate().filter(|(c, w)| **w != 0.0 && !self.get(r, *c)).count()).sum()
    }

    /// The mask of the transposed matrix.
    ///
    /// ```
    /// use lacuna_sparse::mask::Mask;
    /// let mask = Mask::from_fn(2, 3, |r, c| c > r);
    /// assert_eq!(mask.transpose(), Mask::from_fn(3, 2, |r, c| r > c));
    /// ```
    #[must_use]
    pub fn transpose(&self) -> Mask {
        let mut turned = Mask::empty(self.cols, self.rows);
        self.iter_kept().for_each(|(r, c)| turned.set(c, r, true));
        turned
    }

    /// The mask as a boolean array, true = kept.
    pub fn to_array(&self) -> Array2<bool> {
        Array2::from_shape_fn((self.rows, self.cols), |(r, c)| self.get(r, c))
    }

    /// The bits of the rows one after the other, `ceil(cols / 8)` bytes a row, least significant bit first: the layout of
    /// the published `sparse-bitmask` checkpoints.
    pub fn to_bytes(&self) -> Vec<u8> {
        let width = self.cols.div_ceil(8);
        self.words.chunks(self.stride().max(1)).flat_map(|row| row.iter().flat_map(|w| w.to_le_bytes()).take(width)).collect()
    }

    /// The inverse of [`Mask::to_bytes`].
    ///
    /// # Errors
    /// If the number of bytes is not `rows * ceil(cols / 8)`, or if a bit past the last column is set.
    pub fn from_bytes(rows: usize, cols: usize, bytes: &[u8]) -> Result<Self> {
        let width = cols.div_ceil(8);
        if rows.checked_mul(width) != Some(bytes.len()) {
            return Err(Error::shape("bytes of a mask", &[rows, width], &[bytes.len()]));
        }
        let mut mask = Mask::empty(rows, cols);
        let stride = mask.stride();
        for (r, row) in bytes.chunks(width.max(1)).enumerate() {
            for (i, part) in row.chunks(8).enumerate() {
                let mut word = [0; 8];
                word[..part.len()].copy_from_slice(part);
                mask.words[r * stride + i] = u64::from_le_bytes(word);
            }
            if cols % 64 != 0 && mask.words[(r + 1) * stride - 1] >> (cols % 64) != 0 {
                return Err(Error::Violation {
                    pattern: format!("a mask of {cols} columns"),
                    place: format!("row {r}"),
                    found: "has a bit set past its last column".into(),
                });
            }
        }
        Ok(mask)
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// `(rows, cols)`.
    pub fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Number of weights, kept or not.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Whether the matrix has no weights at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Words of a row.
    pub(crate) fn stride(&self) -> usize {
        self.cols.div_ceil(64)
    }

    /// The words, a row after the other; see the invariants.
    pub(crate) fn row_words(&self, row: usize) -> &[u64] {
        &self.words[row * self.stride()..(row + 1) * self.stride()]
    }

    /// The words of all rows, to be written.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Whether a weight stays.
    ///
    /// # Panics
    /// If the position lies outside the matrix.
    pub fn get(&self, row: usize, col: usize) -> bool {
        assert!(row < self.rows && col < self.cols, "({row}, {col}) lies outside {:?}", self.dim());
        self.words[row * self.stride() + col / 64] >> (col % 64) & 1 == 1
    }

    /// Says of one weight whether it stays.
    ///
    /// # Panics
    /// If the position lies outside the matrix.
    pub fn set(&mut self, row: usize, col: usize, keep: bool) {
        assert!(row < self.rows && col < self.cols, "({row}, {col}) lies outside {:?}", self.dim());
        let at = row * self.stride() + col / 64;
        let bit = 1 << (col % 64);
        if keep { self.words[at] |= bit } else { self.words[at] &= !bit }
    }

    /// Number of weights that stay.
    pub fn kept(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Share of the weights that stay; 1 for a matrix without weights.
    pub fn density(&self) -> f64 {
        if self.is_empty() { 1.0 } else { self.kept() as f64 / self.len() as f64 }
    }

    /// Share of the weights that go, `1 - density`.
    pub fn sparsity(&self) -> f64 {
        1.0 - self.density()
    }

    /// The columns kept in one row, ascending.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_indices(&self, row: usize) -> impl Iterator<Item = usize> + '_ {
        let words = &self.words[row * self.stride()..(row + 1) * self.stride()];
        words.iter().enumerate().flat_map(|(i, &word)| {
            std::iter::successors((word != 0).then_some(word), |w| Some(w & (w - 1)).filter(|w| *w != 0))
                .map(move |w| 64 * i + w.trailing_zeros() as usize)
        })
    }

    /// The positions `(row, col)` that are kept, row by row.
    pub fn iter_kept(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.rows).flat_map(|r| self.row_indices(r).map(move |c| (r, c)))
    }

    /// Kept weights of each row.
    pub fn row_counts(&self) -> Vec<usize> {
        (0..self.rows)
            .map(|r| self.words[r * self.stride()..(r + 1) * self.stride()].iter().map(|w| w.count_ones() as usize).sum())
            .collect()
    }

    /// Kept weights of each column.
    pub fn col_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.cols];
        self.iter_kept().for_each(|(_, c)| counts[c] += 1);
        counts
    }

    /// Kept weights of each block of `rows x cols`, as a `(ceil(R / rows), ceil(C / cols))` array. Blocks at the lower and
    /// right edge may be smaller.
    ///
    /// # Panics
    /// If `rows` or `cols` is 0.
    pub fn block_counts(&self, rows: usize, cols: usize) -> Array2<usize> {
        assert!(rows > 0 && cols > 0, "a block has rows and columns, not {rows} x {cols}");
        let mut counts = Array2::zeros((self.rows.div_ceil(rows), self.cols.div_ceil(cols)));
        self.iter_kept().for_each(|(r, c)| counts[[r / rows, c / cols]] += 1);
        counts
    }

    /// Weights kept by both.
    ///
    /// # Panics
    /// If the masks differ in shape.
    pub fn and(&self, other: &Mask) -> Mask {
        self.zip(other, |a, b| a & b)
    }

    /// Weights kept by either.
    ///
    /// # Panics
    /// If the masks differ in shape.
    pub fn or(&self, other: &Mask) -> Mask {
        self.zip(other, |a, b| a | b)
    }

    /// Weights kept by exactly one.
    ///
    /// # Panics
    /// If the masks differ in shape.
    pub fn xor(&self, other: &Mask) -> Mask {
        self.zip(other, |a, b| a ^ b)
    }

    /// Weights kept by this mask and not by the other.
    ///
    /// # Panics
    /// If the masks differ in shape.
    pub fn minus(&self, other: &Mask) -> Mask {
        self.zip(other, |a, b| a & !b)
    }

    /// The weights that this mask drops.
    #[allow(clippy::should_implement_trait)]
    pub fn not(&self) -> Mask {
        let mut mask = Mask { words: self.words.iter().map(|w| !w).collect(), ..*self };
        if self.cols % 64 != 0 {
            let last = (1 << (self.cols % 64)) - 1;
            mask.words.chunks_mut(self.stride()).for_each(|row| row[row.len() - 1] &= last);
        }
        mask
    }

    /// Whether all that this mask keeps the other keeps too.
    ///
    /// # Panics
    /// If the masks differ in shape.
    pub fn is_subset_of(&self, other: &Mask) -> bool {
        self.minus(other).kept() == 0
    }

    fn zip(&self, other: &Mask, f: impl Fn(u64, u64) -> u64) -> Mask {
        assert_eq!(self.dim(), other.dim(), "two masks of one operation differ in shape");
        Mask { words: self.words.iter().zip(&other.words).map(|(&a, &b)| f(a, b)).collect(), ..*self }
    }

    /// Sets every weight that goes to 0, whatever it was (an infinity or a NaN too).
    ///
    /// # Panics
    /// If the weight's shape is not the mask's.
    pub fn apply(&self, weight: &mut ArrayRef2<f32>) {
        assert_eq!(weight.dim(), self.dim(), "a mask and its weight differ in shape");
        let stride = self.stride();
        let apply = |(r, mut row): (usize, ArrayViewMut1<'_, f32>)| {
            let words = &self.words[r * stride..(r + 1) * stride];
            if let Some(row) = row.as_slice_mut() {
                for (part, &word) in row.chunks_mut(64).zip(words) {
                    if word != u64::MAX {
                        part.iter_mut().enumerate().for_each(|(i, w)| *w = if word >> i & 1 == 1 { *w } else { 0.0 });
                    }
                }
            } else {
                row.iter_mut().enumerate().for_each(|(c, w)| *w = if words[c / 64] >> (c % 64) & 1 == 1 { *w } else { 0.0 });
            }
        };
        if weight.len() < PARALLEL {
            weight.rows_mut().into_iter().enumerate().for_each(apply);
        } else {
            weight.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(apply);
        }
    }

    /// A copy of the weight with everything that goes set to 0.
    ///
    /// # Panics
    /// If the weight's shape is not the mask's.
    pub fn applied(&self, weight: &ArrayRef2<f32>) -> Array2<f32> {
        let mut weight = weight.to_owned();
        self.apply(&mut weight);
        weight
    }
}

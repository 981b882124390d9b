//! One bit a weight, and the values of those that stay.

use super::blocks::{SINGLE, block_of, blocks, check, check_starts};
use super::entries::{Entries, Weights};
use super::kept::Kept;
use super::op::{check_shapes, check_transpose};
use super::scale::Scaling;
use crate::kernels::{BitmaskSlices, Epilogue, Expand, SLACK, apply_transpose, bitmask_product};
use crate::mask::Mask;
use crate::storage::{Compress, LinearOp};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};

/// A weight as bits in tiles of columns, and the values where bits are set: 4 bytes a kept weight in `f32` and an eighth of a byte for
/// every weight, so smaller than dense from 4 % sparsity on.
///
/// # Invariants
/// - `blocks` rises strictly from 0 to `rows`. Runs (a row's part of a tile) stand in the order block, tile, row: `rows * tiles` in all.
/// - A tile is `tile` words of 64 columns wide, the last one narrower if need be; a run has one word for each.
/// - No bit stands beyond the last column.
/// - `starts` has one number a run and one more, runs from 0 to the number of values, and rises by the bits of each run.
/// - There is one scale a run if values have scales, else none; scales are finite and above 0.
///
/// ```
/// use lacuna_sparse::{mask::Mask, storage::{apply, Bitmask, Compress, LinearOp}};
/// use ndarray::array;
/// let w = array![[1., 2., 0.], [0., 0., 3.]];
/// let op = Bitmask::<f32>::compress(&w, &Mask::from_fn(2, 3, |r, c| r != c)).unwrap();
/// assert_eq!(op.nnz(), 4); // a kept weight that is 0 is stored
/// assert_eq!(apply(&op, &array![[1., 10., 100.]]), array![[20., 300.]]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Bitmask<T = f32> {
    /// The values are followed by SLACK more, which kernels may read.
    parts: BitmaskParts<T>,
}

/// What a [`Bitmask`] is made of; its invariants stand there.
#[derive(Debug, Clone, PartialEq)]
pub struct BitmaskParts<T> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Words of 64 columns in a tile.
    pub tile: usize,
    /// First row of each block, and one past the last row.
    pub blocks: Vec<u32>,
    /// First value of each run, and one past the last.
    pub starts: Vec<u32>,
    /// The bits of each run, lowest column first.
    pub words: Vec<u64>,
    /// The values, run by run.
    pub values: Vec<T>,
    /// Factor of the values of each run; empty where values are floats.
    pub scales: Vec<f32>,
}

const FORMAT: &str = "bitmask";
/// Words of a tile when nobody says how many: see [`TileCsr`](super::TileCsr).
const TILE: usize = 2;

impl<T: Expand> Bitmask<T> {
    /// A weight `(out, in)` in tiles of `64 * words` columns.
    ///
    /// # Errors
    /// If the shapes differ, `words` is 0, there are 2³² weights or more, or a weight with a scale is not finite.
    pub fn with_tile(weight: &ArrayRef2<f32>, mask: &Mask, words: usize, scaling: Scaling) -> Result<Self> {
        Bitmask::pack(&Kept::of(weight, mask), words, scaling)
    }

    pub(super) fn pack(kept: &Kept<'_, T>, words: usize, scaling: Scaling) -> Result<Self> {
        let (rows, cols) = kept.dim();
        let n = kept.check_sizes(FORMAT)?;
        if words == 0 {
            return Err(Error::invalid_option("tile", "0 words, where 1 or more are possible"));
        }
        kept.check_scalable()?;
        let row_words = cols.div_ceil(64);
        let tile = words.min(row_words.max(1));
        let mut parts = BitmaskParts {
            rows,
            cols,
            tile,
            blocks: blocks(rows, SINGLE, |_| cols),
            starts: Vec::with_capacity(rows * row_words.div_ceil(tile) + 1),
            words: Vec::with_capacity(rows * row_words),
            values: Vec::with_capacity(n + SLACK),
            scales: Vec::new(),
        };
        parts.starts.push(0);
        for block in parts.blocks.clone().windows(2) {
            for first in (0..row_words).step_by(tile) {
                for r in block[0] as usize..block[1] as usize {
                    parts.push_run(kept, r, first..(first + tile).min(row_words), scaling);
                }
            }
        }
        Ok(Bitmask::with_slack(parts))
    }

    /// A weight from its parts, checked.
    ///
    /// # Errors
    /// Names the first invariant that is broken, with the numbers.
    pub fn new(parts: BitmaskParts<T>) -> Result<Self> {
        parts.check()?;
        Ok(Bitmask::with_slack(parts))
    }

    fn with_slack(mut parts: BitmaskParts<T>) -> Self {
        parts.values.resize(parts.values.len() + SLACK, T::default());
        Bitmask { parts }
    }

    /// What it is made of.
    pub fn into_parts(mut self) -> BitmaskParts<T> {
        self.parts.values.truncate(self.nnz());
        self.parts
    }

    /// The mask of what is stored.
    pub fn mask(&self) -> Mask {
        self.parts.stored()
    }
}

impl<T: Expand> BitmaskParts<T> {
    fn push_run(&mut self, kept: &Kept<'_, T>, r: usize, words: std::ops::Range<usize>, scaling: Scaling) {
        let bits = &kept.mask.row_words(r)[words.clone()];
        let columns = || bits.iter().zip(words.clone()).flat_map(|(&b, w)| ones(b).map(move |i| 64 * w + i));
        let mut scale = 1.0;
        if T::SCALED {
            scale = match scaling {
                Scaling::Row => kept.scale_of_row(r),
                Scaling::Tile => kept.scale(r, columns()),
            };
            self.scales.push(scale);
        }
        self.values.extend(columns().map(|c| kept.value(r, c, scale)));
        self.starts.push(self.values.len() as u32);
        self.words.extend(bits);
    }

    fn check(&self) -> Result<()> {
        let BitmaskParts { rows, cols, tile, ref blocks, ref starts, ref words, ref values, ref scales } = *self;
        let refuse = |reason: String| Err(Error::invalid_option(FORMAT, reason));
        let row_words = cols.div_ceil(64);
        if tile == 0 || tile > row_words.max(1) {
            return refuse(format!("tiles of {tile} words in rows of {row_words}"));
        }
        check(FORMAT, blocks, rows, rows.max(1))?;
        let tiles = row_words.div_ceil(tile);
        let (Some(runs), Some(all)) = (rows.checked_mul(tiles), rows.checked_mul(row_words)) else {
            return refuse(format!("{rows} rows of {row_words} words are too many"));
        };
        check_starts(FORMAT, starts, runs, values.len())?;
        if words.len() != all || scales.len() != if T::SCALED { runs } else { 0 } {
            let (w, s) = (words.len(), scales.len());
            return refuse(format!("{w} words for {rows} rows of {row_words}, {s} scales for {runs} runs"));
        }
        if let Some(scale) = scales.iter().find(|s| !s.is_finite() || **s <= 0.0) {
            return refuse(format!("a scale is {scale}"));
        }
        let (mut run, mut at) = (0, 0);
        for block in blocks.windows(2) {
            for first in (0..row_words).step_by(tile) {
                let n = tile.min(row_words - first);
                for r in block[0]..block[1] {
                    let bits: u32 = words[at..at + n].iter().map(|w| w.count_ones()).sum();
                    if starts[run + 1] - starts[run] != bits {
                        return refuse(format!("run {run} has {bits} bits and {} values", starts[run + 1] - starts[run]));
                    }
                    if first + n == row_words && cols % 64 != 0 && words[at + n - 1] >> (cols % 64) != 0 {
                        return refuse(format!("row {r} has a bit beyond column {cols}"));
                    }
                    (run, at) = (run + 1, at + n);
                }
            }
        }
        Ok(())
    }
}

impl<T: Expand> Weights for BitmaskParts<T> {
    type Number = T;

    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn group(&self) -> Option<usize> {
        Some(64 * self.tile)
    }

    fn for_each(&self, mut f: impl FnMut(usize, usize, T, f32)) {
        let row_words = self.cols.div_ceil(64);
        let (mut run, mut at) = (0, 0);
        for block in self.blocks.windows(2) {
            for first in (0..row_words).step_by(self.tile) {
                for r in block[0]..block[1] {
                    let mut value = self.starts[run] as usize;
                    let scale = if T::SCALED { self.scales[run] } else { 1.0 };
                    for w in first..(first + self.tile).min(row_words) {
                        for i in ones(self.words[at]) {
                            f(r as usize, 64 * w + i, self.values[value], scale);
                            value += 1;
                        }
                        at += 1;
                    }
                    run += 1;
                }
            }
        }
    }

    fn for_each_of(&self, row: usize, mut f: impl FnMut(usize, T, f32)) {
        let (row_words, block) = (self.cols.div_ceil(64), block_of(&self.blocks, row));
        let (runs, within) = (row_words.div_ceil(self.tile), row - block.start);
        for (t, first) in (0..row_words).step_by(self.tile).enumerate() {
            let run = runs * block.start + t * block.len() + within;
            let words = first..(first + self.tile).min(row_words);
            let at = row_words * block.start + first * block.len() + within * words.len();
            let scale = if T::SCALED { self.scales[run] } else { 1.0 };
            let columns = words.zip(&self.words[at..]).flat_map(|(w, &bits)| ones(bits).map(move |i| 64 * w + i));
            columns.zip(&self.values[self.starts[run] as usize..]).for_each(|(c, value)| f(c, *value, scale));
        }
    }
}

/// The places of the bits that are set, lowest first.
fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let i = bits.trailing_zeros() as usize;
        (bits != 0).then(|| {
            bits &= bits - 1;
            i
        })
    })
}

impl<T: Expand> LinearOp for Bitmask<T> {
    fn format(&self) -> &str {
        FORMAT
    }

    fn shape(&self) -> (usize, usize) {
        self.parts.dim()
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        check_shapes(self, x, y, epilogue);
        let BitmaskParts { rows, cols, tile, blocks, starts, words, values, scales } = &self.parts;
        let (rows, cols, tile) = (*rows, *cols, *tile);
        bitmask_product(&BitmaskSlices { rows, cols, tile, blocks, starts, words, values, scales }, x, y, epilogue);
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        check_transpose(self, dy, dx);
        let BitmaskParts { rows, cols, tile, blocks, starts, words, values, scales } = &self.parts;
        let (rows, cols, tile) = (*rows, *cols, *tile);
        apply_transpose(&BitmaskSlices { rows, cols, tile, blocks, starts, words, values, scales }, dy, dx);
    }

    fn to_dense(&self) -> Array2<f32> {
        self.parts.dense()
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        self.parts.row(row, to);
    }

    fn entries(&self) -> Entries {
        self.parts.entries()
    }

    fn nnz(&self) -> usize {
        self.parts.values.len() - SLACK
    }

    fn bytes(&self) -> usize {
        let BitmaskParts { blocks, starts, words, values, scales, .. } = &self.parts;
        let runs = size_of_val(&blocks[..]) + size_of_val(&starts[..]) + size_of_val(&scales[..]);
        runs + size_of_val(&words[..]) + size_of_val(&values[..])
    }
}

impl<T: Expand> Compress for Bitmask<T> {
    /// In tiles of 128 columns, with a scale a row where values have one.
    ///
    /// # Errors
    /// As [`Bitmask::with_tile`].
    fn compress(weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Self> {
        Bitmask::with_tile(weight, mask, TILE, Scaling::Row)
    }
}

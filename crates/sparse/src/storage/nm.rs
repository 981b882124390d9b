//! N of every M consecutive inputs.

use super::blocks::{Cut, block_of, blocks, check};
use super::entries::{Entries, Weights};
use super::kept::Kept;
use super::op::{check_shapes, check_transpose};
use super::scale::{check_group, check_scales, scales_by};
use crate::kernels::{Epilogue, Expand, NmSlices, SLACK, apply_transpose, nm_product};
use crate::mask::{Mask, Pattern};
use crate::storage::LinearOp;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use rayon::prelude::*;

/// A weight that keeps exactly N of every M consecutive inputs of a row, M up to 16: a bit for every weight and N values a group, so 2:4 in
/// `f32` takes 8.5 bytes for four weights, and one for each row's 64 weights or somewhat fewer.
///
/// A word is as many whole groups as 64 bits hold (16 of 2:4). Within a word the rows of a block stand in pairs that share many columns,
/// so that what a product of many tokens loads of x serves both.
///
/// Exactly N: M must divide the row, and a mask that keeps fewer or more in some group is refused with its place. Such a mask
/// is one for [`Bitmask`](super::Bitmask).
///
/// # Invariants
/// - `1 <= n <= m <= 16`, and `m` divides `cols`. A row has `words_of_row = ceil(cols / wide)` words, with `wide` the largest multiple of `m` up
///   to 64.
/// - `blocks` rises strictly from 0 to `rows`, by 256 at most. Runs (a row's part of a word) stand in the order block, word, slot:
///   `rows * words_of_row` in all.
/// - `order` says which row of its block a run is; the runs of a block and a word are a permutation of its rows.
/// - Each group of `m` bits of a run has `n` bits; no bit stands beyond the last column.
/// - There are as many values as bits, `rows * cols / m * n`, run by run, lowest column first.
/// - If values have scales, there is one a row, or with a `group` one for each row's part of so many inputs, a multiple of `wide`; else none, and no
///   group. Scales are finite and above 0.
///
/// ```
/// use lacuna_sparse::{mask::Mask, storage::{apply, LinearOp, Nm}};
/// use ndarray::array;
/// let w = array![[1., 2., 0., 3.], [0., 5., 6., 7.]];
/// let op = Nm::<f32>::with_pattern(&w, &Mask::from_fn(2, 4, |r, c| (r + c) % 2 == 0), 1, 2).unwrap();
/// assert_eq!(op.nnz(), 4); // a kept weight that is 0 is stored
/// assert_eq!(apply(&op, &array![[1., 10., 100., 1000.]]), array![[1., 7050.]]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Nm<T = f32> {
    /// The values are followed by SLACK more, which kernels may read.
    parts: NmParts<T>,
}

/// What an [`Nm`] is made of; its invariants stand there.
#[derive(Debug, Clone, PartialEq)]
pub struct NmParts<T> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// How many of a group stay.
    pub n: usize,
    /// Inputs of a group.
    pub m: usize,
    /// First row of each block, and one past the last row.
    pub blocks: Vec<u32>,
    /// Row of each run within its block.
    pub order: Vec<u8>,
    /// The bits of each run, lowest column first.
    pub words: Vec<u64>,
    /// The values, run by run.
    pub values: Vec<T>,
    /// Inputs of a row that share a scale; all of them if none is said.
    pub group: Option<usize>,
    /// Factor of the values of each row or group, `(rows, groups)`; empty where values are floats.
    pub scales: Vec<f32>,
}

const FORMAT: &str = "nm";
/// Rows of a block are named by 8 bits.
const CUT: Cut = Cut { longest: 256, most_by_cost: 8, multiple: 2 };

impl<T: Expand> Nm<T> {
    /// A weight `(out, in)` whose mask keeps exactly `n` of every `m` inputs; with a scale a row where values have one.
    ///
    /// # Errors
    /// If the shapes differ, `n:m` is impossible or `m` is above 16 or does not divide the row, the mask keeps another number somewhere
    /// (the place is named), there are 2³² weights or more, or a weight with a scale is not finite.
    pub fn with_pattern(weight: &ArrayRef2<f32>, mask: &Mask, n: usize, m: usize) -> Result<Self> {
        Nm::pack(&Kept::of(weight, mask), (n, m), None)
    }

    /// The same with a scale for each row's part of `inputs` columns, a multiple of a word's: of 64, or of the largest multiple of `m` below.
    /// Where values are floats, they have no scales.
    ///
    /// # Errors
    /// As [`Nm::with_pattern`], and if `inputs` is 0 or no such multiple.
    pub fn with_groups(weight: &ArrayRef2<f32>, mask: &Mask, (n, m): (usize, usize), inputs: usize) -> Result<Self> {
        Nm::pack(&Kept::of(weight, mask), (n, m), Some(inputs))
    }

    /// With a scale a row, or a group of inputs if one is said.
    pub(super) fn pack(kept: &Kept<'_, T>, (n, m): (usize, usize), group: Option<usize>) -> Result<Self> {
        let ((rows, cols), mask) = (kept.dim(), kept.mask);
        if group.is_some() {
            check_groups(cols, n, m)?;
            check_group::<i8>(FORMAT, group, wide(m))?;
        }
        let group = group.filter(|_| T::SCALED);
        kept.check_sizes(FORMAT)?;
        check_groups(cols, n, m)?;
        if !mask.is_empty() {
            Pattern::Nm { n, m }.check(mask)?;
        }
        kept.check_scalable()?;
        let each = cols / m * n;
        let blocks = blocks(rows, CUT, |_| each);
        let wide = wide(m);
        let packed: Vec<_> = blocks
            .par_windows(2)
            .map(|block| {
                let rows = block[0] as usize..block[1] as usize;
                let scales = kept.scales(rows.clone(), group);
                let by = scales_by(&scales, cols, group, wide);
                let runs = rows.len() * cols.div_ceil(wide);
                let (mut order, mut words) = (Vec::with_capacity(runs), Vec::with_capacity(runs));
                let mut values = Vec::with_capacity(rows.len() * each);
                for first in (0..cols).step_by(wide) {
                    let bits: Vec<u64> =
                        rows.clone().map(|r| bits_from(mask.row_words(r), first, wide.min(cols - first))).collect();
                    for slot in in_pairs(&bits) {
                        let scale = by.at::<T>(slot, first / wide);
                        values.extend(ones(bits[slot]).map(|c| kept.value(rows.start + slot, first + c, scale)));
                        order.push(slot as u8);
                        words.push(bits[slot]);
                    }
                }
                (order, words, values, scales)
            })
            .collect();
        let mut parts = NmParts {
            rows,
            cols,
            n,
            m,
            blocks,
            order: Vec::with_capacity(rows * cols.div_ceil(wide)),
            words: Vec::with_capacity(rows * cols.div_ceil(wide)),
            values: Vec::with_capacity(rows * each + SLACK),
            group,
            scales: Vec::new(),
        };
        for (order, words, values, scales) in packed {
            parts.order.extend(order);
            parts.words.extend(words);
            parts.values.extend(values);
            parts.scales.extend(scales);
        }
        Ok(Nm::with_slack(parts))
    }

    /// A weight from its parts, checked.
    ///
    /// # Errors
    /// Names the first invariant that is broken, with the numbers.
    pub fn new(parts: NmParts<T>) -> Result<Self> {
        parts.check()?;
        Ok(Nm::with_slack(parts))
    }

    fn with_slack(mut parts: NmParts<T>) -> Self {
        parts.values.resize(parts.values.len() + SLACK, T::default());
        Nm { parts }
    }

    /// What it is made of.
    pub fn into_parts(mut self) -> NmParts<T> {
        self.parts.values.truncate(self.nnz());
        self.parts
    }

    /// The mask of what is stored.
    pub fn mask(&self) -> Mask {
        self.parts.stored()
    }

    /// N and M.
    pub fn pattern(&self) -> Pattern {
        Pattern::Nm { n: self.parts.n, m: self.parts.m }
    }

    pub(super) fn slices(&self) -> NmSlices<'_, T> {
        let NmParts { rows, cols, n, m, blocks, order, words, values, group, scales } = &self.parts;
        let scales = scales_by(scales, *cols, *group, wide(*m));
        NmSlices { rows: *rows, cols: *cols, n: *n, m: *m, blocks, order, words, values, scales }
    }
}

/// Columns of a word.
fn wide(m: usize) -> usize {
    64 / m * m
}

fn check_groups(cols: usize, n: usize, m: usize) -> Result<()> {
    if n == 0 || n > m || m > 16 {
        return Err(Error::invalid_option(FORMAT, format!("{n}:{m}, where 1 <= N <= M <= 16 is possible")));
    }
    if cols % m != 0 {
        return Err(Error::invalid_option(FORMAT, format!("groups of {m} do not divide rows of {cols}")));
    }
    Ok(())
}

/// `count` bits of a row from `first` on.
fn bits_from(row: &[u64], first: usize, count: usize) -> u64 {
    let (word, shift) = (first / 64, first % 64);
    let next = row.get(word + 1).map_or(0, |next| next.checked_shl(64 - shift as u32).unwrap_or(0));
    (row[word] >> shift | next) & (u64::MAX >> (64 - count))
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

/// An order of rows in which neighbours (first and second, third and fourth, …) share many columns; pairs that share as many follow one
/// another, so that loops over them end where the processor expects it.
fn in_pairs(bits: &[u64]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..bits.len()).collect();
    let mut pairs = Vec::with_capacity(bits.len() / 2);
    while left.len() > 1 {
        let first = left.swap_remove(0);
        let shared = |other: usize| (bits[first] & bits[other]).count_ones();
        // The first of the best, so that the order does not depend on anything but the bits.
        let best = (0..left.len()).rev().max_by_key(|&i| shared(left[i])).unwrap_or(0);
        let second = left.swap_remove(best);
        pairs.push((shared(second), first, second));
    }
    pairs.sort_unstable();
    pairs.into_iter().flat_map(|(_, first, second)| [first, second]).chain(left).collect()
}

impl<T: Expand> NmParts<T> {
    fn check(&self) -> Result<()> {
        let NmParts { rows, cols, n, m, ref blocks, ref order, ref words, ref values, group, ref scales } = *self;
        let refuse = |reason: String| Err(Error::invalid_option(FORMAT, reason));
        check_groups(cols, n, m)?;
        check(FORMAT, blocks, rows, CUT.longest)?;
        let (each, row_words) = (cols / m * n, cols.div_ceil(wide(m)));
        let (Some(runs), Some(all)) = (rows.checked_mul(row_words), rows.checked_mul(each)) else {
            return refuse(format!("{rows} rows of {each} values are too many"));
        };
        if (order.len(), words.len()) != (runs, runs) {
            return refuse(format!("{} rows and {} words for {runs} runs", order.len(), words.len()));
        }
        if values.len() != all {
            return refuse(format!("{} values for {rows} rows that keep {each}", values.len()));
        }
        check_group::<T>(FORMAT, group, wide(m))?;
        check_scales::<T>(FORMAT, scales, (rows, cols), group)?;
        let mut run = 0;
        for block in blocks.windows(2) {
            let size = (block[1] - block[0]) as usize;
            for first in (0..cols).step_by(wide(m)) {
                let width = wide(m).min(cols - first);
                let mut seen = [false; 256];
                for (&row, &bits) in order[run..run + size].iter().zip(&words[run..run + size]) {
                    if usize::from(row) >= size || std::mem::replace(&mut seen[usize::from(row)], true) {
                        return refuse(format!("run {run} is row {row} of a block of {size}, or that row comes twice"));
                    }
                    if width < 64 && bits >> width != 0 {
                        return refuse(format!("run {run} has a bit beyond its {width} columns"));
                    }
                    for group in (0..width).step_by(m) {
                        let kept = (bits >> group & ((1 << m) - 1)).count_ones() as usize;
                        if kept != n {
                            return refuse(format!("run {run} keeps {kept} of columns {group}..{}, not {n}", group + m));
                        }
                    }
                    run += 1;
                }
            }
        }
        Ok(())
    }
}

impl<T: Expand> Weights for NmParts<T> {
    type Number = T;

    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn group(&self) -> Option<usize> {
        self.group
    }

    fn for_each(&self, mut f: impl FnMut(usize, usize, T, f32)) {
        let (mut run, mut value) = (0, 0);
        let scales = scales_by(&self.scales, self.cols, self.group, wide(self.m));
        for block in self.blocks.windows(2) {
            for first in (0..self.cols).step_by(wide(self.m)) {
                for _ in block[0]..block[1] {
                    let row = block[0] as usize + usize::from(self.order[run]);
                    let scale = scales.at::<T>(row, first / wide(self.m));
                    for c in ones(self.words[run]) {
                        f(row, first + c, self.values[value], scale);
                        value += 1;
                    }
                    run += 1;
                }
            }
        }
    }

    fn for_each_of(&self, row: usize, mut f: impl FnMut(usize, T, f32)) {
        let (wide, block) = (wide(self.m), block_of(&self.blocks, row));
        let scales = scales_by(&self.scales, self.cols, self.group, wide);
        let runs = self.cols.div_ceil(wide);
        // A row has as many values in a word as any other.
        let mut value = block.start * (self.cols / self.m * self.n);
        for word in 0..runs {
            for run in (runs * block.start + word * block.len()..).take(block.len()) {
                let bits = self.words[run];
                if block.start + usize::from(self.order[run]) == row {
                    let scale = scales.at::<T>(row, word);
                    let columns = ones(bits).map(|c| word * wide + c);
                    columns.zip(&self.values[value..]).for_each(|(c, value)| f(c, *value, scale));
                }
                value += bits.count_ones() as usize;
            }
        }
    }
}

impl<T: Expand> LinearOp for Nm<T> {
    fn format(&self) -> &str {
        FORMAT
    }

    fn shape(&self) -> (usize, usize) {
        self.parts.dim()
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        check_shapes(self, x, y, epilogue);
        nm_product(&self.slices(), x, y, epilogue);
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        check_transpose(self, dy, dx);
        apply_transpose(&self.slices(), dy, dx);
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
        let NmParts { blocks, order, words, values, scales, .. } = &self.parts;
        let runs = size_of_val(&blocks[..]) + size_of_val(&order[..]) + size_of_val(&words[..]);
        runs + size_of_val(&values[..]) + size_of_val(&scales[..])
    }
}

//! Compressed sparse rows within tiles of columns.

use super::blocks::{SINGLE, block_of, blocks, check, check_starts};
use super::entries::{Entries, Weights};
use super::kept::Kept;
use super::op::{check_shapes, check_transpose};
use super::scale::Scaling;
use crate::kernels::{Epilogue, Expand, TileCsrSlices, Value, apply_transpose, lists_product};
use crate::mask::Mask;
use crate::storage::{Compress, LinearOp};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};

/// A weight in compressed sparse rows within tiles of columns, with indices of 8 bits in tiles of up to 256 columns and of 16
/// bits in wider ones: 5 or 6 bytes a weight in `f32`, 2 or 3 in `i8`.
///
/// Rows stand in blocks. Within a tile, the lists of a block are ordered by their length, so that the loops over them end where the
/// processor expects it.
///
/// # Invariants
/// - `blocks` rises strictly from 0 to `rows`, by 65 536 at most. Lists stand in the order block, tile, slot: `rows * tiles` in all.
/// - `starts` has one number a list and one more, never decreases, and runs from 0 to `values.len()`.
/// - `order` says which row of its block a list is; the lists of a block and a tile are a permutation of its rows.
/// - Within a list, columns increase strictly; all lie below the width of their tile.
/// - There is one scale a list if values have scales, else none; scales are finite and above 0.
///
/// ```
/// use lacuna_sparse::{mask::Mask, storage::{apply, Compress, LinearOp, TileCsr}};
/// use ndarray::array;
/// let w = array![[1., 2., 0.], [0., 0., 3.]];
/// let op = TileCsr::<f32>::compress(&w, &Mask::from_fn(2, 3, |r, c| r != c)).unwrap();
/// assert_eq!(op.nnz(), 4); // a kept weight that is 0 is stored
/// assert_eq!(apply(&op, &array![[1., 10., 100.]]), array![[20., 300.]]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TileCsr<T = f32>(TileCsrParts<T>);

/// What a [`TileCsr`] is made of; its invariants stand there.
#[derive(Debug, Clone, PartialEq)]
pub struct TileCsrParts<T> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Columns of a tile.
    pub tile: usize,
    /// First row of each block, and one past the last row.
    pub blocks: Vec<u32>,
    /// First entry of each list, and one past the last.
    pub starts: Vec<u32>,
    /// Row of each list within its block.
    pub order: Vec<u16>,
    /// Column of each value within its tile.
    pub columns: Columns,
    /// The values, list by list.
    pub values: Vec<T>,
    /// Factor of the values of each list; empty where values are floats.
    pub scales: Vec<f32>,
}

/// Columns within their tile.
#[derive(Debug, Clone, PartialEq)]
pub enum Columns {
    /// In tiles of up to 256 columns.
    Narrow(Vec<u8>),
    /// In tiles of up to 65 536 columns.
    Wide(Vec<u16>),
}

impl Columns {
    pub(super) fn with_capacity(narrow: bool, n: usize) -> Columns {
        if narrow { Columns::Narrow(Vec::with_capacity(n)) } else { Columns::Wide(Vec::with_capacity(n)) }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Columns::Narrow(c) => c.len(),
            Columns::Wide(c) => c.len(),
        }
    }

    pub(super) fn get(&self, i: usize) -> usize {
        match self {
            Columns::Narrow(c) => usize::from(c[i]),
            Columns::Wide(c) => usize::from(c[i]),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, column: usize) {
        match self {
            Columns::Narrow(c) => c.push(column as u8),
            Columns::Wide(c) => c.push(column as u16),
        }
    }

    /// Adds columns of the same width.
    pub(super) fn append(&mut self, other: Columns) {
        match (self, other) {
            (Columns::Narrow(c), Columns::Narrow(other)) => c.extend(other),
            (Columns::Wide(c), Columns::Wide(other)) => c.extend(other),
            _ => unreachable!("columns of one storage have one width"),
        }
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Columns::Narrow(c) => size_of_val(&c[..]),
            Columns::Wide(c) => size_of_val(&c[..]),
        }
    }
}

const FORMAT: &str = "tile-csr";
/// Columns of a tile when nobody says how many: their part of a strip of 64 tokens fits a first cache of 32 KiB, barely.
const TILE: usize = 128;

impl<T: Value> TileCsr<T> {
    /// A weight `(out, in)` in tiles of `tile` columns.
    ///
    /// # Errors
    /// If the shapes differ, `tile` is 0 or above 65 536, there are 2³² weights or more, or a weight with a scale is not finite.
    pub fn with_tile(weight: &ArrayRef2<f32>, mask: &Mask, tile: usize, scaling: Scaling) -> Result<Self> {
        TileCsr::pack(&Kept::of(weight, mask), tile, scaling)
    }

    pub(super) fn pack(kept: &Kept<'_, T>, tile: usize, scaling: Scaling) -> Result<Self> {
        let (rows, cols) = kept.dim();
        let n = kept.check_sizes(FORMAT)?;
        if tile == 0 || tile > 1 << 16 {
            return Err(Error::invalid_option("tile", format!("{tile} columns, where 1 to 65536 are possible")));
        }
        kept.check_scalable()?;
        let lists = rows * cols.div_ceil(tile);
        let narrow = tile <= 256;
        let mut parts = TileCsrParts {
            rows,
            cols,
            tile,
            blocks: blocks(rows, SINGLE, |r| kept.mask.row_indices(r).count()),
            starts: Vec::with_capacity(lists + 1),
            order: Vec::with_capacity(lists),
            columns: Columns::with_capacity(narrow, n),
            values: Vec::with_capacity(n),
            scales: Vec::new(),
        };
        parts.starts.push(0);
        for b in 0..parts.blocks.len() - 1 {
            parts.push_block(kept, parts.blocks[b] as usize..parts.blocks[b + 1] as usize, scaling);
        }
        Ok(TileCsr(parts))
    }

    /// A weight from its parts, checked.
    ///
    /// # Errors
    /// Names the first invariant that is broken, with the numbers.
    pub fn new(parts: TileCsrParts<T>) -> Result<Self> {
        parts.check()?;
        Ok(TileCsr(parts))
    }

    /// What it is made of.
    pub fn parts(&self) -> &TileCsrParts<T> {
        &self.0
    }

    /// The mask of what is stored.
    pub fn mask(&self) -> Mask {
        self.0.stored()
    }
}

impl<T: Value> TileCsrParts<T> {
    fn push_block(&mut self, kept: &Kept<'_, T>, rows: std::ops::Range<usize>, scaling: Scaling) {
        // The kept columns of each row, and how many of them earlier tiles took.
        let columns: Vec<Vec<u32>> = rows.clone().map(|r| kept.mask.row_indices(r).map(|c| c as u32).collect()).collect();
        let mut taken = vec![0; rows.len()];
        let scale_of = |r: usize, of: &[u32]| kept.scale(rows.start + r, of.iter().map(|&c| c as usize));
        let row_scales: Vec<f32> = if T::SCALED && scaling == Scaling::Row {
            columns.iter().enumerate().map(|(r, of)| scale_of(r, of)).collect()
        } else {
            vec![1.0; rows.len()]
        };
        for first in (0..self.cols).step_by(self.tile) {
            let end = (first + self.tile).min(self.cols);
            let next: Vec<usize> =
                (0..rows.len()).map(|r| taken[r] + columns[r][taken[r]..].partition_point(|&c| (c as usize) < end)).collect();
            let mut order: Vec<usize> = (0..rows.len()).collect();
            order.sort_by_key(|&r| next[r] - taken[r]);
            for r in order {
                let list = &columns[r][taken[r]..next[r]];
                let scale = match scaling {
                    Scaling::Row => row_scales[r],
                    Scaling::Tile => scale_of(r, list),
                };
                if T::SCALED {
                    self.scales.push(scale);
                }
                for &c in list {
                    self.columns.push(c as usize - first);
                    self.values.push(kept.value(rows.start + r, c as usize, scale));
                }
                self.order.push(r as u16);
                self.starts.push(self.values.len() as u32);
            }
            taken = next;
        }
    }

    fn check(&self) -> Result<()> {
        let TileCsrParts { rows, cols, tile, ref blocks, ref starts, ref order, ref columns, ref values, ref scales } = *self;
        let refuse = |reason: String| Err(Error::invalid_option(FORMAT, reason));
        let width = if matches!(columns, Columns::Narrow(_)) { 256 } else { 1 << 16 };
        if tile == 0 || tile > width {
            return refuse(format!("tiles of {tile} columns with indices for {width}"));
        }
        let tiles = cols.div_ceil(tile);
        check(FORMAT, blocks, rows, 1 << 16)?;
        let lists = rows.checked_mul(tiles).filter(|&n| n < usize::MAX);
        let Some(lists) = lists else { return refuse(format!("{rows} rows of {tiles} tiles are too many")) };
        check_starts(FORMAT, starts, lists, values.len())?;
        if columns.len() != values.len() || order.len() != lists || scales.len() != if T::SCALED { lists } else { 0 } {
            return refuse(format!(
                "{} columns for {} values, {} rows and {} scales for {lists} lists",
                columns.len(),
                values.len(),
                order.len(),
                scales.len()
            ));
        }
        if let Some(scale) = scales.iter().find(|s| !s.is_finite() || **s <= 0.0) {
            return refuse(format!("a scale is {scale}"));
        }
        let mut list = 0;
        for block in blocks.windows(2) {
            let size = (block[1] - block[0]) as usize;
            for t in 0..tiles {
                let width = tile.min(cols - t * tile);
                let mut seen = vec![false; size];
                for slot in list..list + size {
                    let row = usize::from(order[slot]);
                    if row >= size || std::mem::replace(&mut seen[row], true) {
                        return refuse(format!("list {slot} is row {row} of a block of {size}, or that row comes twice"));
                    }
                    let (start, end) = (starts[slot] as usize, starts[slot + 1] as usize);
                    if let Some(i) = (start + 1..end).find(|&i| columns.get(i - 1) >= columns.get(i)) {
                        let (a, b) = (columns.get(i - 1), columns.get(i));
                        return refuse(format!("columns of list {slot} do not increase: {a} before {b}"));
                    }
                    if start < end && columns.get(end - 1) >= width {
                        return refuse(format!("list {slot} has column {} in a tile of {width}", columns.get(end - 1)));
                    }
                }
                list += size;
            }
        }
        Ok(())
    }
}

impl<T: Value> Weights for TileCsrParts<T> {
    type Number = T;

    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn group(&self) -> Option<usize> {
        Some(self.tile)
    }

    fn for_each(&self, mut f: impl FnMut(usize, usize, T, f32)) {
        let (tiles, mut list) = (self.cols.div_ceil(self.tile), 0);
        for block in self.blocks.windows(2) {
            for t in 0..tiles {
                for _ in block[0]..block[1] {
                    let row = block[0] as usize + usize::from(self.order[list]);
                    let scale = if T::SCALED { self.scales[list] } else { 1.0 };
                    for i in self.starts[list] as usize..self.starts[list + 1] as usize {
                        f(row, t * self.tile + self.columns.get(i), self.values[i], scale);
                    }
                    list += 1;
                }
            }
        }
    }

    fn for_each_of(&self, row: usize, mut f: impl FnMut(usize, T, f32)) {
        let (tiles, block) = (self.cols.div_ceil(self.tile), block_of(&self.blocks, row));
        for t in 0..tiles {
            let lists = tiles * block.start + t * block.len()..;
            let lists = lists.take(block.len());
            for list in lists.filter(|&l| block.start + usize::from(self.order[l]) == row) {
                let scale = if T::SCALED { self.scales[list] } else { 1.0 };
                for i in self.starts[list] as usize..self.starts[list + 1] as usize {
                    f(t * self.tile + self.columns.get(i), self.values[i], scale);
                }
            }
        }
    }
}

impl<T: Expand> LinearOp for TileCsr<T> {
    fn format(&self) -> &str {
        FORMAT
    }

    fn shape(&self) -> (usize, usize) {
        self.0.dim()
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        check_shapes(self, x, y, epilogue);
        let TileCsrParts { rows, cols, tile, blocks, starts, order, columns, values, scales } = &self.0;
        let (rows, cols, tile) = (*rows, *cols, *tile);
        match columns {
            Columns::Narrow(columns) => {
                lists_product(
                    &TileCsrSlices { rows, cols, tile, blocks, starts, order, columns, values, scales },
                    x,
                    y,
                    epilogue,
                );
            }
            Columns::Wide(columns) => {
                lists_product(
                    &TileCsrSlices { rows, cols, tile, blocks, starts, order, columns, values, scales },
                    x,
                    y,
                    epilogue,
                );
            }
        }
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        check_transpose(self, dy, dx);
        let TileCsrParts { rows, cols, tile, blocks, starts, order, columns, values, scales } = &self.0;
        let (rows, cols, tile) = (*rows, *cols, *tile);
        macro_rules! with {
            ($columns:ident) => {
                apply_transpose(
                    &TileCsrSlices { rows, cols, tile, blocks, starts, order, columns: $columns, values, scales },
                    dy,
                    dx,
                )
            };
        }
        match columns {
            Columns::Narrow(c) => with!(c),
            Columns::Wide(c) => with!(c),
        }
    }

    fn to_dense(&self) -> Array2<f32> {
        self.0.dense()
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        self.0.row(row, to);
    }

    fn entries(&self) -> Entries {
        self.0.entries()
    }

    fn nnz(&self) -> usize {
        self.0.values.len()
    }

    fn bytes(&self) -> usize {
        let TileCsrParts { blocks, starts, order, columns, values, scales, .. } = &self.0;
        let lists = size_of_val(&blocks[..]) + size_of_val(&starts[..]) + size_of_val(&order[..]) + size_of_val(&scales[..]);
        lists + columns.bytes() + size_of_val(&values[..])
    }
}

impl<T: Expand> Compress for TileCsr<T> {
    /// In tiles of 128 columns, with a scale a row where values have one.
    ///
    /// # Errors
    /// As [`TileCsr::with_tile`].
    fn compress(weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Self> {
        TileCsr::with_tile(weight, mask, TILE, Scaling::Row)
    }
}

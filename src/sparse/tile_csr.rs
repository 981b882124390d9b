//! Compressed sparse rows within tiles of columns.

use super::blocks::{blocks, check, check_starts};
use super::scale::{Scaling, check_scalable, scale_of};
use crate::kernels::{Epilogue, TileCsrSlices, Value, tile_csr_product};
use crate::mask::Mask;
use crate::sparse::{Compress, LinearOp};
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
/// use lacuna::{mask::Mask, sparse::{apply, Compress, LinearOp, TileCsr}};
/// use ndarray::array;
/// let w = array![[1., 2., 0.], [0., 0., 3.]];
/// let op = TileCsr::<f32>::compress(&w, &Mask::from_fn(2, 3, |r, c| r != c)).unwrap();
/// assert_eq!(op.nnz(), 4); // a kept weight that is 0 is stored
/// assert_eq!(apply(&op, &array![[1., 10., 100.]]), array![[20., 300.]]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TileCsr<T = f32> {
    rows: usize,
    cols: usize,
    tile: usize,
    blocks: Vec<u32>,
    starts: Vec<u32>,
    order: Vec<u16>,
    columns: Columns,
    values: Vec<T>,
    scales: Vec<f32>,
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
    fn len(&self) -> usize {
        match self {
            Columns::Narrow(c) => c.len(),
            Columns::Wide(c) => c.len(),
        }
    }

    fn get(&self, i: usize) -> usize {
        match self {
            Columns::Narrow(c) => usize::from(c[i]),
            Columns::Wide(c) => usize::from(c[i]),
        }
    }

    fn push(&mut self, column: usize) {
        match self {
            Columns::Narrow(c) => c.push(column as u8),
            Columns::Wide(c) => c.push(column as u16),
        }
    }
}

/// Columns of a tile when nobody says how many: their part of a strip of 64 tokens fits a first cache of 32 KiB, barely.
const TILE: usize = 128;

impl<T: Value> TileCsr<T> {
    /// A weight `(out, in)` in tiles of `tile` columns.
    ///
    /// # Errors
    /// If the shapes differ, `tile` is 0 or above 65 536, there are 2³² weights or more, or a weight with a scale is not finite.
    pub fn with_tile(weight: &ArrayRef2<f32>, mask: &Mask, tile: usize, scaling: Scaling) -> Result<Self> {
        let (rows, cols) = weight.dim();
        if mask.dim() != (rows, cols) {
            return Err(Error::shape("mask", &[rows, cols], &[mask.rows(), mask.cols()]));
        }
        if tile == 0 || tile > 1 << 16 {
            return Err(Error::setting("tile", format!("{tile} columns, where 1 to 65536 are possible")));
        }
        let kept = mask.kept();
        if u32::try_from(kept.max(rows)).is_err() {
            return Err(Error::setting("tile-csr", format!("{kept} weights in {rows} rows do not fit 32-bit offsets")));
        }
        check_scalable::<T>(weight, mask)?;
        let tiles = cols.div_ceil(tile);
        let narrow = tile <= 256;
        let mut op = TileCsr {
            rows,
            cols,
            tile,
            blocks: blocks(rows, |r| mask.row_indices(r).count()),
            starts: Vec::with_capacity(rows * tiles + 1),
            order: Vec::with_capacity(rows * tiles),
            columns: if narrow { Columns::Narrow(Vec::with_capacity(kept)) } else { Columns::Wide(Vec::with_capacity(kept)) },
            values: Vec::with_capacity(kept),
            scales: Vec::new(),
        };
        op.starts.push(0);
        for b in 0..op.blocks.len() - 1 {
            op.push_block(weight, mask, op.blocks[b] as usize..op.blocks[b + 1] as usize, scaling);
        }
        Ok(op)
    }

    fn push_block(&mut self, weight: &ArrayRef2<f32>, mask: &Mask, rows: std::ops::Range<usize>, scaling: Scaling) {
        // The kept columns of each row, and how many of them earlier tiles took.
        let columns: Vec<Vec<u32>> = rows.clone().map(|r| mask.row_indices(r).map(|c| c as u32).collect()).collect();
        let mut taken = vec![0; rows.len()];
        let value = |r: usize, c: u32| weight[[rows.start + r, c as usize]];
        let row_scales: Vec<f32> = if T::SCALED && scaling == Scaling::Row {
            columns.iter().enumerate().map(|(r, cs)| scale_of::<T>(cs.iter().map(|&c| value(r, c)))).collect()
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
                    Scaling::Tile => scale_of::<T>(list.iter().map(|&c| value(r, c))),
                };
                if T::SCALED {
                    self.scales.push(scale);
                }
                for &c in list {
                    self.columns.push(c as usize - first);
                    self.values.push(T::encode(if T::SCALED { value(r, c) / scale } else { value(r, c) }));
                }
                self.order.push(r as u16);
                self.starts.push(self.values.len() as u32);
            }
            taken = next;
        }
    }

    /// A weight from its parts, checked.
    ///
    /// # Errors
    /// Names the first invariant that is broken, with the numbers.
    #[expect(clippy::too_many_arguments, reason = "the parts of the storage")]
    pub fn new(
        rows: usize,
        cols: usize,
        tile: usize,
        blocks: Vec<u32>,
        starts: Vec<u32>,
        order: Vec<u16>,
        columns: Columns,
        values: Vec<T>,
        scales: Vec<f32>,
    ) -> Result<Self> {
        const FORMAT: &str = "tile-csr";
        let refuse = |reason: String| Err(Error::setting(FORMAT, reason));
        let width = if matches!(columns, Columns::Narrow(_)) { 256 } else { 1 << 16 };
        if tile == 0 || tile > width {
            return refuse(format!("tiles of {tile} columns with indices for {width}"));
        }
        let tiles = cols.div_ceil(tile);
        check(FORMAT, &blocks, rows, 1 << 16)?;
        let lists = rows.checked_mul(tiles).filter(|&n| n < usize::MAX);
        let Some(lists) = lists else { return refuse(format!("{rows} rows of {tiles} tiles are too many")) };
        check_starts(FORMAT, &starts, lists, values.len())?;
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
        Ok(TileCsr { rows, cols, tile, blocks, starts, order, columns, values, scales })
    }

    /// Columns of a tile.
    pub fn tile(&self) -> usize {
        self.tile
    }

    /// First row of each block, and one past the last row.
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// First entry of each list, and one past the last.
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// Row of each list within its block.
    pub fn order(&self) -> &[u16] {
        &self.order
    }

    /// Column of each value within its tile.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The values, list by list.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// Factor of the values of each list; empty where values are floats.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Calls `f(row, column, value)` for each weight.
    fn for_each(&self, mut f: impl FnMut(usize, usize, f32)) {
        let (tiles, mut list) = (self.cols.div_ceil(self.tile), 0);
        for block in self.blocks.windows(2) {
            for t in 0..tiles {
                for _ in block[0]..block[1] {
                    let row = block[0] as usize + usize::from(self.order[list]);
                    let scale = if T::SCALED { self.scales[list] } else { 1.0 };
                    for i in self.starts[list] as usize..self.starts[list + 1] as usize {
                        f(row, t * self.tile + self.columns.get(i), scale * self.values[i].decode());
                    }
                    list += 1;
                }
            }
        }
    }

    /// The mask of what is stored.
    pub fn mask(&self) -> Mask {
        let mut mask = Mask::empty(self.rows, self.cols);
        self.for_each(|r, c, _| mask.set(r, c, true));
        mask
    }
}

impl<T: Value> LinearOp for TileCsr<T> {
    fn format(&self) -> &str {
        "tile-csr"
    }

    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        super::op::check_shapes(self, x, y, epilogue);
        macro_rules! run {
            ($columns:expr) => {{
                let slices = TileCsrSlices {
                    rows: self.rows,
                    cols: self.cols,
                    tile: self.tile,
                    blocks: &self.blocks,
                    starts: &self.starts,
                    order: &self.order,
                    columns: $columns,
                    values: &self.values,
                    scales: &self.scales,
                };
                tile_csr_product(&slices, x, y, epilogue);
            }};
        }
        match &self.columns {
            Columns::Narrow(columns) => run!(columns.as_slice()),
            Columns::Wide(columns) => run!(columns.as_slice()),
        }
    }

    fn to_dense(&self) -> Array2<f32> {
        let mut dense = Array2::zeros((self.rows, self.cols));
        self.for_each(|r, c, v| dense[[r, c]] = v);
        dense
    }

    fn nnz(&self) -> usize {
        self.values.len()
    }

    fn bytes(&self) -> usize {
        let columns = match &self.columns {
            Columns::Narrow(c) => size_of_val(&c[..]),
            Columns::Wide(c) => size_of_val(&c[..]),
        };
        columns
            + size_of_val(&self.blocks[..])
            + size_of_val(&self.starts[..])
            + size_of_val(&self.order[..])
            + size_of_val(&self.values[..])
            + size_of_val(&self.scales[..])
    }
}

impl<T: Value> Compress for TileCsr<T> {
    /// In tiles of 128 columns, with a scale a row where values have one.
    ///
    /// # Errors
    /// As [`TileCsr::with_tile`].
    fn compress(weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Self> {
        TileCsr::with_tile(weight, mask, TILE, Scaling::Row)
    }
}

//! Products with tiled CSR.

use super::few;
use super::strip::{Epilogue, Rows, product};
use super::value::Value;
use ndarray::ArrayRef2;

/// The parts of a checked [`TileCsr`](crate::sparse::TileCsr).
#[derive(Clone, Copy)]
pub(crate) struct TileCsrSlices<'a, I, T> {
    pub rows: usize,
    pub cols: usize,
    /// Columns of a tile.
    pub tile: usize,
    pub blocks: &'a [u32],
    pub starts: &'a [u32],
    pub order: &'a [u16],
    pub columns: &'a [I],
    pub values: &'a [T],
    pub scales: &'a [f32],
}

/// A column within a tile.
pub(crate) trait Column: Copy + Send + Sync + 'static {
    fn index(self) -> usize;

    /// Four neighbours, read at once.
    fn four(columns: &[Self; 4]) -> [usize; 4];
}

impl Column for u8 {
    #[inline(always)]
    fn index(self) -> usize {
        usize::from(self)
    }

    #[inline(always)]
    fn four(columns: &[u8; 4]) -> [usize; 4] {
        let all = u32::from_le_bytes(*columns) as usize;
        [all & 0xff, all >> 8 & 0xff, all >> 16 & 0xff, all >> 24]
    }
}

impl Column for u16 {
    #[inline(always)]
    fn index(self) -> usize {
        usize::from(self)
    }

    #[inline(always)]
    fn four(columns: &[u16; 4]) -> [usize; 4] {
        let all = columns.iter().rev().fold(0u64, |all, &c| all << 16 | u64::from(c));
        [0, 16, 32, 48].map(|shift| (all >> shift & 0xffff) as usize)
    }
}

impl<I: Column, T: Value> TileCsrSlices<'_, I, T> {
    /// Where the list of a block, tile and slot stands among all lists.
    #[inline(always)]
    pub(super) fn list(&self, block: usize, tile: usize, slot: usize) -> usize {
        let (first, end) = (self.blocks[block] as usize, self.blocks[block + 1] as usize);
        first * self.tiles() + tile * (end - first) + slot
    }

    /// Columns and values of a list.
    #[inline(always)]
    pub(super) fn entries(&self, list: usize) -> (&[I], &[T]) {
        let range = self.starts[list] as usize..self.starts[list + 1] as usize;
        (&self.columns[range.clone()], &self.values[range])
    }
}

// SAFETY: `TileCsr` checks on its way in that columns lie within their tile and rows within their block.
unsafe impl<I: Column, T: Value> Rows for TileCsrSlices<'_, I, T> {
    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn blocks(&self) -> &[u32] {
        self.blocks
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    #[inline(always)]
    fn tiles(&self) -> usize {
        self.cols.div_ceil(self.tile)
    }

    #[inline(always)]
    fn tile_start(&self, tile: usize) -> usize {
        tile * self.tile
    }

    #[inline(always)]
    fn row(&self, block: usize, tile: usize, slot: usize) -> usize {
        usize::from(self.order[self.list(block, tile, slot)])
    }

    #[inline(always)]
    fn scale(&self, block: usize, tile: usize, slot: usize) -> f32 {
        if T::SCALED { self.scales[self.list(block, tile, slot)] } else { 1.0 }
    }

    #[inline(always)]
    fn each<const U: usize>(&self, block: usize, tile: usize, slot: usize, mut f: impl FnMut(usize, usize, f32)) {
        let (columns, values) = self.entries(self.list(block, tile, slot));
        let (fours, last) = columns.as_chunks::<4>();
        let (four_values, last_values) = values.as_chunks::<4>();
        for (c, v) in fours.iter().zip(four_values) {
            let c = I::four(c);
            for i in 0..4 {
                f(i % U, c[i], v[i].decode());
            }
        }
        for (&c, &v) in last.iter().zip(last_values) {
            f(0, c.index(), v.decode());
        }
    }
}

/// `y = x · Wᵀ`; see [`LinearOp::apply_with`](crate::sparse::LinearOp::apply_with).
pub(crate) fn tile_csr_product<I: Column, T: Value>(
    w: &TileCsrSlices<'_, I, T>,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
) {
    if x.nrows() == 1 {
        few::one_token(w, x, y, epilogue, |w, block, x, sums| few::lists(w, block, x, sums));
    } else {
        product(w, x, y, epilogue);
    }
}

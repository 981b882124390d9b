//! Products with tiled CSR.

use super::lists::{Lists, walk};
use crate::kernels::frame::Rows;
use crate::kernels::simd::{Column, Value};

/// The parts of a checked [`TileCsr`](crate::storage::TileCsr).
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

impl<I: Column, T: Value> TileCsrSlices<'_, I, T> {
    /// Where the list of a block, tile and slot stands among all lists.
    #[inline(always)]
    fn place(&self, block: usize, tile: usize, slot: usize) -> usize {
        let (first, end) = (self.blocks[block] as usize, self.blocks[block + 1] as usize);
        first * self.tiles() + tile * (end - first) + slot
    }
}

impl<I: Column, T: Value> Lists for TileCsrSlices<'_, I, T> {
    type Column = I;
    type Value = T;

    #[inline(always)]
    fn list(&self, block: usize, tile: usize, slot: usize) -> (&[I], &[T]) {
        let list = self.place(block, tile, slot);
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
        usize::from(self.order[self.place(block, tile, slot)])
    }

    #[inline(always)]
    fn scale(&self, block: usize, tile: usize, slot: usize) -> f32 {
        if T::SCALED { self.scales[self.place(block, tile, slot)] } else { 1.0 }
    }

    #[inline(always)]
    fn each<const U: usize>(&self, block: usize, tile: usize, slot: usize, f: impl FnMut(usize, usize, f32)) {
        walk::<U, _>(self, block, tile, slot, f);
    }
}

//! N:M as kernels read it.

use crate::kernels::frame::Rows;
use crate::kernels::simd::{Scales, Value};

/// The parts of a checked [`Nm`](crate::storage::Nm).
#[derive(Clone, Copy)]
pub(crate) struct NmSlices<'a, T> {
    pub rows: usize,
    pub cols: usize,
    pub n: usize,
    pub m: usize,
    pub blocks: &'a [u32],
    pub order: &'a [u8],
    pub words: &'a [u64],
    /// Followed by [`SLACK`](crate::kernels::SLACK) more, so that vectors can be read from any place.
    pub values: &'a [T],
    /// By words of a row.
    pub scales: Scales<'a>,
}

impl<T: Value> NmSlices<'_, T> {
    /// Columns of a word.
    #[inline(always)]
    pub(crate) fn wide(&self) -> usize {
        64 / self.m * self.m
    }

    /// Values of a run.
    #[inline(always)]
    pub(crate) fn count(&self, word: usize) -> usize {
        self.wide().min(self.cols - word * self.wide()) / self.m * self.n
    }

    #[inline(always)]
    pub(crate) fn block(&self, block: usize) -> (usize, usize) {
        (self.blocks[block] as usize, (self.blocks[block + 1] - self.blocks[block]) as usize)
    }

    /// Where the first run of a block and a word stands among all runs.
    #[inline(always)]
    pub(crate) fn run(&self, block: usize, word: usize) -> usize {
        let (first, rows) = self.block(block);
        first * self.tiles() + word * rows
    }

    /// Where the first value of a block and a word stands.
    #[inline(always)]
    pub(crate) fn value(&self, block: usize, word: usize) -> usize {
        let (first, rows) = self.block(block);
        first * (self.cols / self.m * self.n) + word * rows * (self.wide() / self.m * self.n)
    }
}

// SAFETY: `Nm` checks on its way in that bits lie within their row and the rows of a block within it.
unsafe impl<T: Value> Rows for NmSlices<'_, T> {
    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn blocks(&self) -> &[u32] {
        self.blocks
    }

    fn len(&self) -> usize {
        self.rows * (self.cols / self.m * self.n)
    }

    #[inline(always)]
    fn tiles(&self) -> usize {
        self.cols.div_ceil(self.wide())
    }

    #[inline(always)]
    fn tile_start(&self, tile: usize) -> usize {
        tile * self.wide()
    }

    #[inline(always)]
    fn row(&self, block: usize, tile: usize, slot: usize) -> usize {
        usize::from(self.order[self.run(block, tile) + slot])
    }

    #[inline(always)]
    fn scale(&self, block: usize, tile: usize, slot: usize) -> f32 {
        self.scales.at::<T>(self.blocks[block] as usize + self.row(block, tile, slot), tile)
    }

    #[inline(always)]
    fn each<const U: usize>(&self, block: usize, tile: usize, slot: usize, mut f: impl FnMut(usize, usize, f32)) {
        let mut bits = self.words[self.run(block, tile) + slot];
        let count = self.count(tile);
        let values = &self.values[self.value(block, tile) + slot * count..][..count];
        for (i, &value) in values.iter().enumerate() {
            f(i % U, bits.trailing_zeros() as usize, value.decode());
            bits &= bits.wrapping_sub(1);
        }
    }
}

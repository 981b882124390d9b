//! Products with bitmasks.

use super::few;
use super::strip::{Epilogue, Rows, product};
use super::value::Value;
use ndarray::ArrayRef2;

/// The parts of a checked [`Bitmask`](crate::sparse::Bitmask).
#[derive(Clone, Copy)]
pub(crate) struct BitmaskSlices<'a, T> {
    pub rows: usize,
    pub cols: usize,
    /// Words of 64 columns in a tile.
    pub tile: usize,
    pub blocks: &'a [u32],
    pub starts: &'a [u32],
    pub words: &'a [u64],
    /// Followed by [`SLACK`] more, so that vectors can be read from any place.
    pub values: &'a [T],
    pub scales: &'a [f32],
}

/// Values that follow the last one of a bitmask and mean nothing.
pub(crate) const SLACK: usize = 16;

impl<T: Value> BitmaskSlices<'_, T> {
    /// Words of a row.
    #[inline(always)]
    pub(super) fn row_words(&self) -> usize {
        self.cols.div_ceil(64)
    }

    #[inline(always)]
    fn block(&self, block: usize) -> (usize, usize) {
        (self.blocks[block] as usize, (self.blocks[block + 1] - self.blocks[block]) as usize)
    }

    /// Where the run of a block, tile and row stands among all runs.
    #[inline(always)]
    pub(super) fn run(&self, block: usize, tile: usize, slot: usize) -> usize {
        let (first, rows) = self.block(block);
        first * self.tiles() + tile * rows + slot
    }

    /// Words of the row `slot` of a block in a tile.
    #[inline(always)]
    pub(super) fn run_words(&self, block: usize, tile: usize, slot: usize) -> &[u64] {
        let (first, rows) = self.block(block);
        let n = self.tile.min(self.row_words() - tile * self.tile);
        let at = first * self.row_words() + rows * tile * self.tile + slot * n;
        &self.words[at..at + n]
    }
}

// SAFETY: `Bitmask` checks on its way in that no bit stands beyond the last column; rows are the slots themselves.
unsafe impl<T: Value> Rows for BitmaskSlices<'_, T> {
    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn blocks(&self) -> &[u32] {
        self.blocks
    }

    fn len(&self) -> usize {
        self.values.len() - SLACK
    }

    #[inline(always)]
    fn tiles(&self) -> usize {
        self.row_words().div_ceil(self.tile)
    }

    #[inline(always)]
    fn tile_start(&self, tile: usize) -> usize {
        tile * self.tile * 64
    }

    #[inline(always)]
    fn row(&self, _: usize, _: usize, slot: usize) -> usize {
        slot
    }

    #[inline(always)]
    fn scale(&self, block: usize, tile: usize, slot: usize) -> f32 {
        if T::SCALED { self.scales[self.run(block, tile, slot)] } else { 1.0 }
    }

    #[inline(always)]
    fn each<const U: usize>(&self, block: usize, tile: usize, slot: usize, mut f: impl FnMut(usize, usize, f32)) {
        let run = self.run(block, tile, slot);
        let values = &self.values[self.starts[run] as usize..self.starts[run + 1] as usize];
        let mut at = values.as_ptr();
        for (i, &word) in self.run_words(block, tile, slot).iter().enumerate() {
            let mut bits = word;
            macro_rules! take {
                ($u:expr) => {{
                    let column = 64 * i + bits.trailing_zeros() as usize;
                    bits &= bits.wrapping_sub(1);
                    // SAFETY: there are as many values in a run as bits in its words: `Bitmask` checks it.
                    f($u, column, unsafe { (*at).decode() });
                    // SAFETY: one past the last value at most.
                    at = unsafe { at.add(1) };
                }};
            }
            let n = word.count_ones() as usize;
            for _ in 0..n / U {
                for u in 0..U {
                    take!(u);
                }
            }
            for _ in 0..n % U {
                take!(0);
            }
        }
    }
}

/// `y = x · Wᵀ`; see [`LinearOp::apply_with`](crate::sparse::LinearOp::apply_with).
pub(crate) fn bitmask_product<T: few::Expand>(
    w: &BitmaskSlices<'_, T>,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
) {
    // Expanded runs multiply by zeros where nothing is stored, so x must be finite; strips skip what is not stored.
    if x.nrows() == 1 && x.iter().all(|x| x.is_finite()) {
        few::one_token(w, x, y, epilogue, |w, block, x, sums| few::runs(w, block, x, sums));
    } else {
        product(w, x, y, epilogue);
    }
}

//! Slices as kernels read them.

use crate::kernels::frame::{Epilogue, Out, RowLists, Walk};
use crate::kernels::simd::Value;
use std::ops::Range;

/// Slices of a block, at most: they take their steps together.
pub(crate) const TOGETHER: usize = 4;
/// Steps whose places stand in one word of 32 bits.
pub(crate) const A_WORD: usize = 6;
/// Bits of a place.
pub(crate) const PLACE: usize = 5;
/// Tokens that share what is loaded of the weight.
pub(crate) const TOKENS: usize = 4;
/// Lanes of a block, at most.
pub(crate) const LANES: usize = 16 * TOGETHER;

/// Sums of a block, by token and lane.
pub(crate) type Sums = [[f32; LANES]; TOKENS];

/// The parts of a checked [`Sell`](crate::storage::Sell).
#[derive(Clone, Copy)]
pub(crate) struct SellSlices<'a, T> {
    pub rows: usize,
    pub cols: usize,
    pub lanes: usize,
    /// Whether empty slots have no value.
    pub packed: bool,
    pub order: &'a [u32],
    pub steps: &'a [u8],
    pub place_starts: &'a [u32],
    pub mask_starts: &'a [u32],
    pub value_starts: &'a [u32],
    pub late_starts: &'a [u32],
    pub places: &'a [u32],
    pub masks: &'a [u16],
    /// Followed by [`SLACK`](crate::kernels::SLACK) more, so that vectors can be read from any place.
    pub values: &'a [T],
    pub late_lanes: &'a [u8],
    pub late_columns: &'a [u32],
    pub late_values: &'a [T],
    pub scales: &'a [f32],
}

/// Number of blocks of so many rows: even where there are several, so that two threads share them evenly.
pub(crate) fn sell_blocks(rows: usize, lanes: usize) -> usize {
    let slices = rows.div_ceil(lanes);
    let blocks = slices.div_ceil(TOGETHER);
    if blocks > 1 { blocks.next_multiple_of(2).min(slices) } else { blocks }
}

/// The slices of a block.
pub(crate) fn sell_slices(rows: usize, lanes: usize, block: usize) -> Range<usize> {
    let (slices, blocks) = (rows.div_ceil(lanes), sell_blocks(rows, lanes));
    block * slices / blocks..(block + 1) * slices / blocks
}

impl<T: Value> SellSlices<'_, T> {
    pub(crate) fn blocks(&self) -> usize {
        sell_blocks(self.rows, self.lanes)
    }

    pub(crate) fn slices(&self, block: usize) -> Range<usize> {
        sell_slices(self.rows, self.lanes, block)
    }

    /// The rows of a block, lane by lane; the last lanes of the last one may have none.
    pub(crate) fn rows_of(&self, block: usize) -> &[u32] {
        let slices = self.slices(block);
        &self.order[slices.start * self.lanes..(slices.end * self.lanes).min(self.rows)]
    }

    /// Steps of each phase of a block.
    pub(crate) fn steps_of(&self, block: usize) -> &[u8] {
        let phases = self.cols.div_ceil(self.lanes);
        &self.steps[block * phases..(block + 1) * phases]
    }

    /// Where the values of the slices of a block begin.
    pub(crate) fn first_values(&self, block: usize) -> [usize; TOGETHER] {
        let mut first = [0; TOGETHER];
        for (first, slice) in first.iter_mut().zip(self.slices(block)) {
            *first = self.value_starts[slice] as usize;
        }
        first
    }

    /// Calls `f(lane, column, value)` for each weight of a block that came in time.
    #[inline(always)]
    pub(crate) fn in_time(&self, block: usize, mut f: impl FnMut(usize, usize, T)) {
        let (slices, lanes) = (self.slices(block).len(), self.lanes);
        let mut at = self.first_values(block);
        let (masks, places) = (self.mask_starts[block] as usize, self.place_starts[block] as usize);
        let mut step = 0;
        for (phase, &steps) in self.steps_of(block).iter().enumerate() {
            for _ in 0..steps {
                for slice in 0..slices {
                    let mask = self.masks[masks + step * slices + slice];
                    let words = places + (step / A_WORD * slices + slice) * lanes;
                    for lane in 0..lanes {
                        let kept = mask >> lane & 1 == 1;
                        if kept {
                            let place = self.places[words + lane] >> (PLACE * (step % A_WORD)) & ((1 << PLACE) - 1);
                            f(slice * lanes + lane, phase * lanes + place as usize, self.values[at[slice]]);
                        }
                        at[slice] += usize::from(kept || !self.packed);
                    }
                }
                step += 1;
            }
        }
    }

    /// The weights of a block that came too late: lane, column, value.
    pub(crate) fn late(&self, block: usize) -> impl Iterator<Item = (usize, usize, T)> {
        let range = self.late_starts[block] as usize..self.late_starts[block + 1] as usize;
        let places = self.late_lanes[range.clone()].iter().zip(&self.late_columns[range.clone()]);
        places.zip(&self.late_values[range]).map(|((&lane, &column), &value)| (usize::from(lane), column as usize, value))
    }

    /// Number of weights.
    pub(crate) fn weights(&self) -> usize {
        self.masks.iter().map(|m| m.count_ones() as usize).sum::<usize>() + self.late_lanes.len()
    }

    fn scale(&self, row: usize) -> f32 {
        if T::SCALED { self.scales[row] } else { 1.0 }
    }

    /// Adds the weights that came too late, and writes the outputs of a block for `B` tokens of `x` into y, from token `token` on.
    ///
    /// # Safety
    /// y has these tokens and the weight's rows, and nobody else uses those of this block now.
    #[inline(always)]
    pub(crate) unsafe fn finish<const B: usize>(
        &self,
        block: usize,
        x: &[f32],
        sums: &mut Sums,
        (y, token): (Out, usize),
        epilogue: &Epilogue<'_>,
    ) {
        for (lane, column, value) in self.late(block) {
            let value = value.decode();
            for t in 0..B {
                sums[t][lane] += value * x[t * self.cols + column];
            }
        }
        for (lane, &row) in self.rows_of(block).iter().enumerate() {
            let (row, scale) = (row as usize, self.scale(row as usize));
            for t in 0..B {
                // SAFETY: a row of this block, and one of the tokens that y has and nobody else uses now, says the caller.
                unsafe { epilogue.put(y, token + t, row, &[scale * sums[t][lane]]) };
            }
        }
    }
}

// SAFETY: `Sell` checks on its way in that rows and columns lie within the weight, which is one tile.
unsafe impl<T: Value> Walk for SellSlices<'_, T> {
    fn size(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn weights(&self) -> usize {
        SellSlices::weights(self)
    }

    fn tiles_across(&self) -> usize {
        1
    }

    fn start(&self, _: usize) -> usize {
        0
    }

    fn walk(&self, _: usize, lists: &mut RowLists<'_>) {
        for block in 0..self.blocks() {
            // Row by row, so that a row's numbers are loaded once: its weights are put together first.
            let mut next = [0; LANES + 1];
            self.in_time(block, |lane, _, _| next[lane + 1] += 1);
            self.late(block).for_each(|(lane, _, _)| next[lane + 1] += 1);
            for lane in 0..LANES {
                next[lane + 1] += next[lane];
            }
            let mut list = vec![(0, 0.0); next[LANES]];
            let mut put = |lane: usize, column: usize, value: T| {
                list[next[lane]] = (column, value.decode());
                next[lane] += 1;
            };
            self.in_time(block, &mut put);
            self.late(block).for_each(|(lane, column, value)| put(lane, column, value));
            let mut first = 0;
            for (&row, &end) in self.rows_of(block).iter().zip(&next) {
                lists.row(row as usize, self.scale(row as usize));
                list[first..end].iter().for_each(|&(column, value)| lists.weight(column, value));
                first = end;
            }
        }
    }
}

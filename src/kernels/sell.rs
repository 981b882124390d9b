//! Products with sliced ELLPACK: as many rows side by side as a vector has lanes.
//!
//! A gather from memory costs a cycle a number and more; a permutation of two registers brings a vector of numbers together in one. So x
//! goes by in a window of two registers, 32 columns with AVX-512, that moves on by one register a phase, and each lane takes its row's
//! next weights as they come into the window. A lane that is ahead may take what the window shows first, so that lanes need not have
//! as many weights in the same columns: in the long run they have, and the few weights that came too late stand in a list.
//!
//! ```text
//! for each phase:   here, next = x[phase], x[phase + 1]
//!     for each step of it, for each slice: sums += values · permute(here ‖ next, places)
//! ```
//!
//! The values of each slice of a block stand by themselves: a processor looks ahead in every stream that it sees, and with four of them in place
//! of one a weight from memory took an eighth to three tenths less time (Intel, family 6, model 207). In the caches it makes no difference.
//!
//! On Zen 4 a step takes 2.0 to 2.3 cycles for sixteen weights: permutation, shift and multiply-add share three pipes. There a masked expansion of
//! sixteen columns takes 3.0 to 3.3, and at half the weights it brings eight. Tried: places as bytes, widened at each step (3.0).

use super::epilogue::{Epilogue, Out};
use super::expand::Expand;
use super::isa::Isa;
use super::pull::{Visit, Walk};
#[cfg(target_arch = "x86_64")]
use super::sell_steps::{block_avx2, block_avx512};
use super::value::Value;
use super::{awake::is_awake, vector::all_finite};
use ndarray::ArrayRef2;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Slices of a block, at most: they take their steps together.
pub(crate) const TOGETHER: usize = 4;
/// Steps whose places stand in one word of 32 bits.
pub(crate) const A_WORD: usize = 6;
/// Bits of a place.
pub(crate) const PLACE: usize = 5;
/// Tokens that share what is loaded of the weight.
const TOKENS: usize = 4;
/// Lanes of a block, at most.
pub(crate) const LANES: usize = 16 * TOGETHER;
/// Slots and tokens from which on the pool is worth waking, and from which on a product is shared out where it is awake.
const PARALLEL: usize = 1 << 16;
const AWAKE: usize = 1 << 14;

/// Sums of a block, by token and lane.
pub(super) type Sums = [[f32; LANES]; TOKENS];

/// The parts of a checked [`Sell`](crate::sparse::Sell).
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
    /// Followed by [`SLACK`](super::SLACK) more, so that vectors can be read from any place.
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

    pub(super) fn slices(&self, block: usize) -> Range<usize> {
        sell_slices(self.rows, self.lanes, block)
    }

    /// The rows of a block, lane by lane; the last lanes of the last one may have none.
    pub(crate) fn rows_of(&self, block: usize) -> &[u32] {
        let slices = self.slices(block);
        &self.order[slices.start * self.lanes..(slices.end * self.lanes).min(self.rows)]
    }

    /// Steps of each phase of a block.
    pub(super) fn steps_of(&self, block: usize) -> &[u8] {
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
    unsafe fn finish<const B: usize>(
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
                // SAFETY: as promised by the caller.
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

    fn walk<V: Visit>(&self, _: usize, visit: &mut V) {
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
                visit.row(row as usize, self.scale(row as usize));
                list[first..end].iter().for_each(|&(column, value)| visit.weight(column, value));
                first = end;
            }
        }
    }
}

/// `y = x · Wᵀ`; see [`LinearOp::apply_with`](crate::sparse::LinearOp::apply_with).
pub(crate) fn sell_product<T: Expand>(
    w: &SellSlices<'_, T>,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
) {
    let (tokens, cols) = x.dim();
    let x: Cow<'_, [f32]> = x.as_slice().map_or_else(|| x.iter().copied().collect::<Vec<f32>>().into(), Cow::Borrowed);
    // An empty slot that has a value multiplies some number of x by zero, so that x must be finite.
    let kernel = Kernel::of(w).filter(|_| w.packed || all_finite(&x)).unwrap_or(Kernel::Lanes);
    let (out, blocks) = (Out::new(y), w.blocks());
    let task = |task: usize| {
        // Blocks stand by falling weight; from both ends, so that the halves of the tasks cost the same.
        let block = if task % 2 == 0 { task / 2 } else { blocks - 1 - task / 2 };
        let mut token = 0;
        while token < tokens {
            let many = kernel.tokens(tokens - token);
            let x = &x[token * cols..(token + many) * cols];
            let mut sums = [[0.0; LANES]; TOKENS];
            kernel.run(w, block, many, x, &mut sums);
            // Many tokens together, so that those of a lane need not wait for one another; one alone, as fast as can be.
            let to = (out, token);
            // SAFETY: each task has its own block, whose rows are no other's, so no two write the same entries of y.
            unsafe {
                match many {
                    1 => w.finish::<1>(block, x, &mut sums, to, epilogue),
                    2 => w.finish::<2>(block, x, &mut sums, to, epilogue),
                    _ => w.finish::<TOKENS>(block, x, &mut sums, to, epilogue),
                }
            }
            token += many;
        }
    };
    let enough = if is_awake() { AWAKE } else { PARALLEL };
    if w.masks.len() * w.lanes * tokens >= enough && rayon::current_num_threads() > 1 {
        (0..blocks).into_par_iter().for_each(task);
    } else {
        (0..blocks).for_each(task);
    }
}

/// How a block is multiplied.
#[derive(Clone, Copy, PartialEq)]
enum Kernel {
    /// Sixteen lanes, AVX-512.
    #[cfg(target_arch = "x86_64")]
    Sixteen,
    /// Eight lanes that all have a value, AVX2.
    #[cfg(target_arch = "x86_64")]
    Eight,
    /// One lane after another: any storage, on any machine.
    Lanes,
}

impl Kernel {
    /// The vectors that are as wide as the slices, if there are.
    fn of<T>(w: &SellSlices<'_, T>) -> Option<Kernel> {
        #[cfg(target_arch = "x86_64")]
        match (Isa::current(), w.lanes) {
            (Isa::Avx512, 16) => return Some(Kernel::Sixteen),
            (Isa::Avx512 | Isa::Avx2, 8) if !w.packed => return Some(Kernel::Eight),
            _ => {}
        }
        None
    }

    /// Tokens that it multiplies at once of so many.
    fn tokens(self, left: usize) -> usize {
        match (self, left) {
            #[cfg(target_arch = "x86_64")]
            (Kernel::Eight, _) => left.min(2),
            (_, 3) => 2,
            _ => left.min(TOKENS),
        }
    }

    /// Adds the products of a block to sums.
    fn run<T: Expand>(self, w: &SellSlices<'_, T>, block: usize, tokens: usize, x: &[f32], sums: &mut Sums) {
        assert!(x.len() == tokens * w.cols, "{} numbers for {tokens} tokens of {}", x.len(), w.cols);
        match self {
            // SAFETY: `of` chose it, so the machine has its instructions.
            #[cfg(target_arch = "x86_64")]
            Kernel::Sixteen => unsafe { block_avx512(w, block, tokens, x, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kernel::Eight => unsafe { block_avx2(w, block, tokens, x, sums) },
            Kernel::Lanes => w.in_time(block, |lane, column, value| {
                for token in 0..tokens {
                    sums[token][lane] += value.decode() * x[token * w.cols + column];
                }
            }),
        }
    }
}

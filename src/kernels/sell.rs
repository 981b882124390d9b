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
//! On Zen 4 a step takes 2.0 to 2.3 cycles for sixteen weights: permutation, shift and multiply-add share three pipes. There a masked expansion of
//! sixteen columns takes 3.0 to 3.3, and at half the weights it brings eight. Tried: places as bytes, widened at each step (3.0).

use super::epilogue::{Epilogue, Out};
use super::expand::Expand;
use super::isa::Isa;
use super::pull::{Visit, Walk};
#[cfg(target_arch = "x86_64")]
use super::simd::{Simd, Ymm, Zmm};
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
const LANES: usize = 16 * TOGETHER;
/// Weights from which on the pool is worth waking, and from which on a product is shared out where it is awake.
const PARALLEL: usize = 1 << 17;
const AWAKE: usize = 1 << 14;

/// Bytes of values that are asked for ahead.
#[cfg(target_arch = "x86_64")]
const NEAR: usize = 2 << 10;

/// Sums of a block, by token and lane.
type Sums = [[f32; LANES]; TOKENS];

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

    fn slices(&self, block: usize) -> Range<usize> {
        sell_slices(self.rows, self.lanes, block)
    }

    /// The rows of a block, lane by lane; the last lanes of the last one may have none.
    pub(crate) fn rows_of(&self, block: usize) -> &[u32] {
        let slices = self.slices(block);
        &self.order[slices.start * self.lanes..(slices.end * self.lanes).min(self.rows)]
    }

    /// Steps of each phase of a block.
    fn steps_of(&self, block: usize) -> &[u8] {
        let phases = self.cols.div_ceil(self.lanes);
        &self.steps[block * phases..(block + 1) * phases]
    }

    /// Calls `f(lane, column, value)` for each weight of a block that came in time.
    #[inline(always)]
    pub(crate) fn in_time(&self, block: usize, mut f: impl FnMut(usize, usize, T)) {
        let (slices, lanes) = (self.slices(block).len(), self.lanes);
        let mut at = self.value_starts[block] as usize;
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
                            f(slice * lanes + lane, phase * lanes + place as usize, self.values[at]);
                        }
                        at += usize::from(kept || !self.packed);
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
}

// SAFETY: `Sell` checks on its way in that rows and columns lie within the weight, which is one tile.
unsafe impl<T: Value> Walk for SellSlices<'_, T> {
    fn size(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn weights(&self) -> usize {
        self.values.len()
    }

    fn tiles_across(&self) -> usize {
        1
    }

    fn start(&self, _: usize) -> usize {
        0
    }

    fn walk<V: Visit>(&self, _: usize, visit: &mut V) {
        for block in 0..self.blocks() {
            let rows = self.rows_of(block);
            // Row by row, so that a row's numbers are loaded once: its weights are put in order first.
            let mut lists: Vec<Vec<(usize, f32)>> = vec![Vec::new(); rows.len()];
            self.in_time(block, |lane, column, value| lists[lane].push((column, value.decode())));
            self.late(block).for_each(|(lane, column, value)| lists[lane].push((column, value.decode())));
            for (&row, list) in rows.iter().zip(&lists) {
                visit.row(row as usize, self.scale(row as usize));
                list.iter().for_each(|&(column, value)| visit.weight(column, value));
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
        let rows = w.rows_of(block);
        let mut token = 0;
        while token < tokens {
            let many = kernel.tokens(tokens - token);
            let x = &x[token * cols..(token + many) * cols];
            let mut sums = [[0.0; LANES]; TOKENS];
            kernel.run(w, block, many, x, &mut sums);
            for (t, sums) in sums[..many].iter_mut().enumerate() {
                for (lane, column, value) in w.late(block) {
                    sums[lane] += value.decode() * x[t * cols + column];
                }
                for (&row, &sum) in rows.iter().zip(&*sums) {
                    let row = row as usize;
                    // SAFETY: each task has its own rows, so no two write the same entries of y.
                    unsafe { epilogue.put(out, token + t, row, &[w.scale(row) * sum]) };
                }
            }
            token += many;
        }
    };
    let enough = if is_awake() { AWAKE } else { PARALLEL };
    if w.values.len() >= enough && rayon::current_num_threads() > 1 {
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

/// Vectors that pick their numbers out of two others.
///
/// # Safety
/// As [`Simd`].
#[cfg(target_arch = "x86_64")]
trait Window: Simd {
    /// A word a lane.
    type Words: Copy;

    unsafe fn words(from: *const u32) -> Self::Words;
    /// The words with the next places at their ends.
    unsafe fn turned(words: Self::Words) -> Self::Words;
    /// The numbers of `here`, then of `next`, at the places at the ends of the words.
    unsafe fn pick(here: Self::V, words: Self::Words, next: Self::V) -> Self::V;
    /// `LANES` values.
    unsafe fn values<T: Expand>(from: *const T) -> Self::V;
    /// `sums + values · x` in the lanes of the mask, which are the values in the order of the lanes.
    unsafe fn add_packed<T: Expand, const B: usize>(from: *const T, mask: u16, x: [Self::V; B], sums: &mut [Self::V; B]);
    /// The first numbers from a place on, zeros behind them.
    unsafe fn first(from: *const f32, many: usize) -> Self::V;
}

#[cfg(target_arch = "x86_64")]
impl Window for Zmm {
    type Words = std::arch::x86_64::__m512i;

    #[inline(always)]
    unsafe fn words(from: *const u32) -> Self::Words {
        // SAFETY: the caller vouches for the instructions and the memory.
        unsafe { std::arch::x86_64::_mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn turned(words: Self::Words) -> Self::Words {
        // SAFETY: the caller vouches for the instructions.
        unsafe { std::arch::x86_64::_mm512_srli_epi32::<{ PLACE as u32 }>(words) }
    }

    #[inline(always)]
    unsafe fn pick(here: Self::V, words: Self::Words, next: Self::V) -> Self::V {
        // SAFETY: the caller vouches for the instructions. What stands above five bits is not looked at.
        unsafe { std::arch::x86_64::_mm512_permutex2var_ps(here, words, next) }
    }

    #[inline(always)]
    unsafe fn values<T: Expand>(from: *const T) -> Self::V {
        // SAFETY: the caller vouches for the instructions and the memory.
        unsafe { T::sixteen(from, u16::MAX) }
    }

    #[inline(always)]
    unsafe fn add_packed<T: Expand, const B: usize>(from: *const T, mask: u16, x: [Self::V; B], sums: &mut [Self::V; B]) {
        use std::arch::x86_64::*;
        // SAFETY: the caller vouches for the instructions and the memory.
        unsafe {
            let values = _mm512_mask_expand_ps(x[0], mask, T::sixteen(from, u16::MAX));
            for b in 0..B {
                sums[b] = _mm512_mask3_fmadd_ps(values, x[b], sums[b], mask);
            }
        }
    }

    #[inline(always)]
    unsafe fn first(from: *const f32, many: usize) -> Self::V {
        // SAFETY: the caller vouches for the instructions and the numbers in the mask.
        unsafe { std::arch::x86_64::_mm512_maskz_loadu_ps(((1u32 << many.min(16)) - 1) as u16, from) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Window for Ymm {
    type Words = std::arch::x86_64::__m256i;

    #[inline(always)]
    unsafe fn words(from: *const u32) -> Self::Words {
        // SAFETY: the caller vouches for the instructions and the memory.
        unsafe { std::arch::x86_64::_mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn turned(words: Self::Words) -> Self::Words {
        // SAFETY: the caller vouches for the instructions.
        unsafe { std::arch::x86_64::_mm256_srli_epi32::<{ PLACE as i32 }>(words) }
    }

    #[inline(always)]
    unsafe fn pick(here: Self::V, words: Self::Words, next: Self::V) -> Self::V {
        use std::arch::x86_64::*;
        // SAFETY: the caller vouches for the instructions. The fourth bit of a place says which of the two it is; a blend looks at signs.
        unsafe {
            let (low, high) = (_mm256_permutevar8x32_ps(here, words), _mm256_permutevar8x32_ps(next, words));
            _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(words)))
        }
    }

    #[inline(always)]
    unsafe fn values<T: Expand>(from: *const T) -> Self::V {
        // SAFETY: the caller vouches for the instructions and the memory.
        unsafe { T::eight(from, std::arch::x86_64::_mm256_set1_epi32(-1)) }
    }

    #[inline(always)]
    unsafe fn add_packed<T: Expand, const B: usize>(_: *const T, _: u16, _: [Self::V; B], _: &mut [Self::V; B]) {
        unreachable!("AVX2 multiplies no packed slots");
    }

    #[inline(always)]
    unsafe fn first(from: *const f32, many: usize) -> Self::V {
        let mut numbers = [0.0; 8];
        // SAFETY: the caller vouches for the instructions and so many numbers.
        unsafe {
            std::ptr::copy_nonoverlapping(from, numbers.as_mut_ptr(), many.min(8));
            Ymm::load(numbers.as_ptr())
        }
    }
}

/// Calls the product for the number of slices and tokens. Four tokens of three or four slices would not fit into the registers.
#[cfg(target_arch = "x86_64")]
macro_rules! by_sizes {
    ($s:ty, $packed:literal, $w:ident, $block:ident, $tokens:ident, $x:ident, $sums:ident) => {{
        macro_rules! steps {
            ($g:literal, $first:literal, $many:literal, $b:literal) => {
                steps::<$s, T, $g, $first, $many, $b, $packed>($w, $block, $x, $sums)
            };
        }
        match ($w.slices($block).len(), $tokens) {
            (1, 1) => steps!(1, 0, 1, 1),
            (2, 1) => steps!(2, 0, 2, 1),
            (3, 1) => steps!(3, 0, 3, 1),
            (4, 1) => steps!(4, 0, 4, 1),
            (1, 2) => steps!(1, 0, 1, 2),
            (2, 2) => steps!(2, 0, 2, 2),
            (3, 2) => steps!(3, 0, 3, 2),
            (4, 2) => steps!(4, 0, 4, 2),
            (1, 4) => steps!(1, 0, 1, 4),
            (2, 4) => steps!(2, 0, 2, 4),
            (3, 4) => {
                steps!(3, 0, 2, 4);
                steps!(3, 2, 1, 4);
            }
            (4, 4) => {
                steps!(4, 0, 2, 4);
                steps!(4, 2, 2, 4);
            }
            (slices, tokens) => unreachable!("{slices} slices and {tokens} tokens"),
        }
    }};
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn block_avx512<T: Expand>(w: &SellSlices<'_, T>, block: usize, tokens: usize, x: &[f32], sums: &mut Sums) {
    // SAFETY: the caller's instructions are those of this function; there are as many numbers of x as tokens of all columns.
    unsafe {
        if w.packed {
            by_sizes!(Zmm, true, w, block, tokens, x, sums);
        } else {
            by_sizes!(Zmm, false, w, block, tokens, x, sums);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn block_avx2<T: Expand>(w: &SellSlices<'_, T>, block: usize, tokens: usize, x: &[f32], sums: &mut Sums) {
    // SAFETY: as above.
    unsafe { by_sizes!(Ymm, false, w, block, tokens, x, sums) };
}

/// The columns of a phase, zeros beyond the last.
///
/// # Safety
/// The instructions of `S` run here, and x has `B` tokens of the weight's columns.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn window<S: Window, T, const B: usize>(w: &SellSlices<'_, T>, x: &[f32], phase: usize) -> [S::V; B] {
    let first = phase * S::LANES;
    let left = w.cols.saturating_sub(first);
    // SAFETY: as promised by the caller; numbers are read below the last column.
    unsafe {
        let mut columns = [S::splat(0.0); B];
        for b in 0..B {
            let token = x.as_ptr().add(b * w.cols);
            if left >= S::LANES {
                columns[b] = S::load(token.add(first));
            } else if left > 0 {
                columns[b] = S::first(token.add(first), left);
            }
        }
        columns
    }
}

/// The steps of a block of `G` slices for `B` tokens: those of `N` slices from the slice `FIRST` on.
///
/// # Safety
/// The instructions of `S` run here, its lanes are those of the storage, the block has `G` slices, and x has `B` tokens.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn steps<S: Window, T: Expand, const G: usize, const FIRST: usize, const N: usize, const B: usize, const PACKED: bool>(
    w: &SellSlices<'_, T>,
    block: usize,
    x: &[f32],
    sums: &mut Sums,
) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let lanes = S::LANES;
    // SAFETY: `Sell` checks that a block has as many masks and words as its steps ask for, and as many values as its slots; SLACK more values
    // can be read.
    unsafe {
        let mut values = w.values.as_ptr().add(w.value_starts[block] as usize);
        let mut masks = w.masks.as_ptr().add(w.mask_starts[block] as usize);
        let mut places = w.places.as_ptr().add(w.place_starts[block] as usize);
        let mut acc = [[S::splat(0.0); B]; N];
        let mut words = [S::words([0u32; 16].as_ptr()); N];
        let mut left = 0;
        let mut here = window::<S, T, B>(w, x, 0);
        for (phase, &steps) in w.steps_of(block).iter().enumerate() {
            let next = window::<S, T, B>(w, x, phase + 1);
            for _ in 0..steps {
                if left == 0 {
                    for n in 0..N {
                        words[n] = S::words(places.add((FIRST + n) * lanes));
                    }
                    places = places.add(G * lanes);
                    left = A_WORD;
                }
                let mut at = values;
                for g in 0..G {
                    let mask = if PACKED { *masks.add(g) } else { 0 };
                    if g >= FIRST && g < FIRST + N {
                        let n = g - FIRST;
                        _mm_prefetch::<_MM_HINT_T0>(at.cast::<i8>().wrapping_add(NEAR));
                        let mut picked = here;
                        for b in 0..B {
                            picked[b] = S::pick(here[b], words[n], next[b]);
                        }
                        words[n] = S::turned(words[n]);
                        if PACKED {
                            S::add_packed(at, mask, picked, &mut acc[n]);
                        } else {
                            let all = S::values(at);
                            for b in 0..B {
                                acc[n][b] = S::fma(all, picked[b], acc[n][b]);
                            }
                        }
                    }
                    at = at.add(if PACKED { mask.count_ones() as usize } else { lanes });
                }
                values = at;
                masks = masks.wrapping_add(G);
                left -= 1;
            }
            here = next;
        }
        for n in 0..N {
            for b in 0..B {
                S::store(sums[b][(FIRST + n) * lanes..].as_mut_ptr(), acc[n][b]);
            }
        }
    }
}

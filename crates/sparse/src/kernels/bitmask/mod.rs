//! Products with bitmasks.

#[cfg(target_arch = "x86_64")]
use crate::kernels::frame::AHEAD;
use crate::kernels::frame::{Epilogue, Rows, few_tokens, product};
use crate::kernels::simd::{Expand, Isa, SLACK, Value};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Ymm, Zmm, part, places, sum_of_eight};
use ndarray::ArrayRef2;

/// The parts of a checked [`Bitmask`](crate::storage::Bitmask).
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

impl<T: Value> BitmaskSlices<'_, T> {
    /// Words of a row.
    #[inline(always)]
    pub(crate) fn row_words(&self) -> usize {
        self.cols.div_ceil(64)
    }

    #[inline(always)]
    fn block(&self, block: usize) -> (usize, usize) {
        (self.blocks[block] as usize, (self.blocks[block + 1] - self.blocks[block]) as usize)
    }

    /// Where the run of a block, tile and row stands among all runs.
    #[inline(always)]
    pub(crate) fn run(&self, block: usize, tile: usize, slot: usize) -> usize {
        let (first, rows) = self.block(block);
        first * self.tiles() + tile * rows + slot
    }

    /// Words of the row `slot` of a block in a tile.
    #[inline(always)]
    pub(crate) fn run_words(&self, block: usize, tile: usize, slot: usize) -> &[u64] {
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

/// `y = x · Wᵀ`; see [`LinearOp::apply_with`](crate::storage::LinearOp::apply_with).
pub(crate) fn bitmask_product<T: Expand>(
    w: &BitmaskSlices<'_, T>,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
) {
    let few = if Isa::current() == Isa::Avx512 { 4 } else { 1 };
    // Without masks, expanded runs multiply by zeros where nothing is stored, so x must be finite; strips skip what is not stored.
    if (1..=few).contains(&x.nrows()) && (few > 1 || x.iter().all(|x| x.is_finite())) {
        few_tokens(w, x, y, epilogue, runs);
    } else {
        product(w, x, y, epilogue);
    }
}

/// Adds the products of one block of a bitmask to `sums`.
fn runs<T: Expand>(w: &BitmaskSlices<'_, T>, block: usize, x: &[f32], sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    match Isa::current() {
        // SAFETY: the machine has these instructions.
        Isa::Avx512 => return unsafe { runs_avx512(w, block, x, sums) },
        // SAFETY: the machine has these instructions.
        Isa::Avx2 => return unsafe { runs_avx2(w, block, x, sums) },
        _ => {}
    }
    for tile in 0..w.tiles() {
        let x = &x[w.tile_start(tile)..];
        for (slot, y) in sums.iter_mut().enumerate() {
            let mut sum = [0.0f32; 4];
            w.each::<4>(block, tile, slot, |u, column, value| sum[u] += value * x[column]);
            *y += w.scale(block, tile, slot) * ((sum[0] + sum[2]) + (sum[1] + sum[3]));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn runs_avx2<T: Expand>(w: &BitmaskSlices<'_, T>, block: usize, x: &[f32], sums: &mut [f32]) {
    let (s, mut slot) = (Ymm::new(), 0);
    while slot + 4 <= sums.len() {
        rows_of_runs::<T, 4>(s, w, block, slot, x, sums);
        slot += 4;
    }
    while slot < sums.len() {
        rows_of_runs::<T, 1>(s, w, block, slot, x, sums);
        slot += 1;
    }
}

/// `R` rows at a time, which share what is loaded of x.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn rows_of_runs<T: Expand, const R: usize>(
    s: Ymm,
    w: &BitmaskSlices<'_, T>,
    block: usize,
    slot: usize,
    x: &[f32],
    sums: &mut [f32],
) {
    use std::arch::x86_64::*;
    let mut padded = [0.0; 64];
    for tile in 0..w.tiles() {
        let start = w.tile_start(tile);
        let words: [&[u64]; R] = std::array::from_fn(|r| w.run_words(block, tile, slot + r));
        let mut at: [*const T; R] = std::array::from_fn(|r| w.values[w.starts[w.run(block, tile, slot + r)] as usize..].as_ptr());
        // SAFETY: `Ymm` has the instructions; `Bitmask` checked on its way in that a run has as many values as its words have bits, and SLACK more
        // can be read; all rows of a tile have as many words, and a word eight bytes; `part` gives 64 numbers.
        unsafe {
            let mut acc = [_mm256_setzero_ps(); R];
            for i in 0..words[0].len() {
                // Masked loads wait long for lines from memory: two are asked for, for up to half of a word's weights.
                for at in at {
                    _mm_prefetch::<_MM_HINT_T1>(at.cast::<i8>().wrapping_add(AHEAD));
                    _mm_prefetch::<_MM_HINT_T1>(at.cast::<i8>().wrapping_add(AHEAD + 64));
                }
                let x = part(x, start + 64 * i, &mut padded);
                for eight in 0..8 {
                    let x = _mm256_loadu_ps(x.as_ptr().add(8 * eight));
                    for r in 0..R {
                        let bits = *words[r].as_ptr().add(i).cast::<u8>().add(eight);
                        let places = places(bits);
                        acc[r] = _mm256_fmadd_ps(T::eight(s, at[r], places), _mm256_permutevar8x32_ps(x, places), acc[r]);
                        at[r] = at[r].add(bits.count_ones() as usize);
                    }
                }
            }
            for r in 0..R {
                sums[slot + r] += w.scale(block, tile, slot + r) * sum_of_eight(acc[r]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn runs_avx512<T: Expand>(w: &BitmaskSlices<'_, T>, block: usize, x: &[f32], sums: &mut [f32]) {
    let rows = w.block(block).1;
    // Expanding over a vector of zeros that the compiler knows makes it a zeroing expansion, which on some processors waits for what its
    // target held before; this vector the compiler does not know.
    let mut junk = std::arch::x86_64::_mm512_setzero_ps();
    // SAFETY: nothing is done.
    unsafe { std::arch::asm!("/* {0} */", inout(zmm_reg) junk, options(pure, nomem, nostack, preserves_flags)) };
    let s = Zmm::new();
    match sums.len() / rows.max(1) {
        1 => rows_of_masks::<T, 1>(s, w, block, x, sums, junk),
        2 => rows_of_masks::<T, 2>(s, w, block, x, sums, junk),
        3 => rows_of_masks::<T, 3>(s, w, block, x, sums, junk),
        _ => rows_of_masks::<T, 4>(s, w, block, x, sums, junk),
    }
}

/// Four rows at a time, which share what is loaded of x; the last one to three alone. Columns without a weight take no part, whatever x holds there.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn rows_of_masks<T: Expand, const B: usize>(
    s: Zmm,
    w: &BitmaskSlices<'_, T>,
    block: usize,
    x: &[f32],
    sums: &mut [f32],
    junk: std::arch::x86_64::__m512,
) {
    let rows = w.block(block).1;
    assert!(x.len() == B * w.cols && sums.len() == B * rows, "{} numbers and {} sums for {B} tokens", x.len(), sums.len());
    for tile in 0..w.tiles() {
        for slot in (0..rows & !3).step_by(4) {
            // SAFETY: x has `B` tokens: asserted just now.
            unsafe { masks::<T, 4, B>(s, w, (block, tile, slot), x, sums, junk) };
        }
        for slot in rows & !3..rows {
            // SAFETY: as above.
            unsafe { masks::<T, 1, B>(s, w, (block, tile, slot), x, sums, junk) };
        }
    }
}

/// `R` rows and `B` tokens.
///
/// # Safety
/// x has `B` tokens of all columns.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn masks<T: Expand, const R: usize, const B: usize>(
    s: Zmm,
    w: &BitmaskSlices<'_, T>,
    (block, tile, slot): (usize, usize, usize),
    x: &[f32],
    sums: &mut [f32],
    junk: std::arch::x86_64::__m512,
) {
    use std::arch::x86_64::*;
    // SAFETY: `Zmm` has the instructions; `Bitmask` checked on its way in that a run has as many values as its words have bits, and SLACK more can
    // be read; all rows of a tile have as many words; x is read in the lanes of `here`, which are columns of the token.
    unsafe {
        let rows = w.block(block).1;
        let start = w.tile_start(tile);
        let words: [&[u64]; R] = std::array::from_fn(|r| w.run_words(block, tile, slot + r));
        let mut at: [*const T; R] = std::array::from_fn(|r| w.values[w.starts[w.run(block, tile, slot + r)] as usize..].as_ptr());
        let mut acc = [[_mm512_setzero_ps(); B]; R];
        for i in 0..words[0].len() {
            let column = start + 64 * i;
            let bits: [u64; R] = std::array::from_fn(|r| *words[r].get_unchecked(i));
            for quarter in 0..4 {
                let first = column + 16 * quarter;
                if first >= w.cols {
                    break;
                }
                let here = if w.cols - first >= 16 { u16::MAX } else { (1u16 << (w.cols - first)) - 1 };
                let xs: [__m512; B] = std::array::from_fn(|b| _mm512_maskz_loadu_ps(here, x.as_ptr().add(b * w.cols + first)));
                for r in 0..R {
                    if quarter % 2 == 0 {
                        _mm_prefetch::<_MM_HINT_T1>(at[r].cast::<i8>().wrapping_add(AHEAD + 64 * (quarter / 2)));
                    }
                    let mask = (bits[r] >> (16 * quarter)) as u16;
                    // What the quarters before this one have taken.
                    let before = (bits[r] & ((1u64 << (16 * quarter)) - 1)).count_ones() as usize;
                    let values = _mm512_mask_expand_ps(junk, mask, T::sixteen(s, at[r].add(before), u16::MAX));
                    for b in 0..B {
                        acc[r][b] = _mm512_mask3_fmadd_ps(values, xs[b], acc[r][b], mask);
                    }
                }
            }
            for r in 0..R {
                at[r] = at[r].add(bits[r].count_ones() as usize);
            }
        }
        for r in 0..R {
            let scale = w.scale(block, tile, slot + r);
            for b in 0..B {
                sums[b * rows + slot + r] += scale * _mm512_reduce_add_ps(acc[r][b]);
            }
        }
    }
}

//! The steps of slices in vectors: AVX-512 and AVX2.

use super::slices::{A_WORD, PLACE, SellSlices, Sums};
use crate::kernels::simd::{Expand, Simd};
use crate::kernels::simd::{Ymm, Zmm};
use std::arch::x86_64::*;

/// Bytes of values that are asked for ahead.
const NEAR: usize = 2 << 10;

/// Vectors that pick their numbers out of two others.
///
/// # Safety
/// As [`Simd`].
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

impl Window for Zmm {
    type Words = __m512i;

    #[inline(always)]
    unsafe fn words(from: *const u32) -> Self::Words {
        // SAFETY: the caller vouches for the instructions and the memory.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn turned(words: Self::Words) -> Self::Words {
        // SAFETY: the caller vouches for the instructions.
        unsafe { _mm512_srli_epi32::<{ PLACE as u32 }>(words) }
    }

    #[inline(always)]
    unsafe fn pick(here: Self::V, words: Self::Words, next: Self::V) -> Self::V {
        // SAFETY: the caller vouches for the instructions. What stands above five bits is not looked at.
        unsafe { _mm512_permutex2var_ps(here, words, next) }
    }

    #[inline(always)]
    unsafe fn values<T: Expand>(from: *const T) -> Self::V {
        // SAFETY: the caller vouches for the instructions and the memory.
        unsafe { T::sixteen(from, u16::MAX) }
    }

    #[inline(always)]
    unsafe fn add_packed<T: Expand, const B: usize>(from: *const T, mask: u16, x: [Self::V; B], sums: &mut [Self::V; B]) {
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
        unsafe { _mm512_maskz_loadu_ps(((1u32 << many.min(16)) - 1) as u16, from) }
    }
}

impl Window for Ymm {
    type Words = __m256i;

    #[inline(always)]
    unsafe fn words(from: *const u32) -> Self::Words {
        // SAFETY: the caller vouches for the instructions and the memory.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn turned(words: Self::Words) -> Self::Words {
        // SAFETY: the caller vouches for the instructions.
        unsafe { _mm256_srli_epi32::<{ PLACE as i32 }>(words) }
    }

    #[inline(always)]
    unsafe fn pick(here: Self::V, words: Self::Words, next: Self::V) -> Self::V {
        // SAFETY: the caller vouches for the instructions. The fourth bit of a place says which of the two it is; a blend looks at signs.
        unsafe {
            let (low, high) = (_mm256_permutevar8x32_ps(here, words), _mm256_permutevar8x32_ps(next, words));
            _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(words)))
        }
    }

    #[inline(always)]
    unsafe fn values<T: Expand>(from: *const T) -> Self::V {
        // SAFETY: the caller vouches for the instructions and the memory.
        unsafe { T::eight(from, _mm256_set1_epi32(-1)) }
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

/// Calls the product for the number of slices and tokens. Four tokens of four slices fill the registers; two slices at a time, which
/// leave some free, go twice over the weights and take an eighth longer.
macro_rules! by_sizes {
    ($s:ty, $packed:literal, $w:ident, $block:ident, $tokens:ident, $x:ident, $sums:ident) => {{
        macro_rules! steps {
            ($g:literal, $b:literal) => {
                steps::<$s, T, $g, $b, $packed>($w, $block, $x, $sums)
            };
        }
        match ($w.slices($block).len(), $tokens) {
            (1, 1) => steps!(1, 1),
            (2, 1) => steps!(2, 1),
            (3, 1) => steps!(3, 1),
            (4, 1) => steps!(4, 1),
            (1, 2) => steps!(1, 2),
            (2, 2) => steps!(2, 2),
            (3, 2) => steps!(3, 2),
            (4, 2) => steps!(4, 2),
            (1, 4) => steps!(1, 4),
            (2, 4) => steps!(2, 4),
            (3, 4) => steps!(3, 4),
            (4, 4) => steps!(4, 4),
            (slices, tokens) => unreachable!("{slices} slices and {tokens} tokens"),
        }
    }};
}

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
pub(crate) fn block_avx512<T: Expand>(w: &SellSlices<'_, T>, block: usize, tokens: usize, x: &[f32], sums: &mut Sums) {
    // SAFETY: the caller's instructions are those of this function; there are as many numbers of x as tokens of all columns.
    unsafe {
        if w.packed {
            by_sizes!(Zmm, true, w, block, tokens, x, sums);
        } else {
            by_sizes!(Zmm, false, w, block, tokens, x, sums);
        }
    }
}

#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
pub(crate) fn block_avx2<T: Expand>(w: &SellSlices<'_, T>, block: usize, tokens: usize, x: &[f32], sums: &mut Sums) {
    // SAFETY: as above.
    unsafe { by_sizes!(Ymm, false, w, block, tokens, x, sums) };
}

/// The columns of a phase, zeros beyond the last.
///
/// # Safety
/// The instructions of `S` run here, and x has `B` tokens of the weight's columns.
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

/// The steps of a block of `G` slices for `B` tokens.
///
/// # Safety
/// The instructions of `S` run here, its lanes are those of the storage, the block has `G` slices, and x has `B` tokens.
#[inline(always)]
unsafe fn steps<S: Window, T: Expand, const G: usize, const B: usize, const PACKED: bool>(
    w: &SellSlices<'_, T>,
    block: usize,
    x: &[f32],
    sums: &mut Sums,
) {
    let lanes = S::LANES;
    // SAFETY: `Sell` checks that a block has as many masks and words as its steps ask for, and as many values as its slots; SLACK more values
    // can be read.
    unsafe {
        let first = w.first_values(block);
        let mut values: [*const T; G] = std::array::from_fn(|g| w.values.as_ptr().add(first[g]));
        let mut masks = w.masks.as_ptr().add(w.mask_starts[block] as usize);
        let mut places = w.places.as_ptr().add(w.place_starts[block] as usize);
        let mut acc = [[S::splat(0.0); B]; G];
        let mut words = [S::words([0u32; 16].as_ptr()); G];
        let mut left = 0;
        let mut here = window::<S, T, B>(w, x, 0);
        for (phase, &steps) in w.steps_of(block).iter().enumerate() {
            let next = window::<S, T, B>(w, x, phase + 1);
            for _ in 0..steps {
                if left == 0 {
                    for g in 0..G {
                        words[g] = S::words(places.add(g * lanes));
                    }
                    places = places.add(G * lanes);
                    left = A_WORD;
                }
                for g in 0..G {
                    _mm_prefetch::<_MM_HINT_T0>(values[g].cast::<i8>().wrapping_add(NEAR));
                    if PACKED {
                        let mask = *masks.add(g);
                        let mut picked = here;
                        for b in 0..B {
                            picked[b] = S::pick(here[b], words[g], next[b]);
                        }
                        S::add_packed(values[g], mask, picked, &mut acc[g]);
                        values[g] = values[g].add(mask.count_ones() as usize);
                    } else {
                        let all = S::values(values[g]);
                        for b in 0..B {
                            acc[g][b] = S::fma(all, S::pick(here[b], words[g], next[b]), acc[g][b]);
                        }
                        values[g] = values[g].add(lanes);
                    }
                    words[g] = S::turned(words[g]);
                }
                masks = masks.wrapping_add(G);
                left -= 1;
            }
            here = next;
        }
        for g in 0..G {
            for b in 0..B {
                S::store(sums[b][g * lanes..].as_mut_ptr(), acc[g][b]);
            }
        }
    }
}

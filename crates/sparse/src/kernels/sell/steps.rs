//! The steps of slices in vectors: AVX-512 and AVX2.

use super::slices::{A_WORD, PLACE, SellSlices, Sums};
use crate::kernels::simd::{Expand, Simd};
use crate::kernels::simd::{Ymm, Zmm};
use std::arch::x86_64::*;

/// Bytes of values that are asked for ahead.
const NEAR: usize = 2 << 10;

/// Vectors that pick their numbers out of two others.
trait Window: Simd {
    /// A word a lane.
    type Words: Copy;

    /// # Safety
    /// `LANES` words can be read.
    unsafe fn words(self, from: *const u32) -> Self::Words;
    /// The words with the next places at their ends.
    fn turned(self, words: Self::Words) -> Self::Words;
    /// The numbers of `here`, then of `next`, at the places at the ends of the words.
    fn pick(self, here: Self::V, words: Self::Words, next: Self::V) -> Self::V;
    /// `LANES` values.
    ///
    /// # Safety
    /// So many can be read.
    unsafe fn values<T: Expand>(self, from: *const T) -> Self::V;
    /// `sums + values · x` in the lanes of the mask, which are the values in the order of the lanes.
    ///
    /// # Safety
    /// `LANES` values can be read.
    unsafe fn add_packed<T: Expand, const B: usize>(self, from: *const T, mask: u16, x: [Self::V; B], sums: &mut [Self::V; B]);
    /// The first numbers from a place on, zeros behind them.
    ///
    /// # Safety
    /// So many can be read.
    unsafe fn first(self, from: *const f32, many: usize) -> Self::V;
}

impl Window for Zmm {
    type Words = __m512i;

    #[inline(always)]
    unsafe fn words(self, from: *const u32) -> Self::Words {
        // SAFETY: `Zmm` has the instructions, which read `LANES` of them.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    fn turned(self, words: Self::Words) -> Self::Words {
        // SAFETY: `Zmm` has the instructions.
        unsafe { _mm512_srli_epi32::<{ PLACE as u32 }>(words) }
    }

    #[inline(always)]
    fn pick(self, here: Self::V, words: Self::Words, next: Self::V) -> Self::V {
        // SAFETY: `Zmm` has the instructions. What stands above five bits is not looked at.
        unsafe { _mm512_permutex2var_ps(here, words, next) }
    }

    #[inline(always)]
    unsafe fn values<T: Expand>(self, from: *const T) -> Self::V {
        // SAFETY: `Zmm` has the instructions, which read `LANES` of them.
        unsafe { T::sixteen(self, from, u16::MAX) }
    }

    #[inline(always)]
    unsafe fn add_packed<T: Expand, const B: usize>(self, from: *const T, mask: u16, x: [Self::V; B], sums: &mut [Self::V; B]) {
        // SAFETY: `Zmm` has the instructions, which read `LANES` of them.
        unsafe {
            let values = _mm512_mask_expand_ps(x[0], mask, T::sixteen(self, from, u16::MAX));
            for b in 0..B {
                sums[b] = _mm512_mask3_fmadd_ps(values, x[b], sums[b], mask);
            }
        }
    }

    #[inline(always)]
    unsafe fn first(self, from: *const f32, many: usize) -> Self::V {
        // SAFETY: `Zmm` has the instructions; a masked load reads what is in the mask alone.
        unsafe { _mm512_maskz_loadu_ps(((1u32 << many.min(16)) - 1) as u16, from) }
    }
}

impl Window for Ymm {
    type Words = __m256i;

    #[inline(always)]
    unsafe fn words(self, from: *const u32) -> Self::Words {
        // SAFETY: `Ymm` has the instructions, which read `LANES` of them.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    fn turned(self, words: Self::Words) -> Self::Words {
        // SAFETY: `Ymm` has the instructions.
        unsafe { _mm256_srli_epi32::<{ PLACE as i32 }>(words) }
    }

    #[inline(always)]
    fn pick(self, here: Self::V, words: Self::Words, next: Self::V) -> Self::V {
        // SAFETY: `Ymm` has the instructions. The fourth bit of a place says which of the two it is; a blend looks at signs.
        unsafe {
            let (low, high) = (_mm256_permutevar8x32_ps(here, words), _mm256_permutevar8x32_ps(next, words));
            _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(words)))
        }
    }

    #[inline(always)]
    unsafe fn values<T: Expand>(self, from: *const T) -> Self::V {
        // SAFETY: `Ymm` has the instructions, which read `LANES` of them.
        unsafe { T::eight(self, from, _mm256_set1_epi32(-1)) }
    }

    #[inline(always)]
    unsafe fn add_packed<T: Expand, const B: usize>(self, _: *const T, _: u16, _: [Self::V; B], _: &mut [Self::V; B]) {
        unreachable!("AVX2 multiplies no packed slots");
    }

    #[inline(always)]
    unsafe fn first(self, from: *const f32, many: usize) -> Self::V {
        let mut numbers = [0.0; 8];
        // SAFETY: there are `many` numbers, and place for as many.
        unsafe {
            std::ptr::copy_nonoverlapping(from, numbers.as_mut_ptr(), many.min(8));
        }
        self.read(&numbers)
    }
}

/// Calls the product for the number of slices and tokens. Four tokens of four slices fill the registers; two slices at a time, which
/// leave some free, go twice over the weights and take an eighth longer.
macro_rules! by_sizes {
    ($s:expr, $packed:literal, $w:ident, $block:ident, $tokens:ident, $x:ident, $sums:ident) => {{
        macro_rules! steps {
            ($g:literal, $b:literal) => {
                steps::<_, T, $g, $b, $packed>($s, $w, $block, $x, $sums)
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
    let s = Zmm::new();
    if w.packed {
        by_sizes!(s, true, w, block, tokens, x, sums);
    } else {
        by_sizes!(s, false, w, block, tokens, x, sums);
    }
}

#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
pub(crate) fn block_avx2<T: Expand>(w: &SellSlices<'_, T>, block: usize, tokens: usize, x: &[f32], sums: &mut Sums) {
    let s = Ymm::new();
    by_sizes!(s, false, w, block, tokens, x, sums);
}

/// The columns of a phase, zeros beyond the last.
///
/// # Safety
/// x has `B` tokens of the weight's columns.
#[inline(always)]
unsafe fn window<S: Window, T, const B: usize>(s: S, w: &SellSlices<'_, T>, x: &[f32], phase: usize) -> [S::V; B] {
    let first = phase * S::LANES;
    let left = w.cols.saturating_sub(first);
    // SAFETY: `left` columns follow from `first` on, and no more are read, of each token of x.
    unsafe {
        let mut columns = [s.splat(0.0); B];
        for b in 0..B {
            let token = x.as_ptr().add(b * w.cols);
            if left >= S::LANES {
                columns[b] = s.load(token.add(first));
            } else if left > 0 {
                columns[b] = s.first(token.add(first), left);
            }
        }
        columns
    }
}

/// The steps of a block of `G` slices for `B` tokens.
///
/// # Panics
/// If vectors have not as many lanes as slices, the block not as many slices, or x not as many tokens.
#[inline(always)]
fn steps<S: Window, T: Expand, const G: usize, const B: usize, const PACKED: bool>(
    s: S,
    w: &SellSlices<'_, T>,
    block: usize,
    x: &[f32],
    sums: &mut Sums,
) {
    let lanes = S::LANES;
    let slices = w.slices(block);
    assert!(w.lanes == lanes && w.packed == PACKED && slices.len() == G && x.len() == B * w.cols);
    let mut first = [0; G];
    for (first, start) in first.iter_mut().zip(&w.value_starts[slices]) {
        *first = *start as usize;
    }
    // SAFETY: `Sell` checked on its way in that a block has as many masks and words as its steps ask for, and as many values as its slots; SLACK
    // more values can be read. That x has so many tokens was asserted just now.
    unsafe {
        let mut values: [*const T; G] = std::array::from_fn(|g| w.values.as_ptr().add(first[g]));
        let mut masks = w.masks.as_ptr().add(w.mask_starts[block] as usize);
        let mut places = w.places.as_ptr().add(w.place_starts[block] as usize);
        let mut acc = [[s.splat(0.0); B]; G];
        let mut words = [s.words([0u32; 16].as_ptr()); G];
        let mut left = 0;
        let mut here = window::<S, T, B>(s, w, x, 0);
        for (phase, &steps) in w.steps_of(block).iter().enumerate() {
            let next = window::<S, T, B>(s, w, x, phase + 1);
            for _ in 0..steps {
                if left == 0 {
                    for g in 0..G {
                        words[g] = s.words(places.add(g * lanes));
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
                            picked[b] = s.pick(here[b], words[g], next[b]);
                        }
                        s.add_packed(values[g], mask, picked, &mut acc[g]);
                        values[g] = values[g].add(mask.count_ones() as usize);
                    } else {
                        let all = s.values(values[g]);
                        for b in 0..B {
                            acc[g][b] = s.fma(all, s.pick(here[b], words[g], next[b]), acc[g][b]);
                        }
                        values[g] = values[g].add(lanes);
                    }
                    words[g] = s.turned(words[g]);
                }
                masks = masks.wrapping_add(G);
                left -= 1;
            }
            here = next;
        }
        for g in 0..G {
            for b in 0..B {
                s.write(&mut sums[b][g * lanes..], acc[g][b]);
            }
        }
    }
}

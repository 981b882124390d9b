//! Products with N:M.
//!
//! A run is a row's part of a word: as many whole groups of M columns as 64 bits hold, with as many values in every row. So the values
//! of a block and a word follow one another at a constant distance, and no loop over them ends unforeseen.
//!
//! One token: values are spread to the places of their bits, sixteen at a time, and meet x (AVX-512), or eight numbers of x are brought
//! together to meet values (AVX2); what is loaded of x serves all rows of the block, whose sums rest in the first cache meanwhile. Strips: see `strip`.

// Vectors are named by their place, so that they stay in registers.
#![allow(clippy::needless_range_loop)]

use super::slices::NmSlices;
use super::strip::Neighbours;
use crate::kernels::frame::{Epilogue, Rows, few_tokens, product};
#[cfg(target_arch = "x86_64")]
use crate::kernels::frame::{Scratch, Use};
use crate::kernels::simd::{Expand, Isa};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Ymm, Zmm, part, places, sum_of_eight};
use ndarray::ArrayRef2;

/// `y = x · Wᵀ`; see [`LinearOp::apply_with`](crate::storage::LinearOp::apply_with).
pub(crate) fn nm_product<T: Expand>(w: &NmSlices<'_, T>, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
    let few = if Isa::current() == Isa::Avx512 { 4 } else { 1 };
    // Without masks for products, spread values multiply by zeros where nothing is stored, so x must be finite.
    let spread = Isa::current() == Isa::Avx512 || x.nrows() != 1 || x.iter().all(|x| x.is_finite());
    if (1..=few).contains(&x.nrows()) && spread {
        few_tokens(w, x, y, epilogue, runs);
    } else {
        product(&Neighbours(*w), x, y, epilogue);
    }
}

/// Adds the products of one block to sums `(tokens, rows of the block)`.
fn runs<T: Expand>(w: &NmSlices<'_, T>, block: usize, x: &[f32], sums: &mut [f32]) {
    match Isa::current() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has these instructions.
        Isa::Avx512 => unsafe { runs_avx512(w, block, x, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has these instructions.
        Isa::Avx2 => unsafe { runs_avx2(w, block, x, sums) },
        _ => {
            for tile in 0..w.tiles() {
                let x = &x[w.tile_start(tile)..];
                for slot in 0..sums.len() {
                    let mut sum = [0.0f32; 4];
                    w.each::<4>(block, tile, slot, |u, column, value| sum[u] += value * x[column]);
                    sums[w.row(block, tile, slot)] += w.scale(block, tile, slot) * ((sum[0] + sum[2]) + (sum[1] + sum[3]));
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn runs_avx2<T: Expand>(w: &NmSlices<'_, T>, block: usize, x: &[f32], sums: &mut [f32]) {
    use std::arch::x86_64::*;
    let s = Ymm::new();
    let rows = sums.len();
    let mut acc = Scratch::take(rows * 8, Use::Strips);
    acc.fill(0.0);
    let mut padded = [0.0; 64];
    let (first, grouped) = (w.blocks[block] as usize, w.scales.grouped::<T>());
    for word in 0..w.tiles() {
        let x = part(x, w.tile_start(word), &mut padded);
        let (run, count) = (w.run(block, word), w.count(word));
        let values = &w.values[w.value(block, word)..];
        let (order, words) = (&w.order[run..run + rows], &w.words[run..run + rows]);
        for (slot, (&row, &bits)) in order.iter().zip(words).enumerate() {
            let acc = &mut acc[8 * usize::from(row)..][..8];
            // SAFETY: `Nm` checked on its way in that there are as many values in a run as bits, and SLACK more can be read; `part` gives 64 numbers
            // of x, and a slot of sums has eight.
            unsafe {
                let before = _mm256_loadu_ps(acc.as_ptr());
                // Two sums: one would wait for itself.
                let mut sum = [if grouped { _mm256_setzero_ps() } else { before }, _mm256_setzero_ps()];
                let mut at = values.as_ptr().add(slot * count);
                // Masked loads wait long for lines from memory.
                _mm_prefetch::<_MM_HINT_T1>(at.cast::<i8>().wrapping_add(AHEAD));
                _mm_prefetch::<_MM_HINT_T1>(at.cast::<i8>().wrapping_add(AHEAD + 64));
                for (i, bits) in bits.to_le_bytes().into_iter().enumerate() {
                    let places = places(bits);
                    let x = _mm256_permutevar8x32_ps(_mm256_loadu_ps(x.as_ptr().add(8 * i)), places);
                    sum[i % 2] = _mm256_fmadd_ps(T::eight(s, at, places), x, sum[i % 2]);
                    at = at.add(bits.count_ones() as usize);
                }
                let mut sum = _mm256_add_ps(sum[0], sum[1]);
                if grouped {
                    sum = _mm256_fmadd_ps(_mm256_set1_ps(w.scales.at::<T>(first + usize::from(row), word)), sum, before);
                }
                _mm256_storeu_ps(acc.as_mut_ptr(), sum);
            }
        }
    }
    for (r, (sum, acc)) in sums.iter_mut().zip(acc.chunks_exact(8)).enumerate() {
        let scale = if grouped { 1.0 } else { w.scales.of::<T>(first + r, 0) };
        // SAFETY: eight numbers.
        *sum += scale * sum_of_eight(unsafe { _mm256_loadu_ps(acc.as_ptr()) });
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn runs_avx512<T: Expand>(w: &NmSlices<'_, T>, block: usize, x: &[f32], sums: &mut [f32]) {
    let tokens = sums.len() / w.block(block).1.max(1);
    // Expanding over zeros that the compiler knows makes it a zeroing expansion, which on some processors waits for what its target
    // held before; this vector the compiler does not know.
    let mut junk = std::arch::x86_64::_mm512_setzero_ps();
    // SAFETY: nothing is done.
    unsafe { std::arch::asm!("/* {0} */", inout(zmm_reg) junk, options(pure, nomem, nostack, preserves_flags)) };
    let s = Zmm::new();
    match (tokens, 16 % w.m) {
        (1, 0) => spread::<T, 1, true>(s, w, block, x, sums, junk),
        (1, _) => spread::<T, 1, false>(s, w, block, x, sums, junk),
        (2, _) => spread::<T, 2, false>(s, w, block, x, sums, junk),
        (3, _) => spread::<T, 3, false>(s, w, block, x, sums, junk),
        _ => spread::<T, 4, false>(s, w, block, x, sums, junk),
    }
}

/// `B` tokens; `EVEN` if sixteen columns are whole groups. Columns without a weight take no part, whatever x holds there.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn spread<T: Expand, const B: usize, const EVEN: bool>(
    s: Zmm,
    w: &NmSlices<'_, T>,
    block: usize,
    x: &[f32],
    sums: &mut [f32],
    junk: std::arch::x86_64::__m512,
) {
    use std::arch::x86_64::*;
    let rows = w.block(block).1;
    assert!(x.len() == B * w.cols && sums.len() == B * rows, "{} numbers and {} sums for {B} tokens", x.len(), sums.len());
    let mut acc = Scratch::take(B * rows * 16, Use::Strips);
    acc.fill(0.0);
    let mut padded = [[0.0; 64]; B];
    let (first, grouped) = (w.blocks[block] as usize, w.scales.grouped::<T>());
    for word in 0..w.tiles() {
        let start = w.tile_start(word);
        let mut tokens = padded.iter_mut().enumerate();
        let xs: [[__m512; 4]; B] = std::array::from_fn(|b| {
            let (_, padded) = tokens.next().unwrap_or_else(|| unreachable!("there are {B}"));
            let x = part(&x[b * w.cols..(b + 1) * w.cols], start, padded);
            // SAFETY: `Zmm` has the instructions; `part` gives 64 numbers.
            std::array::from_fn(|q| unsafe { _mm512_loadu_ps(x[16 * q..16 * q + 16].as_ptr()) })
        });
        let (run, count) = (w.run(block, word), w.count(word));
        let mut at = w.values[w.value(block, word)..].as_ptr();
        let (order, words) = (&w.order[run..run + rows], &w.words[run..run + rows]);
        let quarter = 16 / w.m * w.n;
        for (&row, &bits) in order.iter().zip(words) {
            let before = |q: usize| {
                // What the quarters before this one have taken. In the last word they may have more columns than it.
                if EVEN { (q * quarter).min(count) } else { (bits & ((1u64 << (16 * q)) - 1)).count_ones() as usize }
            };
            // SAFETY: `Zmm` has the instructions; `Nm` checked on its way in that there are as many values in a run as bits, and SLACK more can be
            // read, and that rows lie within the block, for each of which and each token there are sixteen sums.
            unsafe {
                for line in (0..count * size_of::<T>()).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(at.cast::<i8>().wrapping_add(AHEAD + line));
                }
                let to = acc.as_mut_ptr().add(16 * usize::from(row));
                let earlier: [__m512; B] = std::array::from_fn(|b| _mm512_loadu_ps(to.add(16 * rows * b)));
                let mut sum = if grouped { [_mm512_setzero_ps(); B] } else { earlier };
                let mut other = [_mm512_setzero_ps(); B];
                for q in 0..4 {
                    let mask = (bits >> (16 * q)) as u16;
                    let values = _mm512_mask_expand_ps(junk, mask, T::sixteen(s, at.add(before(q)), u16::MAX));
                    for b in 0..B {
                        let to = if q % 2 == 0 { &mut sum[b] } else { &mut other[b] };
                        *to = _mm512_mask3_fmadd_ps(values, xs[b][q], *to, mask);
                    }
                }
                for b in 0..B {
                    let mut sum = _mm512_add_ps(sum[b], other[b]);
                    if grouped {
                        sum = _mm512_fmadd_ps(_mm512_set1_ps(w.scales.at::<T>(first + usize::from(row), word)), sum, earlier[b]);
                    }
                    _mm512_storeu_ps(to.add(16 * rows * b), sum);
                }
                at = at.add(count);
            }
        }
    }
    for (i, (sum, acc)) in sums.iter_mut().zip(acc.chunks_exact(16)).enumerate() {
        let scale = if grouped { 1.0 } else { w.scales.of::<T>(first + i % rows, 0) };
        // SAFETY: `Zmm` has the instructions; sixteen numbers.
        *sum += scale * unsafe { _mm512_reduce_add_ps(_mm512_loadu_ps(acc.as_ptr())) };
    }
}

/// Bytes between what is asked for and what is used: into the second cache from two pages ahead was half as fast again as into the first from half a page.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 8 << 10;

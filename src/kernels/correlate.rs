//! The gradient of a masked weight, where it is kept: `dW = mask ⊙ (dYᵀ · X)`, a sampled product of two dense matrices.
//!
//! Strips of both: a kept weight is the dot product of its row of dYᵀ, held in registers while the row walks a word of the mask, with its
//! column of Xᵀ, of which a word's columns stay in the first cache. Four dot products are summed across their lanes together.

use super::isa::Isa;
use super::scratch::{Scratch, Use};
use super::simd::{Portable, Simd};
#[cfg(target_arch = "x86_64")]
use super::simd::{Xmm, Ymm, Zmm};
use super::strip::{Strip, strips};
use super::turn::turn_in;
use ndarray::ArrayRef2;
use rayon::prelude::*;

/// Sums across the lanes of four vectors at once.
///
/// # Safety
/// As [`Simd`].
trait Across: Simd {
    unsafe fn across(of: [Self::V; 4]) -> [f32; 4];
}

impl<const N: usize> Across for Portable<N> {
    #[inline(always)]
    unsafe fn across(of: [[f32; N]; 4]) -> [f32; 4] {
        of.map(|v| v.iter().sum())
    }
}

#[cfg(target_arch = "x86_64")]
impl Across for Xmm {
    #[inline(always)]
    unsafe fn across(of: [Self::V; 4]) -> [f32; 4] {
        use std::arch::x86_64::*;
        // SAFETY: the caller vouches for AVX; an array of four numbers is as large as the vector.
        unsafe {
            let sums = _mm_hadd_ps(_mm_hadd_ps(of[0], of[1]), _mm_hadd_ps(of[2], of[3]));
            let mut all = [0.0; 4];
            _mm_storeu_ps(all.as_mut_ptr(), sums);
            all
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Across for Ymm {
    #[inline(always)]
    unsafe fn across(of: [Self::V; 4]) -> [f32; 4] {
        use std::arch::x86_64::*;
        // SAFETY: the caller vouches for AVX.
        unsafe { Xmm::across(of.map(|v| _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)))) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Across for Zmm {
    #[inline(always)]
    unsafe fn across(of: [Self::V; 4]) -> [f32; 4] {
        use std::arch::x86_64::*;
        // SAFETY: the caller vouches for AVX-512 DQ.
        unsafe { Ymm::across(of.map(|v| _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)))) }
    }
}

/// Multiplications from which on the pool is worth waking.
const PARALLEL: usize = 1 << 20;
/// Rows of a task.
const ROWS: usize = 64;

/// Adds `dyᵀ · x` at the bits of `words` to `values`: row `r` has its first value at `offsets[r]`, and one a bit of `words(r)`, whose bits
/// lie within the columns.
pub(crate) fn correlate<'a>(
    words: impl Fn(usize) -> &'a [u64] + Sync,
    offsets: &[u32],
    dy: &ArrayRef2<f32>,
    x: &ArrayRef2<f32>,
    values: &mut [f32],
) {
    let (tokens, rows, cols) = (x.nrows(), dy.ncols(), x.ncols());
    assert!(dy.nrows() == tokens && offsets.len() == rows + 1, "{} and {tokens} tokens, {} offsets", dy.nrows(), offsets.len());
    assert!(offsets[rows] as usize == values.len(), "{} values for {}", values.len(), offsets[rows]);
    for r in 0..rows {
        let bits: u32 = words(r).iter().map(|w| w.count_ones()).sum();
        let last = words(r).last().map_or(0, |w| 64 - w.leading_zeros() as usize + 64 * (words(r).len() - 1));
        assert!(offsets[r + 1].checked_sub(offsets[r]) == Some(bits) && last <= cols, "row {r} has {bits} bits up to {last}");
    }
    let parallel = rayon::current_num_threads() > 1 && tokens.saturating_mul(values.len()) >= PARALLEL;
    let widest = match Isa::current() {
        Isa::Avx512 => 128,
        Isa::Avx2 | Isa::Neon => 32,
        Isa::Portable => 16,
    };
    for strip in strips(tokens, widest) {
        let mut both = Scratch::take((rows + cols) * strip.width, Use::Strips);
        let (x_strip, dy_strip) = both.split_at_mut(cols * strip.width);
        turn_in(x, &strip, 0..cols, x_strip);
        turn_in(dy, &strip, 0..rows, dy_strip);
        let (x_strip, dy_strip) = (&*x_strip, &*dy_strip);
        let mut rest = &mut values[..];
        let mut tasks = Vec::with_capacity(rows.div_ceil(ROWS));
        for first in (0..rows).step_by(ROWS) {
            let end = (first + ROWS).min(rows);
            let (own, after) = rest.split_at_mut((offsets[end] - offsets[first]) as usize);
            rest = after;
            tasks.push((first..end, own));
        }
        let task = |(rows, values): (std::ops::Range<usize>, &mut [f32])| {
            let mut starts: Vec<usize> = rows.clone().map(|r| (offsets[r] - offsets[rows.start]) as usize).collect();
            for word in 0..cols.div_ceil(64) {
                let x = &x_strip[64 * word * strip.width..];
                for (r, start) in rows.clone().zip(&mut starts) {
                    let bits = words(r)[word];
                    let values = &mut values[*start..*start + bits.count_ones() as usize];
                    *start += values.len();
                    dots(bits, &dy_strip[r * strip.width..(r + 1) * strip.width], x, &strip, values);
                }
            }
        };
        if parallel {
            tasks.into_par_iter().for_each(task);
        } else {
            tasks.into_iter().for_each(task);
        }
    }
}

/// Adds the dot products of one row with the columns of a word, of which `x` holds those with bits.
#[inline]
fn dots(bits: u64, dy: &[f32], x: &[f32], strip: &Strip, values: &mut [f32]) {
    let width = strip.width;
    assert!(dy.len() == width && x.len() >= width * (64 - bits.leading_zeros() as usize));
    assert!(values.len() == bits.count_ones() as usize);
    // SAFETY: an instruction set is only ever current on a machine that has it; the lengths were checked just now.
    unsafe {
        match Isa::current() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512(bits, dy, x, values),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2(bits, dy, x, values),
            _ => by_eights::<Portable<8>, Portable<4>>(bits, dy, x, values),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
unsafe fn avx512(bits: u64, dy: &[f32], x: &[f32], values: &mut [f32]) {
    // SAFETY: the caller vouches for the instructions and the lengths.
    unsafe {
        match dy.len() {
            128 => word::<Zmm, 8>(bits, dy, x, values),
            64 => word::<Zmm, 4>(bits, dy, x, values),
            32 => word::<Zmm, 2>(bits, dy, x, values),
            16 => word::<Zmm, 1>(bits, dy, x, values),
            _ => by_eights::<Ymm, Xmm>(bits, dy, x, values),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
unsafe fn avx2(bits: u64, dy: &[f32], x: &[f32], values: &mut [f32]) {
    // SAFETY: the caller vouches for the instructions and the lengths.
    unsafe { by_eights::<Ymm, Xmm>(bits, dy, x, values) }
}

/// With eight lanes, or four for the narrowest strip.
///
/// # Safety
/// As [`word`], for both.
#[inline(always)]
unsafe fn by_eights<Eight: Across, Four: Across>(bits: u64, dy: &[f32], x: &[f32], values: &mut [f32]) {
    // SAFETY: the caller vouches for the instructions and the lengths.
    unsafe {
        match dy.len() {
            32 => word::<Eight, 4>(bits, dy, x, values),
            16 => word::<Eight, 2>(bits, dy, x, values),
            8 => word::<Eight, 1>(bits, dy, x, values),
            4 => word::<Four, 1>(bits, dy, x, values),
            width => unreachable!("no strip is {width} tokens wide here"),
        }
    }
}

/// `V` vectors of tokens.
///
/// # Safety
/// The machine has the instructions of `S`; dy has `V * LANES` numbers, x as many for every column up to the last bit, and there are as many values
/// as bits.
#[inline(always)]
unsafe fn word<S: Across, const V: usize>(mut bits: u64, dy: &[f32], x: &[f32], values: &mut [f32]) {
    // SAFETY: as promised by the caller.
    unsafe {
        let mut row = [S::splat(0.0); V];
        for v in 0..V {
            row[v] = S::load(dy.as_ptr().add(v * S::LANES));
        }
        let mut next = || {
            let at = x.as_ptr().add(bits.trailing_zeros() as usize * V * S::LANES);
            bits &= bits.wrapping_sub(1);
            at
        };
        let (fours, rest) = values.as_chunks_mut::<4>();
        for four in fours {
            let xs = [next(), next(), next(), next()];
            let mut acc = [S::splat(0.0); 4];
            for v in 0..V {
                for i in 0..4 {
                    acc[i] = S::fma(row[v], S::load(xs[i].add(v * S::LANES)), acc[i]);
                }
            }
            let sums = S::across(acc);
            (0..4).for_each(|i| four[i] += sums[i]);
        }
        for value in rest {
            let x = next();
            let mut acc = S::splat(0.0);
            for v in 0..V {
                acc = S::fma(row[v], S::load(x.add(v * S::LANES)), acc);
            }
            *value += S::across([acc, S::splat(0.0), S::splat(0.0), S::splat(0.0)])[0];
        }
    }
}

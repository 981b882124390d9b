//! The gradient of a masked weight, where it is kept: `dW = mask ⊙ (dYᵀ · X)`, a sampled product of two dense matrices.
//!
//! Strips of both: a kept weight is the dot product of its row of dYᵀ, held in registers while the row walks a word of the mask, with its
//! column of Xᵀ, of which a word's columns stay in the first cache. Four dot products are summed across their lanes together.

// Vectors are named by their place, so that they stay in registers.
#![allow(clippy::needless_range_loop)]

use crate::kernels::frame::{Scratch, Use, strips, turn_in};
use crate::kernels::simd::{Isa, Portable, Simd};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Xmm, Ymm, Zmm};
use ndarray::ArrayRef2;
use rayon::prelude::*;
use std::ops::Range;

/// Sums across the lanes of four vectors at once.
trait Across: Simd {
    fn across(self, of: [Self::V; 4]) -> [f32; 4];
}

impl<const N: usize> Across for Portable<N> {
    #[inline(always)]
    fn across(self, of: [[f32; N]; 4]) -> [f32; 4] {
        of.map(|v| v.iter().sum())
    }
}

#[cfg(target_arch = "x86_64")]
impl Across for Xmm {
    #[inline(always)]
    fn across(self, of: [Self::V; 4]) -> [f32; 4] {
        use std::arch::x86_64::*;
        // SAFETY: `Xmm` has AVX; an array of four numbers is as large as the vector.
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
    fn across(self, of: [Self::V; 4]) -> [f32; 4] {
        use std::arch::x86_64::*;
        // SAFETY: `Ymm` has AVX. (A closure that is not inlined would not have the instructions.)
        unsafe {
            macro_rules! halved {
                ($i:literal) => {
                    _mm_add_ps(_mm256_castps256_ps128(of[$i]), _mm256_extractf128_ps::<1>(of[$i]))
                };
            }
            self.half().across([halved!(0), halved!(1), halved!(2), halved!(3)])
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Across for Zmm {
    #[inline(always)]
    fn across(self, of: [Self::V; 4]) -> [f32; 4] {
        use std::arch::x86_64::*;
        // SAFETY: `Zmm` has AVX-512 DQ.
        unsafe {
            macro_rules! halved {
                ($i:literal) => {
                    _mm256_add_ps(_mm512_castps512_ps256(of[$i]), _mm512_extractf32x8_ps::<1>(of[$i]))
                };
            }
            self.half().across([halved!(0), halved!(1), halved!(2), halved!(3)])
        }
    }
}

/// Multiplications from which on the pool is worth waking.
const PARALLEL: usize = 1 << 20;
/// Rows of a task.
const ROWS: usize = 64;

/// Adds `dyᵀ · x` at the bits of `words` to `values`: row `r` has its first value at `offsets[r]`, and one a bit of `words(r)`, whose bits
/// lie within the columns.
pub(crate) fn weight_gradient<'a>(
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
        let task = |(rows, values): (Range<usize>, &mut [f32])| {
            let starts = &offsets[rows.start..=rows.end];
            let strip = Both { words: &words, dy: dy_strip, x: x_strip, width: strip.width, cols };
            strip.add(rows, starts, values);
        };
        if parallel {
            tasks.into_par_iter().for_each(task);
        } else {
            tasks.into_iter().for_each(task);
        }
    }
}

/// A strip of dy `(out, width)`, one of x `(in, width)`, and the bits where their products are wanted.
struct Both<'s, F> {
    words: &'s F,
    dy: &'s [f32],
    x: &'s [f32],
    width: usize,
    cols: usize,
}

/// Bytes of x that stay in a first cache of 32 KiB or more.
const FIRST_CACHE: usize = 32 << 10;

impl<'a, F: Fn(usize) -> &'a [u64]> Both<'_, F> {
    /// Adds the products of some rows, whose values begin where `starts` say.
    fn add(&self, rows: Range<usize>, starts: &[u32], values: &mut [f32]) {
        match Isa::current() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this set is only ever current on a machine that has it.
            Isa::Avx512 => unsafe { self.add_avx512(rows, starts, values) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { self.add_avx2(rows, starts, values) },
            _ => self.by_eights(Portable::<8>, Portable::<4>, rows, starts, values),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn add_avx512(&self, rows: Range<usize>, starts: &[u32], values: &mut [f32]) {
        let s = Zmm::new();
        match self.width {
            128 => self.tiles::<Zmm, 8>(s, rows, starts, values),
            64 => self.tiles::<Zmm, 4>(s, rows, starts, values),
            32 => self.tiles::<Zmm, 2>(s, rows, starts, values),
            16 => self.tiles::<Zmm, 1>(s, rows, starts, values),
            _ => self.by_eights(Ymm::new(), Xmm::new(), rows, starts, values),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn add_avx2(&self, rows: Range<usize>, starts: &[u32], values: &mut [f32]) {
        self.by_eights(Ymm::new(), Xmm::new(), rows, starts, values);
    }

    /// With eight lanes, or four for the narrowest strip.
    #[inline(always)]
    fn by_eights<Eight: Across, Four: Across>(
        &self,
        eight: Eight,
        four: Four,
        rows: Range<usize>,
        starts: &[u32],
        values: &mut [f32],
    ) {
        match self.width {
            32 => self.tiles::<Eight, 4>(eight, rows, starts, values),
            16 => self.tiles::<Eight, 2>(eight, rows, starts, values),
            8 => self.tiles::<Eight, 1>(eight, rows, starts, values),
            4 => self.tiles::<Four, 1>(four, rows, starts, values),
            width => unreachable!("no strip is {width} tokens wide here"),
        }
    }

    /// `V` vectors of tokens; as many words at a time as have their part of x in the first cache.
    #[inline(always)]
    fn tiles<S: Across, const V: usize>(&self, s: S, rows: Range<usize>, starts: &[u32], values: &mut [f32]) {
        let width = V * S::LANES;
        assert!(self.dy.len() >= rows.end * width && self.x.len() == self.cols * width);
        let step = (FIRST_CACHE / (4 * 64 * width)).clamp(1, 8);
        let mut at: Vec<usize> = starts[..rows.len()].iter().map(|s| (s - starts[0]) as usize).collect();
        let mut columns = [0u16; 8 * 64];
        for first in (0..self.cols.div_ceil(64)).step_by(step) {
            let x = self.x[64 * first * width..].as_ptr();
            for (r, at) in rows.clone().zip(&mut at) {
                let all = (self.words)(r);
                let mut count = 0;
                for (i, &word) in all[first..(first + step).min(all.len())].iter().enumerate() {
                    let mut bits = word;
                    while bits != 0 {
                        columns[count] = (64 * i) as u16 + bits.trailing_zeros() as u16;
                        bits &= bits - 1;
                        count += 1;
                    }
                }
                let own = &mut values[*at..*at + count];
                *at += count;
                // SAFETY: dy has `width` numbers for `r`, and x for each column: asserted above; `weight_gradient` checked that no bit stands beyond
                // the last.
                unsafe { dots::<S, V>(s, &columns[..count], self.dy.as_ptr().add(r * width), x, own) };
            }
        }
    }
}

/// Adds the dot products of a row of dy with some columns of x.
///
/// # Safety
/// dy has `V * LANES` numbers, and x as many for every column.
#[inline(always)]
unsafe fn dots<S: Across, const V: usize>(s: S, columns: &[u16], dy: *const f32, x: *const f32, values: &mut [f32]) {
    let width = V * S::LANES;
    // SAFETY: `v` is below `V`: these are vectors of dy, and of a column of x.
    unsafe {
        let mut row = [s.splat(0.0); V];
        for v in 0..V {
            row[v] = s.load(dy.add(v * S::LANES));
        }
        let (fours, rest) = values.as_chunks_mut::<4>();
        let (four_columns, last) = columns.as_chunks::<4>();
        for (four, c) in fours.iter_mut().zip(four_columns) {
            let mut acc = [s.splat(0.0); 4];
            macro_rules! dot {
                ($i:literal) => {{
                    let x = x.add(usize::from(c[$i]) * width);
                    for v in 0..V {
                        acc[$i] = s.fma(row[v], s.load(x.add(v * S::LANES)), acc[$i]);
                    }
                }};
            }
            dot!(0);
            dot!(1);
            dot!(2);
            dot!(3);
            let sums = s.across(acc);
            for i in 0..4 {
                four[i] += sums[i];
            }
        }
        for (value, &c) in rest.iter_mut().zip(last) {
            let x = x.add(usize::from(c) * width);
            let mut acc = s.splat(0.0);
            for v in 0..V {
                acc = s.fma(row[v], s.load(x.add(v * S::LANES)), acc);
            }
            *value += s.across([acc, s.splat(0.0), s.splat(0.0), s.splat(0.0)])[0];
        }
    }
}

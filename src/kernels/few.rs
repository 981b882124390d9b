//! Products with one token: the weights are read once, so what counts is how few bytes and instructions each needs.

use super::bitmask::BitmaskSlices;
use super::isa::Isa;
use super::strip::{Epilogue, Out, Rows};
use super::tile_csr::{Column, TileCsrSlices};
use super::value::Value;
use half::{bf16, f16};
use ndarray::ArrayRef2;
use rayon::prelude::*;
use std::borrow::Cow;

/// Weights from which on the pool is worth waking.
const PARALLEL: usize = 1 << 16;

/// Bytes that stay in the caches from one product to the next.
const CACHED: usize = 4 << 20;
/// Weights between what is asked for and what is used: some four pages of lists.
const AHEAD: usize = 384;

/// Runs `sums_of(w, block, x, sums)` over the blocks of `w`, in parallel, and stores what it finds.
pub(super) fn one_token<R: Rows>(
    w: &R,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
    sums_of: impl Fn(&R, usize, &[f32], &mut [f32]) + Sync,
) {
    let row = x.row(0);
    let x: Cow<'_, [f32]> = row.as_slice().map_or_else(|| row.to_vec().into(), Cow::Borrowed);
    let out = Out::new(y);
    let blocks = w.blocks();
    let task = |block: usize| {
        let (first, end) = (blocks[block] as usize, blocks[block + 1] as usize);
        let mut small = [0.0f32; 256];
        let mut large = Vec::new();
        let sums = if end - first <= 256 {
            &mut small[..end - first]
        } else {
            large.resize(end - first, 0.0);
            &mut large[..]
        };
        sums_of(w, block, &x, sums);
        // SAFETY: each task has its own rows, so no two write the same entries of y.
        unsafe { epilogue.put(out, 0, first, sums) };
    };
    if w.len() >= PARALLEL && rayon::current_num_threads() > 1 {
        (0..blocks.len() - 1).into_par_iter().for_each(task);
    } else {
        (0..blocks.len() - 1).for_each(task);
    }
}

/// Adds the products of one block of tiled CSR to `sums`.
pub(super) fn lists<I: Column, T: Value>(w: &TileCsrSlices<'_, I, T>, block: usize, x: &[f32], sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if matches!(Isa::current(), Isa::Avx2 | Isa::Avx512) {
        // SAFETY: the machine has these instructions.
        return unsafe { lists_avx2(w, block, x, sums) };
    }
    lists_of(w, block, x, sums, |columns, values, x| {
        let mut sum = [0.0f32; 4];
        let (fours, last) = columns.as_chunks::<4>();
        let (four_values, last_values) = values.as_chunks::<4>();
        for (c, v) in fours.iter().zip(four_values) {
            (0..4).for_each(|i| sum[i] += v[i].decode() * x[c[i].index()]);
        }
        let rest: f32 = last.iter().zip(last_values).map(|(c, v)| v.decode() * x[c.index()]).sum();
        (sum[0] + sum[2]) + (sum[1] + sum[3]) + rest
    });
}

#[inline(always)]
fn lists_of<I: Column, T: Value>(
    w: &TileCsrSlices<'_, I, T>,
    block: usize,
    x: &[f32],
    sums: &mut [f32],
    dot: impl Fn(&[I], &[T], &[f32]) -> f32,
) {
    for tile in 0..w.tiles() {
        let x = &x[w.tile_start(tile)..];
        for slot in 0..sums.len() {
            let list = w.list(block, tile, slot);
            let (columns, values) = w.entries(list);
            let scale = if T::SCALED { w.scales[list] } else { 1.0 };
            sums[usize::from(w.order[list])] += scale * dot(columns, values, x);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn lists_avx2<I: Column, T: Value>(w: &TileCsrSlices<'_, I, T>, block: usize, x: &[f32], sums: &mut [f32]) {
    use std::arch::x86_64::*;
    // What does not fit the caches is asked for early; what does fit needs no asking.
    let far = size_of_val(w.values) + size_of_val(w.columns) > CACHED;
    lists_of(w, block, x, sums, |columns, values, x| {
        let x = x.as_ptr();
        // SAFETY: the columns of a tile lie within x: `TileCsr` checks it.
        let at = |c: usize| unsafe { _mm_load_ss(x.add(c)) };
        let four = |c: [usize; 4]| {
            let pair = _mm_insert_ps::<0x20>(_mm_insert_ps::<0x10>(at(c[0]), at(c[1])), at(c[2]));
            _mm_insert_ps::<0x30>(pair, at(c[3]))
        };
        let decode = |v: &[T; 4]| _mm_set_ps(v[3].decode(), v[2].decode(), v[1].decode(), v[0].decode());
        let mut acc = [_mm_setzero_ps(); 4];
        let (many, few) = columns.as_chunks::<16>();
        let (many_values, few_values) = values.as_chunks::<16>();
        for (c, v) in many.iter().zip(many_values) {
            if far {
                _mm_prefetch::<_MM_HINT_T0>(v.as_ptr().wrapping_add(AHEAD).cast());
                _mm_prefetch::<_MM_HINT_T0>(c.as_ptr().wrapping_add(AHEAD).cast());
            }
            let (c, v) = (c.as_chunks::<4>().0, v.as_chunks::<4>().0);
            for i in 0..4 {
                acc[i] = _mm_fmadd_ps(decode(&v[i]), four(I::four(&c[i])), acc[i]);
            }
        }
        let (fours, last) = few.as_chunks::<4>();
        let (four_values, last_values) = few_values.as_chunks::<4>();
        for (c, v) in fours.iter().zip(four_values) {
            acc[0] = _mm_fmadd_ps(decode(v), four(I::four(c)), acc[0]);
        }
        let mut rest = 0.0f32;
        for (c, v) in last.iter().zip(last_values) {
            rest = v.decode().mul_add(_mm_cvtss_f32(at(c.index())), rest);
        }
        sum_of(_mm_add_ps(_mm_add_ps(acc[0], acc[1]), _mm_add_ps(acc[2], acc[3]))) + rest
    });
}

/// The sum of four numbers.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn sum_of(v: std::arch::x86_64::__m128) -> f32 {
    use std::arch::x86_64::*;
    let pairs = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs)))
}

/// Values that AVX2 can spread to the places of four bits.
pub trait Expand: Value {
    /// For each of 16 patterns of bits, which bytes of the values go where.
    #[cfg(target_arch = "x86_64")]
    const SPREAD: [[u8; 16]; 16];

    /// The values from `at` on, in the places of the bits that `spread` belongs to, zeros elsewhere.
    ///
    /// # Safety
    /// AVX2 and F16C run here, and 16 bytes can be read from `at`.
    #[cfg(target_arch = "x86_64")]
    unsafe fn expand(at: *const Self, spread: &[u8; 16]) -> std::arch::x86_64::__m128;
}

/// Bytes `first..first + size` of each kept value move to the end of its `place` bytes wide place; the others are zeroed.
const fn spread(size: usize, place: usize) -> [[u8; 16]; 16] {
    let mut table = [[0x80u8; 16]; 16];
    let mut bits = 0;
    while bits < 16 {
        let (mut lane, mut value) = (0, 0);
        while lane < 4 {
            if bits >> lane & 1 == 1 {
                let mut byte = 0;
                while byte < size {
                    table[bits][lane * place + place - size + byte] = (value * size + byte) as u8;
                    byte += 1;
                }
                value += 1;
            }
            lane += 1;
        }
        bits += 1;
    }
    table
}

macro_rules! expand {
    ($value:ty, $size:literal, $place:literal, $load:ident as $from:ty, |$v:ident| $decode:expr) => {
        impl Expand for $value {
            #[cfg(target_arch = "x86_64")]
            const SPREAD: [[u8; 16]; 16] = spread($size, $place);

            #[cfg(target_arch = "x86_64")]
            #[inline(always)]
            unsafe fn expand(at: *const Self, spread: &[u8; 16]) -> std::arch::x86_64::__m128 {
                use std::arch::x86_64::*;
                // SAFETY: the caller vouches for the instructions and the memory.
                unsafe {
                    let $v = _mm_shuffle_epi8($load(at as *const $from), _mm_loadu_si128(spread.as_ptr().cast()));
                    $decode
                }
            }
        }
    };
}

expand!(f32, 4, 4, _mm_loadu_si128 as __m128i, |v| _mm_castsi128_ps(v));
expand!(bf16, 2, 4, _mm_loadl_epi64 as __m128i, |v| _mm_castsi128_ps(v));
expand!(f16, 2, 2, _mm_loadl_epi64 as __m128i, |v| _mm_cvtph_ps(v));
expand!(i8, 1, 4, _mm_loadu_si32 as u8, |v| _mm_cvtepi32_ps(_mm_srai_epi32::<24>(v)));

/// Adds the products of one block of a bitmask to `sums`; x is finite.
pub(super) fn runs<T: Expand>(w: &BitmaskSlices<'_, T>, block: usize, x: &[f32], sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if matches!(Isa::current(), Isa::Avx2 | Isa::Avx512) {
        // SAFETY: the machine has these instructions.
        return unsafe { runs_avx2(w, block, x, sums) };
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
    let mut slot = 0;
    while slot + 4 <= sums.len() {
        // SAFETY: the caller's instructions are those of this function.
        unsafe { rows_of_runs::<T, 4>(w, block, slot, x, sums) };
        slot += 4;
    }
    while slot < sums.len() {
        // SAFETY: as above.
        unsafe { rows_of_runs::<T, 1>(w, block, slot, x, sums) };
        slot += 1;
    }
}

/// `R` rows at a time, which share what is loaded of x.
///
/// # Safety
/// AVX2, FMA, POPCNT and F16C run here.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn rows_of_runs<T: Expand, const R: usize>(
    w: &BitmaskSlices<'_, T>,
    block: usize,
    slot: usize,
    x: &[f32],
    sums: &mut [f32],
) {
    use std::arch::x86_64::*;
    for tile in 0..w.tiles() {
        let start = w.tile_start(tile);
        let words: [&[u64]; R] = std::array::from_fn(|r| w.run_words(block, tile, slot + r));
        let mut at: [*const T; R] = std::array::from_fn(|r| w.values[w.starts[w.run(block, tile, slot + r)] as usize..].as_ptr());
        // SAFETY: a run has as many values as its words have bits, and SLACK more can be read; x is read below its end.
        unsafe {
            let (mut low, mut high) = ([_mm_setzero_ps(); R], [_mm_setzero_ps(); R]);
            let mut step = |bits: [u64; R], x: *const f32| {
                let (x0, x1) = (_mm_loadu_ps(x), _mm_loadu_ps(x.add(4)));
                for r in 0..R {
                    let (first, second) = ((bits[r] & 15) as usize, (bits[r] >> 4 & 15) as usize);
                    low[r] = _mm_fmadd_ps(T::expand(at[r], &T::SPREAD[first]), x0, low[r]);
                    let next = at[r].add(first.count_ones() as usize);
                    high[r] = _mm_fmadd_ps(T::expand(next, &T::SPREAD[second]), x1, high[r]);
                    at[r] = at[r].add((bits[r] & 255).count_ones() as usize);
                }
            };
            for i in 0..words[0].len() {
                let column = start + 64 * i;
                let mut bits: [u64; R] = std::array::from_fn(|r| *words[r].get_unchecked(i));
                let whole = (x.len() - column).min(64);
                for byte in 0..whole / 8 {
                    step(bits, x.as_ptr().add(column + 8 * byte));
                    bits = bits.map(|b| b >> 8);
                }
                if whole % 8 > 0 {
                    let mut rest = [0.0f32; 8];
                    rest[..whole % 8].copy_from_slice(&x[column + whole / 8 * 8..column + whole]);
                    step(bits, rest.as_ptr());
                }
            }
            for r in 0..R {
                sums[slot + r] += w.scale(block, tile, slot + r) * sum_of(_mm_add_ps(low[r], high[r]));
            }
        }
    }
}

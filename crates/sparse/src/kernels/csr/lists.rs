//! Products with storages that list the columns of their weights.
//!
//! For one token, AVX2 loads numbers of x one by one and puts them together in fours (on its first machines a gather costs 2.7 cycles a
//! weight, this 1.0); AVX-512 gathers sixteen at a time (half a cycle a weight).

#[cfg(target_arch = "x86_64")]
use crate::kernels::frame::AHEAD;
use crate::kernels::frame::{Epilogue, Rows, few_tokens, product};
use crate::kernels::simd::{Column, Expand, Value};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Isa, Zmm, sum_of};
use ndarray::ArrayRef2;

/// Lists of columns and values, one a row and tile.
pub(crate) trait Lists: Rows {
    type Column: Column;
    type Value: Value;

    /// Columns within the tile, and their values: as many of the one as of the other.
    fn list(&self, block: usize, tile: usize, slot: usize) -> (&[Self::Column], &[Self::Value]);
}

/// What [`Rows::each`] does for lists.
#[inline(always)]
pub(crate) fn walk<const U: usize, L: Lists>(
    w: &L,
    block: usize,
    tile: usize,
    slot: usize,
    mut f: impl FnMut(usize, usize, f32),
) {
    let (columns, values) = w.list(block, tile, slot);
    let (fours, last) = columns.as_chunks::<4>();
    let (four_values, last_values) = values.as_chunks::<4>();
    for (c, v) in fours.iter().zip(four_values) {
        let c = Column::four(c);
        for i in 0..4 {
            f(i % U, c[i], v[i].decode());
        }
    }
    for (&c, &v) in last.iter().zip(last_values) {
        f(0, c.index(), v.decode());
    }
}

/// `y = x · Wᵀ`; see [`LinearOp::apply_with`](crate::storage::LinearOp::apply_with).
pub(crate) fn lists_product<L: Lists<Value: Expand>>(w: &L, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
    if x.nrows() == 1 {
        few_tokens(w, x, y, epilogue, dots);
    } else {
        product(w, x, y, epilogue);
    }
}

/// Bytes that stay in the caches from one product to the next.
#[cfg(target_arch = "x86_64")]
const CACHED: usize = 4 << 20;
/// Adds the products of one block with one token to `sums`.
fn dots<L: Lists<Value: Expand>>(w: &L, block: usize, x: &[f32], sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    match Isa::current() {
        // SAFETY: the machine has these instructions; 32-bit indices reach all of x, whose columns `Rows` promises.
        Isa::Avx512 if Isa::gathers_fast() && w.dim().1 <= i32::MAX as usize => return unsafe { dots_avx512(w, block, x, sums) },
        // SAFETY: the machine has these instructions.
        Isa::Avx2 | Isa::Avx512 => return unsafe { dots_avx2(w, block, x, sums) },
        _ => {}
    }
    dots_by(w, block, x, sums, |columns, values, x| {
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
fn dots_by<L: Lists>(w: &L, block: usize, x: &[f32], sums: &mut [f32], dot: impl Fn(&[L::Column], &[L::Value], &[f32]) -> f32) {
    for tile in 0..w.tiles() {
        let x = &x[w.tile_start(tile)..];
        for slot in 0..sums.len() {
            let (columns, values) = w.list(block, tile, slot);
            sums[w.row(block, tile, slot)] += w.scale(block, tile, slot) * dot(columns, values, x);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn dots_avx2<L: Lists>(w: &L, block: usize, x: &[f32], sums: &mut [f32]) {
    use std::arch::x86_64::*;
    // What does not fit the caches is asked for early; what does fit needs no asking.
    let far = w.len() * (size_of::<L::Value>() + size_of::<L::Column>()) > CACHED;
    dots_by(w, block, x, sums, |columns, values, x| {
        let x = x.as_ptr();
        // SAFETY: the columns of a tile lie within x: `Rows` promises it.
        let at = |c: usize| unsafe { _mm_load_ss(x.add(c)) };
        let four = |c: [usize; 4]| {
            let pair = _mm_insert_ps::<0x20>(_mm_insert_ps::<0x10>(at(c[0]), at(c[1])), at(c[2]));
            _mm_insert_ps::<0x30>(pair, at(c[3]))
        };
        let decode = |v: &[L::Value; 4]| _mm_set_ps(v[3].decode(), v[2].decode(), v[1].decode(), v[0].decode());
        let mut acc = [_mm_setzero_ps(); 4];
        let (many, few) = columns.as_chunks::<16>();
        let (many_values, few_values) = values.as_chunks::<16>();
        for (c, v) in many.iter().zip(many_values) {
            if far {
                _mm_prefetch::<_MM_HINT_T0>(v.as_ptr().cast::<i8>().wrapping_add(4 * 384));
                _mm_prefetch::<_MM_HINT_T0>(c.as_ptr().wrapping_add(384).cast());
            }
            let (c, v) = (c.as_chunks::<4>().0, v.as_chunks::<4>().0);
            for i in 0..4 {
                acc[i] = _mm_fmadd_ps(decode(&v[i]), four(Column::four(&c[i])), acc[i]);
            }
        }
        let (fours, last) = few.as_chunks::<4>();
        let (four_values, last_values) = few_values.as_chunks::<4>();
        for (c, v) in fours.iter().zip(four_values) {
            acc[0] = _mm_fmadd_ps(decode(v), four(Column::four(c)), acc[0]);
        }
        let mut rest = 0.0f32;
        for (c, v) in last.iter().zip(last_values) {
            rest = v.decode().mul_add(_mm_cvtss_f32(at(c.index())), rest);
        }
        sum_of(_mm_add_ps(_mm_add_ps(acc[0], acc[1]), _mm_add_ps(acc[2], acc[3]))) + rest
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn dots_avx512<L: Lists<Value: Expand>>(w: &L, block: usize, x: &[f32], sums: &mut [f32]) {
    use std::arch::x86_64::*;
    let s = Zmm::new();
    dots_by(w, block, x, sums, |columns, values, x| {
        let n = columns.len().min(values.len());
        let mut acc = [_mm512_setzero_ps(); 2];
        let (columns, values) = (columns.as_ptr(), values.as_ptr());
        let add = |i: usize, mask: u16, acc: __m512| {
            // SAFETY: the columns and values in the mask stand here, and columns of a tile lie within x: `Rows` promises it.
            unsafe {
                let (columns, values) = (columns.add(i), values.add(i));
                _mm_prefetch::<_MM_HINT_T1>(columns.cast::<i8>().wrapping_add(AHEAD));
                _mm_prefetch::<_MM_HINT_T1>(values.cast::<i8>().wrapping_add(AHEAD));
                let at = L::Column::sixteen(s, columns, mask);
                let x = _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), mask, at, x.as_ptr().cast());
                _mm512_mask3_fmadd_ps(L::Value::sixteen(s, values, mask), x, acc, mask)
            }
        };
        for i in (0..n & !31).step_by(32) {
            acc[0] = add(i, u16::MAX, acc[0]);
            acc[1] = add(i + 16, u16::MAX, acc[1]);
        }
        let rest = n & !31;
        let mask = |n: usize| ((1u32 << n.min(16)) - 1) as u16;
        if n > rest {
            acc[0] = add(rest, mask(n - rest), acc[0]);
        }
        if n > rest + 16 {
            acc[1] = add(rest + 16, mask(n - rest - 16), acc[1]);
        }
        _mm512_reduce_add_ps(_mm512_add_ps(acc[0], acc[1]))
    });
}

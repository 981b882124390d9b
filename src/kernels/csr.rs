//! Products with compressed sparse rows.
//!
//! Up to 3 tokens: a dot product a row. From 4 on: 16 tokens at a time are transposed into a strip `(in, 16)`, so that one
//! weight meets 16 numbers side by side, and each row of W keeps its 16 sums in registers. The same code is compiled twice,
//! for every machine and for AVX2 with FMA.

use super::Isa;
use ndarray::{ArrayRef2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

/// The parts of a checked matrix in compressed sparse rows.
#[derive(Clone, Copy)]
pub(crate) struct CsrSlices<'a> {
    pub cols: usize,
    pub offsets: &'a [u32],
    pub indices: &'a [u32],
    pub values: &'a [f32],
}

/// Tokens of a strip.
const LANES: usize = 16;
/// Multiplications from which on the pool is worth waking.
const PARALLEL: usize = 1 << 17;

/// `y = x · Wᵀ`; see [`LinearOp::apply_into`](crate::sparse::LinearOp::apply_into).
///
/// # Panics
/// If an index lies outside x.
pub(crate) fn csr_product(w: CsrSlices<'_>, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>) {
    let (tokens, rows) = y.dim();
    if tokens == 0 || rows == 0 {
        return;
    }
    let parallel = tokens * w.values.len() >= PARALLEL && rayon::current_num_threads() > 1;
    if tokens < 4 {
        for (x, mut y) in x.rows().into_iter().zip(y.rows_mut()) {
            let x = x.as_standard_layout();
            let x = x.as_slice().unwrap_or_default();
            let dot = |r: usize| {
                let range = w.offsets[r] as usize..w.offsets[r + 1] as usize;
                let mut sums = [0.0f32; 4];
                let (indices, values) = (&w.indices[range.clone()], &w.values[range]);
                let mut at = 0;
                while at + 4 <= indices.len() {
                    for lane in 0..4 {
                        sums[lane] += values[at + lane] * x[indices[at + lane] as usize];
                    }
                    at += 4;
                }
                let rest: f32 = (at..indices.len()).map(|i| values[i] * x[indices[i] as usize]).sum();
                (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
            };
            match y.as_slice_mut() {
                Some(y) if parallel => y.par_chunks_mut(64).enumerate().for_each(|(i, part)| {
                    part.iter_mut().enumerate().for_each(|(j, y)| *y = dot(64 * i + j));
                }),
                _ => y.iter_mut().enumerate().for_each(|(r, y)| *y = dot(r)),
            }
        }
        return;
    }
    let product = kernel();
    let strip = |first: usize, mut y: ArrayViewMut2<'_, f32>| {
        let n = y.nrows();
        let mut packed = vec![[0.0f32; LANES]; w.cols];
        for (lane, row) in x.slice(s![first..first + n, ..]).rows().into_iter().enumerate() {
            packed.iter_mut().zip(row).for_each(|(p, &x)| p[lane] = x);
        }
        product(w, &packed, &mut y);
    };
    if parallel && tokens > LANES {
        y.axis_chunks_iter_mut(Axis(0), LANES).into_par_iter().enumerate().for_each(|(i, y)| strip(i * LANES, y));
    } else {
        y.axis_chunks_iter_mut(Axis(0), LANES).enumerate().for_each(|(i, y)| strip(i * LANES, y));
    }
}

type Product = fn(CsrSlices<'_>, &[[f32; LANES]], &mut ArrayViewMut2<'_, f32>);

/// The product over one strip for this machine.
fn kernel() -> Product {
    #[cfg(target_arch = "x86_64")]
    if Isa::current() == Isa::Avx2 {
        return |w, x, y| {
            // SAFETY: `Isa::Avx2` is only ever current on a machine that has AVX2 and FMA.
            unsafe { product_avx2(w, x, y) }
        };
    }
    product_portable
}

fn product_portable(w: CsrSlices<'_>, x: &[[f32; LANES]], y: &mut ArrayViewMut2<'_, f32>) {
    product(w, x, y, |w, x, sum| sum + w * x);
}

/// As [`product_portable`], with fused multiply-adds on eight numbers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn product_avx2(w: CsrSlices<'_>, x: &[[f32; LANES]], y: &mut ArrayViewMut2<'_, f32>) {
    product(w, x, y, f32::mul_add);
}

#[inline(always)]
fn product(w: CsrSlices<'_>, x: &[[f32; LANES]], y: &mut ArrayViewMut2<'_, f32>, fma: impl Fn(f32, f32, f32) -> f32) {
    for r in 0..w.offsets.len() - 1 {
        let range = w.offsets[r] as usize..w.offsets[r + 1] as usize;
        let mut sums = [0.0f32; LANES];
        for (&c, &v) in w.indices[range.clone()].iter().zip(&w.values[range]) {
            let x = &x[c as usize];
            for lane in 0..LANES {
                sums[lane] = fma(v, x[lane], sums[lane]);
            }
        }
        y.column_mut(r).iter_mut().zip(sums).for_each(|(y, sum)| *y = sum);
    }
}

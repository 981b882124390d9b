//! Products with one token: the weights are read once, so what counts is how few bytes and instructions each needs.

use super::epilogue::{Epilogue, Out};
use super::strip::Rows;
use ndarray::ArrayRef2;
use rayon::prelude::*;
use std::borrow::Cow;

/// Weights from which on the pool is worth waking.
const PARALLEL: usize = 1 << 16;

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
        let mut sums = vec![0.0; end - first];
        sums_of(w, block, &x, &mut sums);
        // SAFETY: each task has its own rows, so no two write the same entries of y.
        unsafe { epilogue.put(out, 0, first, &sums) };
    };
    if w.len() >= PARALLEL && rayon::current_num_threads() > 1 {
        (0..blocks.len() - 1).into_par_iter().for_each(task);
    } else {
        (0..blocks.len() - 1).for_each(task);
    }
}

/// The sum of four numbers.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn sum_of(v: std::arch::x86_64::__m128) -> f32 {
    use std::arch::x86_64::*;
    let pairs = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs)))
}

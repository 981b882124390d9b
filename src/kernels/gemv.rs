//! `y = W x` of a dense weight and one token: the weights are read once, in the order in which they lie.
//!
//! Each thread has a run of whole rows; a row is summed in four vectors, then across them, in a fixed order. What is read
//! comes from memory, so the kernel is as fast as the memory if enough of it is asked for early enough.

use super::isa::Isa;
use super::simd::{Portable, Simd};
#[cfg(target_arch = "x86_64")]
use super::simd::{Ymm, Zmm};
use rayon::prelude::*;

/// Weights of a parallel task, and from which on the pool is worth waking.
const TASK: usize = 1 << 14;
/// Vectors that are summed side by side.
const SIDE: usize = 4;
/// Bytes between what is asked for and what is used.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 8192;

/// `y = W x` for a row-major `W (y.len(), x.len())`. The bits do not depend on the number of threads.
///
/// # Panics
/// If `w` has another length than `y.len() * x.len()`.
pub(crate) fn gemv(w: &[f32], x: &[f32], y: &mut [f32]) {
    assert_eq!(w.len(), x.len() * y.len(), "gemv: a weight of {} for {} inputs and {} outputs", w.len(), x.len(), y.len());
    if x.is_empty() || y.is_empty() {
        return y.fill(0.0);
    }
    let threads = rayon::current_num_threads();
    if threads == 1 || w.len() < 2 * TASK {
        return rows(w, x, y);
    }
    // Tasks that are near to equal, several a thread, none too small to be worth handing over.
    let tasks = (w.len() / TASK).min(4 * threads);
    let height = y.len().div_ceil(tasks);
    y.par_chunks_mut(height).zip(w.par_chunks(height * x.len())).for_each(|(y, w)| rows(w, x, y));
}

fn rows(w: &[f32], x: &[f32], y: &mut [f32]) {
    match Isa::current() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has these instructions.
        Isa::Avx2 => unsafe { rows_avx2(w, x, y) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has these instructions.
        Isa::Avx512 => unsafe { rows_avx512(w, x, y) },
        // SAFETY: plain arrays run everywhere.
        _ => unsafe { rows_by::<Portable<4>>(w, x, y) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn rows_avx2(w: &[f32], x: &[f32], y: &mut [f32]) {
    // SAFETY: the instructions of `Ymm` are those of this function.
    unsafe { rows_by::<Ymm>(w, x, y) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
fn rows_avx512(w: &[f32], x: &[f32], y: &mut [f32]) {
    // SAFETY: the instructions of `Zmm` are those of this function.
    unsafe { rows_by::<Zmm>(w, x, y) }
}

/// # Safety
/// The instructions of `S` may run here.
#[inline(always)]
unsafe fn rows_by<S: Simd>(w: &[f32], x: &[f32], y: &mut [f32]) {
    let (cols, step) = (x.len(), SIDE * S::LANES);
    let whole = cols / step * step;
    let vectors = cols / S::LANES * S::LANES;
    for (w, y) in w.chunks_exact(cols).zip(y) {
        // SAFETY: the caller vouches for the instructions; every load below lies within `cols` numbers of w and x, which are
        // both that long.
        unsafe {
            let mut acc = [S::splat(0.0); SIDE];
            for c in (0..whole).step_by(step) {
                ask(w.as_ptr().wrapping_add(c));
                for (i, acc) in acc.iter_mut().enumerate() {
                    let at = c + i * S::LANES;
                    *acc = S::fma(S::load(w.as_ptr().add(at)), S::load(x.as_ptr().add(at)), *acc);
                }
            }
            for at in (whole..vectors).step_by(S::LANES) {
                acc[0] = S::fma(S::load(w.as_ptr().add(at)), S::load(x.as_ptr().add(at)), acc[0]);
            }
            let sum = S::add(S::add(acc[0], acc[1]), S::add(acc[2], acc[3]));
            let mut lanes = [0.0f32; 16];
            S::store(lanes.as_mut_ptr(), sum);
            let mut n = S::LANES;
            while n > 1 {
                n /= 2;
                for i in 0..n {
                    lanes[i] += lanes[i + n];
                }
            }
            let rest: f32 = w[vectors..].iter().zip(&x[vectors..]).map(|(w, x)| w * x).sum();
            *y = lanes[0] + rest;
        }
    }
}

/// Asks for weights that will be used soon; an address behind the last weight does no harm.
#[inline(always)]
fn ask(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, and a prefetch reads nothing that the program can see.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let ahead = at.cast::<i8>().wrapping_add(AHEAD);
        for line in 0..4 {
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_integers_are_multiplied_exactly_for_every_length_of_a_row() {
        for (rows, cols) in [(1, 1), (3, 0), (0, 3), (5, 7), (2, 16), (3, 63), (4, 64), (7, 65), (130, 600), (1000, 257)] {
            let w: Vec<f32> = (0..rows * cols).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
            let x: Vec<f32> = (0..cols).map(|i| (i * 5 % 7) as f32 - 3.0).collect();
            let mut y = vec![f32::NAN; rows];
            gemv(&w, &x, &mut y);
            for r in 0..rows {
                let right: f32 = (0..cols).map(|c| w[r * cols + c] * x[c]).sum();
                assert_eq!(y[r], right, "row {r} of {rows} x {cols}");
            }
        }
    }
}

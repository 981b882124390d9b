//! `y = x · Wᵀ` of a dense weight and few tokens: the weights are read once, in the order in which they lie.
//!
//! Each thread has a run of whole rows; a row is summed in one vector a token, then across the vector, in a fixed order. What is read
//! comes from memory, and the processor looks ahead within each page by itself: so rows are read eight at a time (18 GB/s on one core
//! against 13 row by row; asking for lines ahead in single rows gave 14).

use super::gemm::Threads;
use super::numbers::Numbers;
use crate::kernels::frame::{Epilogue, Out, tasks as share};
use crate::kernels::simd::{Isa, Portable, Simd};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Ymm, Zmm};
use ndarray::ArrayRef2;

/// Weights of a parallel task, and from which on the pool is worth waking.
const TASK: usize = 1 << 14;

/// The most tokens of a dense product for which rows as they lie are dot products.
pub const FEW: usize = 6;

/// `y (tokens, out) = x · Wᵀ` for a row-major `W (out, in)` and 1 to [`FEW`] tokens without gaps. The bits do not depend on the number of
/// threads.
///
/// # Panics
/// If the lengths do not fit, or there are more tokens.
pub(crate) fn dense_few<N: Numbers>(w: N, x: &[f32], y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>, threads: Threads) {
    let (tokens, out) = y.dim();
    if tokens == 0 || out == 0 {
        return;
    }
    let cols = x.len() / tokens;
    assert!(
        tokens <= FEW && x.len() == tokens * cols && w.len() == out * cols,
        "{} weights, {} inputs, {:?}",
        w.len(),
        x.len(),
        y.dim()
    );
    let to = Out::new(y);
    let run = |first: usize, end: usize| {
        let mut sums = vec![0.0; tokens * (end - first)];
        few_rows(w.part(first * cols..end * cols), x, tokens, &mut sums);
        for (t, sums) in sums.chunks_exact(end - first).enumerate() {
            // SAFETY: each task has its own rows, and these entries lie within y.
            unsafe { epilogue.put(to, t, first, sums) };
        }
    };
    let threads = threads.count();
    let tasks = if threads == 1 || w.len() < 2 * TASK { 1 } else { (w.len() / TASK).min(4 * threads) };
    // Whole groups of rows that are read side by side.
    let height = out.div_ceil(tasks).next_multiple_of(8);
    let tasks = out.div_ceil(height);
    share(tasks, tasks > 1, &|i| run(i * height, ((i + 1) * height).min(out)));
}

/// Sums `(tokens, rows)` of some rows.
fn few_rows<N: Numbers>(w: N, x: &[f32], tokens: usize, sums: &mut [f32]) {
    match Isa::current() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this set is only ever current on a machine that has it.
        Isa::Avx2 => unsafe { few_rows_avx2(w, x, tokens, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 => unsafe { few_rows_avx512(w, x, tokens, sums) },
        _ => few_rows_by::<Portable<4>, N, 8, 4, 2, 1>(Portable, w, x, tokens, sums),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn few_rows_avx2<N: Numbers>(w: N, x: &[f32], tokens: usize, sums: &mut [f32]) {
    few_rows_by::<Ymm, N, 8, 4, 2, 2>(Ymm::new(), w, x, tokens, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
fn few_rows_avx512<N: Numbers>(w: N, x: &[f32], tokens: usize, sums: &mut [f32]) {
    few_rows_by::<Zmm, N, 8, 8, 6, 4>(Zmm::new(), w, x, tokens, sums);
}

/// `R1`, `R2`, `R4` and `R6` rows side by side for one, two, up to four, and more tokens: as many sums as there are registers.
#[inline(always)]
fn few_rows_by<S: Simd, N: Numbers, const R1: usize, const R2: usize, const R4: usize, const R6: usize>(
    s: S,
    w: N,
    x: &[f32],
    tokens: usize,
    sums: &mut [f32],
) {
    match tokens {
        1 => rows_and_tokens::<S, N, R1, 1>(s, w, x, sums),
        2 => rows_and_tokens::<S, N, R2, 2>(s, w, x, sums),
        3 => rows_and_tokens::<S, N, R4, 3>(s, w, x, sums),
        4 => rows_and_tokens::<S, N, R4, 4>(s, w, x, sums),
        5 => rows_and_tokens::<S, N, R6, 5>(s, w, x, sums),
        _ => rows_and_tokens::<S, N, R6, 6>(s, w, x, sums),
    }
}

/// `R` rows and `B` tokens at a time; a last row alone.
#[inline(always)]
fn rows_and_tokens<S: Simd, N: Numbers, const R: usize, const B: usize>(s: S, w: N, x: &[f32], sums: &mut [f32]) {
    let (rows, cols) = (sums.len() / B, x.len() / B);
    assert!(sums.len() == B * rows && x.len() == B * cols && w.len() == rows * cols);
    let mut r = 0;
    while r < rows {
        if r + R <= rows {
            dots::<S, N, R, B>(s, w, (r * cols, cols), x, (0, cols), cols, (&mut sums[r..], rows));
            r += R;
        } else {
            dots::<S, N, 1, B>(s, w, (r * cols, cols), x, (0, cols), cols, (&mut sums[r..], rows));
            r += 1;
        }
    }
}

/// Adds the products of `n` numbers of `R` rows and `B` tokens to sums, which are `stride` apart from token to token. Of w and x it is said where the
/// first row or token begins, and how far it is to the next.
///
/// # Panics
/// If there are not so many numbers.
#[inline(always)]
pub(crate) fn dots<S: Simd, N: Numbers, const R: usize, const B: usize>(
    s: S,
    w: N,
    (row, rows): (usize, usize),
    x: &[f32],
    (token, tokens): (usize, usize),
    n: usize,
    (sums, stride): (&mut [f32], usize),
) {
    let vectors = n / S::LANES * S::LANES;
    assert!(row + (R - 1) * rows + n <= w.len() && token + (B - 1) * tokens + n <= x.len());
    // SAFETY: `at + LANES` is `n` at most, and the last row and token have `n` numbers: asserted just now.
    unsafe {
        let mut acc = [[s.splat(0.0); B]; R];
        for at in (0..vectors).step_by(S::LANES) {
            // No closure: what loads would not become part of it, as it knows less of the machine than this function.
            let mut ws = [s.splat(0.0); R];
            for (r, ws) in ws.iter_mut().enumerate() {
                *ws = w.load(s, row + r * rows + at);
            }
            for b in 0..B {
                let x = s.load(x.as_ptr().add(token + b * tokens + at));
                for r in 0..R {
                    acc[r][b] = s.fma(ws[r], x, acc[r][b]);
                }
            }
        }
        for r in 0..R {
            for b in 0..B {
                let x = &x[token + b * tokens..][..n];
                let rest: f32 = (vectors..n).map(|c| w.get(row + r * rows + c) * x[c]).sum();
                sums[b * stride + r] += s.sum(acc[r][b]) + rest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_tokens_are_multiplied_exactly_for_every_length_of_a_row() {
        for (rows, cols) in [(1, 1), (3, 0), (5, 7), (2, 16), (3, 63), (7, 65), (131, 600)] {
            for tokens in 1..=FEW {
                let w: Vec<f32> = (0..rows * cols).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
                let x: Vec<f32> = (0..tokens * cols).map(|i| (i * 5 % 7) as f32 - 3.0).collect();
                let mut y = ndarray::Array2::from_elem((tokens, rows), f32::NAN);
                dense_few(&w[..], &x, &mut y, &Epilogue::default(), Threads::Pool);
                for ((t, r), y) in y.indexed_iter() {
                    let right: f32 = (0..cols).map(|c| w[r * cols + c] * x[t * cols + c]).sum();
                    assert_eq!(*y, right, "token {t} of {tokens}, row {r} of {rows} x {cols}");
                }
            }
        }
    }
}

//! Transposition between token-major arrays and strips `(features, width)`, eight by eight.

use super::epilogue::{Epilogue, Out};
use super::isa::Isa;
use super::strip::Strip;
use ndarray::ArrayRef2;
use std::ops::Range;

/// `to (in, width) = x[strip]ᵀ`, zeros for the tokens that pad.
pub(super) fn turn_in(x: &ArrayRef2<f32>, strip: &Strip, to: &mut [f32]) {
    let (width, cols) = (strip.width, x.ncols());
    assert!(to.len() == cols * width && strip.tokens <= width && strip.first + strip.tokens <= x.nrows());
    let mut lines = [0.0f32; 64];
    for t0 in (0..strip.tokens).step_by(8) {
        let n = (strip.tokens - t0).min(8);
        let rows: [Option<&[f32]>; 8] =
            std::array::from_fn(|t| if t < n { x.row(strip.first + t0 + t).to_slice() } else { None });
        if rows.iter().all(Option::is_some) {
            let rows = rows.map(|r| r.unwrap_or(&[]));
            for c in (0..cols & !7).step_by(8) {
                let from: [&[f32; 8]; 8] = rows.map(|r| eight(&r[c..c + 8]));
                eight_by_eight(from, &mut lines);
                for i in 0..8 {
                    to[(c + i) * width + t0..][..8].copy_from_slice(&lines[8 * i..8 * i + 8]);
                }
            }
            for c in cols & !7..cols {
                (0..8).for_each(|t| to[c * width + t0 + t] = rows[t][c]);
            }
        } else {
            for t in t0..t0 + n {
                x.row(strip.first + t).iter().enumerate().for_each(|(c, &x)| to[c * width + t] = x);
            }
        }
    }
}

/// Writes sums `(rows, width)` of a strip to y.
///
/// # Safety
/// Nobody else uses these entries of y, and they lie within it.
pub(super) unsafe fn turn_out(sums: &[f32], strip: &Strip, rows: Range<usize>, y: Out, epilogue: &Epilogue<'_>) {
    let width = strip.width;
    let mut lines = [0.0f32; 64];
    let mut r = 0;
    while r < rows.len() {
        let n = (rows.len() - r).min(8);
        for t0 in (0..strip.tokens).step_by(8) {
            let tokens = (strip.tokens - t0).min(8);
            if n == 8 && width >= 8 {
                eight_by_eight(std::array::from_fn(|i| eight(&sums[(r + i) * width + t0..][..8])), &mut lines);
            } else {
                for i in 0..n {
                    (0..tokens).for_each(|t| lines[8 * t + i] = sums[(r + i) * width + t0 + t]);
                }
            }
            for t in 0..tokens {
                // SAFETY: the caller vouches for these entries.
                unsafe { epilogue.put(y, strip.first + t0 + t, rows.start + r, &lines[8 * t..8 * t + n]) };
            }
        }
        r += n;
    }
}

fn eight(from: &[f32]) -> &[f32; 8] {
    from.try_into().expect("eight numbers were cut")
}

/// `to[8 * i + j] = from[j][i]`.
#[inline(always)]
fn eight_by_eight(from: [&[f32; 8]; 8], to: &mut [f32; 64]) {
    #[cfg(target_arch = "x86_64")]
    if Isa::current() != Isa::Portable {
        // SAFETY: every other set of x86-64 has AVX.
        return unsafe { eight_by_eight_avx(from, to) };
    }
    for i in 0..8 {
        for j in 0..8 {
            to[8 * i + j] = from[j][i];
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
fn eight_by_eight_avx(from: [&[f32; 8]; 8], to: &mut [f32; 64]) {
    use std::arch::x86_64::*;
    // SAFETY: each array holds the eight numbers that are loaded.
    let r = from.map(|f| unsafe { _mm256_loadu_ps(f.as_ptr()) });
    let pairs: [__m256; 8] = std::array::from_fn(|i| {
        let (a, b) = (r[i & !1], r[i | 1]);
        if i & 1 == 0 { _mm256_unpacklo_ps(a, b) } else { _mm256_unpackhi_ps(a, b) }
    });
    let quads = [
        _mm256_shuffle_ps::<0x44>(pairs[0], pairs[2]),
        _mm256_shuffle_ps::<0xee>(pairs[0], pairs[2]),
        _mm256_shuffle_ps::<0x44>(pairs[1], pairs[3]),
        _mm256_shuffle_ps::<0xee>(pairs[1], pairs[3]),
        _mm256_shuffle_ps::<0x44>(pairs[4], pairs[6]),
        _mm256_shuffle_ps::<0xee>(pairs[4], pairs[6]),
        _mm256_shuffle_ps::<0x44>(pairs[5], pairs[7]),
        _mm256_shuffle_ps::<0xee>(pairs[5], pairs[7]),
    ];
    for i in 0..4 {
        let low = _mm256_permute2f128_ps::<0x20>(quads[i], quads[i + 4]);
        let high = _mm256_permute2f128_ps::<0x31>(quads[i], quads[i + 4]);
        // SAFETY: `to` holds eight lines of eight.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr().add(8 * i), low);
            _mm256_storeu_ps(to.as_mut_ptr().add(8 * (i + 4)), high);
        }
    }
}

//! Transposition between token-major arrays and strips `(features, width)`, eight by eight.

use super::epilogue::{Epilogue, Out};
use super::isa::Isa;
use super::strip::Strip;
use ndarray::ArrayRef2;
use std::ops::Range;

/// `to (columns, width) = x[strip, columns]ᵀ`, zeros for the tokens that pad.
pub(super) fn turn_in(x: &ArrayRef2<f32>, strip: &Strip, columns: Range<usize>, to: &mut [f32]) {
    let width = strip.width;
    assert!(to.len() == columns.len() * width && strip.tokens <= width);
    assert!(strip.first + strip.tokens <= x.nrows() && columns.end <= x.ncols());
    if strip.tokens < width {
        to.chunks_exact_mut(width).for_each(|line| line[strip.tokens..].fill(0.0));
    }
    let (eights, n) = (strip.tokens & !7, columns.len());
    let mut first = 0;
    if x.strides()[1] == 1 && eights > 0 {
        // All tokens of a few columns before the next ones, so that each line of the strip is written at one time.
        while first + 8 <= n {
            let wide = if first + 16 <= n { 16 } else { 8 };
            for t in (0..eights).step_by(8) {
                for c in (first..first + wide).step_by(8) {
                    // SAFETY: eight tokens and eight columns of x from here on, and as many lines of `to`: asserted above.
                    unsafe {
                        let from = x.as_ptr().offset((strip.first + t) as isize * x.strides()[0]).add(columns.start + c);
                        eight_by_eight(from, x.strides()[0], to.as_mut_ptr().add(c * width + t), width as isize);
                    }
                }
            }
            first += wide;
        }
    }
    // What is left: the last tokens of all columns, and all tokens of the last columns.
    for t in 0..strip.tokens {
        let begin = if t < eights { first } else { 0 };
        let row = x.row(strip.first + t);
        (begin..n).for_each(|c| to[c * width + t] = row[columns.start + c]);
    }
}

/// Writes sums `(rows, width)` of a strip to y.
///
/// # Safety
/// Nobody else uses these entries of y, and they lie within it.
pub(super) unsafe fn turn_out(sums: &[f32], strip: &Strip, rows: Range<usize>, y: Out, epilogue: &Epilogue<'_>) {
    let width = strip.width;
    assert!(sums.len() >= rows.len() * width && strip.tokens <= width);
    let direct = epilogue.is_plain() && y.is_row_major();
    let mut lines = [0.0f32; 64];
    for r in (0..rows.len()).step_by(8) {
        let n = (rows.len() - r).min(8);
        for t in (0..strip.tokens).step_by(8) {
            let tokens = (strip.tokens - t).min(8);
            let full = n == 8 && t + 8 <= width;
            if full {
                let from = sums[r * width + t..].as_ptr();
                // SAFETY: eight rows of `width` numbers stand from here on, of which eight are read; `direct` writes eight
                // tokens of y, which the caller vouches for.
                unsafe {
                    if direct && tokens == 8 {
                        let (to, stride) = y.place(strip.first + t, rows.start + r);
                        eight_by_eight(from, width as isize, to, stride);
                        continue;
                    }
                    eight_by_eight(from, width as isize, lines.as_mut_ptr(), 8);
                }
            } else {
                for i in 0..n {
                    (0..tokens).for_each(|t8| lines[8 * t8 + i] = sums[(r + i) * width + t + t8]);
                }
            }
            for t8 in 0..tokens {
                // SAFETY: the caller vouches for these entries.
                unsafe { epilogue.put(y, strip.first + t + t8, rows.start + r, &lines[8 * t8..8 * t8 + n]) };
            }
        }
    }
}

/// `to[j * to_stride + i] = from[i * from_stride + j]` for i and j below eight.
///
/// # Safety
/// All of these places can be read and written.
#[inline(always)]
unsafe fn eight_by_eight(from: *const f32, from_stride: isize, to: *mut f32, to_stride: isize) {
    // SAFETY: the caller vouches for the places; every set of x86-64 but the portable one has AVX.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if Isa::current() != Isa::Portable {
            return eight_by_eight_avx(from, from_stride, to, to_stride);
        }
        for i in 0..8 {
            for j in 0..8 {
                *to.offset(j * to_stride + i) = *from.offset(i * from_stride + j);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn eight_by_eight_avx(from: *const f32, from_stride: isize, to: *mut f32, to_stride: isize) {
    use std::arch::x86_64::*;
    // SAFETY: the caller vouches for eight numbers from each of these places.
    let r: [__m256; 8] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(from.offset(i as isize * from_stride)) });
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
        // SAFETY: as for reading.
        unsafe {
            _mm256_storeu_ps(to.offset(i as isize * to_stride), low);
            _mm256_storeu_ps(to.offset((i as isize + 4) * to_stride), high);
        }
    }
}

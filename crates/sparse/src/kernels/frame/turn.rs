//! Transposition between token-major arrays and strips `(features, width)`, a square at a time.

use super::epilogue::{Epilogue, Out};
use super::width::Strip;
use crate::kernels::simd::Isa;
use ndarray::ArrayRef2;
use std::ops::Range;

/// `to (columns, width) = x[strip, columns]ᵀ`, zeros for the tokens that pad.
pub(crate) fn turn_in(x: &ArrayRef2<f32>, strip: &Strip, columns: Range<usize>, to: &mut [f32]) {
    let width = strip.width;
    assert!(to.len() == columns.len() * width && strip.tokens <= width);
    assert!(strip.first + strip.tokens <= x.nrows() && columns.end <= x.ncols());
    if strip.tokens < width {
        to.chunks_exact_mut(width).for_each(|line| line[strip.tokens..].fill(0.0));
    }
    let n = columns.len();
    if strip.tokens == 1 && width == 1 {
        let row = x.row(strip.first);
        return match row.to_slice() {
            Some(row) => to.copy_from_slice(&row[columns]),
            None => to.iter_mut().zip(columns).for_each(|(to, c)| *to = row[c]),
        };
    }
    if x.strides()[0] == 1 && strip.tokens > 1 {
        // The tokens of a column lie side by side already.
        // SAFETY: columns and tokens of x, and lines of `to`: asserted above.
        unsafe {
            let from = x.as_ptr().offset(columns.start as isize * x.strides()[1]).add(strip.first);
            // Eight, where so many are there: what is too much in a line is written over by the next, so the last ones are left.
            let eights = if strip.tokens <= 8 && width <= 8 && strip.first + 8 <= x.nrows() { whole_lines(n, width) } else { 0 };
            let to = to.as_mut_ptr();
            let rest = |many: usize| (many..n).map(|c| (from.offset(c as isize * x.strides()[1]), to.add(c * width)));
            match strip.tokens {
                16 => rest(0)
                    .for_each(|(from, to)| to.cast::<[f32; 16]>().write_unaligned(from.cast::<[f32; 16]>().read_unaligned())),
                48 => rest(0)
                    .for_each(|(from, to)| to.cast::<[f32; 48]>().write_unaligned(from.cast::<[f32; 48]>().read_unaligned())),
                tokens => {
                    for c in 0..eights {
                        let (from, to) =
                            (from.offset(c as isize * x.strides()[1]).cast::<[f32; 8]>(), to.add(c * width).cast::<[f32; 8]>());
                        to.write_unaligned(from.read_unaligned());
                    }
                    rest(eights).for_each(|(from, to)| from.copy_to_nonoverlapping(to, tokens));
                }
            }
            if strip.tokens < width {
                (0..n).for_each(|c| to.add(c * width + strip.tokens).write_bytes(0, width - strip.tokens));
            }
        }
        return;
    }
    let (mut tokens, mut first) = (0, 0);
    if x.strides()[1] == 1 && strip.tokens < 8 && width <= 8 {
        // Lines of eight, of which the ends are written over by the columns after them. The last columns, whose lines would end beyond the strip, are
        // left.
        (tokens, first) = (strip.tokens, whole_lines(n, width) & !7);
        for c in (0..first).step_by(8) {
            // SAFETY: eight columns of the tokens of x; the line of the last of them, `c + 7`, has `8 / width` columns of the strip before it ends.
            unsafe {
                let from = x.as_ptr().offset(strip.first as isize * x.strides()[0]).add(columns.start + c);
                few_by_eight(from, x.strides()[0], tokens, to.as_mut_ptr().add(c * width), width as isize);
            }
        }
    } else if x.strides()[1] == 1 {
        // SAFETY: squares of tokens and columns of x, and as many lines of `to`: asserted above.
        tokens = strip.tokens & !7;
        first = n & !7;
        // SAFETY: squares of tokens and columns of x, and as many lines of `to`: asserted above.
        let mut square = |t: usize, c: usize, size: usize| unsafe {
            let from = x.as_ptr().offset((strip.first + t) as isize * x.strides()[0]).add(columns.start + c);
            let to = to.as_mut_ptr().add(c * width + t);
            if size == 16 {
                sixteen_by_sixteen(from, x.strides()[0], to, width as isize);
            } else {
                eight_by_eight(from, x.strides()[0], to, width as isize);
            }
        };
        // Few tokens at a time, each of which may be a page of its own, but enough for whole lines of the strip.
        for t in (0..tokens).step_by(16) {
            let two = t + 16 <= tokens;
            let sixteens = if two && has_512() { n & !15 } else { 0 };
            (0..sixteens).step_by(16).for_each(|c| square(t, c, 16));
            for c in (sixteens..first).step_by(8) {
                square(t, c, 8);
                if two {
                    square(t + 8, c, 8);
                }
            }
        }
    }
    // What is left: the last tokens of all columns, and all tokens of the last columns.
    for t in 0..strip.tokens {
        let begin = if t < tokens { first } else { 0 };
        let row = x.row(strip.first + t);
        (begin..n).for_each(|c| to[c * width + t] = row[columns.start + c]);
    }
}

/// Of `n` lines of `width` numbers, how many begin eight numbers or more before the end of all.
fn whole_lines(n: usize, width: usize) -> usize {
    (n + 1).saturating_sub(8usize.div_ceil(width))
}

/// Writes sums `(rows, width)` of a strip to y.
///
/// # Safety
/// Nobody else uses these entries of y, and they lie within it.
pub(crate) unsafe fn turn_out(sums: &[f32], strip: &Strip, rows: Range<usize>, y: Out, epilogue: &Epilogue<'_>) {
    let width = strip.width;
    assert!(sums.len() >= rows.len() * width && strip.tokens <= width);
    if y.is_column_major() {
        for (r, sums) in rows.clone().zip(sums.chunks_exact(width)) {
            // SAFETY: the caller vouches for these entries; those of an output lie side by side.
            unsafe { epilogue.put_tokens(y, strip.first, r, &sums[..strip.tokens]) };
        }
        return;
    }
    let direct = epilogue.is_plain() && y.is_row_major();
    let mut lines = [0.0f32; 256];
    let size = if has_512() { 16 } else { 8 };
    for t in (0..strip.tokens).step_by(size) {
        let tokens = (strip.tokens - t).min(size);
        for r in (0..rows.len()).step_by(size) {
            let n = (rows.len() - r).min(size);
            if n == size && t + size <= width {
                let from = sums[r * width + t..].as_ptr();
                // SAFETY: `size` rows of `width` numbers stand from here on, of which `size` are read; `direct` writes as many
                // tokens of y, which the caller vouches for.
                unsafe {
                    let whole = direct && tokens == size;
                    let (to, stride) =
                        if whole { y.place(strip.first + t, rows.start + r) } else { (lines.as_mut_ptr(), size as isize) };
                    if size == 16 {
                        sixteen_by_sixteen(from, width as isize, to, stride);
                    } else {
                        eight_by_eight(from, width as isize, to, stride);
                    }
                    if whole {
                        continue;
                    }
                }
            } else {
                for i in 0..n {
                    (0..tokens).for_each(|k| lines[size * k + i] = sums[(r + i) * width + t + k]);
                }
            }
            for k in 0..tokens {
                // SAFETY: the caller vouches for these entries.
                unsafe { epilogue.put(y, strip.first + t + k, rows.start + r, &lines[size * k..size * k + n]) };
            }
        }
    }
}

/// Whether squares of sixteen can be turned.
fn has_512() -> bool {
    Isa::current() == Isa::Avx512
}

/// As [`eight_by_eight`], for i and j below sixteen.
///
/// # Safety
/// All of these places can be read and written, and [`has_512`].
#[inline(always)]
unsafe fn sixteen_by_sixteen(from: *const f32, from_stride: isize, to: *mut f32, to_stride: isize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as promised by the caller.
    unsafe {
        sixteen_by_sixteen_512(from, from_stride, to, to_stride);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{from:?} {from_stride} {to:?} {to_stride}");
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn sixteen_by_sixteen_512(from: *const f32, from_stride: isize, to: *mut f32, to_stride: isize) {
    use std::arch::x86_64::*;
    // Each row is read once and whole: rows that are a power of two apart share a set of the first cache, which may not hold all.
    // SAFETY: the caller vouches for sixteen numbers from each of these places.
    let row = |i: usize| unsafe { _mm512_loadu_ps(from.offset(i as isize * from_stride)) };
    // In group g, quarter q of vector j holds rows 4 g to 4 g + 3 of column 4 q + j.
    let groups: [[__m512; 4]; 4] = std::array::from_fn(|g| {
        let (a, b, c, d) = (row(4 * g), row(4 * g + 1), row(4 * g + 2), row(4 * g + 3));
        let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
        let (ab2, cd2) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
        [
            _mm512_shuffle_ps::<0x44>(ab, cd),
            _mm512_shuffle_ps::<0xee>(ab, cd),
            _mm512_shuffle_ps::<0x44>(ab2, cd2),
            _mm512_shuffle_ps::<0xee>(ab2, cd2),
        ]
    });
    for j in 0..4 {
        let [a, b, c, d] = [groups[0][j], groups[1][j], groups[2][j], groups[3][j]];
        let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        let (even2, odd2) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
        let columns = [
            (0, _mm512_shuffle_f32x4::<0x88>(even, even2)),
            (8, _mm512_shuffle_f32x4::<0xdd>(even, even2)),
            (4, _mm512_shuffle_f32x4::<0x88>(odd, odd2)),
            (12, _mm512_shuffle_f32x4::<0xdd>(odd, odd2)),
        ];
        for (q, v) in columns {
            // SAFETY: as for reading.
            unsafe { _mm512_storeu_ps(to.offset((q + j as isize) * to_stride), v) };
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

/// As [`eight_by_eight`] for i below `rows`, which are eight at most, column after column: with zeros in the places of the other rows, or what was there.
///
/// # Safety
/// All of these places can be read and written, and those of the other rows written.
#[inline(always)]
unsafe fn few_by_eight(from: *const f32, from_stride: isize, rows: usize, to: *mut f32, to_stride: isize) {
    // SAFETY: the caller vouches for the places; every set of x86-64 but the portable one has AVX.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if Isa::current() != Isa::Portable {
            return few_by_eight_avx(from, from_stride, rows, to, to_stride);
        }
        for j in 0..8 {
            for i in 0..rows as isize {
                *to.offset(j * to_stride + i) = *from.offset(i * from_stride + j);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn eight_by_eight_avx(from: *const f32, from_stride: isize, to: *mut f32, to_stride: isize) {
    // SAFETY: as promised by the caller.
    unsafe { few_by_eight_avx(from, from_stride, 8, to, to_stride) }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx")]
unsafe fn few_by_eight_avx(from: *const f32, from_stride: isize, rows: usize, to: *mut f32, to_stride: isize) {
    use std::arch::x86_64::*;
    let mut r = [_mm256_setzero_ps(); 8];
    for (i, r) in r.iter_mut().enumerate().take(rows) {
        // SAFETY: the caller vouches for eight numbers from each of these places.
        *r = unsafe { _mm256_loadu_ps(from.offset(i as isize * from_stride)) };
    }
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
    // In order: what the lines of few rows have too much is written over by those after them.
    for j in 0..8 {
        let (a, b) = (quads[j % 4], quads[j % 4 + 4]);
        let line = if j < 4 { _mm256_permute2f128_ps::<0x20>(a, b) } else { _mm256_permute2f128_ps::<0x31>(a, b) };
        // SAFETY: as for reading.
        unsafe { _mm256_storeu_ps(to.offset(j as isize * to_stride), line) };
    }
}

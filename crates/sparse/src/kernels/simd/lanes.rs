//! Vectors of `f32` as kernels see them: one small trait, one type for each instruction set.
//!
//! A kernel is written once over [`Simd`] and compiled for each set inside a function with the matching `target_feature`; the
//! methods are inlined into it, one to three instructions each.

use super::slices::add_up;
use super::value::Value;
use half::{bf16, f16};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// A vector of `LANES` numbers.
///
/// # Safety
/// Every method may be called only where the instruction set of the type may run. `load` and `store` touch `LANES` numbers.
pub(crate) trait Simd: Copy {
    type V: Copy;
    const LANES: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// `a * b + c`.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all: halves are added until one number is left.
    unsafe fn sum(v: Self::V) -> f32;
    /// `LANES` numbers, widened.
    unsafe fn load_bf16(from: *const bf16) -> Self::V;
    /// `LANES` numbers, widened.
    unsafe fn load_f16(from: *const f16) -> Self::V;
    /// `LANES` numbers, widened.
    unsafe fn load_i8(from: *const i8) -> Self::V;
    /// `LANES` numbers of four bits, the lower half of a byte before the upper one.
    unsafe fn load_u4(from: *const u8) -> Self::V;
}

/// Floating point numbers as a vector loads them.
pub(crate) trait Float: Value {
    /// `LANES` numbers.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(from: *const Self) -> S::V;

    /// The same numbers, if they are `f32`.
    fn plain(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Float for f32 {
    fn plain(numbers: &[f32]) -> Option<&[f32]> {
        Some(numbers)
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const f32) -> S::V {
        // SAFETY: as promised by the caller.
        unsafe { S::load(from) }
    }
}

impl Float for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const bf16) -> S::V {
        // SAFETY: as promised by the caller.
        unsafe { S::load_bf16(from) }
    }
}

impl Float for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const f16) -> S::V {
        // SAFETY: as promised by the caller.
        unsafe { S::load_f16(from) }
    }
}

/// `N` numbers in whatever the compiler makes of them: two instructions on plain x86-64, NEON with fused multiply-adds on aarch64.
#[derive(Clone, Copy)]
pub(crate) struct Portable<const N: usize>;

impl<const N: usize> Simd for Portable<N> {
    type V = [f32; N];
    const LANES: usize = N;

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; N] {
        [x; N]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; N] {
        // SAFETY: the caller vouches for N numbers; an array of them has their alignment.
        unsafe { from.cast::<[f32; N]>().read() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: [f32; N]) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<[f32; N]>().write(v) }
    }

    #[inline(always)]
    unsafe fn fma(a: [f32; N], b: [f32; N], mut c: [f32; N]) -> [f32; N] {
        for i in 0..N {
            c[i] = if cfg!(target_arch = "aarch64") { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] };
        }
        c
    }

    #[inline(always)]
    unsafe fn add(mut a: [f32; N], b: [f32; N]) -> [f32; N] {
        for i in 0..N {
            a[i] += b[i];
        }
        a
    }

    #[inline(always)]
    unsafe fn sum(v: [f32; N]) -> f32 {
        add_up(v)
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> [f32; N] {
        // SAFETY: as in `load`.
        unsafe { from.cast::<[bf16; N]>().read() }.map(Value::decode)
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> [f32; N] {
        // SAFETY: as in `load`.
        unsafe { from.cast::<[f16; N]>().read() }.map(Value::decode)
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> [f32; N] {
        // SAFETY: as in `load`.
        unsafe { from.cast::<[i8; N]>().read() }.map(Value::decode)
    }

    #[inline(always)]
    unsafe fn load_u4(from: *const u8) -> [f32; N] {
        // SAFETY: the caller vouches for half as many bytes.
        std::array::from_fn(|i| unsafe { f32::from(*from.add(i / 2) >> (4 * (i % 2)) & 15) })
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! x86 {
    ($(#[$doc:meta])* $name:ident, $v:ident, $lanes:literal, $splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident, $sum:ident,
     $half:ident, $widen:ident, $shift:ident, $cast:ident, $convert:ident, $bytes:ident, $signed:ident, $float:ident, $halves:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Simd for $name {
            type V = $v;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn splat(x: f32) -> Self::V {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { $splat(x) }
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self::V {
                // SAFETY: the caller vouches for the instruction set and for the memory; the load needs no alignment.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn store(to: *mut f32, v: Self::V) {
                // SAFETY: as in `load`.
                unsafe { $store(to, v) }
            }

            #[inline(always)]
            unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { $fma(a, b, c) }
            }

            #[inline(always)]
            unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { $add(a, b) }
            }

            #[inline(always)]
            unsafe fn sum(v: Self::V) -> f32 {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { $sum(v) }
            }

            #[inline(always)]
            unsafe fn load_bf16(from: *const bf16) -> Self::V {
                // SAFETY: as in `load`. A bf16 is the upper half of an f32.
                unsafe { $cast($shift::<16>($widen(from.cast::<$half>().read_unaligned()))) }
            }

            #[inline(always)]
            unsafe fn load_f16(from: *const f16) -> Self::V {
                // SAFETY: as in `load`.
                unsafe { $convert(from.cast::<$half>().read_unaligned()) }
            }

            #[inline(always)]
            unsafe fn load_i8(from: *const i8) -> Self::V {
                // SAFETY: as in `load`.
                unsafe { $float($signed(from.cast::<$bytes>().read_unaligned())) }
            }

            #[inline(always)]
            unsafe fn load_u4(from: *const u8) -> Self::V {
                // SAFETY: as in `load`.
                unsafe { $float($halves(from)) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
x86!(
    /// Four numbers, with FMA.
    Xmm, __m128, 4, _mm_set1_ps, _mm_loadu_ps, _mm_storeu_ps, _mm_fmadd_ps, _mm_add_ps, sum_of,
    i64, widen_four, _mm_slli_epi32, _mm_castsi128_ps, convert_four, i32, signed_four, _mm_cvtepi32_ps, halves_four
);
#[cfg(target_arch = "x86_64")]
x86!(
    /// Eight numbers, with AVX2 and FMA.
    Ymm, __m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps, _mm256_add_ps, sum_of_eight,
    __m128i, _mm256_cvtepu16_epi32, _mm256_slli_epi32, _mm256_castsi256_ps, _mm256_cvtph_ps, i64, signed_eight, _mm256_cvtepi32_ps, halves_eight
);
#[cfg(target_arch = "x86_64")]
x86!(
    /// Sixteen numbers, with AVX-512F.
    Zmm, __m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_add_ps, sum_of_sixteen,
    __m256i, _mm512_cvtepu16_epi32, _mm512_slli_epi32, _mm512_castsi512_ps, _mm512_cvtph_ps, __m128i, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, halves_sixteen
);

/// Four numbers of 16 bits as integers of 32.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn widen_four(four: i64) -> __m128i {
    // SAFETY: the caller vouches for AVX2.
    unsafe { _mm_cvtepu16_epi32(_mm_cvtsi64_si128(four)) }
}

/// Four bytes as integers of 32 bits.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn signed_four(four: i32) -> __m128i {
    // SAFETY: the caller vouches for AVX2.
    unsafe { _mm_cvtepi8_epi32(_mm_cvtsi32_si128(four)) }
}

/// Eight bytes as integers of 32 bits.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn signed_eight(eight: i64) -> __m256i {
    // SAFETY: the caller vouches for AVX2.
    unsafe { _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(eight)) }
}

/// Four `f16` as `f32`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn convert_four(four: i64) -> __m128 {
    // SAFETY: the caller vouches for F16C.
    unsafe { _mm_cvtph_ps(_mm_cvtsi64_si128(four)) }
}

/// Four numbers of four bits as integers of 32.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn halves_four(from: *const u8) -> __m128i {
    // SAFETY: the caller vouches for AVX2 and two bytes.
    unsafe {
        let all = _mm_set1_epi32(i32::from(from.cast::<u16>().read_unaligned()));
        _mm_and_si128(_mm_srlv_epi32(all, _mm_setr_epi32(0, 4, 8, 12)), _mm_set1_epi32(15))
    }
}

/// Eight numbers of four bits as integers of 32.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn halves_eight(from: *const u8) -> __m256i {
    // SAFETY: the caller vouches for AVX2 and four bytes.
    unsafe {
        let all = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
        _mm256_and_si256(_mm256_srlv_epi32(all, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)), _mm256_set1_epi32(15))
    }
}

/// Sixteen numbers of four bits as integers of 32.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn halves_sixteen(from: *const u8) -> __m512i {
    // SAFETY: the caller vouches for AVX-512F and eight bytes.
    unsafe {
        let (all, low) = (_mm_loadl_epi64(from.cast()), _mm_set1_epi8(15));
        let bytes = _mm_unpacklo_epi8(_mm_and_si128(all, low), _mm_and_si128(_mm_srli_epi16::<4>(all), low));
        _mm512_cvtepu8_epi32(bytes)
    }
}

/// The sum of four numbers.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
pub(crate) fn sum_of(v: __m128) -> f32 {
    let pairs = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs)))
}

/// The sum of eight numbers.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx")]
pub(crate) fn sum_of_eight(v: __m256) -> f32 {
    sum_of(_mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)))
}

/// The sum of sixteen numbers.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(crate) fn sum_of_sixteen(v: __m512) -> f32 {
    sum_of_eight(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)))
}

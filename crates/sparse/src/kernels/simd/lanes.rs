//! Vectors of `f32` as kernels see them: one small trait, one type for each instruction set.
//!
//! A kernel is written once over [`Simd`] and compiled for each set inside a function with the matching `target_feature`; the
//! methods are inlined into it, one to three instructions each. A value of an instruction set is the proof that the machine has it: it is
//! made by such a function and handed to the kernel, which is then safe but where it goes through pointers.

use super::slices::add_up;
use super::value::Value;
use half::{bf16, f16};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// An instruction set that this machine has, and what it does with vectors of `LANES` numbers.
pub(crate) trait Simd: Copy {
    type V: Copy;
    const LANES: usize;
    /// Whether its registers hold sixteen vectors.
    const WIDE: bool;

    fn splat(self, x: f32) -> Self::V;
    /// `a * b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all: halves are added until one number is left.
    fn sum(self, v: Self::V) -> f32;
    /// # Safety
    /// `LANES` numbers can be read; they need no alignment.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// # Safety
    /// `LANES` numbers can be written; they need no alignment.
    unsafe fn store(self, to: *mut f32, v: Self::V);
    /// `LANES` numbers, widened.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load_bf16(self, from: *const bf16) -> Self::V;
    /// `LANES` numbers, widened.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load_f16(self, from: *const f16) -> Self::V;
    /// `LANES` numbers, widened.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load_i8(self, from: *const i8) -> Self::V;

    /// The first numbers of a slice.
    ///
    /// # Panics
    /// If it has less than `LANES`.
    #[inline(always)]
    fn read(self, from: &[f32]) -> Self::V {
        assert!(from.len() >= Self::LANES);
        // SAFETY: asserted just now.
        unsafe { self.load(from.as_ptr()) }
    }

    /// Puts a vector to the start of a slice.
    ///
    /// # Panics
    /// If it has less than `LANES` numbers.
    #[inline(always)]
    fn write(self, to: &mut [f32], v: Self::V) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: asserted just now; the borrow is exclusive.
        unsafe { self.store(to.as_mut_ptr(), v) }
    }
}

/// Floating point numbers as a vector loads them.
pub(crate) trait Float: Value {
    /// `LANES` numbers.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::V;
}

impl Float for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const f32) -> S::V {
        // SAFETY: both ask for the same numbers.
        unsafe { s.load(from) }
    }
}

impl Float for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const bf16) -> S::V {
        // SAFETY: both ask for the same numbers.
        unsafe { s.load_bf16(from) }
    }
}

impl Float for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const f16) -> S::V {
        // SAFETY: both ask for the same numbers.
        unsafe { s.load_f16(from) }
    }
}

/// `N` numbers in whatever the compiler makes of them: two instructions on plain x86-64, NEON with fused multiply-adds on aarch64.
#[derive(Clone, Copy)]
pub(crate) struct Portable<const N: usize>;

impl<const N: usize> Simd for Portable<N> {
    type V = [f32; N];
    const LANES: usize = N;
    // Registers of four numbers: 32 of them on aarch64, 16 elsewhere.
    const WIDE: bool = N <= if cfg!(target_arch = "aarch64") { 8 } else { 4 };

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; N] {
        [x; N]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> [f32; N] {
        // SAFETY: an array of N numbers is as large as these.
        unsafe { from.cast::<[f32; N]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: [f32; N]) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<[f32; N]>().write_unaligned(v) }
    }

    #[inline(always)]
    fn fma(self, a: [f32; N], b: [f32; N], mut c: [f32; N]) -> [f32; N] {
        for i in 0..N {
            c[i] = if cfg!(target_arch = "aarch64") { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] };
        }
        c
    }

    #[inline(always)]
    fn add(self, mut a: [f32; N], b: [f32; N]) -> [f32; N] {
        for i in 0..N {
            a[i] += b[i];
        }
        a
    }

    #[inline(always)]
    fn mul(self, mut a: [f32; N], b: [f32; N]) -> [f32; N] {
        for i in 0..N {
            a[i] *= b[i];
        }
        a
    }

    #[inline(always)]
    fn sum(self, v: [f32; N]) -> f32 {
        add_up(v)
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> [f32; N] {
        // SAFETY: as in `load`.
        unsafe { from.cast::<[bf16; N]>().read_unaligned() }.map(Value::decode)
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> [f32; N] {
        // SAFETY: as in `load`.
        unsafe { from.cast::<[f16; N]>().read_unaligned() }.map(Value::decode)
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> [f32; N] {
        // SAFETY: as in `load`.
        unsafe { from.cast::<[i8; N]>().read_unaligned() }.map(Value::decode)
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! x86 {
    ($(#[$doc:meta])* $name:ident, $features:tt, $v:ident, $lanes:literal, $splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident, $mul:ident, $sum:ident,
     $half:ident, $widen:ident, $shift:ident, $cast:ident, $convert:ident, $bytes:ident, $signed:ident, $float:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name(());

        impl $name {
            /// The instruction set, for a function that is compiled for it: elsewhere the call is unsafe.
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn new() -> Self {
                $name(())
            }
        }

        impl Simd for $name {
            type V = $v;
            const LANES: usize = $lanes;
            const WIDE: bool = true;

            #[inline(always)]
            fn splat(self, x: f32) -> Self::V {
                // SAFETY: who has `self` runs where its instructions do.
                unsafe { $splat(x) }
            }

            #[inline(always)]
            fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                // SAFETY: as above.
                unsafe { $fma(a, b, c) }
            }

            #[inline(always)]
            fn add(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: as above.
                unsafe { $add(a, b) }
            }

            #[inline(always)]
            fn mul(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: as above.
                unsafe { $mul(a, b) }
            }

            #[inline(always)]
            fn sum(self, v: Self::V) -> f32 {
                // SAFETY: as above.
                unsafe { $sum(v) }
            }

            #[inline(always)]
            unsafe fn load(self, from: *const f32) -> Self::V {
                // SAFETY: as above; `LANES` numbers are what the instruction reads, from any place.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32, v: Self::V) {
                // SAFETY: as in `load`.
                unsafe { $store(to, v) }
            }

            #[inline(always)]
            unsafe fn load_bf16(self, from: *const bf16) -> Self::V {
                // SAFETY: as in `load`: what is read is as large as `LANES` numbers. A bf16 is the upper half of an f32.
                unsafe { $cast($shift::<16>($widen(from.cast::<$half>().read_unaligned()))) }
            }

            #[inline(always)]
            unsafe fn load_f16(self, from: *const f16) -> Self::V {
                // SAFETY: as in `load_bf16`.
                unsafe { $convert(from.cast::<$half>().read_unaligned()) }
            }

            #[inline(always)]
            unsafe fn load_i8(self, from: *const i8) -> Self::V {
                // SAFETY: as in `load_bf16`.
                unsafe { $float($signed(from.cast::<$bytes>().read_unaligned())) }
            }

        }
    };
}

#[cfg(target_arch = "x86_64")]
x86!(
    /// Four numbers, with FMA.
    Xmm, "avx2,fma,f16c", __m128, 4, _mm_set1_ps, _mm_loadu_ps, _mm_storeu_ps, _mm_fmadd_ps, _mm_add_ps, _mm_mul_ps, sum_of,
    i64, widen_four, _mm_slli_epi32, _mm_castsi128_ps, convert_four, i32, signed_four, _mm_cvtepi32_ps
);
#[cfg(target_arch = "x86_64")]
x86!(
    /// Eight numbers, with AVX2 and FMA.
    Ymm, "avx2,fma,f16c", __m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps, _mm256_add_ps, _mm256_mul_ps, sum_of_eight,
    __m128i, _mm256_cvtepu16_epi32, _mm256_slli_epi32, _mm256_castsi256_ps, _mm256_cvtph_ps, i64, signed_eight, _mm256_cvtepi32_ps
);
#[cfg(target_arch = "x86_64")]
x86!(
    /// Sixteen numbers, with AVX-512F.
    Zmm, "avx512f,avx512vl,avx512bw,avx512dq", __m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_mul_ps, sum_of_sixteen,
    __m256i, _mm512_cvtepu16_epi32, _mm512_slli_epi32, _mm512_castsi512_ps, _mm512_cvtph_ps, __m128i, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps
);

#[cfg(target_arch = "x86_64")]
x86!(
    /// Sixteen numbers, with AVX-512F and its products of bytes (VNNI).
    Vnni, "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni", __m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_mul_ps, sum_of_sixteen,
    __m256i, _mm512_cvtepu16_epi32, _mm512_slli_epi32, _mm512_castsi512_ps, _mm512_cvtph_ps, __m128i, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps
);

#[cfg(target_arch = "x86_64")]
x86!(
    /// Sixteen numbers, with the products of bytes and the permutations and expansions of bytes (VNNI, VBMI, VBMI2).
    Vbmi, "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx512vbmi,avx512vbmi2", __m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_mul_ps, sum_of_sixteen,
    __m256i, _mm512_cvtepu16_epi32, _mm512_slli_epi32, _mm512_castsi512_ps, _mm512_cvtph_ps, __m128i, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps
);

#[cfg(target_arch = "x86_64")]
impl Zmm {
    /// The vectors of eight that it has beside its own.
    #[inline(always)]
    pub(crate) fn half(self) -> Ymm {
        Ymm(())
    }
}

#[cfg(target_arch = "x86_64")]
impl Ymm {
    /// The vectors of four that it has beside its own.
    #[inline(always)]
    pub(crate) fn half(self) -> Xmm {
        Xmm(())
    }
}

/// Four numbers of 16 bits as integers of 32.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn widen_four(four: i64) -> __m128i {
    _mm_cvtepu16_epi32(_mm_cvtsi64_si128(four))
}

/// Four bytes as integers of 32 bits.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn signed_four(four: i32) -> __m128i {
    _mm_cvtepi8_epi32(_mm_cvtsi32_si128(four))
}

/// Eight bytes as integers of 32 bits.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn signed_eight(eight: i64) -> __m256i {
    _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(eight))
}

/// Four `f16` as `f32`.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "f16c")]
fn convert_four(four: i64) -> __m128 {
    _mm_cvtph_ps(_mm_cvtsi64_si128(four))
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

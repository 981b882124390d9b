//! Values in the places of their bits.

use super::value::Value;
use half::{bf16, f16};

/// Values that AVX2 can spread to the places of four bits.
pub trait Expand: Value {
    /// For each of 16 patterns of bits, which bytes of the values go where.
    #[cfg(target_arch = "x86_64")]
    const SPREAD: [[u8; 16]; 16];

    /// The values from `at` on, in the places of the bits that `spread` belongs to, zeros elsewhere.
    ///
    /// # Safety
    /// AVX2 and F16C run here, and 16 bytes can be read from `at`.
    #[cfg(target_arch = "x86_64")]
    unsafe fn expand(at: *const Self, spread: &[u8; 16]) -> std::arch::x86_64::__m128;

    /// The sixteen values from `at` on, zeros where the mask has none.
    ///
    /// # Safety
    /// AVX-512 F, VL and BW run here, and the values in the mask can be read.
    #[cfg(target_arch = "x86_64")]
    unsafe fn sixteen(at: *const Self, mask: u16) -> std::arch::x86_64::__m512;
}

/// Bytes `first..first + size` of each kept value move to the end of its `place` bytes wide place; the others are zeroed.
const fn spread(size: usize, place: usize) -> [[u8; 16]; 16] {
    let mut table = [[0x80u8; 16]; 16];
    let mut bits = 0;
    while bits < 16 {
        let (mut lane, mut value) = (0, 0);
        while lane < 4 {
            if bits >> lane & 1 == 1 {
                let mut byte = 0;
                while byte < size {
                    table[bits][lane * place + place - size + byte] = (value * size + byte) as u8;
                    byte += 1;
                }
                value += 1;
            }
            lane += 1;
        }
        bits += 1;
    }
    table
}

macro_rules! expand {
    ($value:ty, $size:literal, $place:literal, $load:ident as $from:ty, |$v:ident| $decode:expr, |$at:ident, $mask:ident| $sixteen:expr) => {
        impl Expand for $value {
            #[cfg(target_arch = "x86_64")]
            const SPREAD: [[u8; 16]; 16] = spread($size, $place);

            #[cfg(target_arch = "x86_64")]
            #[inline(always)]
            unsafe fn expand(at: *const Self, spread: &[u8; 16]) -> std::arch::x86_64::__m128 {
                use std::arch::x86_64::*;
                // SAFETY: the caller vouches for the instructions and the memory.
                unsafe {
                    let $v = _mm_shuffle_epi8($load(at as *const $from), _mm_loadu_si128(spread.as_ptr().cast()));
                    $decode
                }
            }

            #[cfg(target_arch = "x86_64")]
            #[inline(always)]
            unsafe fn sixteen($at: *const Self, $mask: u16) -> std::arch::x86_64::__m512 {
                use std::arch::x86_64::*;
                // SAFETY: the caller vouches for the instructions and the memory.
                unsafe { $sixteen }
            }
        }
    };
}

expand!(f32, 4, 4, _mm_loadu_si128 as __m128i, |v| _mm_castsi128_ps(v), |at, mask| _mm512_maskz_loadu_ps(mask, at));
expand!(bf16, 2, 4, _mm_loadl_epi64 as __m128i, |v| _mm_castsi128_ps(v), |at, mask| {
    let wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at.cast()));
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
});
expand!(f16, 2, 2, _mm_loadl_epi64 as __m128i, |v| _mm_cvtph_ps(v), |at, mask| _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(
    mask,
    at.cast()
)));
expand!(i8, 1, 4, _mm_loadu_si32 as u8, |v| _mm_cvtepi32_ps(_mm_srai_epi32::<24>(v)), |at, mask| {
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, at.cast())))
});

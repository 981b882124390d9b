//! Values in the places of their bits.

#[cfg(target_arch = "x86_64")]
use super::lanes::{Ymm, Zmm};
use super::value::Value;
use half::{bf16, f16};

/// Values that meet the numbers whose bits are set, without a branch for each.
pub trait Expand: Value {
    /// The values from `at` on where `places` has a sign, zeros elsewhere.
    ///
    /// # Safety
    /// Eight values can be read from `at`.
    #[cfg(target_arch = "x86_64")]
    unsafe fn eight(_: Ymm, at: *const Self, places: std::arch::x86_64::__m256i) -> std::arch::x86_64::__m256;

    /// The sixteen values from `at` on, zeros where the mask has none.
    ///
    /// # Safety
    /// The values in the mask can be read.
    #[cfg(target_arch = "x86_64")]
    unsafe fn sixteen(_: Zmm, at: *const Self, mask: u16) -> std::arch::x86_64::__m512;
}

/// Values that follow the last one of a storage and mean nothing.
pub(crate) const SLACK: usize = 16;

#[cfg(target_arch = "x86_64")]
#[repr(align(32))]
struct Places([[u32; 8]; 256]);

/// For each pattern of eight bits the places of its ones, from the lowest, each with the sign set; zeros behind them. One load tells
/// which eight numbers of x to bring together, and how many values belong to them. A fourth of a first cache of 32 KiB: bytes in
/// its place would take one more instruction at each step.
#[cfg(target_arch = "x86_64")]
static PLACES: Places = {
    let mut table = [[0; 8]; 256];
    let mut bits = 0;
    while bits < 256 {
        let (mut place, mut n) = (0, 0);
        while place < 8 {
            if bits >> place & 1 == 1 {
                table[bits][n] = 1 << 31 | place as u32;
                n += 1;
            }
            place += 1;
        }
        bits += 1;
    }
    Places(table)
};

/// Where the ones of eight bits stand.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn places(bits: u8) -> std::arch::x86_64::__m256i {
    let line = &PLACES.0[usize::from(bits)];
    // SAFETY: eight numbers, aligned as the table is.
    unsafe { std::arch::x86_64::_mm256_load_si256(line.as_ptr().cast()) }
}

/// The part of x that a word meets: 64 numbers or more, zeros beyond the last column.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn part<'a>(x: &'a [f32], start: usize, padded: &'a mut [f32; 64]) -> &'a [f32] {
    let rest = &x[start..];
    if rest.len() >= 64 {
        return rest;
    }
    padded[..rest.len()].copy_from_slice(rest);
    padded[rest.len()..].fill(0.0);
    padded
}

macro_rules! expand {
    ($value:ty, |$from:ident, $places:ident| $eight:expr, |$at:ident, $mask:ident| $sixteen:expr) => {
        impl Expand for $value {
            #[cfg(target_arch = "x86_64")]
            #[inline(always)]
            unsafe fn eight(_: Ymm, $from: *const Self, $places: std::arch::x86_64::__m256i) -> std::arch::x86_64::__m256 {
                use std::arch::x86_64::*;
                // SAFETY: `Ymm` has the instructions, none of which reads more than eight values.
                unsafe { $eight }
            }

            #[cfg(target_arch = "x86_64")]
            #[inline(always)]
            unsafe fn sixteen(_: Zmm, $at: *const Self, $mask: u16) -> std::arch::x86_64::__m512 {
                use std::arch::x86_64::*;
                // SAFETY: `Zmm` has the instructions; a masked load reads what is in the mask alone.
                unsafe { $sixteen }
            }
        }
    };
}

/// Numbers of 32 bits where places have a sign.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn signed(v: std::arch::x86_64::__m256i, places: std::arch::x86_64::__m256i) -> std::arch::x86_64::__m256i {
    use std::arch::x86_64::*;
    _mm256_and_si256(v, _mm256_srai_epi32::<31>(places))
}

expand!(f32, |at, places| _mm256_maskload_ps(at, places), |at, mask| _mm512_maskz_loadu_ps(mask, at));
expand!(
    bf16,
    |at, places| {
        let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
        _mm256_castsi256_ps(signed(_mm256_slli_epi32::<16>(wide), places))
    },
    |at, mask| {
        let wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    }
);
expand!(
    f16,
    |at, places| {
        let wide = _mm256_cvtph_ps(_mm_loadu_si128(at.cast()));
        _mm256_castsi256_ps(signed(_mm256_castps_si256(wide), places))
    },
    |at, mask| _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, at.cast()))
);
expand!(i8, |at, places| _mm256_cvtepi32_ps(signed(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast())), places)), |at, mask| {
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, at.cast())))
});

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn places_name_the_ones_of_every_byte_in_order() {
        for bits in 0..256usize {
            let ones: Vec<u32> = (0..8).filter(|i| bits >> i & 1 == 1).collect();
            for (n, &place) in PLACES.0[bits].iter().enumerate() {
                assert_eq!(place, ones.get(n).map_or(0, |i| 1 << 31 | i), "{bits:08b}");
            }
        }
    }
}

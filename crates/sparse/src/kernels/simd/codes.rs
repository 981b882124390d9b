//! Products of codes of four and eight bits, four or two of a lane at a time.

use super::lanes::{Portable, Simd};
#[cfg(target_arch = "x86_64")]
use super::lanes::{Vbmi, Vnni, Ymm, Zmm};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// What an instruction set does with codes: `LANES` lanes of 32 bits, each of which holds eight half bytes, four bytes or two words.
pub(crate) trait Codes: Simd {
    type I: Copy;

    /// Zeros.
    fn none(self) -> Self::I;
    /// # Safety
    /// `4 · LANES` bytes can be read; they need no alignment.
    unsafe fn line(self, from: *const u8) -> Self::I;
    /// The same four bytes in each lane.
    ///
    /// # Safety
    /// They can be read; they need no alignment.
    unsafe fn four(self, from: *const u8) -> Self::I;
    /// The lower halves of bytes.
    fn low(self, v: Self::I) -> Self::I;
    /// The upper halves of bytes.
    fn high(self, v: Self::I) -> Self::I;
    /// Adds the products of four bytes of each lane, the first of 0 to 15, the others signed: eight times at most, before [`Codes::closed`].
    fn add_bytes(self, sums: Self::I, codes: Self::I, x: Self::I) -> Self::I;
    /// The sums of [`Codes::add_bytes`] as numbers of 32 bits, each with `more` added.
    fn closed(self, sums: Self::I, more: i32) -> Self::I;
    /// Bytes 0 and 2 of each lane as signed words.
    fn even(self, v: Self::I) -> Self::I;
    /// Bytes 1 and 3 of each lane as signed words.
    fn odd(self, v: Self::I) -> Self::I;
    /// Adds the products of two signed words of each lane, in 32 bits.
    fn add_words(self, sums: Self::I, codes: Self::I, x: Self::I) -> Self::I;
    /// Numbers of 32 bits.
    fn float(self, v: Self::I) -> Self::V;
    /// `v` in all bytes.
    fn bytes(self, v: u8) -> Self::I;
    /// The same four bytes in each lane.
    fn lanes(self, v: u32) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    /// Lanes shifted to the right by so many bits.
    fn right(self, v: Self::I, bits: u32) -> Self::I;
    /// Sixteen bytes, again in each 128 bits.
    ///
    /// # Safety
    /// They can be read; they need no alignment.
    unsafe fn window(self, from: *const u8) -> Self::I;
    /// The bytes of a window that are named, each by a byte of 0 to 15.
    fn pick(self, window: Self::I, places: Self::I) -> Self::I;
    /// The places, 0 to 7 in rising order, of the four bits that the lowest byte of each lane has.
    fn places(self, masks: Self::I) -> Self::I;
    /// `v` in the lanes whose byte `at` is `place`, `other` in the rest.
    fn where_is(self, places: Self::I, at: usize, place: u8, v: Self::V, other: Self::V) -> Self::V;
    /// Half byte `at` of each lane, of eight.
    fn half_byte(self, v: Self::I, at: usize) -> Self::V;
    /// Byte `at` of each lane, signed.
    fn byte(self, v: Self::I, at: usize) -> Self::V;
}

impl<const N: usize> Codes for Portable<N> {
    type I = [u32; N];

    #[inline(always)]
    fn none(self) -> [u32; N] {
        [0; N]
    }

    #[inline(always)]
    unsafe fn line(self, from: *const u8) -> [u32; N] {
        // SAFETY: as many bytes as the caller vouches for.
        unsafe { from.cast::<[u32; N]>().read_unaligned() }.map(u32::from_le)
    }

    #[inline(always)]
    unsafe fn four(self, from: *const u8) -> [u32; N] {
        // SAFETY: the caller vouches for four bytes.
        [u32::from_le(unsafe { from.cast::<u32>().read_unaligned() }); N]
    }

    #[inline(always)]
    fn low(self, v: [u32; N]) -> [u32; N] {
        v.map(|v| v & 0x0f0f_0f0f)
    }

    #[inline(always)]
    fn high(self, v: [u32; N]) -> [u32; N] {
        v.map(|v| v >> 4 & 0x0f0f_0f0f)
    }

    #[inline(always)]
    fn add_bytes(self, sums: [u32; N], codes: [u32; N], x: [u32; N]) -> [u32; N] {
        let product = |i: usize, b: usize| (codes[i] >> (8 * b) & 255) as i32 * i32::from((x[i] >> (8 * b)) as i8);
        std::array::from_fn(|i| (0..4).fold(sums[i], |sum, b| sum.wrapping_add_signed(product(i, b))))
    }

    #[inline(always)]
    fn closed(self, sums: [u32; N], more: i32) -> [u32; N] {
        sums.map(|sum| sum.wrapping_add_signed(more))
    }

    #[inline(always)]
    fn even(self, v: [u32; N]) -> [u32; N] {
        v.map(|v| u32::from(i16::from(v as i8) as u16) | u32::from(i16::from((v >> 16) as i8) as u16) << 16)
    }

    #[inline(always)]
    fn odd(self, v: [u32; N]) -> [u32; N] {
        self.even(v.map(|v| v >> 8))
    }

    #[inline(always)]
    fn add_words(self, sums: [u32; N], codes: [u32; N], x: [u32; N]) -> [u32; N] {
        let word = |v: u32, at: usize| i32::from((v >> (16 * at)) as i16);
        let product = |i: usize, at: usize| word(codes[i], at) * word(x[i], at);
        std::array::from_fn(|i| (0..2).fold(sums[i], |sum, at| sum.wrapping_add_signed(product(i, at))))
    }

    #[inline(always)]
    fn bytes(self, v: u8) -> [u32; N] {
        [u32::from_le_bytes([v; 4]); N]
    }

    #[inline(always)]
    fn lanes(self, v: u32) -> [u32; N] {
        [v; N]
    }

    #[inline(always)]
    fn or(self, a: [u32; N], b: [u32; N]) -> [u32; N] {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn and(self, a: [u32; N], b: [u32; N]) -> [u32; N] {
        std::array::from_fn(|i| a[i] & b[i])
    }

    #[inline(always)]
    fn right(self, v: [u32; N], bits: u32) -> [u32; N] {
        v.map(|v| v >> bits)
    }

    #[inline(always)]
    unsafe fn window(self, from: *const u8) -> [u32; N] {
        // SAFETY: the caller vouches for sixteen bytes.
        let four = unsafe { from.cast::<[u32; 4]>().read_unaligned() };
        std::array::from_fn(|i| u32::from_le(four[i % 4]))
    }

    #[inline(always)]
    fn pick(self, window: [u32; N], places: [u32; N]) -> [u32; N] {
        places.map(|places| {
            let byte = |b: u32| {
                let place = places >> (8 * b) & 15;
                (window[place as usize / 4] >> (8 * (place % 4)) & 255) << (8 * b)
            };
            byte(0) | byte(1) | byte(2) | byte(3)
        })
    }

    #[inline(always)]
    fn places(self, masks: [u32; N]) -> [u32; N] {
        masks.map(|mask| FIRST[mask as usize & 15] | SECOND[mask as usize >> 4 & 15])
    }

    #[inline(always)]
    fn where_is(self, places: [u32; N], at: usize, place: u8, v: [f32; N], other: [f32; N]) -> [f32; N] {
        std::array::from_fn(|i| if places[i] >> (8 * at) & 255 == u32::from(place) { v[i] } else { other[i] })
    }

    #[inline(always)]
    fn float(self, v: [u32; N]) -> [f32; N] {
        v.map(|v| v as i32 as f32)
    }

    #[inline(always)]
    fn half_byte(self, v: [u32; N], at: usize) -> [f32; N] {
        v.map(|v| (v >> (4 * at) & 15) as f32)
    }

    #[inline(always)]
    fn byte(self, v: [u32; N], at: usize) -> [f32; N] {
        v.map(|v| f32::from((v >> (8 * at)) as i8))
    }
}

/// The places of the bits of a half byte, from the first byte on.
static FIRST: [u32; 16] = places_of(0, false);
/// The places of the bits of the half byte above it, which end with the last byte.
static SECOND: [u32; 16] = places_of(4, true);

const fn places_of(first: u32, at_end: bool) -> [u32; 16] {
    let mut all = [0; 16];
    let mut mask = 0;
    while mask < 16 {
        let mut byte = if at_end { 4 - (mask as u32).count_ones() } else { 0 };
        let mut bit = 0;
        while bit < 4 {
            if mask >> bit & 1 == 1 {
                all[mask] |= (first + bit) << (8 * byte);
                byte += 1;
            }
            bit += 1;
        }
        mask += 1;
    }
    all
}

/// What the sets of x86-64 have in common.
#[cfg(target_arch = "x86_64")]
macro_rules! x86 {
    ($set:ident, $v:ident, $none:ident, $load:ident, $splat:ident, $splat8:ident, $and:ident, $srli16:ident, $slli16:ident, $srai16:ident, $srlv:ident,
     $sllv:ident, $srav:ident, $float:ident, $or:ident, $window:ident, $pick:ident; $($rest:tt)*) => {
        impl Codes for $set {
            type I = $v;

            #[inline(always)]
            fn none(self) -> $v {
                // SAFETY: who has `self` runs where its instructions do; so in all that follow.
                unsafe { $none() }
            }

            #[inline(always)]
            unsafe fn line(self, from: *const u8) -> $v {
                // SAFETY: the caller vouches for the bytes.
                unsafe { $load(from.cast()) }
            }

            #[inline(always)]
            unsafe fn four(self, from: *const u8) -> $v {
                // SAFETY: the caller vouches for the bytes.
                unsafe { $splat(from.cast::<i32>().read_unaligned()) }
            }

            #[inline(always)]
            fn low(self, v: $v) -> $v {
                // SAFETY: as above.
                unsafe { $and(v, $splat8(15)) }
            }

            #[inline(always)]
            fn high(self, v: $v) -> $v {
                // SAFETY: as above.
                unsafe { $and($srli16::<4>(v), $splat8(15)) }
            }

            #[inline(always)]
            fn even(self, v: $v) -> $v {
                // SAFETY: as above.
                unsafe { $srai16::<8>($slli16::<8>(v)) }
            }

            #[inline(always)]
            fn odd(self, v: $v) -> $v {
                // SAFETY: as above.
                unsafe { $srai16::<8>(v) }
            }

            #[inline(always)]
            fn bytes(self, v: u8) -> $v {
                // SAFETY: as above.
                unsafe { $splat8(v.cast_signed()) }
            }

            #[inline(always)]
            fn lanes(self, v: u32) -> $v {
                // SAFETY: as above.
                unsafe { $splat(v.cast_signed()) }
            }

            #[inline(always)]
            fn or(self, a: $v, b: $v) -> $v {
                // SAFETY: as above.
                unsafe { $or(a, b) }
            }

            #[inline(always)]
            fn and(self, a: $v, b: $v) -> $v {
                // SAFETY: as above.
                unsafe { $and(a, b) }
            }

            #[inline(always)]
            fn right(self, v: $v, bits: u32) -> $v {
                // SAFETY: as above.
                unsafe { $srlv(v, $splat(bits.cast_signed())) }
            }

            #[inline(always)]
            unsafe fn window(self, from: *const u8) -> $v {
                // SAFETY: the caller vouches for the bytes.
                unsafe { $window(from.cast::<__m128i>().read_unaligned()) }
            }

            #[inline(always)]
            fn pick(self, window: $v, places: $v) -> $v {
                // SAFETY: as above.
                unsafe { $pick(window, places) }
            }

            #[inline(always)]
            fn float(self, v: $v) -> Self::V {
                // SAFETY: as above.
                unsafe { $float(v) }
            }

            #[inline(always)]
            fn half_byte(self, v: $v, at: usize) -> Self::V {
                // SAFETY: as above.
                unsafe { $float($and($srlv(v, $splat(4 * at as i32)), $splat(15))) }
            }

            #[inline(always)]
            fn byte(self, v: $v, at: usize) -> Self::V {
                // SAFETY: as above.
                unsafe { $float($srav($sllv(v, $splat(24 - 8 * at as i32)), $splat(24))) }
            }

            $($rest)*
        }
    };
}

/// Sums in 16 bits, which eight products of pairs do not leave: 8 · 2 · 15 · 128 < 2¹⁵.
#[cfg(target_arch = "x86_64")]
macro_rules! in_words {
    ($v:ident, $maddubs:ident, $add16:ident, $madd:ident, $add32:ident, $splat16:ident, $splat32:ident) => {
        #[inline(always)]
        fn add_bytes(self, sums: $v, codes: $v, x: $v) -> $v {
            // SAFETY: as above.
            unsafe { $add16(sums, $maddubs(codes, x)) }
        }

        #[inline(always)]
        fn closed(self, sums: $v, more: i32) -> $v {
            // SAFETY: as above.
            unsafe { $add32($madd(sums, $splat16(1)), $splat32(more)) }
        }

        #[inline(always)]
        fn add_words(self, sums: $v, codes: $v, x: $v) -> $v {
            // SAFETY: as above.
            unsafe { $add32(sums, $madd(codes, x)) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
x86!(
    Ymm, __m256i, _mm256_setzero_si256, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_set1_epi8, _mm256_and_si256, _mm256_srli_epi16,
    _mm256_slli_epi16, _mm256_srai_epi16, _mm256_srlv_epi32, _mm256_sllv_epi32, _mm256_srav_epi32, _mm256_cvtepi32_ps,
    _mm256_or_si256, _mm256_broadcastsi128_si256, _mm256_shuffle_epi8;

    #[inline(always)]
    fn where_is(self, places: __m256i, at: usize, place: u8, v: __m256, other: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let byte = _mm256_and_si256(_mm256_srlv_epi32(places, _mm256_set1_epi32(8 * at as i32)), _mm256_set1_epi32(255));
            _mm256_blendv_ps(other, v, _mm256_castsi256_ps(_mm256_cmpeq_epi32(byte, _mm256_set1_epi32(i32::from(place)))))
        }
    }

    #[inline(always)]
    fn places(self, masks: __m256i) -> __m256i {
        // SAFETY: as above; a permutation of eight numbers looks at the three lowest bits of a place, and a choice at the sign. No closures: what is
        // called in them would not become part of them, as they know less of the machine than this function.
        unsafe {
            let upper = _mm256_srli_epi32::<4>(masks);
            let first = [
                _mm256_permutevar8x32_ps(_mm256_loadu_ps(FIRST.as_ptr().cast()), masks),
                _mm256_permutevar8x32_ps(_mm256_loadu_ps(FIRST.as_ptr().add(8).cast()), masks),
            ];
            let second = [
                _mm256_permutevar8x32_ps(_mm256_loadu_ps(SECOND.as_ptr().cast()), upper),
                _mm256_permutevar8x32_ps(_mm256_loadu_ps(SECOND.as_ptr().add(8).cast()), upper),
            ];
            let first = _mm256_blendv_ps(first[0], first[1], _mm256_castsi256_ps(_mm256_slli_epi32::<28>(masks)));
            let second = _mm256_blendv_ps(second[0], second[1], _mm256_castsi256_ps(_mm256_slli_epi32::<28>(upper)));
            _mm256_castps_si256(_mm256_or_ps(first, second))
        }
    }

    in_words!(__m256i, _mm256_maddubs_epi16, _mm256_add_epi16, _mm256_madd_epi16, _mm256_add_epi32, _mm256_set1_epi16, _mm256_set1_epi32);
);

/// What sets of sixteen lanes have in common.
#[cfg(target_arch = "x86_64")]
macro_rules! sixteen {
    ($set:ident; $($rest:tt)*) => {
        x86!(
            $set, __m512i, _mm512_setzero_si512, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_set1_epi8, _mm512_and_si512, _mm512_srli_epi16,
            _mm512_slli_epi16, _mm512_srai_epi16, _mm512_srlv_epi32, _mm512_sllv_epi32, _mm512_srav_epi32, _mm512_cvtepi32_ps,
            _mm512_or_si512, _mm512_broadcast_i32x4, _mm512_shuffle_epi8;

            #[inline(always)]
            fn where_is(self, places: __m512i, at: usize, place: u8, v: __m512, other: __m512) -> __m512 {
                // SAFETY: as above.
                unsafe { where_of_sixteen(places, 8 * at as i32, place, v, other) }
            }

            #[inline(always)]
            fn places(self, masks: __m512i) -> __m512i {
                // SAFETY: as above.
                unsafe { places_of_sixteen(masks) }
            }

            $($rest)*
        );
    };
}

/// Products of bytes added in 32 bits.
#[cfg(target_arch = "x86_64")]
macro_rules! in_lanes {
    () => {
        #[inline(always)]
        fn add_bytes(self, sums: __m512i, codes: __m512i, x: __m512i) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_dpbusd_epi32(sums, codes, x) }
        }

        #[inline(always)]
        fn closed(self, sums: __m512i, more: i32) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_add_epi32(sums, _mm512_set1_epi32(more)) }
        }

        #[inline(always)]
        fn add_words(self, sums: __m512i, codes: __m512i, x: __m512i) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_dpwssd_epi32(sums, codes, x) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
sixteen!(
    Zmm;
    in_words!(__m512i, _mm512_maddubs_epi16, _mm512_add_epi16, _mm512_madd_epi16, _mm512_add_epi32, _mm512_set1_epi16, _mm512_set1_epi32);
);
#[cfg(target_arch = "x86_64")]
sixteen!(Vnni; in_lanes!(););
#[cfg(target_arch = "x86_64")]
sixteen!(Vbmi; in_lanes!(););

/// As [`Codes::places`]: a permutation of sixteen numbers looks at the four lowest bits of a place.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn places_of_sixteen(masks: __m512i) -> __m512i {
    // SAFETY: each table has sixteen numbers.
    let [first, second] = unsafe { [_mm512_loadu_si512(FIRST.as_ptr().cast()), _mm512_loadu_si512(SECOND.as_ptr().cast())] };
    let (first, second) =
        (_mm512_permutexvar_epi32(masks, first), _mm512_permutexvar_epi32(_mm512_srli_epi32::<4>(masks), second));
    _mm512_or_si512(first, second)
}

/// As [`Codes::where_is`], of the byte that begins with a bit.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn where_of_sixteen(places: __m512i, bit: i32, place: u8, v: __m512, other: __m512) -> __m512 {
    let byte = _mm512_and_si512(_mm512_srlv_epi32(places, _mm512_set1_epi32(bit)), _mm512_set1_epi32(255));
    _mm512_mask_mov_ps(other, _mm512_cmpeq_epi32_mask(byte, _mm512_set1_epi32(i32::from(place))), v)
}

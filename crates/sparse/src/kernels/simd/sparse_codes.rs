//! What products of codes at a mask need beside those of whole weights: codes spread over the columns of a mask, numbers picked out of windows.

use super::codes::Codes;
use super::lanes::Portable;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Vbmi, Vnni, Ymm, Zmm};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Bytes that [`SparseCodes::near`] may read from where a window begins on.
pub(crate) const NEAR: usize = 64;

/// What an instruction set does with codes at a mask.
pub(crate) trait SparseCodes: Codes {
    /// What [`SparseCodes::meet_signed`] adds for each 1 of x that is met, and has to be taken away.
    const SIGNED_ZERO: i32;
    /// How often [`Codes::add_bytes`] may be called before [`Codes::closed`].
    const OFTEN: usize;

    /// Half bytes as bytes, the lower one of each byte first.
    ///
    /// # Safety
    /// `2 · LANES` bytes can be read; they need no alignment.
    unsafe fn spread(self, from: *const u8) -> Self::I;
    /// The codes of the columns of a mask of `4 · LANES`, a byte each, `fill` in the others; codes are half bytes, or bytes if `BYTES`.
    ///
    /// # Safety
    /// `4 · LANES + 8` bytes can be read, however few codes there are; they need no alignment.
    unsafe fn expand<const BYTES: bool>(self, from: *const u8, mask: u64, fill: u8) -> Self::I;
    /// The bytes of `v` at a mask, zeros elsewhere.
    fn at_mask(self, mask: u64, v: Self::I) -> Self::I;
    /// Bytes of x: byte `i` of each lane is that `base[i]` and its place of 0 to 15 behind `from`. `bases` has the same four bytes in each lane.
    /// Eight rows side by side ask for the same base in bytes 0 and 1, and in 2 and 3.
    ///
    /// # Safety
    /// [`NEAR`] bytes can be read from `from`; a base is at most 16.
    unsafe fn near(self, from: *const u8, base: [u8; 4], bases: Self::I, places: Self::I) -> Self::I;
    /// `v` but where a place is 15, which is none: there 0.
    fn but_none(self, places: Self::I, v: Self::I) -> Self::I;
    /// Adds the products of four signed bytes of each lane with those of x, and [`SparseCodes::SIGNED_ZERO`] times those of x.
    fn meet_signed(self, sums: Self::I, codes: Self::I, x: Self::I) -> Self::I;
    /// `a + b`, numbers of 32 bits.
    fn plus(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a − times · b`, numbers of 32 bits.
    fn minus(self, a: Self::I, times: i32, b: Self::I) -> Self::I;
    /// `a − b · c`, numbers of 32 bits.
    fn minus_product(self, a: Self::I, b: Self::I, c: Self::I) -> Self::I;
    /// `LANES` signed bytes as numbers of 32 bits.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn signed(self, from: *const i8) -> Self::I;
    /// The first half of the lanes of `a`, then the second half of those of `b`.
    fn halves(self, a: Self::V, b: Self::V) -> Self::V;
}

/// Codes at a mask, by whole words of the processor: eight columns at a time.
#[inline(always)]
fn expanded<const BYTES: bool>(codes: impl Fn(usize) -> u8, mask: u64, fill: u8) -> [u8; 64] {
    let mut all = [fill; 64];
    let mut next = 0;
    for (column, to) in all.iter_mut().enumerate() {
        if mask >> column & 1 == 1 {
            *to = match BYTES {
                true => codes(next),
                false => codes(next / 2) >> (4 * (next % 2)) & 15,
            };
            next += 1;
        }
    }
    all
}

impl<const N: usize> SparseCodes for Portable<N> {
    const SIGNED_ZERO: i32 = 0;
    const OFTEN: usize = 8;

    #[inline(always)]
    unsafe fn spread(self, from: *const u8) -> [u32; N] {
        std::array::from_fn(|lane| {
            // SAFETY: the caller vouches for two bytes a lane.
            let [a, b] = unsafe { from.add(2 * lane).cast::<[u8; 2]>().read() };
            u32::from_le_bytes([a & 15, a >> 4, b & 15, b >> 4])
        })
    }

    #[inline(always)]
    unsafe fn expand<const BYTES: bool>(self, from: *const u8, mask: u64, fill: u8) -> [u32; N] {
        // SAFETY: there are no more codes than columns, for which the caller vouches.
        let all = expanded::<BYTES>(|at| unsafe { *from.add(at) }, mask, fill);
        std::array::from_fn(|lane| u32::from_le_bytes(std::array::from_fn(|i| all[4 * lane + i])))
    }

    #[inline(always)]
    fn at_mask(self, mask: u64, v: [u32; N]) -> [u32; N] {
        std::array::from_fn(|lane| {
            let bits = (mask >> (4 * lane)) as u32;
            v[lane] & (0..4).fold(0, |bytes, i| bytes | ((bits >> i & 1) * 255) << (8 * i))
        })
    }

    #[inline(always)]
    unsafe fn near(self, from: *const u8, base: [u8; 4], _: [u32; N], places: [u32; N]) -> [u32; N] {
        places.map(|places| {
            let at = |i: usize| usize::from(base[i]) + usize::from(places.to_le_bytes()[i] & 15);
            // SAFETY: the caller vouches for more than the 32 bytes of which these are.
            u32::from_le_bytes(std::array::from_fn(|i| unsafe { *from.add(at(i)) }))
        })
    }

    #[inline(always)]
    fn but_none(self, places: [u32; N], v: [u32; N]) -> [u32; N] {
        let byte = |place: u8, v: u8| if place == 15 { 0 } else { v };
        std::array::from_fn(|lane| {
            let (places, v) = (places[lane].to_le_bytes(), v[lane].to_le_bytes());
            u32::from_le_bytes(std::array::from_fn(|i| byte(places[i], v[i])))
        })
    }

    #[inline(always)]
    fn meet_signed(self, sums: [u32; N], codes: [u32; N], x: [u32; N]) -> [u32; N] {
        let product = |i: usize, b: usize| i32::from((codes[i] >> (8 * b)) as i8) * i32::from((x[i] >> (8 * b)) as i8);
        std::array::from_fn(|i| (0..4).fold(sums[i], |sum, b| sum.wrapping_add_signed(product(i, b))))
    }

    #[inline(always)]
    fn plus(self, a: [u32; N], b: [u32; N]) -> [u32; N] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn minus(self, a: [u32; N], times: i32, b: [u32; N]) -> [u32; N] {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i].wrapping_mul(times.cast_unsigned())))
    }

    #[inline(always)]
    fn minus_product(self, a: [u32; N], b: [u32; N], c: [u32; N]) -> [u32; N] {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i].wrapping_mul(c[i])))
    }

    #[inline(always)]
    unsafe fn signed(self, from: *const i8) -> [u32; N] {
        // SAFETY: the caller vouches for the bytes.
        unsafe { from.cast::<[i8; N]>().read() }.map(|byte| i32::from(byte).cast_unsigned())
    }

    #[inline(always)]
    fn halves(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        std::array::from_fn(|i| if i < N / 2 { a[i] } else { b[i] })
    }
}

/// Codes of eight columns, by a deposit of bits.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "bmi1,bmi2,popcnt,avx2")]
fn eight<const BYTES: bool>(from: u64, mask: u8, fill: u8) -> u64 {
    let at = _pdep_u64(u64::from(mask), 0x0101_0101_0101_0101) * 255;
    let codes = match BYTES {
        true => _pdep_u64(from, at),
        false => _pdep_u64(from, at & 0x0f0f_0f0f_0f0f_0f0f),
    };
    codes | (!at & u64::from_le_bytes([fill; 8]))
}

/// As [`SparseCodes::expand`], to so many bytes.
///
/// # Safety
/// As there.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "bmi1,bmi2,popcnt,avx2")]
unsafe fn by_bits<const BYTES: bool, const N: usize>(from: *const u8, mask: u64, fill: u8) -> [u64; N] {
    let mut all = [0; N];
    let mut next = 0;
    for (i, to) in all.iter_mut().enumerate() {
        let mask = (mask >> (8 * i)) as u8;
        // SAFETY: the first of the codes of these columns lies at most `8 · i` bytes behind the first of all; so eight bytes more can be read.
        let word = unsafe { from.add(if BYTES { next } else { next / 2 }).cast::<u64>().read_unaligned() };
        *to = eight::<BYTES>(if BYTES { word } else { word >> (4 * (next % 2)) }, mask, fill);
        next += mask.count_ones() as usize;
    }
    all
}

/// The bytes of a mask, 255 where it has a bit.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "bmi1,bmi2,popcnt,avx2")]
fn bytes_of<const N: usize>(mask: u64) -> [u64; N] {
    let mut all = [0; N];
    for (i, to) in all.iter_mut().enumerate() {
        *to = _pdep_u64(mask >> (8 * i) & 255, 0x0101_0101_0101_0101) * 255;
    }
    all
}

/// Sets of eight lanes.
#[cfg(target_arch = "x86_64")]
impl SparseCodes for Ymm {
    const SIGNED_ZERO: i32 = 0;
    const OFTEN: usize = 8;

    #[inline(always)]
    unsafe fn spread(self, from: *const u8) -> __m256i {
        // SAFETY: the caller vouches for sixteen bytes; who has `self` runs where its instructions do, so in all that follow.
        unsafe {
            let words = _mm256_cvtepu8_epi16(from.cast::<__m128i>().read_unaligned());
            _mm256_and_si256(_mm256_or_si256(words, _mm256_slli_epi16::<4>(words)), _mm256_set1_epi8(15))
        }
    }

    #[inline(always)]
    unsafe fn expand<const BYTES: bool>(self, from: *const u8, mask: u64, fill: u8) -> __m256i {
        // SAFETY: as promised by the caller.
        unsafe { _mm256_loadu_si256(by_bits::<BYTES, 4>(from, mask, fill).as_ptr().cast()) }
    }

    #[inline(always)]
    fn at_mask(self, mask: u64, v: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_and_si256(v, _mm256_loadu_si256(bytes_of::<4>(mask).as_ptr().cast())) }
    }

    #[inline(always)]
    unsafe fn near(self, from: *const u8, base: [u8; 4], _: __m256i, places: __m256i) -> __m256i {
        debug_assert!(base[0] == base[1] && base[2] == base[3], "{base:?}");
        // SAFETY: as promised by the caller: sixteen bytes from at most sixteen behind `from` on.
        unsafe {
            let first = _mm256_shuffle_epi8(self.window(from.add(usize::from(base[0]))), places);
            let second = _mm256_shuffle_epi8(self.window(from.add(usize::from(base[2]))), places);
            _mm256_blend_epi16::<0b1010_1010>(first, second)
        }
    }

    #[inline(always)]
    fn but_none(self, places: __m256i, v: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_andnot_si256(_mm256_cmpeq_epi8(places, _mm256_set1_epi8(15)), v) }
    }

    #[inline(always)]
    fn meet_signed(self, sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        self.add_words(self.add_words(sums, self.even(codes), self.even(x)), self.odd(codes), self.odd(x))
    }

    #[inline(always)]
    fn plus(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    fn minus(self, a: __m256i, times: i32, b: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_sub_epi32(a, _mm256_mullo_epi32(b, _mm256_set1_epi32(times))) }
    }

    #[inline(always)]
    fn minus_product(self, a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_sub_epi32(a, _mm256_mullo_epi32(b, c)) }
    }

    #[inline(always)]
    unsafe fn signed(self, from: *const i8) -> __m256i {
        // SAFETY: the caller vouches for eight bytes.
        unsafe { _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(from.cast::<i64>().read_unaligned())) }
    }

    #[inline(always)]
    fn halves(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_blend_ps::<0b1111_0000>(a, b) }
    }
}

/// What sets of sixteen lanes have in common.
#[cfg(target_arch = "x86_64")]
macro_rules! sixteen {
    ($set:ident, $signed_zero:literal; $($rest:tt)*) => {
        impl SparseCodes for $set {
            const SIGNED_ZERO: i32 = $signed_zero;
            // Sums of 32 bits take any number of products of bytes that columns have.
            const OFTEN: usize = if $signed_zero == 0 { 8 } else { usize::MAX };

            #[inline(always)]
            unsafe fn spread(self, from: *const u8) -> __m512i {
                // SAFETY: the caller vouches for 32 bytes; as above.
                unsafe {
                    let words = _mm512_cvtepu8_epi16(from.cast::<__m256i>().read_unaligned());
                    _mm512_and_si512(_mm512_or_si512(words, _mm512_slli_epi16::<4>(words)), _mm512_set1_epi8(15))
                }
            }

            #[inline(always)]
            fn at_mask(self, mask: u64, v: __m512i) -> __m512i {
                // SAFETY: as above.
                unsafe { _mm512_maskz_mov_epi8(mask, v) }
            }

            #[inline(always)]
            fn but_none(self, places: __m512i, v: __m512i) -> __m512i {
                // SAFETY: as above.
                unsafe { _mm512_maskz_mov_epi8(_mm512_cmpneq_epu8_mask(places, _mm512_set1_epi8(15)), v) }
            }

            #[inline(always)]
            fn plus(self, a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: as above.
                unsafe { _mm512_add_epi32(a, b) }
            }

            #[inline(always)]
            fn minus(self, a: __m512i, times: i32, b: __m512i) -> __m512i {
                // SAFETY: as above.
                unsafe { _mm512_sub_epi32(a, _mm512_mullo_epi32(b, _mm512_set1_epi32(times))) }
            }

            #[inline(always)]
            fn minus_product(self, a: __m512i, b: __m512i, c: __m512i) -> __m512i {
                // SAFETY: as above.
                unsafe { _mm512_sub_epi32(a, _mm512_mullo_epi32(b, c)) }
            }

            #[inline(always)]
            unsafe fn signed(self, from: *const i8) -> __m512i {
                // SAFETY: the caller vouches for sixteen bytes.
                unsafe { _mm512_cvtepi8_epi32(from.cast::<__m128i>().read_unaligned()) }
            }

            #[inline(always)]
            fn halves(self, a: __m512, b: __m512) -> __m512 {
                // SAFETY: as above.
                unsafe { _mm512_mask_mov_ps(a, 0xff00, b) }
            }

            $($rest)*
        }
    };
}

/// Windows by four shuffles within 128 bits, expansion by words of the processor.
#[cfg(target_arch = "x86_64")]
macro_rules! without_permutations {
    () => {
        #[inline(always)]
        unsafe fn expand<const BYTES: bool>(self, from: *const u8, mask: u64, fill: u8) -> __m512i {
            // SAFETY: as promised by the caller.
            unsafe { _mm512_loadu_si512(by_bits::<BYTES, 8>(from, mask, fill).as_ptr().cast()) }
        }

        #[inline(always)]
        unsafe fn near(self, from: *const u8, base: [u8; 4], _: __m512i, places: __m512i) -> __m512i {
            // SAFETY: as promised by the caller: sixteen bytes from at most sixteen behind `from` on.
            unsafe {
                let near = _mm512_shuffle_epi8(self.window(from.add(usize::from(base[0]))), places);
                let near =
                    _mm512_mask_shuffle_epi8(near, 0x2222_2222_2222_2222, self.window(from.add(usize::from(base[1]))), places);
                let near =
                    _mm512_mask_shuffle_epi8(near, 0x4444_4444_4444_4444, self.window(from.add(usize::from(base[2]))), places);
                _mm512_mask_shuffle_epi8(near, 0x8888_8888_8888_8888, self.window(from.add(usize::from(base[3]))), places)
            }
        }
    };
}

/// Signed bytes by unsigned ones.
#[cfg(target_arch = "x86_64")]
macro_rules! by_products_of_bytes {
    () => {
        #[inline(always)]
        fn meet_signed(self, sums: __m512i, codes: __m512i, x: __m512i) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_dpbusd_epi32(sums, _mm512_xor_si512(codes, _mm512_set1_epi8(-128)), x) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
sixteen!(
    Zmm, 0;

    without_permutations!();

    #[inline(always)]
    fn meet_signed(self, sums: __m512i, codes: __m512i, x: __m512i) -> __m512i {
        self.add_words(self.add_words(sums, self.even(codes), self.even(x)), self.odd(codes), self.odd(x))
    }
);

#[cfg(target_arch = "x86_64")]
sixteen!(
    Vnni, 128;

    without_permutations!();
    by_products_of_bytes!();
);

#[cfg(target_arch = "x86_64")]
sixteen!(
    Vbmi, 128;

    #[inline(always)]
    unsafe fn expand<const BYTES: bool>(self, from: *const u8, mask: u64, fill: u8) -> __m512i {
        // SAFETY: the caller vouches for 64 bytes; as above.
        unsafe {
            let codes = if BYTES { _mm512_loadu_si512(from.cast()) } else { self.spread(from) };
            _mm512_mask_expand_epi8(_mm512_set1_epi8(fill.cast_signed()), mask, codes)
        }
    }

    #[inline(always)]
    unsafe fn near(self, from: *const u8, _: [u8; 4], bases: __m512i, places: __m512i) -> __m512i {
        // SAFETY: the caller vouches for 64 bytes.
        unsafe { _mm512_permutexvar_epi8(_mm512_add_epi8(places, bases), _mm512_loadu_si512(from.cast())) }
    }

    by_products_of_bytes!();
);

//! Columns as storages name them.

#[cfg(target_arch = "x86_64")]
use super::lanes::Zmm;

/// A column within a tile.
pub(crate) trait Column: Copy + Send + Sync + 'static {
    fn index(self) -> usize;

    /// Four neighbours, read at once.
    fn four(columns: &[Self; 4]) -> [usize; 4];

    /// Sixteen neighbours as indices of 32 bits, zeros where the mask has none.
    ///
    /// # Safety
    /// The columns in the mask can be read.
    #[cfg(target_arch = "x86_64")]
    unsafe fn sixteen(_: Zmm, at: *const Self, mask: u16) -> std::arch::x86_64::__m512i;
}

impl Column for u8 {
    #[inline(always)]
    fn index(self) -> usize {
        usize::from(self)
    }

    #[inline(always)]
    fn four(columns: &[u8; 4]) -> [usize; 4] {
        let all = u32::from_le_bytes(*columns) as usize;
        [all & 0xff, all >> 8 & 0xff, all >> 16 & 0xff, all >> 24]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn sixteen(_: Zmm, at: *const u8, mask: u16) -> std::arch::x86_64::__m512i {
        use std::arch::x86_64::*;
        // SAFETY: `Zmm` has the instructions; a masked load reads what is in the mask alone.
        unsafe { _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, at.cast())) }
    }
}

impl Column for u16 {
    #[inline(always)]
    fn index(self) -> usize {
        usize::from(self)
    }

    #[inline(always)]
    fn four(columns: &[u16; 4]) -> [usize; 4] {
        let all = columns.iter().rev().fold(0u64, |all, &c| all << 16 | u64::from(c));
        [0, 16, 32, 48].map(|shift| (all >> shift & 0xffff) as usize)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn sixteen(_: Zmm, at: *const u16, mask: u16) -> std::arch::x86_64::__m512i {
        use std::arch::x86_64::*;
        // SAFETY: `Zmm` has the instructions; a masked load reads what is in the mask alone.
        unsafe { _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at.cast())) }
    }
}

impl Column for u32 {
    #[inline(always)]
    fn index(self) -> usize {
        self as usize
    }

    #[inline(always)]
    fn four(columns: &[u32; 4]) -> [usize; 4] {
        columns.map(|c| c as usize)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn sixteen(_: Zmm, at: *const u32, mask: u16) -> std::arch::x86_64::__m512i {
        use std::arch::x86_64::*;
        // SAFETY: `Zmm` has the instructions; a masked load reads what is in the mask alone.
        unsafe { _mm512_maskz_loadu_epi32(mask, at.cast()) }
    }
}

//! Whole weights as kernels of few tokens read them: plain numbers, or bytes with a scale for each group.

use super::simd::{Float, Simd};
use std::ops::Range;

/// Numbers one behind the other.
pub(crate) trait Numbers: Copy + Sync {
    /// How many.
    fn len(self) -> usize;

    /// Some of them. Where they are in groups, the range begins and ends with one.
    ///
    /// # Panics
    /// If there are not so many.
    fn part(self, range: Range<usize>) -> Self;

    /// Number `at`, widened.
    ///
    /// # Panics
    /// If there is none.
    fn get(self, at: usize) -> f32;

    /// All of them, widened.
    ///
    /// # Panics
    /// If `to` has not as many.
    fn widen(self, to: &mut [f32]);

    /// `LANES` of them from `at` on, widened.
    ///
    /// # Safety
    /// The instructions of `S` may run here, there are so many, and where they are in groups, `at` is a multiple of `LANES`.
    unsafe fn load<S: Simd>(self, at: usize) -> S::V;
}

impl<T: Float> Numbers for &[T] {
    fn len(self) -> usize {
        self.len()
    }

    fn part(self, range: Range<usize>) -> Self {
        &self[range]
    }

    #[inline(always)]
    fn get(self, at: usize) -> f32 {
        self[at].decode()
    }

    fn widen(self, to: &mut [f32]) {
        assert_eq!(self.len(), to.len(), "numbers and places");
        to.iter_mut().zip(self).for_each(|(to, v)| *to = v.decode());
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(self, at: usize) -> S::V {
        // SAFETY: as promised by the caller.
        unsafe { T::load::<S>(self.as_ptr().add(at)) }
    }
}

/// Numbers of a group that share a scale.
pub(crate) const GROUP: usize = 32;

/// Bytes with a scale for each [`GROUP`] of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grouped<'a> {
    values: &'a [i8],
    scales: &'a [f32],
}

impl<'a> Grouped<'a> {
    /// # Panics
    /// If there is not a scale for each group.
    pub fn new(values: &'a [i8], scales: &'a [f32]) -> Self {
        assert_eq!(values.len(), GROUP * scales.len(), "{GROUP} values a scale");
        Grouped { values, scales }
    }
}

impl Numbers for Grouped<'_> {
    fn len(self) -> usize {
        self.values.len()
    }

    fn part(self, range: Range<usize>) -> Self {
        let groups = range.start / GROUP..range.end / GROUP;
        Grouped::new(&self.values[range], &self.scales[groups])
    }

    #[inline(always)]
    fn get(self, at: usize) -> f32 {
        f32::from(self.values[at]) * self.scales[at / GROUP]
    }

    fn widen(self, to: &mut [f32]) {
        assert_eq!(self.values.len(), to.len(), "numbers and places");
        let groups = self.values.chunks_exact(GROUP).zip(self.scales);
        to.chunks_exact_mut(GROUP).zip(groups).for_each(|(to, (values, scale))| {
            to.iter_mut().zip(values).for_each(|(to, v)| *to = f32::from(*v) * scale);
        });
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(self, at: usize) -> S::V {
        // SAFETY: the caller vouches for the bytes; their group has a scale, and lanes divide a group.
        unsafe {
            let scale = S::splat(*self.scales.get_unchecked(at / GROUP));
            S::fma(S::load_i8(self.values.as_ptr().add(at)), scale, S::splat(0.0))
        }
    }
}

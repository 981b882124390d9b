//! Whole weights as dense kernels read them: numbers of 32 or 16 bits.

use crate::kernels::simd::{Float, Simd};
use std::ops::Range;

/// Numbers one behind the other.
pub(crate) trait Numbers: Copy + Sync {
    /// How many.
    fn len(self) -> usize;

    /// Some of them.
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

    /// All of them, if they are as wide as they are multiplied.
    fn plain(&self) -> Option<&[f32]> {
        None
    }

    /// `LANES` of them from `at` on, widened.
    ///
    /// # Safety
    /// `at + LANES` is not beyond their number.
    unsafe fn load<S: Simd>(self, s: S, at: usize) -> S::V;
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

    fn plain(&self) -> Option<&[f32]> {
        T::plain(self)
    }

    fn widen(self, to: &mut [f32]) {
        assert_eq!(self.len(), to.len(), "numbers and places");
        to.iter_mut().zip(self).for_each(|(to, v)| *to = v.decode());
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, at: usize) -> S::V {
        // SAFETY: the slice has the numbers up to `at + LANES`.
        unsafe { T::load(s, self.as_ptr().add(at)) }
    }
}

//! Whole weights as dense kernels read them: plain numbers, bytes with a scale for each group, or half bytes with a scale and an
//! offset.

use crate::kernels::simd::{Float, Simd};
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

    /// All of them, if they are as wide as they are multiplied.
    fn plain(&self) -> Option<&[f32]> {
        None
    }

    /// `LANES` of them from `at` on, widened. Where they are in groups, `at` is a multiple of `LANES`, or some get the scale of others.
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
    unsafe fn load<S: Simd>(self, s: S, at: usize) -> S::V {
        // SAFETY: there are as many bytes as numbers, and `new` asserted that the group of each has a scale.
        unsafe {
            let scale = s.splat(*self.scales.get_unchecked(at / GROUP));
            s.fma(s.load_i8(self.values.as_ptr().add(at)), scale, s.splat(0.0))
        }
    }
}

/// Half bytes, the lower one of a byte first, with a scale and an offset for each [`GROUP`] of them: `scale · q + offset`, where a scale has
/// so few bits that the product is exact.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HalfBytes<'a> {
    values: &'a [u8],
    lines: &'a [[f32; 2]],
}

impl<'a> HalfBytes<'a> {
    /// # Panics
    /// If there is not a scale and an offset for each group.
    pub fn new(values: &'a [u8], lines: &'a [[f32; 2]]) -> Self {
        assert_eq!(2 * values.len(), GROUP * lines.len(), "{GROUP} values a scale");
        HalfBytes { values, lines }
    }
}

impl Numbers for HalfBytes<'_> {
    fn len(self) -> usize {
        2 * self.values.len()
    }

    fn part(self, range: Range<usize>) -> Self {
        HalfBytes::new(&self.values[range.start / 2..range.end / 2], &self.lines[range.start / GROUP..range.end / GROUP])
    }

    #[inline(always)]
    fn get(self, at: usize) -> f32 {
        let [scale, offset] = self.lines[at / GROUP];
        scale * f32::from(self.values[at / 2] >> (4 * (at % 2)) & 15) + offset
    }

    fn widen(self, to: &mut [f32]) {
        assert_eq!(2 * self.values.len(), to.len(), "numbers and places");
        let groups = self.values.chunks_exact(GROUP / 2).zip(self.lines);
        to.chunks_exact_mut(GROUP).zip(groups).for_each(|(to, (values, [scale, offset]))| {
            to.chunks_exact_mut(2).zip(values).for_each(|(to, v)| {
                to[0] = scale * f32::from(v & 15) + offset;
                to[1] = scale * f32::from(v >> 4) + offset;
            });
        });
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, at: usize) -> S::V {
        // SAFETY: two numbers are a byte, and `new` asserted that the group of each has a line.
        unsafe {
            let [scale, offset] = *self.lines.get_unchecked(at / GROUP);
            s.fma(s.load_u4(self.values.as_ptr().add(at / 2)), s.splat(scale), s.splat(offset))
        }
    }
}

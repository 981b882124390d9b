//! Loops over the entries of arrays: over slices where they are slices, on all threads where they are many, inlined where they are used.

use ndarray::{ArrayRef, ArrayRef1, Dimension};
use rayon::prelude::*;

/// Entries of a parallel task, and from which on the pool is worth waking.
const TASK: usize = 1 << 15;

/// Sets each entry of `to` to `f(entry, those of the others)`, in parallel where there are many.
///
/// # Panics
/// If the shapes differ.
#[inline(always)]
pub(crate) fn for_entries<T: Copy + Send + Sync, D: Dimension, const N: usize>(
    to: &mut ArrayRef<T, D>,
    others: [&ArrayRef<T, D>; N],
    f: impl Fn(T, [T; N]) -> T + Sync,
) {
    for other in others {
        assert!(to.raw_dim() == other.raw_dim(), "entries of {:?} and of {:?}", to.shape(), other.shape());
    }
    let along = |to: &mut [T], others: [&[T]; N]| {
        for other in others {
            assert!(other.len() == to.len());
        }
        for (i, to) in to.iter_mut().enumerate() {
            let mut entries = [*to; N];
            for (entry, other) in entries.iter_mut().zip(&others) {
                *entry = other[i];
            }
            *to = f(*to, entries);
        }
    };
    let slices = others.map(|other| other.as_slice());
    if to.is_standard_layout() && slices.iter().all(Option::is_some) {
        let slices = slices.map(Option::unwrap_or_default);
        let Some(to) = to.as_slice_mut() else { unreachable!("standard layout is one slice") };
        if to.len() < 2 * TASK {
            along(to, slices);
        } else {
            to.par_chunks_mut(TASK).enumerate().for_each(|(i, to)| {
                let at = i * TASK..i * TASK + to.len();
                along(to, slices.map(|slice| &slice[at.clone()]));
            });
        }
    } else {
        let mut others = others.map(|other| other.iter());
        for to in to.iter_mut() {
            *to = f(*to, others.each_mut().map(|other| other.next().copied().unwrap_or(*to)));
        }
    }
}

/// The sum of the products of entries, in f64, in their order.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub(crate) fn dot_f64(a: &ArrayRef1<f32>, b: &ArrayRef1<f32>) -> f64 {
    assert_eq!(a.len(), b.len(), "a product of rows of different lengths");
    a.iter().zip(b).fold(0.0, |sum, (&a, &b)| sum + f64::from(a) * f64::from(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, s};

    #[test]
    fn entries_are_met_in_their_places_whatever_the_strides_and_on_several_threads() {
        for (rows, cols) in [(0, 3), (3, 5), (200, 301)] {
            let number = |scale: usize| move |(r, c): (usize, usize)| ((r * 31 + c * 7) * scale % 101) as f32;
            let (a, b) = (Array2::from_shape_fn((rows, cols), number(1)), Array2::from_shape_fn((rows, cols), number(3)));
            let right = Array2::from_shape_fn((rows, cols), |at| 2.0 * a[at] + b[at] * a[at]);
            let mut to = a.clone();
            for_entries(&mut to, [&a, &b], |to, [a, b]| to + a + b * a);
            assert_eq!(to, right);
            // Columns side by side, and every second row.
            let turned = b.t().to_owned();
            let mut wide = Array2::zeros((2 * rows, cols));
            let mut to = wide.slice_mut(s![..;2, ..]);
            to.assign(&a);
            for_entries(&mut to, [&a, &turned.t()], |to, [a, b]| to + a + b * a);
            assert_eq!(to, right);
        }
    }

    #[test]
    #[should_panic(expected = "entries of [2, 3] and of [3, 2]")]
    fn shapes_must_agree() {
        for_entries(&mut Array2::zeros((2, 3)), [&Array2::<f32>::zeros((3, 2))], |to, _| to);
    }
}

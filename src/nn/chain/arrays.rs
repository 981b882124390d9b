//! Arithmetic of whole arrays.

use crate::linalg::for_entries;
use ndarray::Array2;

/// `x∘x`.
pub(crate) fn square(x: &Array2<f32>) -> Array2<f32> {
    x.mapv(|x| x * x)
}

/// `a + b`, into `a`.
pub(crate) fn plus(mut a: Array2<f32>, b: &Array2<f32>) -> Array2<f32> {
    for_entries(&mut a, [b], |a, [b]| a + b);
    a
}

/// The entries of an array in standard layout.
///
/// # Panics
/// If it is not.
pub(crate) fn slice(x: &Array2<f32>) -> &[f32] {
    match x.as_slice() {
        Some(x) => x,
        None => panic!("activations are in standard layout"),
    }
}

/// As [`slice`].
pub(crate) fn slice_mut(x: &mut Array2<f32>) -> &mut [f32] {
    match x.as_slice_mut() {
        Some(x) => x,
        None => panic!("activations are in standard layout"),
    }
}

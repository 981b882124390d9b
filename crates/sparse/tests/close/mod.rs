//! Arrays of floats compared entry by entry, each within a bound of its own; what is said names the worst entry.

#![allow(dead_code)]

use approx::AbsDiffEq;
use ndarray::{ArrayRef, Dimension};
use std::fmt::{Debug, Display, LowerExp};

/// A float that is compared.
pub trait Number: AbsDiffEq<Epsilon = Self> + Copy + Display + LowerExp + Into<f64> {}

impl Number for f32 {}
impl Number for f64 {}

/// What is wrong with arrays whose entries are to be apart by at most `bound(place, expected)`, if anything is: shapes that differ, or the entry
/// that is furthest beyond its bound, a NaN before all others.
pub fn apart<T: Number, D: Dimension>(
    found: &ArrayRef<T, D>,
    expected: &ArrayRef<T, D>,
    bound: impl Fn(D::Pattern, T) -> T,
) -> Result<(), String>
where
    D::Pattern: Debug + Clone,
{
    if found.shape() != expected.shape() {
        return Err(format!("shape {:?}, where {:?} is expected", found.shape(), expected.shape()));
    }
    let mut wrong = 0;
    let mut worst: Option<(f64, String)> = None;
    for ((at, &f), &e) in found.indexed_iter().zip(expected) {
        let bound = bound(at.clone(), e);
        if f.abs_diff_eq(&e, bound) {
            continue;
        }
        wrong += 1;
        let off = (f.into() - e.into()).abs();
        let beyond = if off.is_nan() { f64::INFINITY } else { off / bound.into().max(f64::MIN_POSITIVE) };
        if worst.as_ref().is_none_or(|(most, _)| beyond > *most) {
            worst = Some((beyond, format!("{f} for {e} at {at:?}: off by {off:e}, bound {bound:e}")));
        }
    }
    worst.map_or(Ok(()), |(_, worst)| Err(format!("{wrong} of {} entries are too far off, the worst is {worst}", found.len())))
}

/// Panics with the worst entry unless all are apart by at most `bound`.
#[track_caller]
pub fn assert_close<T: Number, D: Dimension>(found: &ArrayRef<T, D>, expected: &ArrayRef<T, D>, bound: T, what: impl Display)
where
    D::Pattern: Debug + Clone,
{
    assert_within(found, expected, |_, _| bound, what);
}

/// Panics with the worst entry unless all are apart by at most `bound(place, expected)`.
#[track_caller]
pub fn assert_within<T: Number, D: Dimension>(
    found: &ArrayRef<T, D>,
    expected: &ArrayRef<T, D>,
    bound: impl Fn(D::Pattern, T) -> T,
    what: impl Display,
) where
    D::Pattern: Debug + Clone,
{
    if let Err(reason) = apart(found, expected, bound) {
        panic!("{what}: {reason}");
    }
}

#[test]
fn the_worst_entry_is_named_with_its_place_and_its_bound() {
    let (found, expected) = (ndarray::array![[1.0f32, 2.5], [3.0, 4.0]], ndarray::array![[1.0f32, 2.0], [3.0, 4.25]]);
    assert_close(&found, &expected, 0.5, "as far as that");
    let by_place = |(r, _): (usize, usize), _: f32| if r == 0 { 0.25 } else { 0.0625 };
    let says = apart(&found, &expected, by_place).unwrap_err();
    assert_eq!(says, "2 of 4 entries are too far off, the worst is 4 for 4.25 at (1, 1): off by 2.5e-1, bound 6.25e-2");
    let nan = ndarray::array![f64::NAN, 9.0];
    let says = apart(&nan, &ndarray::array![0.0, 0.0], |_, _| 1.0).unwrap_err();
    assert!(says.starts_with("2 of 2 entries are too far off, the worst is NaN for 0 at 0: off by NaN"), "{says}");
    let says = apart(&nan, &ndarray::array![0.0], |_, _| 1.0).unwrap_err();
    assert_eq!(says, "shape [2], where [1] is expected");
}

//! Evenly spaced values, one grid a row.
//!
//! ```text
//! q(w) = s · (clamp(round(w / s) + z, 0, 2^b − 1) − z)
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | b | [`AffineGrid::bits`] |
//! | s, z | step and whole-numbered zero point of a row; 0 is always one of the values, so that what is pruned stays 0 |
//!
//! This is the rounding of GPTQ (Frantar, Ashkboos, Hoefler, Alistarh, ICLR 2023, arXiv:2210.17323) without a search for the
//! best step: the grid spans from the least to the largest weight of the row. Halves round to even.

use crate::mask::check_finite;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use serde::{Deserialize, Serialize};

/// How many values a grid has, and whether they lie evenly about 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AffineGrid {
    /// `2^bits` values; 1 to 16.
    pub bits: u32,
    /// Whether the steps are max |w| / (2^b − 1) · 2 and half of the values lie below 0, whatever the signs of the weights. 0 is one of
    /// the others, so that the least value is half a step below −max |w| and the largest half a step below max |w|.
    pub symmetric: bool,
}

impl AffineGrid {
    /// From the least to the largest weight.
    pub fn new(bits: u32) -> Self {
        AffineGrid { bits, symmetric: false }
    }

    /// One grid for each row of a weight `(out, in)`.
    ///
    /// # Errors
    /// If `bits` is not 1 to 16, or a weight is not finite.
    pub fn fit(self, weight: &ArrayRef2<f32>) -> Result<Grids> {
        if !(1..=16).contains(&self.bits) {
            return Err(Error::invalid_option("bits", format!("{} is not 1 to 16", self.bits)));
        }
        check_finite(weight, "weights")?;
        let top = ((1u32 << self.bits) - 1) as f32;
        let row = |row: ndarray::ArrayView1<'_, f32>| {
            let (mut low, mut high) = row.iter().fold((0.0f32, 0.0f32), |(l, h), &w| (l.min(w), h.max(w)));
            if self.symmetric {
                high = high.max(-low);
                low = -high;
            }
            if low == 0.0 && high == 0.0 {
                (low, high) = (-1.0, 1.0);
            }
            // Of weights near the largest number the difference is none.
            let step = if (high - low).is_finite() { (high - low) / top } else { high / top - low / top };
            let zero = if self.symmetric { ((top + 1.0) / 2.0).floor() } else { (-low / step).round_ties_even() };
            (step, zero)
        };
        Ok(Grids { top, rows: weight.rows().into_iter().map(row).collect() })
    }
}

/// The grids of the rows of one weight.
///
/// ```
/// use lacuna::quantize::AffineGrid;
/// use ndarray::array;
/// let w = array![[-1., 0., 2., 0.6]];
/// let grids = AffineGrid::new(2).fit(&w)?; // -1, 0, 1, 2
/// assert_eq!(grids.rounded(&w), array![[-1., 0., 2., 1.]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Grids {
    /// The largest code, `2^bits − 1`.
    top: f32,
    /// Step and zero point of each row.
    rows: Vec<(f32, f32)>,
}

impl Grids {
    /// The value of the row's grid that is nearest to w.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub fn round(&self, row: usize, w: f32) -> f32 {
        let (step, zero) = self.rows[row];
        // The outermost value of a grid may lie half a step beyond the largest number.
        (step * (((w / step).round_ties_even() + zero).clamp(0.0, self.top) - zero)).clamp(f32::MIN, f32::MAX)
    }

    /// A weight `(out, in)` with every entry rounded.
    ///
    /// # Panics
    /// If it has another number of rows.
    pub fn rounded(&self, weight: &ArrayRef2<f32>) -> Array2<f32> {
        assert_eq!(weight.nrows(), self.rows.len(), "one grid a row");
        Array2::from_shape_fn(weight.dim(), |(r, c)| self.round(r, weight[[r, c]]))
    }
}

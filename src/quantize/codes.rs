//! [`Codes`]: a weight as whole numbers of a few bits, with the scales and zero points by which they are weights again.

use super::{CodeGrid, Granularity, Step};
use crate::mask::Mask;
use crate::sparse::{Offsets, Quantized, QuantizedParts};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis};
use rayon::prelude::*;

/// A weight `(out, in)` in codes.
///
/// ```text
/// w[r, c] = scales[r, g] · (codes[r, c] − zeros[r, g]),   g = c / group
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Codes {
    /// Bits of a code, 1 to 8.
    pub bits: u32,
    /// Weights that share a scale.
    pub granularity: Granularity,
    /// Whether all zero points are `2^(bits − 1)`.
    pub symmetric: bool,
    /// Inputs of a row that share a scale: all of them for rows and tensors.
    pub group: usize,
    /// `(out, in)`, each from 0 to `2^bits − 1`.
    pub codes: Array2<u8>,
    /// `(out, groups)`, above 0.
    pub scales: Array2<f32>,
    /// `(out, groups)`, from 0 to `2^bits − 1`; whole but for what [`Hqq`](crate::solve::Hqq) gives where that is asked for.
    pub zeros: Array2<f32>,
}

impl Codes {
    /// Codes with their steps `(out, groups)`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a code has more bits, a scale is no number above 0 or beyond what its type holds, or a zero point is no code;
    /// [`Error::Shape`] if there is not a step for each group.
    pub fn new(grid: CodeGrid, codes: Array2<u8>, steps: &ArrayRef2<Step>) -> Result<Codes> {
        let (rows, cols) = codes.dim();
        let group = grid.check(cols)?;
        let groups = cols / group.max(1);
        if steps.dim() != (rows, groups) {
            return Err(Error::shape("steps of groups", &[rows, groups], &[steps.nrows(), steps.ncols()]));
        }
        if let Some(((row, g), step)) = steps.indexed_iter().find(|(_, s)| !(s.scale.is_finite() && s.scale > 0.0)) {
            let reason = format!("that of row {row}, group {g} is {}, and has to be a finite number above 0", step.scale);
            return Err(Error::invalid_option("scale", reason));
        }
        let top = grid.top();
        if let Some(((row, g), step)) = steps.indexed_iter().find(|(_, s)| !(0.0..=top).contains(&s.zero)) {
            let reason = format!("that of row {row}, group {g} is {}, where 0 to {top} are possible", step.zero);
            return Err(Error::invalid_option("zero point", reason));
        }
        if let Some(code) = codes.iter().find(|c| f32::from(**c) > top) {
            return Err(Error::invalid_option("code", format!("{code} has more than {} bits", grid.bits)));
        }
        let (scales, zeros) = (steps.map(|s| s.scale), steps.map(|s| s.zero));
        Ok(Codes { bits: grid.bits, granularity: grid.granularity, symmetric: grid.symmetric, group, codes, scales, zeros })
    }

    /// `(out, in)`.
    pub fn dim(&self) -> (usize, usize) {
        self.codes.dim()
    }

    /// The step of a group of a row.
    #[inline]
    pub fn step(&self, row: usize, group: usize) -> Step {
        Step { scale: self.scales[[row, group]], zero: self.zeros[[row, group]] }
    }

    /// The weight `(out, in)`, in f32: one multiplication of each code less its zero point.
    pub fn to_dense(&self) -> Array2<f32> {
        let mut dense = Array2::zeros(self.codes.dim());
        let group = self.group.max(1);
        dense.axis_iter_mut(Axis(0)).into_par_iter().enumerate().with_min_len(16).for_each(|(r, mut row)| {
            for ((c, w), code) in row.indexed_iter_mut().zip(self.codes.row(r)) {
                *w = self.step(r, c / group).value(*code);
            }
        });
        dense
    }

    /// Gives what a mask drops the code of 0.
    ///
    /// # Panics
    /// If the mask has another shape, or zero points are not whole.
    pub fn drop_by(&mut self, mask: &Mask) {
        assert_eq!(mask.dim(), self.codes.dim(), "the mask of a weight has its shape");
        for (r, c) in mask.not().iter_kept() {
            let zero = self.zeros[[r, c / self.group.max(1)]];
            assert!(zero.fract() == 0.0, "0 has a code where zero points are whole");
            self.codes[[r, c]] = zero as u8;
        }
    }

    /// Bits a weight, with those of scales of so many bits, and of zero points where there are some.
    pub fn bits_a_weight(&self, scale: u32) -> f64 {
        let zero = if self.symmetric { 0 } else { self.bits };
        let steps = if self.granularity == Granularity::Tensor { 1.0 } else { self.scales.len() as f64 };
        f64::from(self.bits) + steps * f64::from(scale + zero) / self.codes.len().max(1) as f64
    }

    /// The storage that multiplies by these codes: four bits for codes of up to four, eight for more. `None` where groups are neither whole rows nor multiples
    /// of 32, or zero points are not whole.
    pub fn storage(&self) -> Option<Quantized> {
        let (rows, cols) = self.codes.dim();
        if self.zeros.iter().any(|z| z.fract() != 0.0) {
            return None;
        }
        let (bits, even, first) = if self.bits <= 4 { (4, 8.0, 0u8) } else { (8, 128.0, 128) };
        let codes = match bits {
            4 => {
                let two = |pair: &[u8]| pair[0] | pair.get(1).map_or(0, |high| high << 4);
                self.codes.rows().into_iter().flat_map(|row| row.to_vec().chunks(2).map(two).collect::<Vec<_>>()).collect()
            }
            _ => self.codes.iter().map(|c| c.wrapping_sub(first)).collect(),
        };
        let offsets = match self.zeros.iter().all(|z| *z == even) {
            true => Offsets::Symmetric,
            false => Offsets::ZeroPoints(self.zeros.iter().map(|z| (*z as u8).wrapping_sub(first).cast_signed()).collect()),
        };
        let scales = self.scales.iter().copied().collect();
        Quantized::new(QuantizedParts { rows, cols, bits, group: self.group, codes, scales, offsets }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Codes;
    use crate::quantize::{CodeGrid, Granularity, Step};
    use crate::sparse::LinearOp;
    use ndarray::Array2;

    #[test]
    fn the_storage_holds_the_weights_that_the_codes_are() {
        for bits in [2u32, 3, 4, 8] {
            for symmetric in [true, false] {
                for granularity in [Granularity::Row, Granularity::Group(32), Granularity::Group(64)] {
                    let grid = CodeGrid { symmetric, ..CodeGrid::new(bits, granularity) };
                    let weight = Array2::from_shape_fn((5, 64), |(r, c)| ((r * 64 + c) as f32 * 0.7).sin() + 0.1 * r as f32);
                    let steps = grid.fit_all(&weight).unwrap();
                    let group = grid.check(64).unwrap();
                    let codes = Array2::from_shape_fn((5, 64), |(r, c)| grid.code(steps[[r, c / group]], weight[[r, c]]));
                    let codes = Codes::new(grid, codes, &steps).unwrap();
                    assert_eq!(codes.storage().unwrap().to_dense(), codes.to_dense(), "{bits} {symmetric} {granularity}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let grid = CodeGrid::new(2, Granularity::Row);
        let line = |code: u8, scale: f32, zero: f32| {
            let steps = Array2::from_elem((1, 1), Step { scale, zero });
            Codes::new(grid, Array2::from_elem((1, 2), code), &steps).unwrap_err().to_string()
        };
        assert_eq!(line(4, 1.0, 2.0), "code: 4 has more than 2 bits");
        assert!(line(1, f32::INFINITY, 2.0).starts_with("scale: that of row 0, group 0 is inf"));
        assert!(line(1, 1.0, 4.0).starts_with("zero point: that of row 0, group 0 is 4, where 0 to 3 are possible"));
    }
}

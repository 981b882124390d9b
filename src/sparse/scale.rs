//! Scales of 8-bit values.

use crate::kernels::Value;
use crate::mask::Mask;
use crate::{Error, Result};
use ndarray::ArrayRef2;

/// Which values share a scale, where values have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scaling {
    /// A row of W.
    #[default]
    Row,
    /// A row's part of one tile of columns: groups as wide as the tile.
    Tile,
}

/// The scale that brings the largest of some weights to 127; 1 if all are 0, and never 0.
pub(super) fn scale_of<T: Value>(weights: impl Iterator<Item = f32>) -> f32 {
    let largest = weights.map(f32::abs).fold(0.0, f32::max);
    if !T::SCALED || largest == 0.0 { 1.0 } else { (largest / 127.0).max(f32::MIN_POSITIVE) }
}

/// Refuses kept weights that no scale can hold.
pub(super) fn check_scalable<T: Value>(weight: &ArrayRef2<f32>, mask: &Mask) -> Result<()> {
    if !T::SCALED {
        return Ok(());
    }
    let infinite = |r: usize| mask.row_indices(r).find(|&c| !weight[[r, c]].is_finite()).map(|c| (r, c));
    match (0..weight.nrows()).find_map(infinite) {
        Some((row, col)) => {
            Err(Error::NonFinite { what: format!("weight for {}", T::NAME), row, col, value: weight[[row, col]].into() })
        }
        None => Ok(()),
    }
}

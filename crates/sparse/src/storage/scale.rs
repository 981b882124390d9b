//! Scales of 8-bit values.

use crate::kernels::{Scales, Value};
use crate::{Error, Result};

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

/// Groups of a row that share a scale: one, or the parts of so many inputs.
fn groups(cols: usize, group: Option<usize>) -> usize {
    group.map_or(1, |inputs| cols.div_ceil(inputs))
}

/// Scales as kernels look them up: `part` inputs have one scale together, and a group is some such parts.
pub(super) fn scales_by(scales: &[f32], cols: usize, group: Option<usize>, part: usize) -> Scales<'_> {
    Scales { factors: scales, groups: groups(cols, group), parts: group.map_or(usize::MAX, |inputs| inputs / part) }
}

/// Refuses groups that are not some whole parts of a row, each of so many inputs.
pub(super) fn check_group<T: Value>(format: &'static str, group: Option<usize>, part: usize) -> Result<()> {
    let refuse = |reason: String| Err(Error::invalid_option(format, reason));
    match group {
        Some(inputs) if !T::SCALED => refuse(format!("groups of {inputs} inputs with a scale, where {} has none", T::NAME)),
        Some(inputs) if inputs == 0 || inputs % part != 0 => {
            refuse(format!("groups of {inputs} inputs with a scale, where multiples of {part} are possible"))
        }
        _ => Ok(()),
    }
}

/// Refuses scales that are too many or too few, or no factors.
pub(super) fn check_scales<T: Value>(
    format: &'static str,
    scales: &[f32],
    (rows, cols): (usize, usize),
    group: Option<usize>,
) -> Result<()> {
    let refuse = |reason: String| Err(Error::invalid_option(format, reason));
    let wanted = if T::SCALED { rows.checked_mul(groups(cols, group)) } else { Some(0) };
    if wanted != Some(scales.len()) {
        let each = group.map_or(String::new(), |inputs| format!(" of {} groups", cols.div_ceil(inputs)));
        return refuse(format!("{} scales for {rows} rows{each}", scales.len()));
    }
    match scales.iter().find(|s| !s.is_finite() || **s <= 0.0) {
        Some(scale) => refuse(format!("a scale is {scale}")),
        None => Ok(()),
    }
}

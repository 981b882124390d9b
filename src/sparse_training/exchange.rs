//! Weights that go for others that come: what SET and RigL share.
//!
//! ```text
//! drop   the k kept weights of smallest |w|
//! grow   the k weights of largest growth score among all that are not kept then
//! ```
//!
//! A weight that is dropped may grow at once: nothing has then happened to it. What grows begins at 0, and so does what an optimiser remembers of it.

use super::choice::MaskChoice;
use super::method::Prunable;
use crate::mask::{Budget, Mask, Pattern, Scope, select};
use crate::nn::{LayerInfo, Optimizer};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Zip};

/// The mask after `count` kept weights of smallest |w| went, and as many came by their growth scores `(out, in)`, which are at least 0. Of equals
/// the lower row-major index stays or comes.
///
/// ```
/// use lacuna::mask::Mask;
/// use lacuna::sparse_training::exchange;
/// use ndarray::array;
/// let mask = Mask::from_array(&array![[true, true, false, false]]);
/// let (weight, growth) = (array![[3., -1., 0., 0.]], array![[9., 2., 1., 5.]]);
/// assert_eq!(exchange(&mask, &weight, &growth, 1)?, Mask::from_array(&array![[true, false, false, true]]));
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// If a weight or a score is not finite; [`Error::Budget`] if fewer weights are kept.
///
/// # Panics
/// If the shapes differ.
pub fn exchange(mask: &Mask, weight: &ArrayRef2<f32>, growth: &ArrayRef2<f32>, count: usize) -> Result<Mask> {
    assert!(mask.dim() == weight.dim() && mask.dim() == growth.dim(), "mask, weight and growth scores of one shape");
    let (kept, of) = (mask.kept(), mask.len());
    if count > kept {
        return Err(Error::Budget { keep: count, of: kept, reason: "more weights go than are kept".into() });
    }
    let by = |scores: Array2<f32>, keep| select(&scores, Pattern::Unstructured, Scope::Layer, Budget::new(keep, of)?);
    // What is out of the question ranks below every score.
    let magnitude = Array2::from_shape_fn(mask.dim(), |(r, c)| if mask.get(r, c) { weight[[r, c]].abs() } else { -1.0 });
    let stays = by(magnitude, kept - count)?;
    let scores = Array2::from_shape_fn(mask.dim(), |(r, c)| if stays.get(r, c) { -1.0 } else { growth[[r, c]] });
    Ok(stays.or(&by(scores, count)?))
}

/// When weights are exchanged, and how many.
///
/// ```text
/// every ΔT steps, while t < T_end = stop · steps:   k_l = ⌊ kept_l · α/2 (1 + cos(π t / T_end)) ⌋
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Exchanges {
    pub every: usize,
    pub fraction: f64,
    pub stop: f64,
}

impl Exchanges {
    /// Refuses numbers that it cannot have.
    pub fn check(&self, choice: &MaskChoice) -> Result<()> {
        if self.every == 0 {
            return Err(Error::invalid_option("every", "0 steps between exchanges; 100 are usual"));
        }
        for (option, value) in [("fraction", self.fraction), ("stop", self.stop)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::invalid_option(option, format!("{value} is not in [0, 1]")));
            }
        }
        if choice.pattern != Pattern::Unstructured {
            let reason = format!("{} cannot be kept to when single weights are exchanged", choice.pattern);
            return Err(Error::invalid_option("pattern", reason));
        }
        Ok(())
    }

    /// Whether weights are exchanged at this step, from 0.
    pub fn due(&self, step: usize, steps: usize) -> bool {
        step > 0 && step % self.every == 0 && (step as f64) < self.stop * steps as f64
    }

    /// How many of the kept weights of a layer.
    pub fn count(&self, kept: usize, step: usize, steps: usize) -> usize {
        let share = step as f64 / (self.stop * steps as f64);
        (kept as f64 * 0.5 * self.fraction * (1.0 + (std::f64::consts::PI * share).cos())) as usize
    }

    /// Exchanges the weights of a layer, by `growth` scores.
    pub fn apply(
        &self,
        model: &mut dyn Prunable,
        layer: &LayerInfo,
        growth: &ArrayRef2<f32>,
        optimizer: &mut Optimizer,
        (step, steps): (usize, usize),
    ) -> Result<()> {
        let Some(mask) = model.mask(&layer.name)?.map(|mask| mask.into_owned()) else { return Ok(()) };
        // No more than can come.
        let count = self.count(mask.kept(), step, steps).min(mask.len() - mask.kept());
        let new = exchange(&mask, &model.read(&layer.name)?, growth, count).map_err(|e| e.in_layer(&layer.name))?;
        // What is remembered of a weight that went is forgotten before it can come again.
        optimizer.forget(&layer.parameter, &new.and(&mask));
        model.set_mask(&layer.parameter, Some(new))
    }
}

/// |g|, the growth scores of RigL.
pub(super) fn magnitudes(gradient: &ArrayRef2<f32>) -> Array2<f32> {
    Zip::from(gradient).map_collect(|g| g.abs())
}

//! Gradual magnitude pruning.
//!
//! Zhu, Gupta. *To prune, or not to prune: exploring the efficacy of pruning for model compression.* 2017, arXiv:1710.01878, equation 1.
//!
//! ```text
//! s_t = s_f + (s_i − s_f) (1 − (t − t_0) / (n Δt))³,   t = t_0, t_0 + Δt, …, t_0 + n Δt
//! ```
//!
//! with s_i = 0. At each of these steps the masks keep the weights of largest |w|; what went stays 0, and so ranks last. t_0 and t_0 + n Δt are given as fractions of all steps; after the
//! last the masks stay.
//!
//! Departures: none that is known. The authors' code threshold by quantile; here exactly the budget stays.
//!
//! Cost: a selection a layer every Δt steps.

use super::choice::{MaskChoice, hold_masks, weights_of};
use super::method::{Prunable, SparseMethod};
use crate::nn::{Gradients, LayerInfo, Optimizer};
use crate::rng::Seed;
use crate::train::TrainStep;
use crate::{Error, Result};

/// Magnitudes under a cubic schedule; see the module.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `every` | 100 | from 1 | Δt, steps between selections |
/// | `start` | 0 | [0, 1) | t_0 as a fraction of all steps |
/// | `end` | 0.75 | (start, 1] | the step of the last sparsity, as a fraction of all |
#[derive(Debug, Clone)]
pub struct GradualMagnitude {
    /// The last sparsity, and the share of each layer.
    pub choice: MaskChoice,
    /// Δt
    pub every: usize,
    /// t_0
    pub start: f64,
    /// t_0 + n Δt
    pub end: f64,
    layers: Vec<LayerInfo>,
}

impl GradualMagnitude {
    /// With the defaults.
    pub fn new(choice: MaskChoice) -> Self {
        GradualMagnitude { choice, every: 100, start: 0.0, end: 0.75, layers: Vec::new() }
    }

    /// The same with other steps between selections.
    #[must_use]
    pub fn every(mut self, steps: usize) -> Self {
        self.every = steps;
        self
    }

    /// The sparsity after `step` of `steps`; None before the first selection.
    ///
    /// ```
    /// use lacuna::sparse_training::{GradualMagnitude, MaskChoice};
    /// let gradual = GradualMagnitude::new(MaskChoice::uniform(0.8));
    /// assert_eq!(gradual.sparsity(75, 100), Some(0.8));
    /// assert!((gradual.sparsity(25, 100).unwrap() - 0.8 * (1.0 - (2.0f64 / 3.0).powi(3))).abs() < 1e-12);
    /// ```
    pub fn sparsity(&self, step: usize, steps: usize) -> Option<f64> {
        cubic(self.choice.sparsity, (self.start, self.end), step, steps)
    }
}

/// The cubic schedule up to `last`, from and to fractions of all steps.
pub(super) fn cubic(last: f64, (start, end): (f64, f64), step: usize, steps: usize) -> Option<f64> {
    let (start, end) = (start * steps as f64, end * steps as f64);
    let left = 1.0 - ((step as f64 - start) / (end - start)).min(1.0);
    (step as f64 >= start).then(|| last * (1.0 - left.powi(3)))
}

impl SparseMethod for GradualMagnitude {
    fn name(&self) -> &str {
        "gradual-magnitude"
    }

    fn begin(&mut self, model: &mut dyn Prunable, _: Seed, _: usize) -> Result<()> {
        if self.every == 0 {
            return Err(Error::invalid_option("every", "0 steps between selections; 100 are usual"));
        }
        if !(0.0 <= self.start && self.start < self.end && self.end <= 1.0) {
            let reason = format!("{} to {} are no fractions of a run, the first below the second", self.start, self.end);
            return Err(Error::invalid_option("start and end", reason));
        }
        self.layers = self.choice.layers(model)?;
        Ok(())
    }

    fn step(&mut self, model: &mut dyn Prunable, gradients: Gradients, optimizer: &mut Optimizer, at: TrainStep) -> Result<()> {
        optimizer.step(model, &gradients, at.learning_rate)?;
        // The last sparsity is met at the last selection, wherever Δt falls.
        let last = ((self.end * at.steps as f64).ceil() as usize).min(at.steps.saturating_sub(1));
        if at.step > last || (at.step % self.every != 0 && at.step != last) {
            return Ok(());
        }
        let sparsity = if at.step == last { Some(self.choice.sparsity) } else { self.sparsity(at.step, at.steps) };
        let Some(sparsity) = sparsity else { return Ok(()) };
        let masks = self.choice.by_magnitude(&self.layers, &weights_of(model, &self.layers)?, sparsity)?;
        // A layer whose share grew, as allocations that rank may have it, does not get back what went.
        let mut only = Vec::with_capacity(masks.len());
        for (layer, mask) in self.layers.iter().zip(masks) {
            only.push(model.mask(&layer.name)?.map_or_else(|| mask.clone(), |held| held.and(&mask)));
        }
        hold_masks(model, &self.layers, &only)
    }
}

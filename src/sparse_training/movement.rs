//! Movement pruning: the weights that move away from 0 stay.
//!
//! Sanh, Wolf, Rush. *Movement pruning: adaptive sparsity by fine-tuning.* NeurIPS 2020, arXiv:2005.07683, sections 3 and 4.
//!
//! ```text
//! run with W ⊙ M                 M = the v of largest score S; or, soft, M = 1{σ(S) > τ}
//! ∂L/∂W = G ⊙ M                  G = ∂L/∂(W ⊙ M)
//! ∂L/∂S = G ⊙ W                  straight through: so S = −Σ η G ⊙ W grows where a weight moves away from 0
//! soft: + λ Σ σ(S) in the loss
//! ```
//!
//! v falls by the cubic schedule of Zhu and Gupta between two moments of the run. It is for fine-tuning a trained model: from a random start the scores say little.
//!
//! Departures: S begins at 0 (so does the authors' code), and of equal scores the lower index stays. The soft mask is ended by τ alone, whatever the choice's sparsity.
//!
//! Cost: a dense gradient and, if hard, a selection a layer at every step; scores as large as the weights.

use super::choice::MaskChoice;
use super::gradual::cubic;
use super::method::Prunable;
use super::reparametrized::{Effective, Reparametrization, check_every, masked, pruned, times};
use crate::mask::Mask;
use crate::nn::LayerInfo;
use crate::rng::Stream;
use crate::solve::Pruned;
use crate::train::TrainStep;
use crate::{Error, Result};
use ndarray::{Array2, Zip};

/// The soft form: a threshold in place of a count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftMovement {
    /// τ, in (0, 1); 0.1 in the authors' code.
    pub threshold: f32,
    /// λ, at least 0, over the number of weights of all layers: how much of them is paid for.
    pub penalty: f32,
}

/// Scores that are learnt straight through; see the module. [`Reparametrized`](super::Reparametrized) makes a method of it.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `start`, `end` | 0.1, 0.7 | start below end, in [0, 1] | where v begins and ends to fall, as fractions of all steps |
/// | `every` | 1 | from 1 | steps between selections |
/// | `soft` | none | | thresholds the scores instead |
#[derive(Debug, Clone)]
pub struct Movement {
    /// The last sparsity, and the share of each layer.
    pub choice: MaskChoice,
    /// Of all steps.
    pub start: f64,
    /// Of all steps.
    pub end: f64,
    /// Steps.
    pub every: usize,
    /// The soft form.
    pub soft: Option<SoftMovement>,
    masks: Vec<Mask>,
    weights: usize,
}

impl Movement {
    /// With the defaults.
    pub fn new(choice: MaskChoice) -> Self {
        Movement { choice, start: 0.1, end: 0.7, every: 1, soft: None, masks: Vec::new(), weights: 0 }
    }

    fn choose(&mut self, layers: &[LayerInfo], weights: &[Array2<f32>], own: &[Array2<f32>], sparsity: f64) -> Result<()> {
        self.masks = match self.soft {
            None => self.choice.masks(layers, weights, own, sparsity)?,
            Some(soft) => {
                let least = (soft.threshold / (1.0 - soft.threshold)).ln();
                own.iter().map(|s| Mask::from_array(&s.mapv(|s| s > least))).collect()
            }
        };
        Ok(())
    }
}

/// 1 / (1 + e⁻ˣ)
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

impl Reparametrization for Movement {
    fn name(&self) -> &str {
        if self.soft.is_some() { "soft-movement" } else { "movement" }
    }

    fn layers(&self, model: &dyn Prunable) -> Result<Vec<LayerInfo>> {
        if !(0.0 <= self.start && self.start < self.end && self.end <= 1.0) {
            let reason = format!("{} to {} are no fractions of a run, the first below the second", self.start, self.end);
            return Err(Error::invalid_option("start and end", reason));
        }
        if let Some(soft) = self.soft
            && !(soft.threshold > 0.0 && soft.threshold < 1.0 && soft.penalty.is_finite() && soft.penalty >= 0.0)
        {
            let reason = format!("{} must lie above 0 and below 1, the penalty {} at 0 or above", soft.threshold, soft.penalty);
            return Err(Error::invalid_option("threshold", reason));
        }
        check_every(self.every, &self.choice, model)
    }

    fn begin(&mut self, layers: &[LayerInfo], weights: &mut [Array2<f32>], _: &mut Stream) -> Result<Vec<Array2<f32>>> {
        self.weights = weights.iter().map(|w| w.len()).sum();
        let own: Vec<Array2<f32>> = weights.iter().map(|w| Array2::zeros(w.dim())).collect();
        self.choose(layers, weights, &own, 0.0)?;
        Ok(own)
    }

    fn effective(
        &mut self,
        layers: &[LayerInfo],
        weights: &[Array2<f32>],
        own: &[Array2<f32>],
        at: TrainStep,
        _: &mut Stream,
    ) -> Result<Effective> {
        if at.step % self.every == 0 {
            let sparsity = cubic(self.choice.sparsity, (self.start, self.end), at.step, at.steps);
            self.choose(layers, weights, own, sparsity.unwrap_or(0.0))?;
        }
        Ok(masked(weights, &self.masks, true))
    }

    fn back(&self, layer: usize, weight: &Array2<f32>, own: &Array2<f32>, gradient: Array2<f32>) -> (Array2<f32>, Array2<f32>) {
        let mut of_scores = times(&gradient, weight);
        if let Some(soft) = self.soft {
            let each = soft.penalty / self.weights.max(1) as f32;
            Zip::from(&mut of_scores).and(own).for_each(|d, &s| *d += each * sigmoid(s) * (1.0 - sigmoid(s)));
        }
        (self.masks[layer].applied(&gradient), of_scores)
    }

    fn finish(&mut self, layers: &[LayerInfo], weights: &[Array2<f32>], own: &[Array2<f32>]) -> Result<Vec<Pruned>> {
        self.choose(layers, weights, own, self.choice.sparsity)?;
        Ok(pruned(weights, self.masks.clone()))
    }
}

//! Supermasks by edge-popup: a subnetwork of random weights that never train.
//!
//! Ramanujan, Wortsman, Kembhavi, Farhadi, Rastegari. *What's hidden in a randomly weighted neural network?* CVPR 2020, arXiv:1911.13299, section 3.
//!
//! ```text
//! run with W ⊙ M       M: the k of largest score S, in each layer; W stays as it was drawn
//! ∂L/∂S = G ⊙ W        straight through
//! ```
//!
//! With `signed_constant`, W becomes sign(W) · √(2 / (k · in)), the paper's best distribution; `in` are the inputs of a unit, k the density.
//!
//! Departures: S is drawn from ±1/√in and may be negative; the authors' code takes |S| for the score, and so do these, with the sign in the gradient. No parameter of the model
//! moves: biases stay as they are (the paper has none).
//!
//! Cost: a selection a layer at every step, and a dense gradient; scores as large as the weights.

use super::choice::MaskChoice;
use super::method::Prunable;
use super::reparametrized::{Effective, Reparametrization, masked, pruned};
use crate::Result;
use crate::mask::Mask;
use crate::nn::LayerInfo;
use crate::rng::Stream;
use crate::solve::Pruned;
use crate::train::TrainStep;
use ndarray::{Array2, Zip};

/// A mask over random weights; see the module. [`Reparametrized`](super::Reparametrized) makes a method of it.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `choice` | given | | half of the weights is the paper's best |
/// | `signed_constant` | yes | | whether weights become their signs times a constant |
#[derive(Debug, Clone)]
pub struct EdgePopup {
    /// How sparse, and the share of each layer.
    pub choice: MaskChoice,
    /// Whether magnitudes are made alike.
    pub signed_constant: bool,
    masks: Vec<Mask>,
}

impl EdgePopup {
    /// With signed constants.
    pub fn new(choice: MaskChoice) -> Self {
        EdgePopup { choice, signed_constant: true, masks: Vec::new() }
    }

    fn choose(&mut self, layers: &[LayerInfo], weights: &[Array2<f32>], own: &[Array2<f32>]) -> Result<()> {
        let scores: Vec<Array2<f32>> = own.iter().map(|s| s.mapv(f32::abs)).collect();
        self.masks = self.choice.masks(layers, weights, &scores, self.choice.sparsity)?;
        Ok(())
    }
}

impl Reparametrization for EdgePopup {
    fn name(&self) -> &str {
        "edge-popup"
    }

    fn layers(&self, model: &dyn Prunable) -> Result<Vec<LayerInfo>> {
        self.choice.layers(model)
    }

    fn begin(&mut self, layers: &[LayerInfo], weights: &mut [Array2<f32>], random: &mut Stream) -> Result<Vec<Array2<f32>>> {
        let draw = |l: &LayerInfo| random.uniform_array(l.shape.0, l.shape.1, 1.0 / (l.shape.1.max(1) as f32).sqrt());
        let own: Vec<Array2<f32>> = layers.iter().map(draw).collect();
        self.choose(layers, weights, &own)?;
        if self.signed_constant {
            for (weight, mask) in weights.iter_mut().zip(&self.masks) {
                let inputs = mask.density() as f32 * weight.ncols() as f32;
                let constant = (2.0 / inputs.max(f32::MIN_POSITIVE)).sqrt();
                weight.mapv_inplace(|w| constant.copysign(w));
            }
        }
        Ok(own)
    }

    fn effective(
        &mut self,
        layers: &[LayerInfo],
        weights: &[Array2<f32>],
        own: &[Array2<f32>],
        _: TrainStep,
        _: &mut Stream,
    ) -> Result<Effective> {
        self.choose(layers, weights, own)?;
        Ok(masked(weights, &self.masks, true))
    }

    fn back(&self, _: usize, weight: &Array2<f32>, own: &Array2<f32>, gradient: Array2<f32>) -> (Array2<f32>, Array2<f32>) {
        let of_scores = Zip::from(&gradient).and(weight).and(own).map_collect(|g, w, s| g * w * s.signum());
        (Array2::zeros(weight.dim()), of_scores)
    }

    fn finish(&mut self, layers: &[LayerInfo], weights: &[Array2<f32>], own: &[Array2<f32>]) -> Result<Vec<Pruned>> {
        self.choose(layers, weights, own)?;
        Ok(pruned(weights, self.masks.clone()))
    }

    fn trains_model(&self) -> bool {
        false
    }
}

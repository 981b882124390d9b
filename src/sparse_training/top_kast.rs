//! Top-KAST: always sparse training.
//!
//! Jayakumar, Pascanu, Rae, Osindero, Elsen. *Top-KAST: Top-K always sparse training.* NeurIPS 2020, arXiv:2106.03517, section 2.
//!
//! ```text
//! A: the D of largest |w|, of each layer     run with W ⊙ A
//! B ⊇ A: the D + M of largest |w|            ∂L/∂W at B alone
//! R = Σ_A w² + (1/D) Σ_{B \ A} w²            added with weight λ: what explores must earn its place
//! ```
//!
//! with D and M as fractions of the weights. The masks are chosen anew every N steps.
//!
//! Departures: R's weight λ stands for that of the paper's loss of training; the optimiser's own weight decay is best left at 0, as it would shrink what is outside B too. M
//! does not fall to 0 in the end (the paper tries that too).
//!
//! Cost: two selections a layer every N steps; W is kept whole.

use super::choice::MaskChoice;
use super::method::Prunable;
use super::reparametrized::{Effective, Reparametrization, check_every, masked, pruned};
use crate::mask::Mask;
use crate::nn::LayerInfo;
use crate::rng::Stream;
use crate::solve::Pruned;
use crate::train::TrainStep;
use crate::{Error, Result};
use ndarray::Array2;

/// The largest weights, chosen anew; see the module. [`Reparametrized`](super::Reparametrized) makes a method of it.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `explored` | 0.1 | [0, 1 − D] | M, more of the weights that get gradients than run, as a fraction of all |
/// | `decay` | 1e-4 | at least 0 | λ |
/// | `every` | 1 | from 1 | N, steps between selections |
#[derive(Debug, Clone)]
pub struct TopKast {
    /// D, and the share of each layer.
    pub choice: MaskChoice,
    /// M
    pub explored: f64,
    /// λ
    pub decay: f32,
    /// N
    pub every: usize,
    masks: (Vec<Mask>, Vec<Mask>),
}

impl TopKast {
    /// With the defaults.
    pub fn new(choice: MaskChoice) -> Self {
        TopKast { choice, explored: 0.1, decay: 1e-4, every: 1, masks: Default::default() }
    }

    fn choose(&mut self, layers: &[LayerInfo], weights: &[Array2<f32>]) -> Result<()> {
        let forward = self.choice.by_magnitude(layers, weights, self.choice.sparsity)?;
        let backward = self.choice.by_magnitude(layers, weights, (self.choice.sparsity - self.explored).max(0.0))?;
        self.masks = (forward, backward);
        Ok(())
    }
}

impl Reparametrization for TopKast {
    fn name(&self) -> &str {
        "top-kast"
    }

    fn layers(&self, model: &dyn Prunable) -> Result<Vec<LayerInfo>> {
        if !((0.0..=1.0).contains(&self.explored) && self.decay.is_finite() && self.decay >= 0.0) {
            let reason = format!("explored {} must lie in [0, 1], decay {} at 0 or above", self.explored, self.decay);
            return Err(Error::invalid_option("explored and decay", reason));
        }
        check_every(self.every, &self.choice, model)
    }

    fn begin(&mut self, layers: &[LayerInfo], weights: &mut [Array2<f32>], _: &mut Stream) -> Result<Vec<Array2<f32>>> {
        self.choose(layers, weights)?;
        Ok(layers.iter().map(|_| Array2::zeros((0, 0))).collect())
    }

    fn effective(
        &mut self,
        layers: &[LayerInfo],
        weights: &[Array2<f32>],
        _: &[Array2<f32>],
        at: TrainStep,
        _: &mut Stream,
    ) -> Result<Effective> {
        if at.step % self.every == 0 {
            self.choose(layers, weights)?;
        }
        let mut effective = masked(weights, &self.masks.0, false);
        effective.used.iter_mut().zip(&self.masks.1).for_each(|(used, b)| used.gradient = b.kept());
        Ok(effective)
    }

    fn back(&self, layer: usize, weight: &Array2<f32>, own: &Array2<f32>, gradient: Array2<f32>) -> (Array2<f32>, Array2<f32>) {
        let (a, b) = (&self.masks.0[layer], &self.masks.1[layer]);
        let density = (a.density() as f32).max(f32::MIN_POSITIVE);
        let at = |(r, c)| match (a.get(r, c), b.get(r, c)) {
            (true, _) => gradient[[r, c]] + 2.0 * self.decay * weight[[r, c]],
            (false, true) => gradient[[r, c]] + 2.0 * self.decay / density * weight[[r, c]],
            (false, false) => 0.0,
        };
        (Array2::from_shape_fn(weight.dim(), at), own.clone())
    }

    fn finish(&mut self, layers: &[LayerInfo], weights: &[Array2<f32>], _: &[Array2<f32>]) -> Result<Vec<Pruned>> {
        Ok(pruned(weights, self.choice.by_magnitude(layers, weights, self.choice.sparsity)?))
    }
}

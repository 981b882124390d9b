//! RigL: rigging the lottery.
//!
//! Evci, Gale, Menick, Castro, Elsen. *Rigging the lottery: making all tickets winners.* ICML 2020, arXiv:1911.11134, algorithm 1.
//!
//! ```text
//! every ΔT steps while t < T_end, in each layer, in place of the step:
//!     k = kept · α/2 (1 + cos(π t / T_end))
//!     drop the k kept weights of smallest |w|
//!     grow the k others of largest |∂L/∂w|, from 0
//! ```
//!
//! Masks begin at random; the paper's best densities are those of [`Erk`](crate::allocate::Erk). The gradient by which weights grow is that of the step's batch.
//! A weight that goes and comes at once keeps its value, as in the authors' code.
//!
//! Departures: k is rounded down. Cost: a dense gradient of the weights every ΔT steps, which [`TrainingFlops`](super::TrainingFlops) counts as the paper's appendix H does,
//! and two selections a layer.

use super::choice::{MaskChoice, hold_masks, matrix, weights_of};
use super::exchange::{Exchanges, magnitudes};
use super::method::{Prunable, SparseMethod, UsedWeights};
use crate::Result;
use crate::nn::{Gradients, LayerInfo, Optimizer};
use crate::rng::Seed;
use crate::train::TrainStep;

/// Growth by gradients; see the module.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `every` | 100 | from 1 | ΔT, steps between exchanges |
/// | `fraction` | 0.3 | [0, 1] | α, the fraction of kept weights that is exchanged at first |
/// | `stop` | 0.75 | [0, 1] | T_end as a fraction of all steps |
#[derive(Debug, Clone)]
pub struct Rigl {
    /// How sparse, and the share of each layer.
    pub choice: MaskChoice,
    /// ΔT
    pub every: usize,
    /// α
    pub fraction: f64,
    /// T_end
    pub stop: f64,
    layers: Vec<LayerInfo>,
}

impl Rigl {
    /// With the defaults.
    pub fn new(choice: MaskChoice) -> Self {
        Rigl { choice, every: 100, fraction: 0.3, stop: 0.75, layers: Vec::new() }
    }

    /// The same with other steps between exchanges.
    #[must_use]
    pub fn every(mut self, steps: usize) -> Self {
        self.every = steps;
        self
    }

    fn exchanges(&self) -> Exchanges {
        Exchanges { every: self.every, fraction: self.fraction, stop: self.stop }
    }
}

impl SparseMethod for Rigl {
    fn name(&self) -> &str {
        "rigl"
    }

    fn begin(&mut self, model: &mut dyn Prunable, seed: Seed, _: usize) -> Result<()> {
        self.exchanges().check(&self.choice)?;
        self.layers = self.choice.layers(model)?;
        let weights = weights_of(model, &self.layers)?;
        let masks = self.choice.by_chance(&self.layers, &weights, &mut seed.stream("random masks"))?;
        hold_masks(model, &self.layers, &masks)
    }

    fn used(&self, model: &dyn Prunable, at: TrainStep) -> Result<Vec<UsedWeights>> {
        let dense = self.exchanges().due(at.step, at.steps);
        let one = |layer: LayerInfo| {
            let run = model.mask(&layer.name)?.map_or(layer.len(), |mask| mask.kept());
            Ok(UsedWeights { run, gradient: if dense && self.layers.contains(&layer) { layer.len() } else { run } })
        };
        model.layers().into_iter().map(one).collect()
    }

    fn step(&mut self, model: &mut dyn Prunable, gradients: Gradients, optimizer: &mut Optimizer, at: TrainStep) -> Result<()> {
        if !self.exchanges().due(at.step, at.steps) {
            return optimizer.step(model, &gradients, at.learning_rate);
        }
        for (name, gradient) in gradients {
            if let Some(layer) = self.layers.iter().find(|layer| layer.parameter == name) {
                let growth = magnitudes(&matrix(gradient, layer)?);
                self.exchanges().apply(model, layer, &growth, optimizer, (at.step, at.steps))?;
            }
        }
        Ok(())
    }
}

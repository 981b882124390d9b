//! SET: sparse evolutionary training.
//!
//! Mocanu, Mocanu, Stone, Nguyen, Gibescu, Liotta. *Scalable training of artificial neural networks with adaptive sparse connectivity inspired by network
//! science.* Nature Communications 9, 2018, arXiv:1707.04780, algorithm 1.
//!
//! ```text
//! every ΔT steps, in each layer:   drop the k kept weights of smallest |w|, grow k at random;   k = ζ · kept
//! ```
//!
//! Departures: ζ decays by a cosine, every ΔT steps, as in Evci et al. 2020, where the paper exchanges the same fraction after every epoch; the
//! smallest magnitudes go, where the paper takes the smallest positive and the largest negative; what grows begins at 0. The masks after the last exchange stay.
//!
//! Cost: two selections a layer every ΔT steps; no dense gradient.

use super::choice::{MaskChoice, hold_masks, weights_of};
use super::exchange::Exchanges;
use super::method::{Prunable, SparseMethod};
use crate::Result;
use crate::nn::{Gradients, LayerInfo, Optimizer};
use crate::rng::{Seed, Stream};
use crate::train::TrainStep;
use ndarray::Array2;

/// Random growth; see the module.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `every` | 100 | from 1 | ΔT, steps between exchanges |
/// | `fraction` | 0.3 | [0, 1] | ζ, the fraction of kept weights that is exchanged at first |
/// | `stop` | 0.75 | [0, 1] | the fraction of all steps after which the masks stay |
#[derive(Debug, Clone)]
pub struct SparseEvolution {
    /// How sparse, and the share of each layer.
    pub choice: MaskChoice,
    /// ΔT
    pub every: usize,
    /// ζ
    pub fraction: f64,
    /// Of all steps.
    pub stop: f64,
    run: Option<(Vec<LayerInfo>, Stream)>,
}

impl SparseEvolution {
    /// With the defaults.
    pub fn new(choice: MaskChoice) -> Self {
        SparseEvolution { choice, every: 100, fraction: 0.3, stop: 0.75, run: None }
    }

    /// The same with other steps between exchanges.
    #[must_use]
    pub fn every(mut self, steps: usize) -> Self {
        self.every = steps;
        self
    }
}

impl SparseMethod for SparseEvolution {
    fn name(&self) -> &str {
        "set"
    }

    fn begin(&mut self, model: &mut dyn Prunable, seed: Seed, _: usize) -> Result<()> {
        Exchanges { every: self.every, fraction: self.fraction, stop: self.stop }.check(&self.choice)?;
        let layers = self.choice.layers(model)?;
        let masks = self.choice.by_chance(&layers, &weights_of(model, &layers)?, &mut seed.stream("random masks"))?;
        hold_masks(model, &layers, &masks)?;
        self.run = Some((layers, seed.stream("random growth")));
        Ok(())
    }

    fn step(&mut self, model: &mut dyn Prunable, gradients: Gradients, optimizer: &mut Optimizer, at: TrainStep) -> Result<()> {
        optimizer.step(model, &gradients, at.learning_rate)?;
        let exchanges = Exchanges { every: self.every, fraction: self.fraction, stop: self.stop };
        let Some((layers, random)) = self.run.as_mut().filter(|_| exchanges.due(at.step, at.steps)) else { return Ok(()) };
        for layer in layers.iter() {
            let growth = Array2::from_shape_simple_fn(layer.shape, || random.uniform());
            exchanges.apply(model, layer, &growth, optimizer, (at.step, at.steps))?;
        }
        Ok(())
    }
}

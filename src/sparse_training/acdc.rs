//! AC/DC: alternating compressed and decompressed training.
//!
//! Peste, Iofinova, Vladu, Alistarh. *AC/DC: alternating compressed/decompressed training of deep neural networks.* NeurIPS 2021, arXiv:2106.12379,
//! algorithm 1.
//!
//! ```text
//! dense for a while; then in turns:
//!     compressed     the masks of largest |w| are chosen and held for a phase
//!     decompressed   all weights train for a phase; those that were out begin at 0
//! the last phase is compressed, and longer
//! ```
//!
//! What an optimiser remembers is forgotten when a phase begins, as in the paper at every decompression.
//!
//! Departures: phases are counted in steps. The dense network that the paper gets beside, at the end of the last decompressed phase, is what
//! [`Acdc::dense_until`] says when to take.
//!
//! Cost: a selection a compressed phase; half of the run is dense.

use super::choice::{MaskChoice, hold_masks, weights_of};
use super::method::{Prunable, SparseMethod};
use crate::nn::{Gradients, LayerInfo, Optimizer};
use crate::rng::Seed;
use crate::train::TrainStep;
use crate::{Error, Result};

/// Dense and sparse phases in turns; see the module.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `warm_up` | 0.1 | [0, 1) | the first dense phase, as a fraction of all steps |
/// | `phase` | 0.05 | (0, 1) | each phase after it |
/// | `last` | 0.15 | (0, 1) | the last compressed phase, at least; it begins with a compressed phase's turn |
#[derive(Debug, Clone)]
pub struct Acdc {
    /// How sparse, and the share of each layer; the paper ranks over all ([`Global`](crate::allocate::Global)).
    pub choice: MaskChoice,
    /// Of all steps.
    pub warm_up: f64,
    /// Of all steps.
    pub phase: f64,
    /// Of all steps.
    pub last: f64,
    layers: Vec<LayerInfo>,
}

impl Acdc {
    /// With the defaults.
    pub fn new(choice: MaskChoice) -> Self {
        Acdc { choice, warm_up: 0.1, phase: 0.05, last: 0.15, layers: Vec::new() }
    }

    /// Number of the phase that `step` is in, from 0: even ones are dense. The last is odd.
    fn number(&self, step: usize, steps: usize) -> usize {
        let whole = |fraction: f64| (fraction * steps as f64).round() as usize;
        let (warm_up, phase) = (whole(self.warm_up), whole(self.phase).max(1));
        let of = |step: usize| step.checked_sub(warm_up).map_or(0, |after| 1 + after / phase);
        // A dense phase that would not end before the last one begins belongs to the last.
        let begins = of(steps.saturating_sub(whole(self.last)).max(warm_up));
        of(step).min(begins - usize::from(begins % 2 == 0))
    }

    /// Whether `step` of `steps`, from 0, is in a compressed phase.
    ///
    /// ```
    /// use lacuna::sparse_training::{Acdc, MaskChoice};
    /// let mut acdc = Acdc::new(MaskChoice::uniform(0.9));
    /// (acdc.warm_up, acdc.phase, acdc.last) = (0.2, 0.2, 0.2);
    /// let phases: Vec<bool> = (0..10).map(|step| acdc.is_compressed(step, 10)).collect();
    /// assert_eq!(phases, [false, false, true, true, false, false, true, true, true, true]);
    /// ```
    pub fn is_compressed(&self, step: usize, steps: usize) -> bool {
        self.number(step, steps) % 2 == 1
    }

    /// The first step of the last compressed phase, before which the network is dense and well trained.
    pub fn dense_until(&self, steps: usize) -> usize {
        (0..steps).rev().find(|step| !self.is_compressed(*step, steps)).map_or(0, |step| step + 1)
    }
}

impl SparseMethod for Acdc {
    fn name(&self) -> &str {
        "acdc"
    }

    fn begin(&mut self, model: &mut dyn Prunable, _: Seed, _: usize) -> Result<()> {
        let parts = [("warm-up", self.warm_up), ("phase", self.phase), ("last", self.last)];
        for (option, part) in parts {
            if !((0.0..1.0).contains(&part) && (part > 0.0 || option == "warm-up")) {
                return Err(Error::invalid_option(option, format!("{part} is no fraction of a run")));
            }
        }
        if self.warm_up + self.last > 1.0 {
            let reason = format!("{} and the last phase of {} are more than the run", self.warm_up, self.last);
            return Err(Error::invalid_option("warm-up", reason));
        }
        self.layers = self.choice.layers(model)?;
        self.layers.iter().try_for_each(|layer| model.set_mask(&layer.parameter, None))
    }

    fn before_step(&mut self, model: &mut dyn Prunable, at: TrainStep) -> Result<()> {
        let now = self.is_compressed(at.step, at.steps);
        let before = at.step > 0 && self.is_compressed(at.step - 1, at.steps);
        match (before, now) {
            (false, true) => {
                let masks = self.choice.by_magnitude(&self.layers, &weights_of(model, &self.layers)?, self.choice.sparsity)?;
                hold_masks(model, &self.layers, &masks)
            }
            (true, false) => self.layers.iter().try_for_each(|layer| model.set_mask(&layer.parameter, None)),
            _ => Ok(()),
        }
    }

    fn step(&mut self, model: &mut dyn Prunable, gradients: Gradients, optimizer: &mut Optimizer, at: TrainStep) -> Result<()> {
        if at.step > 0 && self.is_compressed(at.step - 1, at.steps) != self.is_compressed(at.step, at.steps) {
            optimizer.forget_all();
        }
        optimizer.step(model, &gradients, at.learning_rate)
    }
}

//! Static sparse training: a mask that is drawn once and never changes.
//!
//! The baseline of Mocanu et al. 2018 and Evci et al. 2020 (*static*). Cost: none.

use super::choice::{MaskChoice, hold_masks, weights_of};
use super::method::{Prunable, SparseMethod};
use crate::Result;
use crate::rng::Seed;

/// Masks drawn at random before the first step; or, without a choice, whatever masks the model has.
#[derive(Debug, Clone, Default)]
pub struct FixedMask {
    /// How sparse and where; None keeps the masks that are held.
    pub choice: Option<MaskChoice>,
}

impl FixedMask {
    /// Drawn at random.
    pub fn random(choice: MaskChoice) -> Self {
        FixedMask { choice: Some(choice) }
    }
}

impl SparseMethod for FixedMask {
    fn name(&self) -> &str {
        "static"
    }

    fn begin(&mut self, model: &mut dyn Prunable, seed: Seed, _: usize) -> Result<()> {
        let Some(choice) = &self.choice else { return Ok(()) };
        let layers = choice.layers(model)?;
        let masks = choice.by_chance(&layers, &weights_of(model, &layers)?, &mut seed.stream("random masks"))?;
        hold_masks(model, &layers, &masks)
    }
}

//! SNIP: connection sensitivity, measured before training.
//!
//! Lee, Ajanthan, Torr. *SNIP: Single-shot network pruning based on connection sensitivity.* ICLR 2019, arXiv:1810.02340,
//! equations 3 to 6.
//!
//! ```text
//! s = |∂L/∂c| at c = 1, where w is replaced by c w;   ∂L/∂c = w ∂L/∂w   ⇒   s = |w g|
//! ```
//!
//! The paper divides by the sum over the network; that changes no rank and is left out. Scores are meant to be compared over
//! the whole network ([`Global`](crate::allocate::Global)), on an initialised and not on a trained network: at a minimum g
//! vanishes.
//!
//! Cost: one backward pass over a mini-batch.

use crate::Result;
use crate::criteria::{Evidence, Need, Needs, Saliency};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// |w g|; see the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Snip;

impl Saliency for Snip {
    fn name(&self) -> &str {
        "snip"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::Gradient)
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok((layer.elementwise("snip", Need::Gradient)? * &layer.weight).mapv(f32::abs))
    }
}

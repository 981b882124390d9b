//! SynFlow: synaptic flow, without data.
//!
//! Tanaka, Kunin, Yamins, Ganguli. *Pruning neural networks without any data by iteratively conserving synaptic flow.*
//! NeurIPS 2020, arXiv:2006.05467, equation 3 and algorithm 1.
//!
//! ```text
//! R = 1ᵀ (Π_l |W_l|) 1,   s = |w| ∂R/∂|w|
//! ```
//!
//! The scores of every layer sum to R (the flow is conserved), so no layer can be emptied as long as pruning is iterative:
//! prune in steps with densities ρ^{t/T}, T = 100 ([`Schedule::Exponential`](crate::prune::Schedule::Exponential)), scoring
//! anew before each. Scores are compared over the whole network.
//!
//! Departures: biases take no part (the authors' code takes their absolute values along, the equation does not have them),
//! and activations are left out instead of relying on their being the identity on positive numbers.
//!
//! Cost: a forward and a backward pass on one sample.

use crate::Result;
use crate::criteria::{Evidence, Need, Needs, Saliency};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// |w| ∂R/∂|w|; see the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SynFlow;

impl Saliency for SynFlow {
    fn name(&self) -> &str {
        "synflow"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::SynapticFlow)
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok(layer.elementwise("synflow", Need::SynapticFlow)? * &layer.weight.mapv(f32::abs))
    }
}

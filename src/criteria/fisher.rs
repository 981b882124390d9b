//! Diagonal empirical Fisher: Optimal Brain Damage with squared gradients for second derivatives.
//!
//! Theis, Korshunova, Tejani, Huszár. *Faster gaze prediction with dense networks and Fisher pruning.* 2018,
//! arXiv:1801.05787, equation 7.
//!
//! ```text
//! s = ½ F w²,   F = 1/N Σ_n (∂L_n/∂w)²
//! ```
//!
//! *Empirical*: the labels are the data's, where the true Fisher matrix draws them from the model. The two agree only for a
//! model that fits its data. Scores are comparable between layers.
//!
//! Cost: one backward pass; for convolutions each sample's weight gradient is formed apart.

use crate::Result;
use crate::criteria::{Evidence, Need, Needs, Saliency};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// ½ F w²; see the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Fisher;

impl Saliency for Fisher {
    fn name(&self) -> &str {
        "fisher"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::SquaredGradients)
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok(layer.elementwise("fisher", Need::SquaredGradients)? * &layer.weight.mapv(|w| 0.5 * w * w))
    }

    fn predicts_loss(&self) -> bool {
        true
    }
}

//! GraSP: keep the weights that carry the flow of gradients.
//!
//! Wang, Zhang, Grosse. *Picking winning tickets before training by preserving gradient flow.* ICLR 2020, arXiv:2002.07376,
//! equation 8.
//!
//! ```text
//! S(−w) = −w ⊙ H g;   the weights with the largest S are removed, so   s = −S = w ⊙ H g
//! ```
//!
//! The sign is the paper's trap: removing a weight with large S does not lessen, or even raises, the norm of the gradient.
//! Scores are comparable between layers and may be negative.
//!
//! The authors divide the logits by a temperature of 200 before the loss: [`Loss::TemperedCrossEntropy`]. A last layer whose weights are divided by it
//! is not the same: the share of that layer's own gradients in H g grows by its square. Departure: batch normalisation uses running statistics.
//!
//! [`Loss::TemperedCrossEntropy`]: crate::nn::Loss::TemperedCrossEntropy
//!
//! Cost: one gradient and one Hessian-vector product, exact (Pearlmutter): about four backward passes.

use crate::Result;
use crate::criteria::{Evidence, Need, Needs, Saliency};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// w ⊙ H g; see the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Grasp;

impl Saliency for Grasp {
    fn name(&self) -> &str {
        "grasp"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::HessianGradient)
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok(layer.elementwise("grasp", Need::HessianGradient)? * &layer.weight)
    }
}

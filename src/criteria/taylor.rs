//! First-order Taylor: the squared change of the loss that removing a weight causes to first order.
//!
//! Molchanov, Mallya, Tyree, Frosio, Kautz. *Importance estimation for neural network pruning.* CVPR 2019,
//! arXiv:1906.10771, equation 8. Their earlier paper: Molchanov et al., ICLR 2017, arXiv:1611.06440.
//!
//! ```text
//! s = (g w)²,   g = ∂L/∂w
//! ```
//!
//! At a minimum g vanishes and so does what this criterion knows; it is meant for networks in training or for data the
//! network was not fitted to. Scores are comparable between layers.
//!
//! Departure: the gradient is of the mean loss over the calibration data, where the authors average (g w)² over mini-batches;
//! with one batch the two agree. Units (filters) sum their weights' squares, where the authors square the sum of a gate's.
//!
//! Cost: one backward pass.

use crate::Result;
use crate::criteria::{Evidence, Need, Needs, Saliency};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// (g w)²; see the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Taylor;

impl Saliency for Taylor {
    fn name(&self) -> &str {
        "taylor"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::Gradient)
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok((layer.elementwise("taylor", Need::Gradient)? * &layer.weight).mapv(|s| s * s))
    }
}

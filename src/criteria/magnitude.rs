//! Magnitude: small weights go first.
//!
//! Han, Pool, Tran, Dally. *Learning both weights and connections for efficient neural networks.* NeurIPS 2015,
//! arXiv:1506.02626. Norms over units: Li, Kadav, Durdanovic, Samet, Graf. *Pruning filters for efficient ConvNets.* ICLR
//! 2017, arXiv:1608.08710.
//!
//! ```text
//! L1: s = |w|        L2: s = w²
//! ```
//!
//! For single weights both give one order. For units (rows, columns, blocks; a filter is a row of a convolution's weight)
//! selection sums the scores: the L1 norm of the unit, or the square of its L2 norm, which ranks as the norm itself does.
//!
//! Departure: Han prunes by a threshold on each layer's standard deviation; here a budget says how many stay.
//!
//! Cost: one pass over the weights.

use crate::Result;
use crate::criteria::{Evidence, Saliency};
use ndarray::{Array2, Zip};
use serde::{Deserialize, Serialize};

/// Which norm a unit of several weights is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MagnitudeNorm {
    /// Sum of absolute values.
    #[default]
    L1,
    /// Sum of squares.
    L2,
}

/// Absolute values or squares; see the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Magnitude {
    /// L1 or L2.
    pub norm: MagnitudeNorm,
}

impl Saliency for Magnitude {
    fn name(&self) -> &str {
        match self.norm {
            MagnitudeNorm::L1 => "magnitude",
            MagnitudeNorm::L2 => "magnitude-l2",
        }
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok(match self.norm {
            MagnitudeNorm::L1 => Zip::from(&layer.weight).par_map_collect(|w| w.abs()),
            MagnitudeNorm::L2 => Zip::from(&layer.weight).par_map_collect(|w| w * w),
        })
    }
}

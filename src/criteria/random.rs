//! Random scores: the baseline that every criterion has to beat.
//!
//! Uniform from [0, 1), from a stream named after the layer, so that a layer's scores do not depend on the others.
//! Cost: one number a weight.

use crate::Result;
use crate::criteria::{Evidence, Saliency};
use crate::rng::Seed;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// Uniform scores; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Random {
    /// From which the streams follow.
    pub seed: Seed,
}

impl Saliency for Random {
    fn name(&self) -> &str {
        "random"
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        let mut stream = self.seed.stream(&format!("random scores/{}", layer.layer));
        Ok(Array2::from_shape_simple_fn(layer.weight.dim(), || stream.uniform()))
    }
}

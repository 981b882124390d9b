//! What a run of sparse training costs.
//!
//! Evci, Gale, Menick, Castro, Elsen. *Rigging the lottery.* ICML 2020, arXiv:1911.11134, appendix H.
//!
//! ```text
//! a step of one sample:   2 Σ_l positions_l (forward_l + input gradient_l + weight gradient_l)
//! forward, input gradient   the weights that are not 0
//! weight gradient           the weights whose gradient is asked for: of RigL all of them, once every ΔT steps, and so
//!                           (3 f_S ΔT + 2 f_S + f_D) / (ΔT + 1) a step; of methods that learn scores all of them, always
//! ```
//!
//! Two FLOPs for each use of a weight. What masks, scores and optimisers cost is not counted, as in the paper; the input gradient of the first layer
//! is.

use super::method::UsedWeights;
use crate::nn::LayerInfo;
use serde::{Deserialize, Serialize};

/// FLOPs of a run of training, over its rows.
///
/// ```
/// use lacuna::nn::LayerInfo;
/// use lacuna::sparse_training::{TrainingFlops, UsedWeights};
/// let layer = [LayerInfo::linear("fc1", (10, 10))];
/// let mut flops = TrainingFlops::default();
/// // Nine steps of one row at 20 weights, and one whose gradient is dense.
/// (0..9).for_each(|_| flops.add(&layer, &[UsedWeights { run: 20, gradient: 20 }], 1));
/// flops.add(&layer, &[UsedWeights { run: 20, gradient: 100 }], 1);
/// assert_eq!(flops.sum(), 2. * (9. * 3. * 20. + 2. * 20. + 100.));
/// assert_eq!(flops.dense, 2. * 10. * 300.);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingFlops {
    /// Forward.
    pub forward: f64,
    /// Gradients of inputs.
    pub input_gradient: f64,
    /// Gradients of weights.
    pub weight_gradient: f64,
    /// Of dense training for as many rows.
    pub dense: f64,
}

impl TrainingFlops {
    /// Adds a step of so many rows.
    ///
    /// # Panics
    /// If there is not one entry a layer.
    pub fn add(&mut self, layers: &[LayerInfo], used: &[UsedWeights], rows: usize) {
        assert_eq!(layers.len(), used.len(), "one entry a layer");
        for (layer, used) in layers.iter().zip(used) {
            let each = 2.0 * layer.positions as f64 * rows as f64;
            self.forward += each * used.run as f64;
            self.input_gradient += each * used.run as f64;
            self.weight_gradient += each * used.gradient as f64;
            self.dense += 3.0 * each * layer.len() as f64;
        }
    }

    /// All of a run.
    pub fn sum(&self) -> f64 {
        self.forward + self.input_gradient + self.weight_gradient
    }

    /// As a fraction of dense training; 0 where nothing was trained.
    pub fn fraction(&self) -> f64 {
        if self.dense > 0.0 { self.sum() / self.dense } else { 0.0 }
    }
}

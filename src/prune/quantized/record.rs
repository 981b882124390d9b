//! What became of a layer.

use serde::{Deserialize, Serialize};

/// What became of one layer that was quantised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantRecord {
    /// Its name.
    pub layer: String,
    /// Number of its block.
    pub block: usize,
    /// `(out, in)`.
    pub shape: (usize, usize),
    /// Bits a weight, scales and zero points among them.
    pub bits: f64,
    /// Weights that a mask keeps, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<usize>,
    /// Tokens that were measured.
    pub tokens: usize,
    /// ‖X (Ŵ − W)ᵀ‖² / ‖X Wᵀ‖², towards the weight that was to be met; `None` where no Gram matrix was measured.
    pub error: Option<f64>,
    /// ‖Ŵ − W‖² / ‖W‖², W the weight with its inputs scaled; `None` where that is 0 throughout.
    pub moved: Option<f64>,
    /// The exponent of the scales of its inputs, where they were searched for (AWQ).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponent: Option<f64>,
    /// Where its block was reconstructed: the block's relative squared error before and after, means over tokens of ‖Δh‖² / ‖h‖² behind it; `error` and
    /// `moved` are of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconstructed: Option<(f64, f64)>,
    /// Seconds of quantising, without measuring.
    pub seconds: f64,
}

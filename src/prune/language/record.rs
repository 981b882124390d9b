//! The layers of a run, and what became of them.

use super::generalise::ChosenOnTexts;
use crate::lm::Outlined;
use serde::{Deserialize, Serialize};

/// What became of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Its name.
    pub layer: String,
    /// Number of its block.
    pub block: usize,
    /// `(out, in)`.
    pub shape: (usize, usize),
    /// Weights that stay.
    pub kept: usize,
    /// Tokens that were measured.
    pub tokens: usize,
    /// Of a layer of an expert: how many tokens of the calibration the router gives the expert. Where they are fewer than its layers have inputs,
    /// the expert was measured on all tokens, and `tokens` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed: Option<usize>,
    /// ‖X (Ŵ − W)ᵀ‖² / ‖X Wᵀ‖², towards the weight that was to be met; `None` where no Gram matrix was measured.
    pub error: Option<f64>,
    /// ‖Ŵ − W‖² / ‖W‖², W the layer's own weight; `None` where that is 0 throughout, and in records of builds that did not say it.
    #[serde(default)]
    pub moved: Option<f64>,
    /// Where its block was reconstructed: the block's relative squared error before and after, means over tokens of ‖Δh‖² / ‖h‖² behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconstructed: Option<(f64, f64)>,
    /// The same error on each text of the calibration that was measured apart, in their order; those held out among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<f64>,
    /// What was chosen for the layer on texts that were left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<ChosenOnTexts>,
    /// Seconds of pruning, without measuring.
    pub seconds: f64,
}

/// Where a layer stands in the model and in its files.
pub(in crate::prune) struct Place {
    pub block: usize,
    pub name: String,
    pub tensor: String,
    /// The shape in the checkpoint.
    pub stored: (usize, usize),
    pub transposed: bool,
}

impl Place {
    /// `(out, in)`.
    pub fn shape(&self) -> (usize, usize) {
        let (rows, cols) = self.stored;
        if self.transposed { (cols, rows) } else { (rows, cols) }
    }

    pub fn of(layer: &Outlined) -> Option<Place> {
        let [rows, cols] = layer.stored_shape();
        let (name, tensor) = (layer.name.clone(), layer.tensor());
        Some(Place { block: layer.block?, name, tensor, stored: (rows, cols), transposed: layer.transposed })
    }
}

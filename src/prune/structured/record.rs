//! What became of a model's units.

use super::decode::DecodeCost;
use super::sizes::ShrinkSizes;
use super::sublayer::SubLayerChoice;
use crate::structure::UnitKind;
use serde::{Deserialize, Serialize};

/// Which units of a coupling stayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// The coupling.
    pub name: String,
    /// What its units are.
    pub kind: UnitKind,
    /// The block, by its number in the model before; `None` of all at once.
    pub block: Option<usize>,
    /// Units before.
    pub units: usize,
    /// The units that stayed, by their numbers before.
    pub kept: Vec<usize>,
    /// The score of each, larger = keep; none where units were not chosen by scores. Of group OBS what leaving costs, in the order in which units leave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<f64>,
    /// ‖X (V − W)ᵀ‖² / ‖X Wᵀ‖² of the layer that reads them, towards the weight that was to be met; `None` where no Gram matrix was measured.
    pub error: Option<f64>,
    /// Units that were exchanged after the choice.
    #[serde(default)]
    pub swapped: usize,
    /// Tokens that were measured.
    pub tokens: usize,
    /// Seconds of choosing and moving weights, without measuring.
    pub seconds: f64,
}

/// Which layers stayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerChoice {
    /// By their numbers before.
    pub kept: Vec<usize>,
    /// What leaving each out would cost, by the score; of a greedy choice that of the last round in which the layer was there.
    pub scores: Vec<f64>,
}

/// What training a half of a block did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HalfErrors {
    /// The block, by its number in the model before.
    pub block: usize,
    /// `attention`, `feed-forward`, or `both` where they run side by side.
    pub half: String,
    /// ‖Δh‖² / ‖h‖² of the hidden states behind it before it was trained, the mean over the tokens that were kept aside, or,
    /// where there are fewer than eight parts of 4096 tokens, over all.
    pub before: f64,
    /// The same afterwards.
    pub after: f64,
}

/// Scores of units of a coupling of which none went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredUnits {
    /// The coupling.
    pub name: String,
    /// What its units are.
    pub kind: UnitKind,
    /// The block, by its number in the model before.
    pub block: Option<usize>,
    /// The score of each unit, larger = keep.
    pub scores: Vec<f64>,
}

/// Sizes that meet a budget, as a search tried them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// What stays.
    pub sizes: ShrinkSizes,
    /// Parameters of the whole model that stay.
    pub parameters: usize,
    /// Weights of the blocks' linear layers that stay.
    pub blocks: usize,
    /// What is left of what the budget is of: weights, parameters, floating point operations a token, bytes, or milliseconds a token.
    #[serde(default)]
    pub cost: f64,
    /// The mean of −ln p on held-out sequences, in nats, with the units that would go set to 0 and no weight moved.
    pub loss: f64,
}

/// What a search for sizes found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchRecord {
    /// What was asked for.
    pub target: String,
    /// What the budget counts.
    #[serde(default)]
    pub what: String,
    /// How much of that the model had.
    #[serde(default)]
    pub whole: f64,
    /// What a token takes, where it was measured.
    #[serde(default)]
    pub decode: Option<DecodeCost>,
    /// The number of those that were chosen.
    pub chosen: usize,
    /// All that were tried, those with most parameters first.
    pub tried: Vec<Tried>,
    /// Held-out tokens.
    pub tokens: usize,
}

impl SearchRecord {
    /// The sizes that were chosen.
    ///
    /// # Panics
    /// If there are none of that number.
    pub fn sizes(&self) -> ShrinkSizes {
        self.tried[self.chosen].sizes
    }
}

/// What a run has done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShrinkRecord {
    /// Which layers stayed; `None` where all do.
    pub layers: Option<LayerChoice>,
    /// Which sub-layers went; `None` where none did.
    #[serde(default)]
    pub sublayers: Option<SubLayerChoice>,
    /// Which units stayed, of hidden features first, then block by block.
    pub units: Vec<UnitRecord>,
    /// Blocks that are done.
    #[serde(default)]
    pub blocks: usize,
    /// What training halves of blocks did, where they were trained.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reconstructed: Vec<HalfErrors>,
    /// Scores of units of which none went, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<ScoredUnits>,
}

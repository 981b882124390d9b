//! One-shot pruning of language models, block by block, with one block in memory.
//!
//! ```text
//! tokens ─ embed ─► hidden states ─► block 0 ─► hidden states ─► block 1 ─► …    they lie in memory, or beyond a limit on the disk
//!                                      │ inputs of its linear layers: measured, one Gram matrix for those that share an input
//!                                      ▼
//!                                   Pruner ─► weight and mask, written at once; the block runs on with what was written
//! ```
//!
//! The inputs of a block come from the pruned blocks before it ([`CalibrationInputs::Pruned`]), or from a model that stays dense
//! ([`CalibrationInputs::Dense`]). Within a block ([`Sequential`]) either all layers are measured with the block's own weights still dense, then pruned,
//! and the block runs a second time, as in the codes of Wanda and SparseGPT; or layers are pruned in the order in which they run, each
//! on what the pruned ones before it give, and every product is made once.
//!
//! With a [`Correction`] the dense model runs beside the pruned one, and each layer is pruned towards what lets the outputs come back
//! to the dense model's ([`Retarget`](crate::solve::Retarget)).

mod check;
mod activations;
mod before;
mod layers;
mod gradients;
mod evaluator;
mod reconstruct;
mod generalise;
mod walk;
mod record;
mod read_ahead;
mod budgets;
mod levels;
mod resume;
mod prune_layer;
mod run;

pub use activations::ActivationMemory;
pub(super) use activations::{Activations, MemoryBudget};
pub(super) use before::mask_before;
pub use budgets::{BlockOutliers, allocated, allocated_with, of_blocks, outliers};
pub use check::check_measurable;
pub(super) use check::check_trained;
pub use generalise::{ChosenOnTexts, Generalisation};
pub use gradients::SequenceGradients;
pub use layers::{LanguageLayer, language_layers};
pub(crate) use layers::{layer_kind, matches};
pub use levels::{Cost, LayerLevel, LevelSettings, Levels};
pub(super) use read_ahead::read_ahead;
pub use read_ahead::{LayerRanking, ReadProgress};
pub use reconstruct::BlockReconstruction;
pub(super) use reconstruct::{Parts, Reconstructed, Trained, reconstruct};
pub use record::LayerRecord;
pub(super) use record::Place;
pub use resume::unfinished_settings;
pub(super) use resume::{begin, unfinished_records};
pub use run::{LanguageRun, Progress, PrunedFolder, prune_language};
pub(super) use run::{Saver, read_vectors, write_moved};
pub(super) use walk::{DenseBlock, PART, Part, Prune, Walk};

use crate::mask::{Budget, Pattern, Scope};
use crate::solve::Pruner;
use std::collections::HashMap;
use std::fmt;

/// From which model the inputs of a block come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CalibrationInputs {
    /// From the blocks before it as they were pruned.
    #[default]
    Pruned,
    /// From the blocks before it as they were.
    Dense,
}

/// When the layers of a block are pruned: sequentially by layer, or by block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sequential {
    /// By layer: one after another, measured with those before them pruned. Only for [`CalibrationInputs::Pruned`].
    #[default]
    Layer,
    /// By block: all at once, measured with the whole block dense.
    Block,
}

/// How far a layer makes up for what earlier ones have changed; see [`Retarget`](crate::solve::Retarget).
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Correction {
    /// α: the fraction of its inputs' change, in [0, 1].
    pub inputs: f64,
    /// β: the fraction of the hidden states' drift, in [0, 1], for layers whose output joins them.
    #[serde(rename = "stream")]
    pub hidden_states: f64,
    /// λ, as a fraction of the mean diagonal.
    pub damping: f64,
}

/// How a language model is pruned.
#[derive(Clone)]
pub struct LanguagePruning<'a> {
    /// By whom.
    pub pruner: &'a dyn Pruner,
    /// The shape that survivors take.
    pub pattern: Pattern,
    /// Who competes with whom in a layer.
    pub scope: Scope,
    /// How much stays of the weight of each layer that is pruned, by the layer's name, in units of the pattern. Layers that are not
    /// named are left alone.
    pub budgets: HashMap<String, Budget>,
    /// From which model the inputs come.
    pub inputs: CalibrationInputs,
    /// When the layers of a block are pruned.
    pub sequential: Sequential,
    /// Whether layers make up for earlier ones. Only with [`Sequential::Layer`].
    pub correction: Option<Correction>,
    /// Whether each block is trained after it is pruned, to give what the dense one gives. Only with [`CalibrationInputs::Pruned`].
    pub reconstruction: Option<BlockReconstruction>,
    /// How what is fitted on a calibration is kept from being learnt by heart.
    pub generalisation: Generalisation,
    /// Gradients, where the pruner needs them.
    pub gradients: Option<&'a SequenceGradients>,
    /// Where activations lie while the run lasts.
    pub memory: ActivationMemory,
}

impl fmt::Debug for LanguagePruning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("LanguagePruning");
        all.field("pruner", &self.pruner.name()).field("pattern", &self.pattern).field("scope", &self.scope);
        all.field("budgets", &self.budgets).field("inputs", &self.inputs).field("sequential", &self.sequential);
        all.field("correction", &self.correction)
            .field("reconstruction", &self.reconstruction)
            .field("generalisation", &self.generalisation)
            .field("gradients", &self.gradients)
            .field("memory", &self.memory)
            .finish()
    }
}

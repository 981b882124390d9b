//! What a run leaves to be read: its record, as typed values.

use super::described::FewTokens;
use super::excess::{Excess, PerplexityReport, TextReports};
use super::settings::PruneJob;
use crate::mask::Pattern;
use crate::prune::{LayerRecord, LeftAlone, PrunedTensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The outcome of a job. It serialises to the record `prune.json`, and to what the command says with `--json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[must_use]
pub enum PruneReport {
    /// Of a model's folder.
    Model(Box<ModelReport>),
    /// Of a plain file.
    File(Box<FileReport>),
}

/// What became of a model's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelReport {
    /// The folder that was written.
    pub out: PathBuf,
    /// The whole job, which can be run again, without what is of one run; `None` in records of builds that did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<PruneJob>,
    /// What the run is known by when it is taken up again: what its settings came to, hashes of model and calibration, and under `options` those
    /// settings that matter.
    pub settings: Value,
    /// Weights of the layers that were pruned.
    pub weights: usize,
    /// Of these, those that stay.
    pub kept: usize,
    /// The fraction of them that went; `None` of nothing.
    pub sparsity: Option<f64>,
    /// Parameters of the whole model.
    pub parameters: usize,
    /// The fraction of them that went.
    pub whole_sparsity: Option<f64>,
    /// How long it took, without measuring a perplexity.
    pub seconds: f64,
    /// The most bytes of memory, where the system says.
    pub peak_bytes: Option<u64>,
    /// Threads.
    #[serde(default)]
    pub threads: usize,
    /// The instruction set of the kernels.
    #[serde(default)]
    pub isa: String,
    /// What a search of budgets found: its levels with their costs and errors, the losses, and the level that was chosen for each layer; null
    /// without one.
    #[serde(default)]
    pub search: Value,
    /// Where the calibration has fewer tokens than layers have inputs.
    #[serde(default)]
    pub few_tokens: Option<FewTokens>,
    /// How the end of the run was asked for: how weights are stored, what the perplexity is of.
    #[serde(default)]
    pub asked: Value,
    /// The perplexity before and after, if it was measured: of several texts that of the first.
    pub perplexity: Option<PerplexityReport>,
    /// The same of every text.
    #[serde(default)]
    pub texts: Vec<PerplexityReport>,
    /// What was lost on them, at home and abroad; `None` without texts, and in records of builds that did not say it.
    #[serde(default)]
    pub excess: Option<Excess>,
    /// What became of each layer.
    pub layers: Vec<LayerRecord>,
    /// Whether the run was finished before, so that nothing was done.
    #[serde(default, skip_serializing_if = "is_false")]
    pub already_finished: bool,
}

impl ModelReport {
    /// The perplexities of its texts.
    pub(super) fn perplexities(&self) -> TextReports<'_> {
        let one = self.perplexity.as_slice();
        TextReports::new(
            if self.texts.is_empty() { one } else { &self.texts },
            self.job.as_ref().and_then(|job| job.calibration.as_deref()),
        )
    }

    /// Says of a mixture which experts met fewer tokens than their layers have inputs, and were pruned on all of them; `None` where none did.
    pub fn few_routed(&self) -> Option<String> {
        let mut experts: BTreeMap<&str, bool> = BTreeMap::new();
        for (layer, routed) in self.layers.iter().filter_map(|layer| Some((layer, layer.routed?))) {
            let name = layer.layer.rsplit_once('.').map_or(&*layer.layer, |(expert, _)| expert);
            *experts.entry(name).or_default() |= routed < layer.tokens && routed < layer.shape.1;
        }
        let few = experts.values().filter(|few| **few).count();
        (few > 0).then(|| {
            format!(
                "{few} of {} experts met fewer tokens of the calibration than their layers have inputs, and were pruned on all of its \
                 tokens, as if each had met them: give more --samples",
                experts.len()
            )
        })
    }
}

/// What became of a plain file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileReport {
    /// The file that was written.
    pub out: PathBuf,
    /// The whole job, which can be run again, without what is of one run.
    pub job: PruneJob,
    /// The criterion.
    pub method: String,
    /// The shape that survivors take.
    pub pattern: Pattern,
    /// The allocation.
    pub allocate: String,
    /// Weights of the tensors that were pruned.
    pub weights: usize,
    /// Of these, those that stay.
    pub kept: usize,
    /// The fraction of them that went; `None` of nothing.
    pub sparsity: Option<f64>,
    /// Numbers of the whole file.
    pub parameters: usize,
    /// Of these, those that stay; `None` in records of builds that did not say it.
    #[serde(default)]
    pub whole_kept: Option<usize>,
    /// The fraction of them that went.
    pub whole_sparsity: Option<f64>,
    /// What became of each tensor.
    pub layers: Vec<PrunedTensor>,
    /// Tensors that look like weights and were left alone.
    pub left_alone: Vec<LeftAlone>,
}

fn is_false(value: &bool) -> bool {
    !value
}

//! What a training run leaves to be read: its record, as typed values.

use super::super::event::ValidationRecord;
use super::settings::TrainJob;
use crate::train::StepRecord;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// The outcome of a training run. It serialises to the record `train.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use]
pub struct TrainReport {
    /// The folder that was written.
    pub out: PathBuf,
    /// The whole job, which can be run again, without what is of one run.
    pub job: TrainJob,
    /// What the run is known by when it is taken up again: its settings under `options`, and what tells model, tokens and teacher.
    pub settings: Value,
    /// Steps that were taken.
    pub steps: usize,
    /// Tokens that were trained on, those of all steps together.
    pub tokens: u64,
    /// Tokens of the text, and documents.
    pub text_tokens: u64,
    /// Documents of the text.
    pub documents: usize,
    /// Sequences that are trained on.
    pub sequences: usize,
    /// Parameters of the whole model.
    pub parameters: usize,
    /// Numbers that moved: parameters that no mask drops, or factors beside them.
    pub trained: usize,
    /// The fraction of the model's parameters that masks drop, before.
    pub sparsity_before: f64,
    /// The same of what was written; equal.
    pub sparsity_after: f64,
    /// Every step.
    pub curve: Vec<StepRecord>,
    /// What perplexity was measured on, in words; null if it was not.
    pub validation_text: Option<String>,
    /// Every measurement; that of step 0 is of the model before.
    pub validation: Vec<ValidationRecord>,
    /// The step of the model that was written.
    pub written_step: usize,
    /// Seconds, those of runs that were cut off up to their last saved state.
    pub seconds: f64,
    /// Tokens a second of training steps since the run was last begun or taken up.
    pub tokens_per_second: f64,
    /// The most bytes of memory, where the system says.
    pub peak_bytes: Option<u64>,
    /// Threads.
    pub threads: usize,
    /// The instruction set of the kernels.
    pub isa: String,
    /// The step after which the run was last taken up; 0 if it was not.
    pub resumed_at: usize,
    /// Whether it was done already, and nothing was done now.
    #[serde(default)]
    pub already_finished: bool,
}

impl TrainReport {
    /// The record of the model that was written.
    pub fn written(&self) -> Option<&ValidationRecord> {
        self.validation.iter().find(|v| v.step == self.written_step)
    }
}

//! A job that leaves experts of a mixture out.

use super::inputs::{CalibrationText, activation_bytes, open_whole, remarks, scratch_folder};
use super::{Event, ModelSize, Stage};
use crate::data::{Bos, Sequences};
use crate::io::outputs;
use crate::lm::Config;
use crate::prune::{ActivationMemory, ExpertRecord, ExpertScore, remove_experts};
use crate::{Error, Result};
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// How many experts of a mixture stay, how they are chosen, and where the model is written.
///
/// | Field | Meaning |
/// |---|---|
/// | `model`, `out` | the folder that is read, and the one that is written |
/// | `experts` | experts of a block that stay; all if there is none |
/// | `active` | how many a token meets; as many as before if there is none, or as stay |
/// | `score` | how they are chosen |
/// | `calibration` | a text, or a safetensors file with `input_ids`, to measure on |
/// | `samples`, `context` | sequences of it, and their tokens |
/// | `bos` | where the token that begins a text stands |
/// | `force` | whether an older output is replaced |
#[derive(Debug, Clone)]
pub struct ExpertsJob {
    /// The model's folder.
    pub model: PathBuf,
    /// The folder to write.
    pub out: PathBuf,
    /// Experts of a block that stay.
    pub experts: Option<usize>,
    /// How many of them a token meets.
    pub active: Option<usize>,
    /// How they are chosen.
    pub score: ExpertScore,
    /// What is measured on.
    pub calibration: Option<PathBuf>,
    /// Sequences of calibration.
    pub samples: usize,
    /// Tokens of a sequence.
    pub context: usize,
    /// Where the token that begins a text stands.
    pub bos: Bos,
    /// Whether an older output is replaced.
    pub force: bool,
}

/// What became of the experts of a model.
#[derive(Debug, Clone, Serialize)]
pub struct ExpertsReport {
    /// The folder.
    pub out: PathBuf,
    /// Experts of a block, before and after.
    pub experts: [usize; 2],
    /// How many of them a token meets, before and after.
    pub active: [usize; 2],
    /// The model before.
    pub before: ModelSize,
    /// The model after.
    pub after: ModelSize,
    /// Block by block.
    pub blocks: Vec<ExpertRecord>,
}

impl ExpertsJob {
    /// Reads the folder `model` and writes the folder `out`, which appears whole or not at all, with the record as `experts.json`.
    ///
    /// # Errors
    /// As [`remove_experts`]; if experts are chosen by what they do and there is no calibration, or one that is too short; what is wrong with the
    /// folders.
    pub fn run(&self, watch: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> Result<ExpertsReport> {
        let folder = open_whole(&self.model)?;
        let inputs: Vec<&Path> = [Some(self.model.as_path()), self.calibration.as_deref()].into_iter().flatten().collect();
        let output = outputs::folder(&self.out, &inputs, self.force)?;
        let config = Config::of(&folder)?;
        remarks(&folder, &config, watch)?;
        let Some((count, met)) = config.experts() else {
            return Err(Error::invalid_option("experts", format!("a {} has none", config.family())));
        };
        let keep = self.experts.unwrap_or(count);
        let active = self.active.unwrap_or_else(|| met.min(keep));
        config.with_experts(keep, active)?;
        let measures = self.score.measures() && keep < count;
        if measures && self.calibration.is_none() {
            return Err(Error::invalid_option(
                "calibration",
                "is missing: experts are chosen by what they do; --experts-by random needs none",
            ));
        }
        let text =
            CalibrationText { file: self.calibration.as_deref(), samples: self.samples, context: self.context, bos: self.bos };
        let calibration = if measures { text.read(&folder, &config)?.0 } else { Sequences::nothing() };
        let memory = ActivationMemory::new(activation_bytes(None, false, &folder), scratch_folder(None, &self.out)?);
        let mut see = |done, of| watch(&Event::Progress { stage: Stage::Blocks, done, of, memory: None });
        let model = (&folder, &config);
        let (writer, smaller, blocks) =
            remove_experts(model, &calibration, (keep, active), self.score, &memory, output, &mut see)?;
        let whole = writer.complete()?;
        let report = ExpertsReport {
            out: self.out.clone(),
            experts: [count, keep],
            active: [met, active],
            before: ModelSize::of(&folder, &config)?,
            after: ModelSize::of(&whole, &smaller)?,
            blocks,
        };
        let record = serde_json::to_value(&report).map_err(|e| Error::invalid_option("record", e.to_string()))?;
        writer.json("experts.json", &record)?;
        writer.finish()?;
        Ok(report)
    }
}

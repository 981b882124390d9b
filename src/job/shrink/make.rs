//! What is made of a model: units leave it, or experts.

use super::method::ShrinkMethod;
use super::report::{ExpertsReport, ModelSize};
use super::settings::ShrinkJob;
use crate::criteria::{Fisher, Magnitude, MagnitudeNorm, Saliency, Taylor};
use crate::data::Sequences;
use crate::io::{Folder, FolderWriter, Output};
use crate::job::event::{Event, Stage};
use crate::job::search::progress;
use crate::lm::Config;
use crate::prune::{
    ActivationMemory, Aggregation, BlockReconstruction, BlockWidths, DepthScore, ExpertRemoval, ExpertRun, LanguageShrinking,
    OutputMetrics, SearchRecord, SequenceGradients, ShrinkRecord, ShrinkRun, ShrunkFolder, SizeSearch, UnitMethod, UnitScores,
    VocabularyCut, language_layers, remove_experts, search_sizes, shrink_language, spread_widths,
};
use crate::rng::Seed;
use crate::solve::GroupObs;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::Path;

/// What a job has read.
pub(super) struct Prepared<'a> {
    pub folder: &'a Folder,
    pub config: &'a Config,
    pub calibration: &'a Sequences,
    pub vocabulary: Option<&'a VocabularyCut>,
    pub memory: ActivationMemory,
    pub output: &'a Output,
    pub described: &'a Value,
    /// What a run that is taken up again was asked for.
    pub unfinished: Option<&'a Value>,
    /// Whether gradients of sequences are measured.
    pub gradients: bool,
    /// Scores of an earlier run.
    pub scores: Option<&'a UnitScores>,
}

/// A folder that has not its name yet, and what became of the model.
pub(super) struct Made {
    pub writer: FolderWriter,
    pub config: Config,
    pub record: ShrinkRecord,
    pub search: Option<SearchRecord>,
    pub spread: Option<BlockWidths>,
    pub mixture: Option<ExpertsReport>,
}

impl ShrinkJob {
    fn obs(&self) -> GroupObs {
        GroupObs { damping: self.damping, rounds: self.rounds, swaps: self.swaps }
    }

    /// Experts leave.
    pub(super) fn without_experts(&self, run: &Prepared<'_>, watch: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> Result<Made> {
        let Some((count, met)) = run.config.experts() else {
            let option = if self.experts.is_some() { "experts" } else { "active-experts" };
            return Err(Error::invalid_option(option, format!("a {} has none", run.config.family())));
        };
        let keep = self.experts.unwrap_or(count);
        let active = self.active_experts.unwrap_or_else(|| met.min(keep));
        let removal = ExpertRemoval { keep, active, score: self.experts_by, seed: Seed(self.seed), memory: run.memory.clone() };
        let run = ExpertRun {
            folder: run.folder,
            config: run.config,
            calibration: run.calibration,
            removal: &removal,
            out: run.output,
            described: run.unfinished.unwrap_or(run.described),
            resume: run.unfinished.is_some(),
        };
        let (writer, config, blocks) = remove_experts(run, &mut |done, of| progress(watch, Stage::Blocks, done, of))?;
        let mixture = Some(ExpertsReport { experts: [count, keep], active: [met, active], blocks });
        Ok(Made { writer, config, record: ShrinkRecord::default(), search: None, spread: None, mixture })
    }

    /// Heads, features, layers and entries of the vocabulary leave.
    pub(super) fn without_units(
        &self,
        run: &Prepared<'_>,
        before: ModelSize,
        watch: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<Made> {
        let Prepared { folder, config, calibration, ref memory, .. } = *run;
        // What cannot be is said before anything is measured.
        self.sizes().check(config, true)?;
        let prefix = self.cuts_prefix();
        let criterion: Option<Box<dyn Saliency>> = match self.method {
            ShrinkMethod::Taylor => Some(Box::new(Taylor)),
            ShrinkMethod::Fisher => Some(Box::new(Fisher)),
            ShrinkMethod::Magnitude => Some(Box::new(Magnitude { norm: MagnitudeNorm::L2 })),
            _ => None,
        };
        let needs = criterion.as_ref().map(|c| c.needs());
        let gradients = match needs.filter(|needs| run.gradients && SequenceGradients::wanted(*needs)) {
            Some(needs) => {
                let layers = language_layers(folder, config, &[], &[])?;
                let see = |done, of| progress(watch, Stage::Gradients, done, of);
                Some(SequenceGradients::measure(folder, config, calibration, &layers, needs, memory, see)?)
            }
            None => None,
        };
        let method = match (self.method, &criterion) {
            _ if prefix => UnitMethod::Prefix,
            (_, Some(criterion)) => UnitMethod::Weights(criterion.as_ref(), gradients.as_ref()),
            (ShrinkMethod::Minitron, _) if self.aggregate != Aggregation::default() => UnitMethod::Activations(self.aggregate),
            (ShrinkMethod::Minitron, _) => UnitMethod::Minitron,
            (ShrinkMethod::Flap, _) => UnitMethod::Flap,
            (ShrinkMethod::Random, _) => UnitMethod::Random(Seed(self.seed)),
            _ => UnitMethod::Obs(self.obs()),
        };
        // Sizes of a model do not depend on them: they are measured again where a run goes on, to the same bits.
        let metrics = match self.weighs() && !prefix {
            true => {
                let see = &mut |done, of| progress(watch, Stage::Gradients, done, of);
                Some(OutputMetrics::measure(folder, config, calibration, memory, see)?)
            }
            false => None,
        };
        let target = self.target()?;
        let size = |target| SizeSearch {
            target,
            round: self.round,
            parameters: before.parameters,
            bytes: before.bytes,
            flops: before.flops,
            decode: None,
        };
        let spread: Option<BlockWidths> = match (run.unfinished, target.filter(|_| self.per_layer)) {
            (_, None) => None,
            (Some(kept), Some(_)) => Some(taken_up(run.output.path(), kept, "widths")?),
            (None, Some(target)) => {
                let found;
                let metrics = match &metrics {
                    Some(metrics) => metrics,
                    None => {
                        let see = &mut |done, of| progress(watch, Stage::Gradients, done, of);
                        found = OutputMetrics::measure(folder, config, calibration, memory, see)?;
                        &found
                    }
                };
                let see = &mut |done, of| progress(watch, Stage::Sizes, done, of);
                let (model, search) = ((folder, config), size(target));
                Some(spread_widths(model, calibration, (&search, before.blocks), self.obs(), metrics, memory, see)?)
            }
        };
        // A run that is taken up again has the sizes that it had.
        let found = match (run.unfinished, target.filter(|_| !self.per_layer)) {
            (_, None) => None,
            (Some(kept), Some(_)) => Some(taken_up(run.output.path(), kept, "found")?),
            (None, Some(target)) => {
                let see = &mut |done, of| progress(watch, Stage::Sizes, done, of);
                let model = (folder, config);
                Some(search_sizes(model, calibration, &size(target), memory, see)?)
            }
        };
        let mut noted = run.described.clone();
        noted["widths"] = serde_json::to_value(&spread).map_err(|e| Error::invalid_option("record", e.to_string()))?;
        noted["found"] = serde_json::to_value(&found).map_err(|e| Error::invalid_option("record", e.to_string()))?;
        let shrinking = LanguageShrinking {
            sort: self.sort,
            depth: if found.is_some() { DepthScore::Cosine } else { self.depth_by },
            hidden_by: self.hidden_by,
            drop: &self.drop,
            sublayers: self.sublayers,
            pad: self.pad,
            scores: run.scores,
            score_all: self.scores.is_some() && run.scores.is_none(),
            widths: spread.as_ref().map(|s| &s.widths[..]),
            metrics: metrics.as_ref(),
            vocabulary: run.vocabulary,
            correction: self.correction()?.filter(|_| !prefix),
            reconstruction: self
                .reconstruct_blocks
                .map(|passes| BlockReconstruction::new(passes).learning_rate(self.reconstruct_rate)),
            ..LanguageShrinking::new(found.as_ref().map_or(self.sizes(), SearchRecord::sizes), method, memory.clone())
        };
        let run = ShrinkRun {
            folder,
            config,
            calibration,
            shrinking: &shrinking,
            out: run.output,
            described: run.unfinished.unwrap_or(&noted),
            resume: run.unfinished.is_some(),
        };
        let ShrunkFolder { writer, record, config } = shrink_language(run, &mut |p| {
            watch(&Event::Progress { stage: Stage::Blocks, done: p.blocks, of: p.of, memory: p.memory })
        })?;
        Ok(Made { writer, config, record, search: found, spread, mixture: None })
    }
}

/// What an unfinished run had found before its first block.
fn taken_up<T: DeserializeOwned>(out: &Path, before: &Value, what: &str) -> Result<T> {
    let wrong = |e| Error::malformed(FolderWriter::working_folder(out), format!("{what} of the unfinished run: {e}"));
    serde_json::from_value(before[what].clone()).map_err(wrong)
}

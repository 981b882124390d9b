//! A pipeline that is run.

use super::super::event::{Event, Stage};
use super::super::methods::Methods;
use super::super::report::PruneReport;
use super::super::search::progress;
use super::recipe::{Pipeline, StageJob};
use super::report::{PipelineReport, StageReport};
use crate::data::Windows;
use crate::eval::{Census, Evaluated, TextScore};
use crate::io::{Folder, FolderWriter, atomic};
use crate::lm::{Config, LanguageModel};
use crate::{Error, Result};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The record and the page.
const RECORD: &str = "run.json";
const PAGE: &str = "run.html";

impl Pipeline {
    /// Runs all stages. Those that are done are passed over, one that was cut off goes on where it was; so a pipeline that is run again after a
    /// kill gives the bytes of an unbroken one. Behind each stage the record `run.json` and the page `run.html` are written anew.
    ///
    /// # Errors
    /// What a stage refuses, with its number; that of a finished or begun stage which was asked for something else, naming the option;
    /// [`Error::Interrupted`] if `watch` stops.
    pub fn run(&self, methods: &Methods, watch: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> Result<PipelineReport> {
        for (i, stage) in self.stages.iter().enumerate() {
            let (model, out) = stage.paths();
            if let Some(name) =
                [(model, "model"), (out, "out")].into_iter().find(|(path, _)| path.is_some()).map(|(_, name)| name)
            {
                let reason = "is that of the pipeline, or of the stage before; leave it out";
                return Err(Error::invalid_option(format!("stage {}: {name}", i + 1), reason));
            }
            // Of a folder, which need not be there yet.
            let checked = match stage {
                StageJob::Prune(job) => job.check(methods),
                StageJob::Train(job) => job.check(),
                StageJob::Shrink(job) => job.check(),
                StageJob::Quantize(job) => job.check(),
                StageJob::Export(job) => job.check(),
                StageJob::Pack(job) => job.check(),
            };
            checked.map_err(|e| at_stage(i, stage, e))?;
        }
        let text = self.text.as_deref();
        atomic::create_dir(&self.out)?;
        let before = self.kept_record();
        let mut report = PipelineReport { out: self.out.clone(), stages: Vec::new() };
        report.stages.push(self.measured("before", &self.model, 0.0, (text, before.as_ref()), watch)?);
        for (i, stage) in self.stages.iter().enumerate() {
            let said = format!("stage {} of {}: {} -> {}", i + 1, self.stages.len(), stage.name(), self.folder(i).display());
            Error::go_on(watch(&Event::Note(said)))?;
            let seconds = match self.stage(i) {
                StageJob::Prune(job) => match job.run(methods, watch).map_err(|e| at_stage(i, stage, e))? {
                    PruneReport::Model(report) => report.seconds,
                    PruneReport::File(_) => 0.0,
                },
                StageJob::Train(job) => job.run(watch).map_err(|e| at_stage(i, stage, e))?.seconds,
                StageJob::Shrink(job) => job.run(watch).map_err(|e| at_stage(i, stage, e))?.seconds,
                StageJob::Quantize(job) => job.run(watch).map_err(|e| at_stage(i, stage, e))?.seconds,
                StageJob::Export(job) => job.run().map_err(|e| at_stage(i, stage, e))?.seconds,
                StageJob::Pack(job) => job.run().map_err(|e| at_stage(i, stage, e))?,
            };
            let folder = self.folder(i);
            let measured = match stage {
                StageJob::Export(_) => written(&folder, seconds, report.stages.last())?,
                _ => self.measured(stage.name(), &folder, seconds, (text, before.as_ref()), watch)?,
            };
            report.stages.push(measured);
            let record = serde_json::to_string_pretty(&report).map_err(|e| Error::invalid_option("record", e.to_string()))?;
            atomic::write_bytes(self.out.join(RECORD), (record + "\n").as_bytes())?;
            atomic::write_bytes(self.out.join(PAGE), report.page()?.as_bytes())?;
        }
        Ok(report)
    }

    /// The folder of a stage, counted from 0; of an export its file.
    pub fn folder(&self, stage: usize) -> PathBuf {
        let end = if matches!(self.stages[stage], StageJob::Export(_)) { ".gguf" } else { "" };
        self.out.join(format!("{}-{}{end}", stage + 1, self.stages[stage].name()))
    }

    /// A stage on the folder of the one before.
    fn stage(&self, i: usize) -> StageJob {
        let before = (0..i).rev().find(|&before| !matches!(self.stages[before], StageJob::Export(_)));
        let model = before.map_or_else(|| self.model.clone(), |before| self.folder(before));
        let out = self.folder(i);
        let begun = out.exists() || FolderWriter::working_folder(&out).exists();
        self.stages[i].on(&model, &out, begun)
    }

    /// The record of an earlier run, if there is one that can be read.
    fn kept_record(&self) -> Option<PipelineReport> {
        serde_json::from_slice(&std::fs::read(self.out.join(RECORD)).ok()?).ok()
    }

    /// Measures a model between two stages, unless an earlier run has.
    fn measured(
        &self,
        stage: &str,
        path: &Path,
        seconds: f64,
        (text, before): (Option<&Path>, Option<&PipelineReport>),
        watch: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<StageReport> {
        let folder = Folder::open(path)?;
        let fingerprint = folder.fingerprint()?;
        let same =
            |s: &&StageReport| s.fingerprint == fingerprint && s.stage == stage && s.perplexity.is_some() == text.is_some();
        if let Some(known) = before.and_then(|report| report.stages.iter().find(same)) {
            return Ok(StageReport { folder: path.to_path_buf(), ..known.clone() });
        }
        let config = Config::of(&folder)?;
        let whole = Census::of(&folder, &config, true)?.whole();
        let score = match text {
            None => None,
            Some(text) => {
                let windows = Windows::read(text, &folder, &config, self.context, self.windows, self.bos)?;
                let model = LanguageModel::load(&folder, config).map_err(|e| Error::malformed(path, e.to_string()))?;
                let mut see = |done, of| progress(watch, Stage::Validation, done, of);
                Some(TextScore::measure(Evaluated::Memory(&model), text, &windows, &mut see)?)
            }
        };
        Ok(StageReport {
            stage: stage.to_string(),
            folder: path.to_path_buf(),
            fingerprint,
            bytes: folder.bytes(),
            parameters: whole.numbers,
            kept: whole.kept.unwrap_or(whole.numbers),
            perplexity: score.as_ref().map(|s| s.perplexity),
            nll: score.as_ref().map(|s| s.nll),
            tokens_per_second: score.as_ref().map(|s| s.tokens_per_second),
            seconds,
        })
    }
}

/// A file that a stage has written of the model before it.
fn written(file: &Path, seconds: f64, before: Option<&StageReport>) -> Result<StageReport> {
    let bytes = std::fs::metadata(file).map_err(|e| Error::io(file, e))?.len();
    Ok(StageReport {
        stage: "export".into(),
        folder: file.to_path_buf(),
        fingerprint: String::new(),
        bytes,
        parameters: before.map_or(0, |b| b.parameters),
        kept: before.map_or(0, |b| b.kept),
        perplexity: None,
        nll: None,
        tokens_per_second: None,
        seconds,
    })
}

/// An error of a stage, where it does not say itself where it is.
fn at_stage(i: usize, stage: &StageJob, error: Error) -> Error {
    match error {
        Error::InvalidOption { option, reason } => {
            Error::invalid_option(format!("stage {} ({}): {option}", i + 1, stage.name()), reason)
        }
        e => e,
    }
}

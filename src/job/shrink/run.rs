//! A job that is run on a folder.

use super::described::{asked, outcome};
use super::make::Prepared;
use super::method::ShrinkMethod;
use super::report::{ModelSize, ShrinkReport};
use super::settings::ShrinkJob;
use super::times::DecodeTimes;
use super::vocabulary::cut;
use crate::data::Sequences;
use crate::eval::peak_memory;
use crate::io::{FolderWriter, Output, outputs};
use crate::job::event::Event;
use crate::job::excess::TextReports;
use crate::job::inputs::{CalibrationText, activation_bytes, calibration_files, open_whole, remarks, scratch_folder};
use crate::job::quality::{Quality, Texts, texts_of};
use crate::job::standing::{Mine, Standing, is_of_another_run};
use crate::kernels::Isa;
use crate::lm::Config;
use crate::prune::{ActivationMemory, ShrinkRecord, UnitScores};
use crate::{Error, Result};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

impl ShrinkJob {
    /// Makes the folder `model` smaller and writes the folder `out`, which appears whole or not at all.
    ///
    /// `watch` is told what happens, and stops the run with [`ControlFlow::Break`]: [`Error::Interrupted`]. An error or a stop when a block is done
    /// leaves a working folder beside `out`, from which the same job with [`ShrinkJob::resume`] goes on to the same bits; before that nothing is
    /// left. What is at `out` already stays, unless [`ShrinkJob::force`] is set. The record stands in the folder as `shrink.json`.
    ///
    /// # Errors
    /// As [`ShrinkJob::check`]; if `model` or `out` is not set; sizes that do not fit the model, with the nearest that do; what is wrong with model,
    /// calibration or text, and whatever a method refuses (naming the layer); [`Error::Exists`] where `out` is there and [`ShrinkJob::force`] is not
    /// set; [`Error::Interrupted`]. [`Error::Unfinished`] around any of them where a part is kept.
    pub fn run(&self, watch: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> Result<ShrinkReport> {
        let begun = Instant::now();
        self.check()?;
        let missing = |name: &str, what: &str| Error::invalid_option(name, format!("is not set: {what}"));
        let model = self.model.as_deref().ok_or_else(|| missing("model", "the folder to make smaller"))?;
        let out = self.out.as_deref().ok_or_else(|| missing("out", "the folder to write"))?;
        let folder = open_whole(model)?;
        let texts = texts_of(self.text.as_deref())?;
        let measured_on = calibration_files(self.calibration.as_deref())?;
        let inputs: Vec<&Path> = [model]
            .into_iter()
            .chain(measured_on.iter().map(PathBuf::as_path))
            .chain(texts.iter().map(|t| t.as_path()))
            .collect();
        let output = match self.resume && !self.force {
            true => outputs::apart(out, &inputs).map(|()| Output::from(out))?,
            false => outputs::folder(out, &inputs, self.force)?,
        };
        let prefix = self.cuts_prefix();
        let reads = self.reads_calibration() && !prefix;
        let config = Config::of(&folder)?;
        remarks(&folder, &config, watch)?;
        if reads {
            measurable(&config).map_err(|reason| Error::malformed(model, reason))?;
        }
        if self.text.is_some() && !config.is_decoder() {
            let reason = format!("an {} has no perplexity of a text alone", config.kind());
            return Err(Error::invalid_option("text", reason));
        }
        let reuses = self.reuses_scores();
        let gradients_wanted =
            matches!(self.method, ShrinkMethod::Taylor | ShrinkMethod::Fisher) && self.moves() && !prefix && !reuses;
        let bytes = activation_bytes(self.activation_bytes()?, gradients_wanted, &folder);
        let memory = ActivationMemory::new(bytes, scratch_folder(self.scratch.as_deref(), out)?);
        let (file, seed) = (self.calibration.as_deref(), self.seed);
        let text = CalibrationText {
            file,
            samples: self.samples,
            context: self.context,
            bos: self.bos,
            seed,
            select: None,
            hold_out: None,
        };
        // What scores are of is compared where it is said, even if nothing is measured.
        let compares = reuses && self.calibration.is_some();
        let nothing = || (Sequences::nothing(), String::new());
        let (given, bos) = if reads || compares { text.read(&folder, &config, watch)? } else { nothing() };

        let vocabulary = self.vocabulary.map(|keep| cut(&folder, &config, keep, &texts)).transpose()?;
        let described = asked(self, &folder, &given, vocabulary.as_ref(), &bos)?;
        let scores = self.read_scores(&described)?;
        let calibration = if reads { given } else { Sequences::nothing() };
        let mine = Mine { record: "shrink.json", resume: self.resume, force: self.force, outcome: outcome(self) };
        let unfinished = match Standing::of(&mine, out, &described)? {
            Standing::Finished(report) => return finished(out, report, &described),
            Standing::Unfinished(before) => Some(before),
            Standing::Anew if self.resume => {
                let text = format!("there is no unfinished run towards {}; it begins anew", out.display());
                Error::go_on(watch(&Event::Note(text)))?;
                None
            }
            Standing::Anew => None,
        };
        let cut_as = Texts { files: texts, context: self.context, windows: self.windows, bos: self.bos };
        let quality = Quality::new(&cut_as, &folder, &config, watch)?;
        let spent = quality.as_ref().map_or(Duration::ZERO, |q| q.spent);
        let run = Prepared {
            folder: &folder,
            config: &config,
            calibration: &calibration,
            vocabulary: vocabulary.as_ref(),
            memory,
            output: &output,
            described: &described,
            unfinished: unfinished.as_ref(),
            gradients: gradients_wanted,
            scores: scores.as_ref(),
        };
        let before = ModelSize::of(&folder, &config)?;
        let done = match self.removes_experts() {
            true => self.without_experts(&run, watch)?,
            false => self.without_units(&run, before, watch)?,
        };
        for text in alone(&done.config).into_iter().chain(undivided(&config, &done.config)) {
            Error::go_on(watch(&Event::Note(text)))?;
        }
        let seconds = (begun.elapsed() - spent).as_secs_f64();
        let part = FolderWriter::working_folder(out);
        let keep = |e: Error| if part.is_dir() { e.unfinished(part.clone()) } else { e };
        let whole = done.writer.complete().map_err(keep)?;
        let texts = match quality {
            Some(quality) => {
                quality.before_and_after(&whole, &done.config, vocabulary.as_ref().map(|_| &cut_as), watch).map_err(keep)?
            }
            None => Vec::new(),
        };
        let times = match self.milliseconds {
            Some(_) => DecodeTimes::measure((&folder, &config), (&whole, &done.config)).map_err(keep)?,
            None => None,
        };
        let report = ShrinkReport {
            out: out.to_path_buf(),
            job: self.clone().force(false).resume(false),
            settings: described,
            times,
            before,
            after: ModelSize::of(&whole, &done.config).map_err(keep)?,
            search: done.search,
            spread: done.spread,
            layers: done.record.layers.clone(),
            sublayers: done.record.sublayers.clone(),
            units: done.record.units.clone(),
            mixture: done.mixture,
            reconstructed: done.record.reconstructed.clone(),
            seconds,
            peak_bytes: peak_memory(),
            threads: rayon::current_num_threads(),
            isa: Isa::chosen().map(Isa::name).unwrap_or_default().to_string(),
            asked: mine.outcome,
            perplexity: texts.first().cloned(),
            excess: TextReports::new(&texts, self.calibration.as_deref()).excess(),
            texts,
            already_finished: false,
        };
        let record = serde_json::to_value(&report).map_err(|e| Error::invalid_option("record", e.to_string()))?;
        let page = report.page()?;
        let named = done.writer.json("shrink.json", &record).and_then(|()| done.writer.file("shrink.html", page.as_bytes()));
        named.map_err(keep)?;
        self.write_scores(&done.record, &report.settings).map_err(keep)?;
        done.writer.finish().map_err(keep)?;
        Ok(report)
    }
}

impl ShrinkJob {
    /// Writes the scores that a run has found, where they are asked for.
    fn write_scores(&self, record: &ShrinkRecord, described: &Value) -> Result<()> {
        match self.scores.as_deref().filter(|_| !self.reuses_scores()) {
            Some(path) => UnitScores::of(record, self.said(described)).write(path),
            None => Ok(()),
        }
    }
}

/// Why inputs cannot be measured, and what does instead.
fn measurable(config: &Config) -> std::result::Result<(), String> {
    match config.is_encoder_decoder() {
        false => Ok(()),
        true => Err("is an encoder-decoder, whose layers' inputs are not measured: --method magnitude and random cut its heads and feed-forward features, \
                     --heads, --intermediate and --vocabulary say how many stay"
            .into()),
    }
}

/// A run that was done before: nothing is written anew.
fn finished(out: &Path, report: Value, asked: &Value) -> Result<ShrinkReport> {
    if !is_of_another_run(out, asked) {
        FolderWriter::tidy(out)?;
    }
    let report: ShrinkReport =
        serde_json::from_value(report).map_err(|e| Error::malformed(out.join("shrink.json"), e.to_string()))?;
    Ok(ShrinkReport { already_finished: true, ..report })
}

/// What is to be said of a model that other programs do not open, by the widths of its blocks.
fn alone(config: &Config) -> Option<String> {
    if config.has_plain_widths() {
        return None;
    }
    let alike = (1..config.layers()).all(|i| config.widths(i) == config.widths(0));
    let why = match alike {
        true => format!("{} has no keys for what is left", config.family()),
        false => "blocks differ; --pad fills them up".to_string(),
    };
    let json = config.to_json();
    let heads = match json.get("pruned_heads") {
        Some(Value::Object(heads)) if !heads.is_empty() => "; transformers 4 reads pruned_heads beside it, 5 does not",
        _ => "",
    };
    Some(format!("config.json has the widths under layer_widths, which this library alone reads: {why}{heads}"))
}

/// What is to be said of a hidden size that became no multiple of the heads.
fn undivided(before: &Config, after: &Config) -> Option<String> {
    let (hidden, heads) = (after.hidden(), after.widths(0).heads);
    if hidden == before.hidden() || heads == 0 || hidden % heads == 0 {
        return None;
    }
    let near = hidden / heads * heads;
    Some(format!(
        "transformers 5 opens some families only where heads divide the hidden size: {hidden} is no multiple of {heads}; {near} and {} are",
        near + heads
    ))
}

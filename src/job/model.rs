//! A job on a model's folder, block by block.

use super::check::Plan;
use super::described::{self, FewTokens};
use super::event::{Event, Stage};
use super::excess::TextReports;
use super::inputs::{CalibrationText, activation_bytes, calibration_files, open_whole, remarks, scratch_folder};
use super::methods::{Kind, Methods};
use super::quality::{Quality, Texts, texts_of};
use super::report::{ModelReport, PruneReport};
use super::search::{Budgets, Model, Watch, progress};
use super::settings::PruneJob;
use super::standing::{self, Mine, Standing};
use crate::allocate::Owl;
use crate::data::Sequences;
use crate::eval::{Census, peak_memory, sparsity};
use crate::io::{Folder, FolderWriter, Output, Packing, outputs};
use crate::kernels::Isa;
use crate::lm::Config;
use crate::mask::Budget;
use crate::prune::{
    ActivationMemory, LanguageLayer, LanguagePruning, LanguageRun, LayerRecord, LevelSettings, PrunedFolder, SequenceGradients,
    allocated_with, check_measurable, language_layers, of_blocks, outliers, prune_language,
};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

impl PruneJob {
    /// Prunes the folder `model`, and writes the folder `out`.
    pub(super) fn run_model(&self, model: &Path, out: &Path, methods: &Methods, watch: &mut Watch<'_>) -> Result<PruneReport> {
        let begun = Instant::now();
        let plan = self.plan_of_folder(methods)?;
        let allocation = plan.allocation;
        let folder = open_whole(model)?;
        let texts = texts_of(self.text.as_deref())?;
        let measured_on = calibration_files(self.calibration.as_deref())?;
        let inputs =
            [model].into_iter().chain(measured_on.iter().map(PathBuf::as_path)).chain(texts.iter().map(PathBuf::as_path));
        let inputs: Vec<&Path> = inputs.collect();
        let output = match self.resume && !self.force {
            true => outputs::apart(out, &inputs).map(|()| Output::from(out))?,
            false => outputs::folder(out, &inputs, self.force)?,
        };
        let config =
            Config::parse(&Value::Object(folder.config().clone())).map_err(|e| Error::malformed(model, e.to_string()))?;
        remarks(&folder, &config, watch)?;
        if plan.measures {
            check_measurable(&config).map_err(|e| Error::malformed(model, e.to_string()))?;
        }
        if self.text.is_some() && !config.is_decoder() {
            let reason = format!("an {} has no perplexity of a text alone", config.kind());
            return Err(Error::invalid_option("text", reason));
        }
        let layers = language_layers(&folder, &config, &self.only, &self.skip)?;
        readable(&folder, &layers)?;
        for layer in &layers {
            self.pattern.units(layer.shape.0, layer.shape.1).map_err(|e| e.in_layer(&layer.name))?;
        }
        let whole = SequenceGradients::wanted(plan.needs) || allocation.predicts();
        let bytes = activation_bytes(self.activation_bytes()?, whole, &folder);
        let memory = ActivationMemory::new(bytes, scratch_folder(self.scratch.as_deref(), out)?);
        let (file, seed) = (self.calibration.as_deref(), self.seed);
        let (select, hold_out) = (self.select, self.hold_out.as_deref());
        let text = CalibrationText { file, samples: self.samples, context: self.context, bos: self.bos, seed, select, hold_out };
        let (calibration, bos) = text.read(&folder, &config, watch)?;
        let nothing = Sequences::nothing();
        // What is held out is seen by the layers' run alone.
        let fitted = calibration.fitted();
        // Where nothing is measured nothing needs to run.
        let measured = if plan.reads_inputs() { &calibration } else { &nothing };

        let asked = described::asked(self, &plan, &folder, &calibration, &bos)?;
        let mine = Mine { record: "prune.json", resume: self.resume, force: self.force, outcome: described::outcome(self) };
        let before = match Standing::of(&mine, out, &asked)? {
            Standing::Finished(report) => return finished(out, report, &asked, watch),
            Standing::Unfinished(before) => Some(before),
            Standing::Anew => {
                if self.resume {
                    let text = format!("there is no unfinished run towards {}; it begins anew", out.display());
                    Error::go_on(watch(&Event::Note(text)))?;
                }
                None
            }
        };
        let texts = Texts { files: texts.clone(), context: self.context, windows: self.windows, bos: self.bos };
        let quality = Quality::new(&texts, &folder, &config, watch)?;
        let begun = begun + quality.as_ref().map_or(Duration::ZERO, |q| q.spent);
        let few = FewTokens::of(&plan, &layers, if plan.reads_inputs() { fitted.tokens() } else { measured.tokens() });
        let gradients = match SequenceGradients::wanted(plan.needs) {
            true => {
                let see = |done, of| progress(watch, Stage::Gradients, done, of);
                Some(SequenceGradients::measure(&folder, &config, &fitted, &layers, plan.needs, &memory, see)?)
            }
            false => None,
        };
        let mut pruning = LanguagePruning {
            pruner: plan.pruner.as_ref(),
            pattern: self.pattern,
            scope: plan.scope,
            budgets: HashMap::new(),
            inputs: self.inputs,
            sequential: plan.sequential,
            correction: plan.correction,
            reconstruction: plan.reconstruction,
            generalisation: plan.generalisation,
            gradients: gradients.as_ref(),
            memory,
        };
        let searched = if plan.reads_inputs() { &fitted } else { &nothing };
        let of = Model { folder: &folder, config: &config, calibration: searched, layers: &layers };
        let found;
        (pruning.budgets, found) = match &before {
            // A run that is taken up again has the budgets that it had.
            Some(before) if before["options"].is_object() || allocation.searches() => kept_budgets(out, before)?,
            _ => self.budgets(of, &plan, &pruning, watch)?,
        };
        let described = described::described(asked, &pruning.budgets, &found)?;
        if let Some(before) = &before {
            standing::check_budgets(out, before, &described["budgets"])?;
        }
        let mut warned = false;
        // What does not matter may be another than it was when the run was begun.
        let noted = before.as_ref().unwrap_or(&described);
        let run = LanguageRun {
            folder: &folder,
            config: &config,
            calibration: measured,
            pruning: &pruning,
            out: &output,
            described: noted,
            resume: before.is_some(),
        };
        let done = prune_language(run, &mut |p| {
            // What cannot be done at all is one line, and that its error.
            if !std::mem::replace(&mut warned, true) {
                self.warn(&plan, few.as_ref(), watch)?;
            }
            watch(&Event::Progress { stage: Stage::Blocks, done: p.blocks, of: p.of, memory: p.memory })
        })?;
        let end = End { out, settings: described, found, few, seconds: begun.elapsed().as_secs_f64() };
        let part = FolderWriter::working_folder(out);
        let report = self.end(done, quality, &config, &folder, end, watch);
        report.map_err(|e| if part.is_dir() { e.unfinished(part) } else { e })
    }

    /// Measures the perplexity after, writes record and page, and gives the folder its name.
    fn end(
        &self,
        done: PrunedFolder,
        quality: Option<Quality>,
        config: &Config,
        before: &Folder,
        end: End<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<PruneReport> {
        let PrunedFolder { writer, records } = done;
        let whole = writer.complete()?;
        let texts = match quality {
            Some(quality) => quality.before_and_after(&whole, config, None, watch)?,
            None => Vec::new(),
        };
        let report = self.model_report(end, records, before)?;
        let excess = TextReports::new(&texts, self.calibration.as_deref()).excess();
        let report = ModelReport { perplexity: texts.first().cloned(), excess, texts, ..report };
        if let Some(few) = report.few_routed() {
            Error::go_on(watch(&Event::Warning(few)))?;
        }
        let (page, report) = (report.page()?, PruneReport::Model(Box::new(report)));
        let record = serde_json::to_value(&report).map_err(|e| Error::invalid_option("record", e.to_string()))?;
        let close = |writer: FolderWriter| {
            writer.json("prune.json", &record)?;
            writer.file("prune.html", page.as_bytes())?;
            writer.finish()
        };
        match self.packing()? {
            Packing::Whole => close(writer)?,
            packing => {
                close(writer.repack(&whole, packing, |_, _| {})?)?;
                // Only now is the whole one no longer needed.
                writer.discard();
            }
        }
        Ok(report)
    }

    fn model_report(&self, end: End<'_>, layers: Vec<LayerRecord>, folder: &Folder) -> Result<ModelReport> {
        let (weights, kept) = layers.iter().fold((0, 0), |(w, k), r| (w + r.shape.0 * r.shape.1, k + r.kept));
        let parameters = Census::of(folder, &Config::of(folder)?, false)?.whole().numbers;
        let mut settings = end.settings;
        if let Some(map) = settings.as_object_mut() {
            map.remove("budgets");
            map.remove("found");
        }
        Ok(ModelReport {
            out: end.out.to_path_buf(),
            job: Some(self.clone().force(false).resume(false)),
            settings,
            weights,
            kept,
            sparsity: sparsity(kept, weights),
            parameters,
            whole_sparsity: sparsity(parameters - (weights - kept).min(parameters), parameters),
            seconds: end.seconds,
            peak_bytes: peak_memory(),
            threads: rayon::current_num_threads(),
            isa: Isa::chosen().map(Isa::name).unwrap_or_default().to_string(),
            search: end.found,
            few_tokens: end.few,
            asked: described::outcome(self),
            perplexity: None,
            texts: Vec::new(),
            excess: None,
            layers,
            already_finished: false,
        })
    }

    /// Says what a user may want to do otherwise.
    fn warn(&self, plan: &Plan<'_>, few: Option<&FewTokens>, watch: &mut Watch<'_>) -> std::ops::ControlFlow<()> {
        if let Some(few) = few {
            watch(&Event::Warning(few.warning()))?;
        }
        let (all, changed) = (described::unused(self, plan), self.changed());
        let changed = changed.into_iter().filter(|name| all.contains(name)).collect();
        watch(&Event::Unused { all, changed })
    }

    /// How much of each layer stays, and what a search found.
    fn budgets(
        &self,
        model: Model<'_>,
        plan: &Plan<'_>,
        pruning: &LanguagePruning<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<(Budgets, Value)> {
        let Model { folder, config, calibration, layers } = model;
        match &plan.allocation.kind {
            Kind::Layers(make) => {
                if plan.ranks_by_magnitude {
                    let text = format!(
                        "{} ranks the layers by magnitude: what {} looks at is measured as they are pruned",
                        self.allocate, self.method
                    );
                    Error::go_on(watch(&Event::Note(text)))?;
                }
                let allocation = make(self)?;
                let choice = (allocation.as_ref(), plan.ranking.as_deref().map(|ranking| (ranking, pruning.gradients)));
                let mut again = false;
                let budgets = allocated_with(folder, config, layers, self.pattern, plan.sparsity, choice, &mut |reading| {
                    if reading.pass == 2 && !std::mem::replace(&mut again, true) {
                        let text = "a sample of the weights misled about where the budget falls; all are read once more";
                        watch(&Event::Note(text.into()))?;
                    }
                    progress(watch, Stage::Ranking, reading.layers, reading.of)
                })?;
                Ok((budgets, Value::Null))
            }
            Kind::Outliers => {
                let see = |done, of| progress(watch, Stage::Outliers, done, of);
                let found = outliers(folder, config, calibration, layers, self.owl_threshold, &pruning.memory, see)?;
                let (percents, sizes): (Vec<f64>, Vec<usize>) = found.into_iter().map(|b| (b.percent, b.weights)).unzip();
                let total = Budget::from_sparsity(sizes.iter().sum(), plan.sparsity)?;
                let parts = Owl { lambda: self.owl_lambda }.shares(&percents, &sizes, total)?;
                Ok((of_blocks(layers, &parts, self.pattern)?, Value::Null))
            }
            kind => {
                let LanguagePruning { pruner, scope, gradients, memory, .. } = pruning;
                let levels = LevelSettings::new(*pruner, self.pattern, *scope, *gradients, memory.clone());
                self.search(kind, model, levels, plan.sparsity, watch)
            }
        }
    }
}

/// What is known of a run when its layers are pruned.
struct End<'a> {
    out: &'a Path,
    settings: Value,
    found: Value,
    few: Option<FewTokens>,
    seconds: f64,
}

/// Refuses layers whose numbers are not read, before anything runs.
fn readable(folder: &Folder, layers: &[LanguageLayer]) -> Result<()> {
    let unread = |l: &&LanguageLayer| folder.dtype(&format!("{}.weight", l.name)).is_err();
    let mut unread = layers.iter().filter(unread);
    let Some(first) = unread.next() else { return Ok(()) };
    let (dtype, all) = (folder.info(&format!("{}.weight", first.name))?.dtype, 1 + unread.count());
    let reason = format!(
        "layer {} is {dtype}, one of {all} whose numbers are not read; F32, F16 and BF16 are (--skip leaves layers alone)",
        first.name
    );
    Err(Error::malformed(folder.path(), reason))
}

/// A run that was done before: nothing is written anew.
fn finished(out: &Path, report: Value, asked: &Value, watch: &mut Watch<'_>) -> Result<PruneReport> {
    if standing::is_of_another_run(out, asked) {
        let text = format!("{} is of another run, and stays", FolderWriter::working_folder(out).display());
        Error::go_on(watch(&Event::Note(text)))?;
    } else {
        FolderWriter::tidy(out)?;
    }
    let report: ModelReport =
        serde_json::from_value(report).map_err(|e| Error::malformed(out.join("prune.json"), e.to_string()))?;
    Ok(PruneReport::Model(Box::new(ModelReport { already_finished: true, ..report })))
}

/// The budgets of an unfinished run, and what a search found.
fn kept_budgets(out: &Path, before: &Value) -> Result<(Budgets, Value)> {
    let part = FolderWriter::working_folder(out);
    let budgets = serde_json::from_value(before["budgets"].clone());
    let budgets = budgets.map_err(|e| Error::malformed(part, format!("budgets of the unfinished run: {e}")))?;
    Ok((budgets, before["found"].clone()))
}

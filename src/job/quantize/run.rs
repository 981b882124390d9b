//! A job that is run on a folder.

use super::described::{asked, outcome};
use super::report::QuantizeReport;
use super::settings::QuantizeJob;
use crate::data::Sequences;
use crate::eval::{Census, peak_memory};
use crate::io::{Dtype, Folder, FolderWriter, Output, outputs};
use crate::job::described::FewTokens;
use crate::job::event::{Event, Stage};
use crate::job::excess::TextReports;
use crate::job::inputs::{CalibrationText, activation_bytes, calibration_files, open_whole, remarks, scratch_folder};
use crate::job::quality::{Quality, Texts, texts_of};
use crate::job::standing::{Mine, Standing, is_of_another_run};
use crate::kernels::Isa;
use crate::lm::Config;
use crate::prune::{
    ActivationMemory, BlockReconstruction, LanguageQuantizing, QuantizeRun, check_measurable, language_layers, quantize_language,
};
use crate::quantize::ScaleType;
use crate::{Error, Result};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

impl QuantizeJob {
    /// Quantises the folder `model` and writes the folder `out`, which appears whole or not at all.
    ///
    /// `watch` is told what happens, and stops the run with [`ControlFlow::Break`]: [`Error::Interrupted`]. An error or a stop when a block is done
    /// leaves a working folder beside `out`, from which the same job with [`QuantizeJob::resume`] goes on to the same bits; before that nothing is
    /// left. What is at `out` already stays, unless [`QuantizeJob::force`] is set. The record stands in the folder as `quantize.json`.
    ///
    /// # Errors
    /// As [`QuantizeJob::check`]; if `model` or `out` is not set; groups that do not divide a layer's rows; what is wrong with model, calibration or text,
    /// and whatever a method refuses (naming the layer); [`Error::Exists`] where `out` is there and [`QuantizeJob::force`] is not set;
    /// [`Error::Interrupted`]. [`Error::Unfinished`] around any of them where a part is kept.
    pub fn run(&self, watch: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> Result<QuantizeReport> {
        let begun = Instant::now();
        self.check()?;
        let missing = |name: &str, what: &str| Error::invalid_option(name, format!("is not set: {what}"));
        let model = self.model.as_deref().ok_or_else(|| missing("model", "the folder to quantise"))?;
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
        let config = Config::of(&folder)?;
        remarks(&folder, &config, watch)?;
        if self.measures() {
            check_measurable(&config).map_err(|e| Error::malformed(model, e.to_string()))?;
        }
        if self.text.is_some() && !config.is_decoder() {
            let reason = format!("an {} has no perplexity of a text alone", config.kind());
            return Err(Error::invalid_option("text", reason));
        }
        let layers = language_layers(&folder, &config, &self.only, &self.skip)?;
        let grid = self.grid(scales_of(&folder, layers.iter().map(|l| l.name.as_str()))?);
        for layer in &layers {
            self.layout.check_shape(layer.shape, grid).map_err(|e| e.in_layer(&layer.name))?;
            if self.prunes() {
                self.pattern.units(layer.shape.0, layer.shape.1).map_err(|e| e.in_layer(&layer.name))?;
            }
        }
        let memory = ActivationMemory::new(
            activation_bytes(self.activation_bytes()?, false, &folder),
            scratch_folder(self.scratch.as_deref(), out)?,
        );
        let (file, seed) = (self.calibration.as_deref(), 0);
        let text = CalibrationText {
            file,
            samples: self.samples,
            context: self.context,
            bos: self.bos,
            seed,
            select: None,
            hold_out: None,
        };
        let reads = self.measures();
        let (calibration, bos) = if reads { text.read(&folder, &config, watch)? } else { (Sequences::nothing(), String::new()) };

        let described = asked(self, grid, &folder, &calibration, &bos)?;
        let mine = Mine { record: "quantize.json", resume: self.resume, force: self.force, outcome: outcome(self) };
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
        let few = FewTokens::among(reads, &layers, calibration.tokens());
        if let Some(few) = &few {
            Error::go_on(watch(&Event::Warning(few.warning())))?;
        }
        let quantizer = self.quantizer();
        let quantizing = LanguageQuantizing {
            quantizer: quantizer.as_ref(),
            grid,
            layout: self.layout,
            layers: layers.iter().map(|l| l.name.clone()).collect(),
            prunes: self.prunes(),
            scales: self.scales(),
            inputs: self.inputs,
            sequential: self.turn(),
            correction: self.correction()?,
            reconstruction: self
                .reconstruct_blocks
                .map(|passes| BlockReconstruction::new(passes).learning_rate(self.reconstruct_rate)),
            activations: self.activation()?,
            damping: self.method.moves_weights().then_some(self.damping),
            memory,
        };
        let run = QuantizeRun {
            folder: &folder,
            config: &config,
            calibration: &calibration,
            quantizing: &quantizing,
            out: &output,
            described: unfinished.as_ref().unwrap_or(&described),
            resume: unfinished.is_some(),
        };
        let done = quantize_language(run, &mut |p| {
            watch(&Event::Progress { stage: Stage::Blocks, done: p.blocks, of: p.of, memory: p.memory })
        })?;
        let seconds = (begun.elapsed() - spent).as_secs_f64();
        let part = FolderWriter::working_folder(out);
        let keep = |e: Error| if part.is_dir() { e.unfinished(part.clone()) } else { e };
        let whole = done.writer.complete().map_err(keep)?;
        let texts = match quality {
            Some(quality) => quality.before_and_after(&whole, &config, None, watch).map_err(keep)?,
            None => Vec::new(),
        };
        let sizes = |r: &crate::prune::QuantRecord| (r.shape.0 * r.shape.1) as f64;
        let weights = done.records.iter().map(|r| r.shape.0 * r.shape.1).sum();
        let report = QuantizeReport {
            out: out.to_path_buf(),
            job: self.clone().force(false).resume(false),
            settings: described,
            weights,
            bits: done.records.iter().map(|r| sizes(r) * r.bits).sum::<f64>() / (weights as f64).max(1.0),
            bytes_before: folder.bytes(),
            bytes: whole.bytes(),
            parameters: Census::of(&folder, &config, false).map_err(keep)?.whole().numbers,
            seconds,
            peak_bytes: peak_memory(),
            threads: rayon::current_num_threads(),
            isa: Isa::chosen().map(Isa::name).unwrap_or_default().to_string(),
            few_tokens: few,
            asked: mine.outcome,
            perplexity: texts.first().cloned(),
            excess: TextReports::new(&texts, self.calibration.as_deref()).excess(),
            texts,
            layers: done.records,
            already_finished: false,
        };
        let record = serde_json::to_value(&report).map_err(|e| Error::invalid_option("record", e.to_string()))?;
        let page = report.page()?;
        let named = done.writer.json("quantize.json", &record).and_then(|()| done.writer.file("quantize.html", page.as_bytes()));
        named.and_then(|()| done.writer.finish()).map_err(keep)?;
        Ok(report)
    }
}

/// The type of scales that weights of this type have.
pub(in crate::job) fn scales_of<'a>(folder: &Folder, layers: impl Iterator<Item = &'a str>) -> Result<ScaleType> {
    let mut types = Vec::new();
    for name in layers {
        let tensor = format!("{name}.weight");
        let dtype = folder.dtype(&tensor).map_err(|_| {
            let dtype = folder.info(&tensor).map_or("of another type".to_string(), |t| t.dtype);
            let reason = format!(
                "layer {name} is {dtype}, whose numbers are not read; F32, F16 and BF16 are (--skip leaves layers alone)"
            );
            Error::malformed(folder.path(), reason)
        })?;
        types.push(dtype);
    }
    Ok(match types.first() {
        Some(Dtype::F16) => ScaleType::F16,
        Some(Dtype::BF16) => ScaleType::BF16,
        _ => ScaleType::F32,
    })
}

/// A run that was done before: nothing is written anew.
fn finished(out: &Path, report: Value, asked: &Value) -> Result<QuantizeReport> {
    if !is_of_another_run(out, asked) {
        FolderWriter::tidy(out)?;
    }
    let report: QuantizeReport =
        serde_json::from_value(report).map_err(|e| Error::malformed(out.join("quantize.json"), e.to_string()))?;
    Ok(QuantizeReport { already_finished: true, ..report })
}

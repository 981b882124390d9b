//! A training job that is run on a folder.

use super::super::event::{Event, Stage};
use super::super::inputs::activation_bytes;
use super::super::search::{Watch, progress};
use super::super::settings::activation_megabytes;
use super::parts::Named;
use super::report::TrainReport;
use super::session::{Session, Standing};
use super::settings::{Keep, TrainJob};
use super::validation::Validation;
use crate::data::PackedDocuments;
use crate::eval::{Census, peak_memory, sparsity};
use crate::io::{Folder, FolderWriter, Output, outputs};
use crate::kernels::Isa;
use crate::lm::{Config, Inference, LanguageModel, Outline, remark};
use crate::nn::{AdamConstants, Method, Model, Optimizer, Parameters};
use crate::rng::Seed;
use crate::train::{HiddenStates, LanguageFeed, LanguageGoal, LearningRate, TeacherCache, Trainable, Trainer, WeightAverage};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A model's folder and its config, without its weights.
fn open(path: &Path) -> Result<(Folder, Config)> {
    let folder = Folder::open(path)?;
    let config = Config::parse(&Value::Object(folder.config().clone())).map_err(|e| Error::malformed(path, e.to_string()))?;
    if !config.is_decoder() {
        let reason = format!("is an {}; decoders alone are trained from folders", config.kind());
        return Err(Error::malformed(path, reason));
    }
    Ok((folder, config))
}

impl TrainJob {
    /// Trains the folder `model`, and writes the folder `out`, which appears whole or not at all.
    ///
    /// `watch` is told what happens, and stops the run with [`ControlFlow::Break`]: its state is saved then, and the error is
    /// [`Error::Interrupted`] within [`Error::Unfinished`]. The same job with [`TrainJob::resume`] goes on, to the bits of a run that was not
    /// stopped or killed. The record stands in the folder as `train.json`, the page as `train.html`.
    ///
    /// # Errors
    /// As [`TrainJob::check`]; what is wrong with model, text or teacher; [`Error::Exists`] where `out` is there and [`TrainJob::force`] is not
    /// set; [`Error::Numerical`] with step, sequences and learning rate if a loss is not finite; [`Error::Interrupted`]. [`Error::Unfinished`]
    /// around any of them where a part is kept.
    pub fn run(&self, watch: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> Result<TrainReport> {
        self.check()?;
        let missing = |name: &str, what: &str| Error::invalid_option(name, format!("is not set: {what}"));
        let path = self.model.as_deref().ok_or_else(|| missing("model", "the folder to train"))?;
        let out = self.out.as_deref().ok_or_else(|| missing("out", "the folder to write"))?;
        let (folder, config) = open(path)?;
        if let Some(name) = folder.packed().next() {
            let reason = format!("weight {name} is packed; 'lacuna pack DIR OUT --save weights' makes it whole");
            return Err(Error::malformed(path, reason));
        }
        for line in folder.remark().into_iter().chain(remark(&folder, &config)?) {
            Error::go_on(watch(&Event::Note(format!("{}: {line}", path.display()))))?;
        }
        let output = self.output(path, out)?;
        let packed = PackedDocuments::read(&self.text, &folder, &config, (self.context, self.bos), &self.scratch_folder(out)?)?;
        let validation = Validation::of(self, &packed, &folder, &config)?;
        let sequences = packed.len() - if self.validation.is_some() { 0 } else { self.held_out };
        let steps = self.resolved_steps(sequences)?;
        let teacher = self.teacher.as_deref().map(open).transpose()?;
        let cache = self.teacher_cache.as_ref().map(TeacherCache::open).transpose()?;
        if let Some(cache) = &cache {
            cache.check(&packed, config.vocab())?;
        }
        let mut asked = self.asked(steps, &folder, &packed, validation.as_ref(), teacher.as_ref())?;
        asked["--teacher-cache"] = json!(cache.as_ref().map(TeacherCache::digest));
        let standing = Standing::of(self, out, &asked)?;
        if let Standing::Finished(report) = standing {
            FolderWriter::tidy(out)?;
            return Ok(TrainReport { already_finished: true, ..*report });
        }
        let resume = matches!(standing, Standing::Unfinished);
        if self.resume && !resume {
            let text = format!("there is no unfinished run towards {}; it begins anew", out.display());
            Error::go_on(watch(&Event::Note(text)))?;
        }

        let of = |path: &Path, e: Error| match e {
            e @ (Error::Io { .. } | Error::Malformed { .. }) => e,
            e => Error::malformed(path, e.to_string()),
        };
        let outline = Outline::of(&folder, &config).map_err(|e| of(path, e))?;
        let vocab = config.vocab();
        let mut model = LanguageModel::load(&folder, config).map_err(|e| of(path, e))?;
        model.set_activation_memory(activation_bytes(activation_megabytes(self.activations)?, true, &folder));
        model.check_finite().map_err(|e| of(path, e))?;
        let teacher = match (&self.teacher, teacher) {
            (Some(path), Some((folder, config))) => {
                let inference = Inference::tokens(self.batch * self.context);
                Some(LanguageModel::load_stored(&folder, config, inference).map_err(|e| of(path, e))?.0)
            }
            _ => None,
        };
        let goal = match (&teacher, &cache) {
            (Some(model), _) => LanguageGoal::Teacher { model, loss: self.teacher_loss() },
            (None, Some(cache)) => LanguageGoal::Cache { cache, hard: self.hard as f32 },
            (None, None) => LanguageGoal::CrossEntropy,
        };
        let feed = LanguageFeed::new(&packed, sequences, (self.batch, self.accumulate), (goal, vocab), Seed(self.seed))?;
        let mut feed = if self.hidden_states.is_empty() {
            feed
        } else {
            let how = HiddenStates::new(self.hidden_states.clone()).loss(self.hidden_loss).weight(self.hidden_weight);
            feed.hidden_states(how, (model.blocks().len(), model.config().hidden()), Seed(self.seed))?
        };
        let undecayed = Named::of(&model, &outline).matching("no-decay", &self.no_decay)?;
        let mut model = self.trainable(model, &folder, &outline)?;
        // What steps are multiplied by decays towards nothing that is meant.
        let factors: Vec<String> = model.levels().iter().flat_map(|levels| levels.factor_names()).collect();
        let constants = AdamConstants { beta1: self.beta1 as f32, beta2: self.beta2 as f32, epsilon: self.epsilon as f32 };
        let mut optimizer = Optimizer::new(Method::AdamW { weight_decay: self.weight_decay as f32 })
            .with_constants(constants)
            .without_decay(undecayed.into_iter().chain(factors));
        let mut average = self.average.map(|beta| WeightAverage::new(beta, &model)).transpose()?;
        let moving = (&mut model, &mut feed, &mut average);
        let session = Session::begin(&output, (&folder, self.quantize_layout), (&asked, resume), moving, &mut optimizer)?;
        let warmup = self.warmup.unwrap_or_else(|| (steps * 3).div_ceil(100).min(steps));
        let rate = LearningRate::new(self.lr).warmup(warmup).cooldown(self.schedule).floor(self.floor);
        let resumed_at = optimizer.steps() as usize;
        let trainer = Trainer::new(optimizer, rate, steps, (self.clip > 0.0).then_some(self.clip));
        let mut run =
            Run { job: self, steps, resumed_at, model, average, trainer, feed, session, validation: validation.as_ref() };
        let part = FolderWriter::working_folder(out);
        let done = run.go(watch).and_then(|(seconds, speed)| {
            let notes = std::mem::take(&mut run.session.notes);
            let written_step = if self.kept() == Keep::Best { notes.best.unwrap_or(steps) } else { steps };
            let whole = |folder: &Folder| -> Result<f64> {
                let sum = Census::of(folder, &Config::of(folder)?, false)?.whole();
                masked(folder, sum.numbers)
            };
            run.session.writer.copy_rest(&folder)?;
            let written = run.session.writer.complete()?;
            let report = TrainReport {
                out: out.to_path_buf(),
                job: self.clone().force(false).resume(false),
                settings: asked.clone(),
                steps,
                tokens: (steps * self.batch * self.accumulate * self.context) as u64,
                text_tokens: packed.tokens(),
                documents: packed.documents(),
                sequences,
                parameters: run.model.model().parameter_count(),
                trained: run.model.kept_parameters(),
                sparsity_before: whole(&folder)?,
                sparsity_after: whole(&written)?,
                curve: notes.curve,
                validation_text: validation.as_ref().map(|v| v.of.clone()),
                validation: notes.validation,
                written_step,
                seconds,
                tokens_per_second: speed,
                peak_bytes: peak_memory(),
                threads: rayon::current_num_threads(),
                isa: Isa::chosen().map(Isa::name).unwrap_or_default().to_string(),
                resumed_at,
                already_finished: false,
            };
            let record = serde_json::to_value(&report).map_err(|e| Error::invalid_option("record", e.to_string()))?;
            run.session.writer.json("train.json", &record)?;
            run.session.writer.file("train.html", report.page()?.as_bytes())?;
            Ok(report)
        });
        let done = done.and_then(|report| run.session.writer.finish().map(|()| report));
        done.map_err(|e| if part.is_dir() { e.unfinished(part) } else { e })
    }

    fn output(&self, model: &Path, out: &Path) -> Result<Output> {
        let read = [Some(model), self.teacher.as_deref(), self.teacher_cache.as_deref(), self.validation.as_deref()];
        let read = read.into_iter().flatten();
        let inputs: Vec<&Path> = read.chain(self.text.iter().map(PathBuf::as_path)).collect();
        match self.resume && !self.force {
            true => outputs::apart(out, &inputs).map(|()| Output::from(out)),
            false => outputs::folder(out, &inputs, self.force),
        }
    }

    /// The folder on whose disk tokens lie: as asked for, or that of the output.
    fn scratch_folder(&self, out: &Path) -> Result<PathBuf> {
        let above = || out.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from);
        match &self.scratch {
            Some(asked) if !asked.is_dir() => Err(Error::invalid_option("scratch", format!("{} is no folder", asked.display()))),
            Some(asked) => Ok(asked.clone()),
            None => Ok(above()),
        }
    }

    /// What decides the result of a run, by the names of the command's options; of files what is in them, not where they are.
    fn asked(
        &self,
        steps: usize,
        folder: &Folder,
        packed: &PackedDocuments,
        validation: Option<&Validation>,
        teacher: Option<&(Folder, Config)>,
    ) -> Result<Value> {
        let windows =
            validation.map(|v| v.windows.iter().flatten().fold(0u64, |h, id| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(*id)));
        let of_teacher = |value: Value| if self.teacher.is_some() || self.teacher_cache.is_some() { value } else { Value::Null };
        let of_levels = |value: Value| if self.quantize.is_some() { value } else { Value::Null };
        Ok(json!({
            "version of lacuna": env!("CARGO_PKG_VERSION"), "MODEL": folder.fingerprint()?, "--text": packed.digest(),
            "--steps": steps, "--context": self.context, "--batch": self.batch, "--accumulate": self.accumulate, "--bos": self.bos,
            "--seed": self.seed, "--lr": self.lr, "--schedule": self.schedule, "--warmup": self.warmup, "--floor": self.floor,
            "--weight-decay": self.weight_decay, "--no-decay": self.no_decay, "--beta1": self.beta1, "--beta2": self.beta2,
            "--epsilon": self.epsilon, "--clip": self.clip, "--only": self.only, "--freeze": self.freeze, "--lora": self.lora,
            "--lora-alpha": self.lora_alpha, "--quantize": self.quantize, "--quantize-group": of_levels(json!(self.quantize_group)),
            "--quantize-rule": of_levels(json!(self.quantize_rule)), "--quantize-layout": of_levels(json!(self.quantize_layout)), "--teacher": teacher.map(|(t, _)| t.fingerprint()).transpose()?,
            "--divergence": of_teacher(json!(self.divergence)), "--temperature": of_teacher(json!(self.temperature)),
            "--hard": of_teacher(json!(self.hard)), "--margin": self.margin, "--hidden-states": self.hidden_states,
            "--hidden-loss": self.hidden_loss, "--hidden-weight": self.hidden_weight, "--average": self.average, "--held-out": self.held_out,
            "--validation": windows.map(|w| format!("{w:016x}")), "--eval-every": self.eval_every, "--keep": self.kept(),
        }))
    }
}

/// The fraction of a folder's parameters that its masks drop.
///
/// # Errors
/// If a mask cannot be read, or a weight that one drops is not 0.
fn masked(folder: &Folder, parameters: usize) -> Result<f64> {
    let names: Vec<String> = folder.names().filter(|name| folder.has_mask(name)).map(String::from).collect();
    let mut dropped = 0;
    for name in names {
        let Some(mask) = folder.mask(&name)? else { continue };
        let lost = mask.dropped_nonzeros(&folder.matrix(&name, mask.dim())?);
        if lost > 0 {
            return Err(Error::malformed(folder.path(), format!("{lost} weights of {name} that its mask drops are not 0")));
        }
        dropped += mask.len() - mask.kept();
    }
    Ok(sparsity(parameters.saturating_sub(dropped), parameters).unwrap_or(0.0))
}

/// A run under way.
struct Run<'a> {
    job: &'a TrainJob,
    steps: usize,
    resumed_at: usize,
    model: Trainable<LanguageModel>,
    average: Option<WeightAverage>,
    trainer: Trainer,
    feed: LanguageFeed<'a>,
    session: Session,
    validation: Option<&'a Validation>,
}

impl Run<'_> {
    /// Takes the steps that are left, and writes the model; gives the seconds of the whole run and the tokens a second of these steps.
    fn go(&mut self, watch: &mut Watch<'_>) -> Result<(f64, f64)> {
        let (before, begun) = (self.session.notes.seconds, Instant::now());
        let (mut stepping, mut speed) = (0.0, 0.0);
        let tokens = (self.job.batch * self.job.accumulate * self.job.context) as f64;
        // A run that was stopped before its measurement makes that now.
        self.validate_if_due(self.resumed_at, watch)?;
        for step in self.resumed_at + 1..=self.steps {
            let at = Instant::now();
            let record = self.trainer.step(&mut self.model, &mut self.feed)?;
            if let Some(average) = &mut self.average {
                average.update(&self.model, step);
            }
            stepping += at.elapsed().as_secs_f64();
            speed = tokens * (step - self.resumed_at) as f64 / stepping;
            self.session.notes.curve.push(record);
            let (of, seconds_left, memory) = (self.steps, (self.steps - step) as f64 * tokens / speed, peak_memory());
            let sequences = (0..self.job.accumulate).flat_map(|pass| self.feed.sequences(step - 1, pass)).collect();
            let said = watch(&Event::Step { record, sequences, of, tokens_per_second: speed, seconds_left, memory });
            let done = Error::go_on(said).and_then(|()| self.validate_if_due(step, watch));
            let stopped = matches!(done, Err(Error::Interrupted));
            if stopped || step == self.steps || (done.is_ok() && step.is_multiple_of(self.job.save_every)) {
                self.session.notes.seconds = before + begun.elapsed().as_secs_f64();
                self.session.save((&mut self.model, &mut self.feed, &mut self.average), self.trainer.optimizer())?;
            }
            done?;
        }
        if self.job.kept() == Keep::Last {
            self.averaged(|run| run.session.write(&run.model))?;
        }
        Ok((before + begun.elapsed().as_secs_f64(), speed))
    }

    /// Lets `f` see the average, where there is one, in place of the model.
    fn averaged<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let exchange = |run: &mut Self| match &mut run.average {
            Some(average) => average.swap(&mut run.model).and_then(|()| run.model.settle()),
            None => Ok(()),
        };
        exchange(self)?;
        let done = f(self);
        exchange(self)?;
        done
    }

    /// Measures the model after `step` steps if that is to be done and was not.
    fn validate_if_due(&mut self, step: usize, watch: &mut Watch<'_>) -> Result<()> {
        let due = step == 0 || step == self.steps || self.job.eval_every.is_some_and(|every| step.is_multiple_of(every));
        let is_done = self.session.notes.validation.iter().any(|v| v.step == step);
        if due && !is_done { self.averaged(|run| run.validate(step, watch)) } else { Ok(()) }
    }

    /// Measures the model after `step` steps; the best is written.
    fn validate(&mut self, step: usize, watch: &mut Watch<'_>) -> Result<()> {
        let Some(validation) = self.validation else { return Ok(()) };
        let record =
            validation.measure(self.model.model(), step, &mut |done, of| progress(watch, Stage::Validation, done, of))?;
        let notes = &mut self.session.notes;
        let best = notes.best.and_then(|best| notes.validation.iter().find(|v| v.step == best));
        let better = best.is_none_or(|best| record.nll < best.nll);
        notes.validation.push(record);
        if step > 0 && better && self.job.kept() == Keep::Best {
            notes.best = Some(step);
            self.session.write(&self.model)?;
        }
        Error::go_on(watch(&Event::Validated(record)))
    }
}

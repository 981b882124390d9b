//! What a training job is refused for before anything is read.

use super::super::settings::activation_megabytes;
use super::settings::{Keep, TrainJob};
use crate::train::TeacherLoss;
use crate::{Error, Result};
use std::path::Path;

impl TrainJob {
    /// Refuses settings that are outside their range or exclude one another. Reads nothing.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the setting, its value and the range.
    pub fn check(&self) -> Result<()> {
        let refuse = |option: &str, reason: &str| Err(Error::invalid_option(option, reason));
        self.check_ranges()?;
        self.check_levels()?;
        if self.text.is_empty() {
            return refuse("text", "is not given: --text FILE, a text, .jsonl, or safetensors with input_ids");
        }
        let lengths = [("steps", self.steps.is_some()), ("tokens", self.tokens.is_some()), ("epochs", self.epochs.is_some())];
        let given: Vec<&str> = lengths.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        match given[..] {
            [_] => {}
            [] => return refuse("steps", "is not given, nor tokens or epochs: one says how long the run is"),
            [first, second, ..] => return refuse(first, &format!("is given beside {second}; one says how long the run is")),
        }
        if self.teacher.is_some() && self.teacher_cache.is_some() {
            return refuse("teacher", "is given beside teacher-cache; one of them is learnt from");
        }
        if self.teacher.is_none() {
            let plain = TrainJob::default();
            let of_teachers = [
                ("divergence", self.divergence != plain.divergence),
                ("temperature", self.temperature != plain.temperature),
                ("margin", self.margin.is_some()),
                ("hard", self.hard != plain.hard && self.teacher_cache.is_none()),
            ];
            if let Some((name, _)) = of_teachers.into_iter().find(|(_, given)| *given) {
                return refuse(name, if name == "hard" { "is for --teacher or --teacher-cache" } else { "is for --teacher" });
            }
        }
        if self.teacher.is_none() && !self.hidden_states.is_empty() {
            return refuse("hidden-states", "is for --teacher, which runs beside");
        }
        let plain = TrainJob::default();
        if self.hidden_states.is_empty() {
            let idle = [
                ("hidden-loss", self.hidden_loss != plain.hidden_loss),
                ("hidden-weight", self.hidden_weight != plain.hidden_weight),
            ];
            if let Some((name, _)) = idle.into_iter().find(|(_, given)| *given) {
                return refuse(name, "is for --hidden-states");
            }
        }
        if self.lora_alpha.is_some() && self.lora.is_none() {
            return refuse("lora-alpha", "is for --lora");
        }
        if self.validation.is_some() && self.held_out > 0 {
            return refuse("held-out", "is given beside validation; one of them is measured");
        }
        if self.windows.is_some() && self.validation.is_none() {
            return refuse("windows", "is for --validation");
        }
        if !self.measures() {
            let idle = [("eval-every", self.eval_every.is_some()), ("keep", self.keep == Some(Keep::Best))];
            if let Some((name, _)) = idle.into_iter().find(|(_, given)| *given) {
                return refuse(name, "is for --held-out or --validation: without them nothing is measured");
            }
        }
        Ok(())
    }

    /// Whether perplexity is measured.
    pub(super) fn measures(&self) -> bool {
        self.held_out > 0 || self.validation.is_some()
    }

    /// Which model is written.
    pub(super) fn kept(&self) -> Keep {
        self.keep.unwrap_or(if self.measures() { Keep::Best } else { Keep::Last })
    }

    /// Refuses numbers outside their range, and paths that no recipe and no record can hold.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the setting, its value and the range.
    pub fn check_ranges(&self) -> Result<()> {
        self.check_paths()?;
        let counts = [
            ("steps", self.steps, 1),
            ("tokens", self.tokens.map(|n| usize::try_from(n).unwrap_or(usize::MAX)), 1),
            ("context", Some(self.context), 2),
            ("batch", Some(self.batch), 1),
            ("accumulate", Some(self.accumulate), 1),
            ("lora", self.lora, 1),
            ("windows", self.windows, 1),
            ("eval-every", self.eval_every, 1),
            ("save-every", Some(self.save_every), 1),
        ];
        for (option, value, least) in counts {
            if let Some(value) = value.filter(|value| *value < least) {
                return Err(Error::invalid_option(option, format!("{value} is not at least {least}")));
            }
        }
        if self.steps.is_some_and(|steps| u32::try_from(steps).is_err()) {
            return Err(Error::invalid_option("steps", format!("at most {} are counted", u32::MAX)));
        }
        activation_megabytes(self.activations)?;
        let whole = self.batch.checked_mul(self.accumulate).and_then(|n| n.checked_mul(self.context));
        if whole.is_none() {
            return Err(Error::invalid_option("batch", "batch · accumulate · context is more than can be counted"));
        }
        let from_0 = [("lr", self.lr), ("weight-decay", self.weight_decay), ("clip", self.clip)];
        if let Some((option, value)) = from_0.into_iter().find(|(_, v)| !(v.is_finite() && *v >= 0.0)) {
            return Err(Error::invalid_option(option, format!("{value} is not a finite number of at least 0")));
        }
        let above_0 = [
            ("epochs", self.epochs),
            ("epsilon", Some(self.epsilon)),
            ("lora-alpha", self.lora_alpha),
            ("hidden-weight", Some(self.hidden_weight)),
        ];
        for (option, value) in above_0 {
            if let Some(value) = value.filter(|v| !(v.is_finite() && *v > 0.0)) {
                return Err(Error::invalid_option(option, format!("{value} is not a finite number above 0")));
            }
        }
        for (option, value) in [("beta1", self.beta1), ("beta2", self.beta2), ("average", self.average.unwrap_or(0.0))] {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::invalid_option(option, format!("{value} is not in [0, 1)")));
            }
        }
        if !(0.0..=1.0).contains(&self.floor) {
            return Err(Error::invalid_option("floor", format!("{} is not in [0, 1]", self.floor)));
        }
        self.teacher_loss().check()
    }

    /// How a teacher is learnt from.
    pub(super) fn teacher_loss(&self) -> TeacherLoss {
        let loss = TeacherLoss::default().divergence(self.divergence).temperature(self.temperature as f32).hard(self.hard as f32);
        self.margin.map_or(loss, |margin| loss.margin(margin as f32))
    }

    /// Refuses paths that are not UTF-8: recipes and records are text.
    pub(super) fn check_paths(&self) -> Result<()> {
        fn of(path: &Option<std::path::PathBuf>) -> Option<&Path> {
            path.as_deref()
        }
        let named = [
            ("model", of(&self.model)),
            ("out", of(&self.out)),
            ("teacher", of(&self.teacher)),
            ("teacher-cache", of(&self.teacher_cache)),
            ("validation", of(&self.validation)),
            ("scratch", of(&self.scratch)),
        ];
        let texts = self.text.iter().map(|path| ("text", Some(path.as_path())));
        for (name, path) in named.into_iter().chain(texts) {
            if let Some(path) = path.filter(|path| path.to_str().is_none()) {
                let reason = format!("{} is not UTF-8, which the record of the run could not hold", path.display());
                return Err(Error::invalid_option(name, reason));
            }
        }
        Ok(())
    }

    /// The steps of the run, of so many sequences.
    ///
    /// # Errors
    /// If they are more than are counted.
    pub(super) fn resolved_steps(&self, sequences: usize) -> Result<usize> {
        let each = self.batch * self.accumulate;
        let steps = match (self.steps, self.tokens, self.epochs) {
            (Some(steps), ..) => steps as f64,
            (_, Some(tokens), _) => (tokens as f64 / (each * self.context) as f64).ceil(),
            (.., epochs) => (epochs.unwrap_or(0.0) * sequences as f64 / each as f64).ceil(),
        };
        if !(1.0..=f64::from(u32::MAX)).contains(&steps) {
            return Err(Error::invalid_option("steps", format!("{steps} steps; 1 to {} are run", u32::MAX)));
        }
        Ok(steps as usize)
    }
}

//! What of the settings of a job cannot be meant, and what they come to.

use super::super::settings::activation_megabytes;
use super::method::{ShrinkMethod, UnitMetric};
use super::settings::ShrinkJob;
use crate::job::recipe::Recipe;
use crate::prune::{Correction, ExpertScore, ShrinkSizes};
use crate::{Error, Result};

impl ShrinkJob {
    /// Refuses numbers outside their range, whatever the method reads, and paths that no recipe and no record can hold.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the setting, its value and the range.
    pub fn check_ranges(&self) -> Result<()> {
        self.check_paths()?;
        let counts = [
            ("intermediate", self.intermediate),
            ("heads", self.heads),
            ("kv-heads", self.kv_heads),
            ("hidden", self.hidden),
            ("layers", self.layers),
            ("vocabulary", self.vocabulary),
            ("experts", self.experts),
            ("active-experts", self.active_experts),
            ("samples", Some(self.samples)),
            ("context", Some(self.context)),
            ("rounds", Some(self.rounds)),
            ("round", Some(self.round)),
            ("windows", self.windows),
        ];
        if let Some((option, _)) = counts.into_iter().find(|(_, n)| *n == Some(0)) {
            return Err(Error::invalid_option(option, "0 is not at least 1"));
        }
        if !(self.damping.is_finite() && self.damping >= 0.0) {
            let reason = format!("{} is not a finite number of at least 0; 0.0005 is usual", self.damping);
            return Err(Error::invalid_option("damping", reason));
        }
        self.activation_bytes()?;
        self.correction().map(|_| ())
    }

    /// Refuses settings that are outside their range or exclude one another. Reads no weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the setting, its value and the range.
    pub fn check(&self) -> Result<()> {
        self.check_ranges()?;
        if self.removes_experts() {
            return self.check_experts();
        }
        if self.parameters.is_some() && (self.sort || self.sizes() != ShrinkSizes::default()) {
            return Err(Error::invalid_option("parameters", "finds the sizes that stay: give none with it, and no --sort"));
        }
        if self.sort && self.sizes() != ShrinkSizes::default() {
            return Err(Error::invalid_option("sort", "puts units in order, and none goes: give no sizes with it"));
        }
        if self.sort && self.method == ShrinkMethod::Obs {
            let reason = "obs scores no units: give --method minitron, flap, taylor, fisher or magnitude";
            return Err(Error::invalid_option("sort", reason));
        }
        if self.per_layer && (self.parameters.is_none() || self.method != ShrinkMethod::Obs) {
            let reason =
                "spreads a budget over blocks by what group OBS loses there: give --parameters with it, and --method obs";
            return Err(Error::invalid_option("per-layer", reason));
        }
        if self.vocabulary.is_some() && self.text.is_none() {
            let reason = "entries are chosen by how often a text uses them: give --text FILE";
            return Err(Error::invalid_option("vocabulary", reason));
        }
        if self.vocabulary.is_some() && self.sort {
            return Err(Error::invalid_option("sort", "puts units in order, and none goes: give no --vocabulary with it"));
        }
        let nothing =
            self.sizes() == ShrinkSizes::default() && !self.sort && self.parameters.is_none() && self.vocabulary.is_none();
        if nothing {
            let reason = "nothing goes: give --intermediate, --heads, --kv-heads, --hidden, --layers, --experts, --active-experts or --vocabulary, with what stays, or --parameters, or --sort";
            return Err(Error::invalid_option("sizes", reason));
        }
        if !self.correct.is_empty() && self.method != ShrinkMethod::Obs {
            let reason = format!("is for --method obs; {} moves no weights", self.method);
            return Err(Error::invalid_option("correct", reason));
        }
        if let Some(folder) = self.scratch.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(Error::invalid_option("scratch", format!("{} is no folder", folder.display())));
        }
        if self.calibration.is_none() && self.reads_calibration() && !self.cuts_prefix() {
            let what = if self.moves() && self.method.measures() {
                "this method measures"
            } else {
                "layers and hidden features are chosen by"
            };
            let reason = format!("{what} activations: give --calibration FILE, text or token numbers");
            return Err(Error::invalid_option("calibration", reason));
        }
        Ok(())
    }

    /// Whether experts go, or fewer of them are met.
    pub(super) fn removes_experts(&self) -> bool {
        self.experts.or(self.active_experts).is_some()
    }

    /// Refuses what else is asked for where experts go.
    fn check_experts(&self) -> Result<()> {
        let others = [
            ("intermediate", self.intermediate.is_some()),
            ("heads", self.heads.is_some()),
            ("kv-heads", self.kv_heads.is_some()),
            ("hidden", self.hidden.is_some()),
            ("layers", self.layers.is_some()),
            ("vocabulary", self.vocabulary.is_some()),
            ("parameters", self.parameters.is_some()),
            ("per-layer", self.per_layer),
            ("sort", self.sort),
            ("correct", !self.correct.is_empty()),
        ];
        if let Some((option, _)) = others.into_iter().find(|(_, given)| *given) {
            return Err(Error::invalid_option(
                option,
                "cannot be used with --experts: experts leave in a run, or stage, of their own",
            ));
        }
        if let Some(folder) = self.scratch.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(Error::invalid_option("scratch", format!("{} is no folder", folder.display())));
        }
        if self.reads_calibration() && self.calibration.is_none() {
            let reason = "is missing: experts are chosen by what they do; --experts-by random needs none";
            return Err(Error::invalid_option("calibration", reason));
        }
        Ok(())
    }

    /// Whether anything is chosen by chance.
    pub(super) fn draws(&self) -> bool {
        match self.removes_experts() {
            true => self.experts.is_some() && self.experts_by == ExpertScore::Random,
            false => self.method == ShrinkMethod::Random,
        }
    }

    /// Whether heads or features of blocks go.
    pub(super) fn moves(&self) -> bool {
        self.intermediate.is_some() || self.heads.is_some() || self.kv_heads.is_some() || self.sort || self.parameters.is_some()
    }

    /// Whether anything is measured on the calibration.
    pub(super) fn reads_calibration(&self) -> bool {
        if self.removes_experts() {
            return self.experts.is_some() && self.experts_by.measures();
        }
        self.hidden.is_some()
            || self.layers.is_some()
            || self.parameters.is_some()
            || self.method.measures() && self.moves()
            || self.sort && self.calibration.is_some()
    }

    /// Whether units are chosen by the metric of the loss.
    pub(super) fn weighs(&self) -> bool {
        self.method == ShrinkMethod::Obs && self.metric == UnitMetric::Loss && self.moves()
    }

    /// Whether the model is one that was sorted and nothing is given to choose by: then the first units stay.
    pub(super) fn cuts_prefix(&self) -> bool {
        let record = self.model.as_ref().filter(|_| self.calibration.is_none()).map(|model| model.join("shrink.json"));
        let text = record.and_then(|path| std::fs::read(path).ok());
        let record: Option<serde_json::Value> = text.and_then(|text| serde_json::from_slice(&text).ok());
        record.is_some_and(|record| record["job"]["sort"] == true)
    }

    /// How far layers make up for earlier ones.
    pub(super) fn correction(&self) -> Result<Option<Correction>> {
        let given = &self.correct;
        let (inputs, hidden_states) = match given[..] {
            [] => return Ok(None),
            [inputs] => (inputs, 0.0),
            [inputs, hidden_states] => (inputs, hidden_states),
            _ => return Err(Error::invalid_option("correct", format!("{} fractions; at most 2", given.len()))),
        };
        if let Some(wrong) = given.iter().find(|f| !(0.0..=1.0).contains(*f)) {
            return Err(Error::invalid_option("correct", format!("{wrong} is not in [0, 1]")));
        }
        let any = inputs > 0.0 || hidden_states > 0.0;
        Ok(any.then_some(Correction { inputs, hidden_states, damping: self.damping }))
    }

    /// Bytes of activations that stay in memory, as asked for.
    pub(super) fn activation_bytes(&self) -> Result<Option<usize>> {
        activation_megabytes(self.activations)
    }
}

#[cfg(test)]
mod tests {
    use super::{ExpertScore, ShrinkJob, ShrinkMethod};

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let line = |job: ShrinkJob| job.check().unwrap_err().to_string();
        let job = || ShrinkJob::default().calibration("a");
        assert!(line(job()).starts_with("sizes: nothing goes"));
        assert!(line(job().heads(0)).starts_with("heads: 0 is not at least 1"));
        assert!(line(job().heads(1).correct(2.0, 0.0)).starts_with("correct: 2 is not in [0, 1]"));
        assert!(
            line(job().heads(1).method(ShrinkMethod::Minitron).correct(1.0, 0.0)).starts_with("correct: is for --method obs")
        );
        assert!(line(ShrinkJob::default().heads(1)).starts_with("calibration: this method measures"));
        assert!(line(ShrinkJob::default().experts(2)).starts_with("calibration: is missing: experts are chosen by what they do"));
        assert!(line(job().experts(2).heads(1)).starts_with("heads: cannot be used with --experts"));
        assert!(line(job().active_experts(0)).starts_with("active-experts: 0 is not at least 1"));
        assert!(ShrinkJob::default().experts(2).experts_by(ExpertScore::Random).check().is_ok());
        assert!(ShrinkJob::default().active_experts(2).check().is_ok());
        let weights = ShrinkJob::default().method(ShrinkMethod::Magnitude);
        assert!(weights.clone().heads(1).check().is_ok());
        assert!(line(weights.layers(1)).starts_with("calibration: layers and hidden features"));
    }
}

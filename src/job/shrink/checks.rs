//! What settings exclude one another, and what a job reads.

use super::super::settings::activation_megabytes;
use super::method::ShrinkMethod;
use super::method::UnitMetric;
use super::settings::ShrinkJob;
use crate::prune::{Aggregation, Correction, ExpertScore, HiddenScore, ShrinkSizes, SizeTarget};
use crate::{Error, Result};

impl ShrinkJob {
    /// Refuses settings that are outside their range or exclude one another. Reads no weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the setting, its value and the range.
    pub fn check(&self) -> Result<()> {
        self.check_ranges()?;
        if self.removes_experts() {
            return self.check_experts();
        }
        let target = self.target()?;
        let halves = self.sublayers.is_some() || !self.drop.is_empty();
        if let Some(target) = target.filter(|_| self.sort || self.sizes() != ShrinkSizes::default() || halves) {
            let reason = "finds the sizes that stay: give none with it, no --sublayers, no --drop and no --sort";
            return Err(Error::invalid_option(target.option(), reason));
        }
        if halves && (self.sort || self.per_layer) {
            let option = if self.sublayers.is_some() { "sublayers" } else { "drop" };
            return Err(Error::invalid_option(option, "goes with sizes: give no --sort and no --per-layer with it"));
        }
        if self.sublayers.is_some() && !self.drop.is_empty() {
            let reason = "are found by their scores, and --drop names them: give one of the two";
            return Err(Error::invalid_option("sublayers", reason));
        }
        if self.pad && self.sort {
            return Err(Error::invalid_option("pad", "makes blocks alike that are cut; with --sort none is"));
        }
        if self.aggregate != Aggregation::default() && self.method != ShrinkMethod::Minitron {
            let reason = format!("is for --method minitron; {} takes no means of activations", self.method);
            return Err(Error::invalid_option("aggregate", reason));
        }
        if self.sort && self.sizes() != ShrinkSizes::default() {
            return Err(Error::invalid_option("sort", "puts units in order, and none goes: give no sizes with it"));
        }
        if self.sort && self.method == ShrinkMethod::Obs {
            let reason = "obs scores no units: give --method minitron, flap, taylor, fisher or magnitude";
            return Err(Error::invalid_option("sort", reason));
        }
        if self.per_layer && (target.is_none() || self.method != ShrinkMethod::Obs) {
            let reason = "spreads a budget over blocks by what group OBS loses there: give --parameters, --flops, --bytes or --milliseconds with it, and --method obs";
            return Err(Error::invalid_option("per-layer", reason));
        }
        if self.vocabulary.is_some() && self.text.is_none() {
            let reason = "entries are chosen by how often a text uses them: give --text FILE";
            return Err(Error::invalid_option("vocabulary", reason));
        }
        if self.vocabulary.is_some() && self.sort {
            return Err(Error::invalid_option("sort", "puts units in order, and none goes: give no --vocabulary with it"));
        }
        let nothing = self.sizes() == ShrinkSizes::default()
            && !(self.sort || self.pad || halves)
            && target.is_none()
            && self.vocabulary.is_none();
        if nothing {
            let reason = "nothing goes: give --intermediate, --heads, --kv-heads, --hidden, --layers, --experts, --active-experts or --vocabulary, with what stays, or --drop or --sublayers, or --parameters, --flops, --bytes or --milliseconds, or --sort";
            return Err(Error::invalid_option("sizes", reason));
        }
        if !self.correct.is_empty() && self.method != ShrinkMethod::Obs {
            let reason = format!("is for --method obs; {} moves no weights", self.method);
            return Err(Error::invalid_option("correct", reason));
        }
        self.check_reconstruction()?;
        if let Some(folder) = self.scratch.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(Error::invalid_option("scratch", format!("{} is no folder", folder.display())));
        }
        if self.calibration.is_none() && self.reads_calibration() && !self.cuts_prefix() {
            let what = if target.is_some() {
                "candidates are judged by"
            } else if self.moves() && self.method.measures() {
                "this method measures"
            } else {
                "layers, sub-layers and hidden features are chosen by"
            };
            let reason = format!("{what} activations: give --calibration FILE, text or token numbers");
            return Err(Error::invalid_option("calibration", reason));
        }
        Ok(())
    }

    /// Refuses training halves of blocks where it cannot be done, or nothing would be trained.
    fn check_reconstruction(&self) -> Result<()> {
        let refuse = |option: &str, reason: &str| Err(Error::invalid_option(option, reason));
        if self.reconstruct_blocks.is_none() {
            let usual = self.reconstruct_rate == ShrinkJob::default().reconstruct_rate;
            return if usual { Ok(()) } else { refuse("reconstruct-rate", "is for --reconstruct-blocks PASSES") };
        }
        let option = "reconstruct-blocks";
        if self.hidden.is_some() {
            return refuse(
                option,
                "trains towards the dense model's hidden states, of which all features stay: leave hidden out",
            );
        }
        if self.sort || !(self.method.reads_inputs() || self.method == ShrinkMethod::Minitron) {
            return refuse(option, "is for methods that measure inputs: obs, minitron and flap");
        }
        if !self.moves() {
            return refuse(option, "trains halves from which units go, and here whole layers do, or none");
        }
        if self.cuts_prefix() {
            return refuse(option, "needs a --calibration to train on");
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
            ("sublayers", self.sublayers.is_some()),
            ("drop", !self.drop.is_empty()),
            ("pad", self.pad),
            ("vocabulary", self.vocabulary.is_some()),
            ("parameters", self.parameters.is_some()),
            ("flops", self.flops.is_some()),
            ("bytes", self.bytes.is_some()),
            ("milliseconds", self.milliseconds.is_some()),
            ("scores", self.scores.is_some()),
            ("per-layer", self.per_layer),
            ("sort", self.sort),
            ("correct", !self.correct.is_empty()),
            ("reconstruct-blocks", self.reconstruct_blocks.is_some()),
            ("reconstruct-rate", self.reconstruct_rate != ShrinkJob::default().reconstruct_rate),
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

    /// The budget, if one is asked for.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if two are.
    pub fn target(&self) -> Result<Option<SizeTarget>> {
        let all = [
            self.parameters.map(SizeTarget::Parameters),
            self.flops.map(SizeTarget::Flops),
            self.bytes.map(SizeTarget::Bytes),
            self.milliseconds.map(SizeTarget::Milliseconds),
        ];
        let mut asked = all.into_iter().flatten();
        match (asked.next(), asked.next()) {
            (Some(first), Some(second)) => {
                let reason = format!("and --{} both are budgets: give one", first.option());
                Err(Error::invalid_option(second.option(), reason))
            }
            (first, _) => Ok(first),
        }
    }

    /// Whether sizes are searched for.
    pub(super) fn searches(&self) -> bool {
        [self.parameters, self.flops, self.bytes, self.milliseconds].iter().any(Option::is_some)
    }

    /// Whether heads or features of blocks go.
    pub(super) fn moves(&self) -> bool {
        self.intermediate.is_some() || self.heads.is_some() || self.kv_heads.is_some() || self.sort || self.searches()
    }

    /// Whether anything is measured on the calibration.
    pub(super) fn reads_calibration(&self) -> bool {
        if self.removes_experts() {
            return self.experts.is_some() && self.experts_by.measures();
        }
        let fresh = !self.reuses_scores();
        let turns = self.hidden.is_some() && self.hidden_by == HiddenScore::Pca;
        turns
            || self.reconstruct_blocks.is_some()
            || (self.hidden.is_some() || self.layers.is_some() || self.sublayers.is_some()) && fresh
            || self.searches()
            || self.method.measures() && self.moves() && (fresh || self.method.reads_inputs())
            || self.sort && self.calibration.is_some() && fresh
    }

    /// Whether units are chosen by the metric of the loss.
    pub(super) fn weighs(&self) -> bool {
        self.method == ShrinkMethod::Obs && self.metric == UnitMetric::Loss && self.moves() && !self.reuses_scores()
    }

    /// Whether the model is one that was sorted and nothing is given to choose by: then the first units stay.
    pub(super) fn cuts_prefix(&self) -> bool {
        let chosen = self.calibration.is_some() || self.reuses_scores();
        let record = self.model.as_ref().filter(|_| !chosen).map(|model| model.join("shrink.json"));
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

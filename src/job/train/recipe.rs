//! Training jobs in files, as pruning jobs are.

use super::super::recipe::{self, Recipe};
use super::settings::{NAMES, TrainJob};
use crate::Result;
use std::path::Path;

impl Recipe for TrainJob {
    const COMMAND: &'static str = "train";
    const NAMES: &'static [&'static str] = &NAMES;

    fn in_range(&self) -> Result<()> {
        self.check_ranges()
    }

    fn check_paths(&self) -> Result<()> {
        TrainJob::check_paths(self)
    }
}

impl TrainJob {
    /// Reads a recipe, or, if its text begins with `{`, the record of a run.
    ///
    /// # Errors
    /// As [`PruneJob::read`](crate::job::PruneJob::read).
    pub fn read(path: impl AsRef<Path>) -> Result<TrainJob> {
        recipe::read(path.as_ref())
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// With the key and the value, as [`TrainJob::read`].
    pub fn from_toml(text: &str) -> Result<TrainJob> {
        recipe::from_toml(text)
    }

    /// All settings, one a line, those that are not set behind a `#`. [`TrainJob::from_toml`] gives the job back.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) if a number is beyond the 64 bits with a sign that the format has, or a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        recipe::to_toml(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Keep, TrainJob};
    use crate::data::Bos;
    use crate::io::QuantLayout;
    use crate::quantize::Granularity;
    use crate::train::{Cooldown, Divergence, HiddenLoss, HiddenPair, StepRule};

    #[test]
    fn every_setting_comes_back_from_a_recipe_and_a_record() {
        let job = TrainJob::new()
            .model("m")
            .out("o")
            .text(["a.txt", "b.jsonl"])
            .steps(3)
            .tokens(7)
            .epochs(0.5)
            .context(5)
            .batch(2)
            .accumulate(3)
            .bos(Bos::Window)
            .seed(9)
            .lr(0.25)
            .schedule(Cooldown::Wsd)
            .warmup(4)
            .floor(0.125)
            .weight_decay(0.5)
            .no_decay(["kind:norm"])
            .beta1(0.5)
            .beta2(0.75)
            .epsilon(1e-6)
            .clip(2.0)
            .only(["mlp"])
            .freeze(["kind:embedding"])
            .lora(8)
            .lora_alpha(3.0)
            .quantize(3)
            .quantize_group(Granularity::Row)
            .quantize_rule(StepRule::StraightThrough)
            .quantize_layout(QuantLayout::Gptq)
            .teacher("t")
            .teacher_cache("c")
            .divergence(Divergence::JensenShannon)
            .temperature(2.0)
            .hard(0.5)
            .hidden_states([HiddenPair { student: 1, teacher: 2 }])
            .hidden_loss(HiddenLoss::Mse)
            .hidden_weight(0.5)
            .average(0.75)
            .held_out(6)
            .validation("v.txt")
            .windows(8)
            .eval_every(11)
            .keep(Keep::Last)
            .save_every(12)
            .activations(512)
            .scratch("s");
        let (values, plain) = (serde_json::to_value(&job).unwrap(), serde_json::to_value(TrainJob::new()).unwrap());
        // A margin goes with the default divergence alone.
        for name in super::NAMES.into_iter().filter(|name| *name != "margin") {
            assert_ne!(values[name], plain[name], "{name} is as by default");
        }
        let margin = TrainJob::new().teacher("t").margin(0.25);
        assert_eq!(TrainJob::from_toml(&margin.to_toml().unwrap()).unwrap(), margin);
        assert_eq!(TrainJob::from_toml(&job.to_toml().unwrap()).unwrap(), job);
        assert_eq!(TrainJob::from_toml(&TrainJob::new().to_toml().unwrap()).unwrap(), TrainJob::new());
        let record = serde_json::json!({"job": job}).to_string();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.json");
        std::fs::write(&path, record).unwrap();
        assert_eq!(TrainJob::read(&path).unwrap(), job);
        let e = TrainJob::from_toml("stpes = 3").unwrap_err().to_string();
        assert_eq!(e, "no setting is named 'stpes' among 47; did you mean 'steps'?");
        assert_eq!(TrainJob::from_toml("clip = -1.0").unwrap_err().to_string(), "clip: -1 is not a finite number of at least 0");
    }
}

//! The settings of a job that makes a model smaller.

use super::method::{ShrinkMethod, UnitMetric};
use crate::data::Bos;
use crate::job::recipe::{self, Recipe};
use crate::prune::{Aggregation, DepthScore, ExpertScore, HiddenScore, ShrinkSizes, SizeAmount, SubLayer};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What of a model stays, how the rest is chosen, and where it is written: everything that `lacuna shrink` is asked for, as one value.
///
/// Settings have the names of the command's options: [`ShrinkJob::to_toml`] writes them as a recipe, [`ShrinkJob::read`] reads a recipe, or the
/// record `shrink.json` of a run. [`ShrinkJob::check`] refuses what cannot be meant before anything is read, [`ShrinkJob::run`] works on files.
///
/// ```
/// use lacuna::job::ShrinkJob;
/// let job = ShrinkJob::default().intermediate(1024).calibration("ids.safetensors").samples(128);
/// job.check()?;
/// assert_eq!(ShrinkJob::from_toml(&job.to_toml()?)?, job);
/// let wrong = job.damping(-1.0).check().unwrap_err();
/// assert_eq!(wrong.to_string(), "damping: -1 is not a finite number of at least 0; 0.0005 is usual");
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `model` | | a path | a model's folder |
/// | `out` | | a path | the folder to write |
/// | `intermediate` | all | from 1 | features between the feed-forward layers that stay |
/// | `heads` | all | from 1 | heads of queries that stay; with grouped keys as many of each group |
/// | `kv-heads` | all | from 1 | heads of keys and values that stay, with their queries |
/// | `hidden` | all | from 1 | hidden features that stay, by the mean activations of norms |
/// | `layers` | all | from 1 | layers that stay |
/// | `vocabulary` | all | from 1 | entries of the vocabulary that stay: bytes, special tokens and those that `text` uses most |
/// | `experts` | all | from 1 | of a mixture: experts of a block that stay, in a run of their own |
/// | `active-experts` | as before, or as stay | from 1 | of a mixture: how many experts a token meets |
/// | `experts-by` | `reap` | [`ExpertScore`] | how experts are chosen |
/// | `sublayers` | none | from 1 | how many sub-layers (attention, or the feed-forward layers, of a block) go, by `depth-by` |
/// | `drop` | none | [`SubLayer`]s | sub-layers that go, as `attention:3` and `mlp:7`, by the numbers of blocks before |
/// | `pad` | false | | whether blocks of different widths are padded with zeros to the widest, with masks, so that the result is a plain model |
/// | `parameters` | | [`SizeAmount`] | what stays in all, instead of sizes: below 1 a fraction of the blocks' weights, or a count of the whole; layers, heads and features are searched for |
/// | `flops` | | [`SizeAmount`] | the same of multiplications and additions a token, below 1 a fraction of the whole model's |
/// | `bytes` | | [`SizeAmount`] | the same of bytes of all weights |
/// | `milliseconds` | | [`SizeAmount`] | the same of what a token takes that is written, measured here |
/// | `per-layer` | false | | with one of these four: whether each block has its own widths, by what the loss is expected to rise by |
/// | `round` | 64 | from 1 | of the search: feed-forward features are multiples of it, or go in steps of it from each block |
/// | `sort` | false | | whether nothing goes, and units are put in the order of their scores instead |
/// | `method` | `obs` | [`ShrinkMethod`] | how heads and features are chosen |
/// | `aggregate` | `mean,l2` | [`Aggregation`] | of `minitron`: what activations become over tokens, then over sequences |
/// | `scores` | | a path | a file of units' scores: written where there is none, read and cut by where there is |
/// | `metric` | `loss` | [`UnitMetric`] | of `obs`: by what units are chosen |
/// | `hidden-by` | `minitron` | [`HiddenScore`] | how hidden features are chosen |
/// | `depth-by` | `cosine` | [`DepthScore`] | how layers are chosen |
/// | `seed` | 0 | 64 bits | of `random` |
/// | `calibration` | | a path | text (feature `text`), or a safetensors file with `input_ids`, to measure on |
/// | `samples` | 64 | from 1 | sequences of calibration |
/// | `context` | 1024 | from 1 | tokens of a sequence |
/// | `damping` | 0.0005 | from 0 | fraction of the mean diagonal that is added to Gram matrices |
/// | `rounds` | 32 | from 1 | rounds in which units leave (`obs`) |
/// | `swaps` | 256 | from 0 | the most units of a layer that are exchanged afterwards (`obs`) |
/// | `correct` | none | one or two of [0, 1] | fractions of what earlier layers changed that a layer makes up for: of its inputs, of the hidden states |
/// | `reconstruct-blocks` | none | from 1 | of `obs`, `minitron` and `flap`: passes over the calibration in which halves of blocks (attention, feed-forward) from which units went are trained towards the dense model's hidden states |
/// | `reconstruct-rate` | 3e-5 | above 0 | the largest learning rate of these passes |
/// | `activations` | half of the free memory | megabytes | activations that stay in memory |
/// | `scratch` | that of `out` | a folder | on whose disk the rest lies |
/// | `text` | | a path | a text whose perplexity is measured before and after; several as `a.txt,b.txt` |
/// | `windows` | all | from 1 | only the first windows of that text |
/// | `bos` | `tokenizer` | [`Bos`] | where the token that begins a text stands |
///
/// Two more say what becomes of what is there already, and are of one run: they are in no recipe and in no record. `force` replaces an older
/// output; `resume` goes on with a run that was interrupted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct ShrinkJob {
    /// The model's folder.
    pub model: Option<PathBuf>,
    /// The folder to write; it appears whole or not at all.
    pub out: Option<PathBuf>,
    /// Features between the feed-forward layers that stay.
    pub intermediate: Option<usize>,
    /// Heads of queries that stay.
    pub heads: Option<usize>,
    /// Heads of keys and values that stay.
    pub kv_heads: Option<usize>,
    /// Hidden features that stay.
    pub hidden: Option<usize>,
    /// Layers that stay.
    pub layers: Option<usize>,
    /// Entries of the vocabulary that stay.
    pub vocabulary: Option<usize>,
    /// Of a mixture: experts of a block that stay.
    pub experts: Option<usize>,
    /// Of a mixture: how many experts a token meets.
    pub active_experts: Option<usize>,
    /// How experts are chosen.
    pub experts_by: ExpertScore,
    /// How many sub-layers go.
    pub sublayers: Option<usize>,
    /// Sub-layers that go.
    pub drop: Vec<SubLayer>,
    /// Whether blocks are padded to the widest.
    pub pad: bool,
    /// How many parameters stay, instead of sizes.
    pub parameters: Option<SizeAmount>,
    /// How many multiplications and additions a token stay.
    pub flops: Option<SizeAmount>,
    /// How many bytes of weights stay.
    pub bytes: Option<SizeAmount>,
    /// How many milliseconds a token takes.
    pub milliseconds: Option<SizeAmount>,
    /// Whether each block has its own widths.
    pub per_layer: bool,
    /// Feed-forward features that a search tries are multiples of it.
    pub round: usize,
    /// Whether nothing goes, and units are put in order.
    pub sort: bool,
    /// How heads and features are chosen.
    pub method: ShrinkMethod,
    /// What activations become, of `minitron`.
    pub aggregate: Aggregation,
    /// A file of scores, written or read.
    pub scores: Option<PathBuf>,
    /// By what `obs` chooses them.
    pub metric: UnitMetric,
    /// How hidden features are chosen.
    pub hidden_by: HiddenScore,
    /// How layers are chosen.
    pub depth_by: DepthScore,
    /// The seed of `random`.
    pub seed: u64,
    /// What is measured on.
    pub calibration: Option<PathBuf>,
    /// Sequences of calibration.
    pub samples: usize,
    /// Tokens of a sequence.
    pub context: usize,
    /// The fraction of the mean diagonal that is added to Gram matrices.
    pub damping: f64,
    /// Rounds in which units leave.
    pub rounds: usize,
    /// The most units of a layer that are exchanged.
    pub swaps: usize,
    /// Fractions of what earlier layers changed that each layer makes up for: of its inputs, of the hidden states.
    pub correct: Vec<f64>,
    /// Passes over the calibration in which halves of blocks are trained.
    pub reconstruct_blocks: Option<usize>,
    /// The largest learning rate of these passes.
    pub reconstruct_rate: f64,
    /// Megabytes of activations that stay in memory.
    pub activations: Option<usize>,
    /// The folder on whose disk the rest lies.
    pub scratch: Option<PathBuf>,
    /// A text whose perplexity is measured before and after.
    pub text: Option<PathBuf>,
    /// Only the first windows of that text.
    pub windows: Option<usize>,
    /// Where the token that begins a text stands.
    pub bos: Bos,
    /// Whether an older output is replaced; in no recipe and no record.
    #[serde(skip)]
    pub force: bool,
    /// Whether a run that was interrupted is taken up again; in no recipe and no record.
    #[serde(skip)]
    pub resume: bool,
}

/// The names of the settings in recipes and records, in their order there.
pub(super) const NAMES: [&str; 42] = [
    "model",
    "out",
    "intermediate",
    "heads",
    "kv-heads",
    "hidden",
    "layers",
    "vocabulary",
    "experts",
    "active-experts",
    "experts-by",
    "sublayers",
    "drop",
    "pad",
    "parameters",
    "flops",
    "bytes",
    "milliseconds",
    "per-layer",
    "round",
    "sort",
    "method",
    "aggregate",
    "scores",
    "metric",
    "hidden-by",
    "depth-by",
    "seed",
    "calibration",
    "samples",
    "context",
    "damping",
    "rounds",
    "swaps",
    "correct",
    "reconstruct-blocks",
    "reconstruct-rate",
    "activations",
    "scratch",
    "text",
    "windows",
    "bos",
];

impl Default for ShrinkJob {
    fn default() -> Self {
        ShrinkJob {
            model: None,
            out: None,
            intermediate: None,
            heads: None,
            kv_heads: None,
            hidden: None,
            layers: None,
            vocabulary: None,
            experts: None,
            active_experts: None,
            experts_by: ExpertScore::Reap,
            sublayers: None,
            drop: Vec::new(),
            pad: false,
            parameters: None,
            flops: None,
            bytes: None,
            milliseconds: None,
            per_layer: false,
            round: 64,
            sort: false,
            method: ShrinkMethod::Obs,
            aggregate: Aggregation::default(),
            scores: None,
            metric: UnitMetric::Loss,
            hidden_by: HiddenScore::Minitron,
            depth_by: DepthScore::Cosine,
            seed: 0,
            calibration: None,
            samples: 64,
            context: 1024,
            damping: 0.0005,
            rounds: 32,
            swaps: 256,
            correct: Vec::new(),
            reconstruct_blocks: None,
            reconstruct_rate: 3e-5,
            activations: None,
            scratch: None,
            text: None,
            windows: None,
            bos: Bos::Tokenizer,
            force: false,
            resume: false,
        }
    }
}

impl Recipe for ShrinkJob {
    const COMMAND: &'static str = "shrink";
    const NAMES: &'static [&'static str] = &NAMES;

    fn in_range(&self) -> Result<()> {
        self.check_ranges()
    }

    fn check_paths(&self) -> Result<()> {
        let all = [&self.model, &self.out, &self.calibration, &self.scratch, &self.text, &self.scores];
        for (name, path) in ["model", "out", "calibration", "scratch", "text", "scores"].into_iter().zip(all) {
            if let Some(path) = path.as_deref().filter(|path| path.to_str().is_none()) {
                let reason = format!("{} is not UTF-8, which the record of the run could not hold", path.display());
                return Err(Error::invalid_option(name, reason));
            }
        }
        Ok(())
    }
}

impl ShrinkJob {
    /// Reads a recipe, or, if its text begins with `{`, the record of a run.
    ///
    /// # Errors
    /// As [`PruneJob::read`](crate::job::PruneJob::read).
    pub fn read(path: impl AsRef<Path>) -> Result<ShrinkJob> {
        recipe::read(path.as_ref())
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// With the key and the value, as [`ShrinkJob::read`].
    pub fn from_toml(text: &str) -> Result<ShrinkJob> {
        recipe::from_toml(text)
    }

    /// All settings, one a line, those that are not set behind a `#`. [`ShrinkJob::from_toml`] gives the job back.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a number is beyond the 64 bits with a sign that the format has, or a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        recipe::to_toml(self)
    }

    /// What stays.
    pub fn sizes(&self) -> ShrinkSizes {
        let ShrinkJob { intermediate, heads, kv_heads, hidden, layers, .. } = *self;
        ShrinkSizes { intermediate, heads, kv_heads, hidden, layers }
    }

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
            ("sublayers", self.sublayers),
            ("vocabulary", self.vocabulary),
            ("experts", self.experts),
            ("active-experts", self.active_experts),
            ("samples", Some(self.samples)),
            ("context", Some(self.context)),
            ("rounds", Some(self.rounds)),
            ("round", Some(self.round)),
            ("windows", self.windows),
            ("reconstruct-blocks", self.reconstruct_blocks),
        ];
        if let Some((option, _)) = counts.into_iter().find(|(_, n)| *n == Some(0)) {
            return Err(Error::invalid_option(option, "0 is not at least 1"));
        }
        if !(self.damping.is_finite() && self.damping >= 0.0) {
            let reason = format!("{} is not a finite number of at least 0; 0.0005 is usual", self.damping);
            return Err(Error::invalid_option("damping", reason));
        }
        if !(self.reconstruct_rate.is_finite() && self.reconstruct_rate > 0.0) {
            let reason = format!("{} is not a finite number above 0; 3e-5 is usual", self.reconstruct_rate);
            return Err(Error::invalid_option("reconstruct-rate", reason));
        }
        self.activation_bytes()?;
        self.correction().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::{NAMES, ShrinkJob, ShrinkMethod, UnitMetric};
    use crate::data::Bos;
    use crate::prune::{DepthScore, ExpertScore, HiddenScore, SizeAmount};

    #[test]
    fn the_names_are_those_of_the_fields() {
        let fields = serde_json::to_value(ShrinkJob::default()).unwrap();
        let (mut fields, mut names): (Vec<&str>, Vec<&str>) =
            (fields.as_object().unwrap().keys().map(String::as_str).collect(), NAMES.to_vec());
        fields.sort_unstable();
        names.sort_unstable();
        assert_eq!(fields, names);
    }

    #[test]
    fn every_setting_comes_back_from_a_recipe() {
        let all = ShrinkJob::default()
            .model("a b/c")
            .out("d")
            .intermediate(1)
            .heads(2)
            .kv_heads(3)
            .hidden(4)
            .layers(5)
            .sublayers(15)
            .drop(["mlp:3".parse().unwrap()])
            .pad(true)
            .parameters(SizeAmount::Fraction(0.75))
            .flops(SizeAmount::Absolute(16e6))
            .bytes(SizeAmount::Fraction(0.5))
            .milliseconds(SizeAmount::Absolute(12.5))
            .aggregate("l2,mean".parse().unwrap())
            .scores("h")
            .vocabulary(14)
            .experts(15)
            .active_experts(16)
            .experts_by(ExpertScore::Use)
            .per_layer(true)
            .metric(UnitMetric::Error)
            .hidden_by(HiddenScore::Pca)
            .round(13)
            .sort(true)
            .method(ShrinkMethod::Fisher)
            .depth_by(DepthScore::Perplexity)
            .seed(6)
            .calibration("e")
            .samples(7)
            .context(8)
            .damping(0.5)
            .rounds(9)
            .swaps(10)
            .correct(0.25, 0.5)
            .reconstruct_blocks(17)
            .reconstruct_rate(0.25)
            .activations(11)
            .scratch("f")
            .text("g")
            .windows(12)
            .bos(Bos::Window);
        let (plain, changed) = (serde_json::to_value(ShrinkJob::default()).unwrap(), serde_json::to_value(&all).unwrap());
        NAMES.iter().for_each(|name| assert_ne!(plain[name], changed[name], "{name} is as by default here"));
        assert_eq!(ShrinkJob::from_toml(&all.to_toml().unwrap()).unwrap(), all);
        let job = ShrinkJob::default();
        assert_eq!(ShrinkJob::from_toml(&job.to_toml().unwrap()).unwrap(), job);
    }

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
        assert!(line(job().heads(1).reconstruct_blocks(0)).starts_with("reconstruct-blocks: 0 is not at least 1"));
        assert!(line(job().heads(1).reconstruct_rate(1.0)).starts_with("reconstruct-rate: is for --reconstruct-blocks"));
        let trained = || job().heads(1).reconstruct_blocks(1);
        assert!(line(trained().hidden(2)).starts_with("reconstruct-blocks: trains towards the dense model's hidden states"));
        assert!(line(job().layers(2).reconstruct_blocks(1)).starts_with("reconstruct-blocks: trains halves from which units go"));
        assert!(line(trained().method(ShrinkMethod::Magnitude)).starts_with("reconstruct-blocks: is for methods that measure"));
        assert!(line(job().experts(2).reconstruct_rate(1.0)).starts_with("reconstruct-rate: cannot be used with --experts"));
        let scored = ShrinkJob::default()
            .heads(1)
            .method(ShrinkMethod::Minitron)
            .scores(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        assert!(scored.clone().check().is_ok());
        assert!(line(scored.reconstruct_blocks(1)).starts_with("calibration: "));
        assert!(line(job().experts(2).reconstruct_blocks(1)).starts_with("reconstruct-blocks: cannot be used with --experts"));
        let weights = ShrinkJob::default().method(ShrinkMethod::Magnitude);
        assert!(weights.clone().heads(1).check().is_ok());
        assert!(line(weights.layers(1)).starts_with("calibration: layers, sub-layers and hidden features"));
    }
}

//! The settings of a job that quantises.

use super::super::settings::activation_megabytes;
use super::method::{QuantScheme, QuantizeMethod};
use crate::data::Bos;
use crate::io::QuantLayout;
use crate::job::recipe::{self, Recipe};
use crate::mask::{Budget, Pattern, Scope};
use crate::prune::{CalibrationInputs, Correction, Sequential};
use crate::quantize::{CodeGrid, Granularity, ScaleType};
use crate::solve::{Awq, Gptq, Hqq, InputScaling, JointPruning, Obr, Order, Quantizer, Rtn, SmoothQuant};
use crate::sparse::ActivationBits;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is quantised, how, and where it is written: everything that `lacuna quantize` is asked for, as one value.
///
/// Settings have the names of the command's options: [`QuantizeJob::to_toml`] writes them as a recipe, [`QuantizeJob::read`] reads a recipe, or the
/// record `quantize.json` of a run. [`QuantizeJob::check`] refuses what cannot be meant before anything is read, [`QuantizeJob::run`] works on files.
///
/// ```
/// use lacuna::job::{QuantizeJob, QuantizeMethod};
/// let job = QuantizeJob::default().method(QuantizeMethod::Gptq).bits(3).calibration("ids.safetensors");
/// job.check()?;
/// assert_eq!(QuantizeJob::from_toml(&job.to_toml()?)?, job);
/// let wrong = job.bits(5).check().unwrap_err();
/// assert_eq!(wrong.to_string(), "bits: 5 is none that the layout compressed-tensors has: 2, 3, 4, 8");
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `model` | | a path | a model's folder |
/// | `out` | | a path | the folder to write |
/// | `method` | `gptq` | [`QuantizeMethod`] | how codes are chosen |
/// | `bits` | 4 | 2, 3, 4, 8 | bits of a code; which a layout has, [`QuantLayout`] says |
/// | `group` | 64 | [`Granularity`] | inputs of a row that share a scale, `row` or `tensor` |
/// | `scheme` | symmetric for `rtn`, `gptq` and `obr`, else asymmetric | [`QuantScheme`] | whether values lie evenly about 0 |
/// | `scale-type` | that of the weights; `f16` in the layouts `gptq` and `awq` | [`ScaleType`] | how scales are stored |
/// | `layout` | `compressed-tensors` | [`QuantLayout`] | how codes lie in files |
/// | `skip` | none | patterns | layers that are left alone |
/// | `only` | all | patterns | layers that are quantised |
/// | `calibration` | | a path | text (feature `text`), or a safetensors file with `input_ids`, to measure on |
/// | `samples` | 64 | from 1 | sequences of calibration |
/// | `context` | 1024 | from 1 | tokens of a sequence |
/// | `inputs` | `pruned` | [`CalibrationInputs`] | from which model inputs come: that in codes so far (`pruned`), or the `dense` one |
/// | `turn` | `layer`, of `awq` `block` | [`Sequential`] | when layers of a block are quantised |
/// | `order` | `natural` | [`Order`] | of `gptq`: the order of columns |
/// | `static-groups` | false | | of `gptq`: whether scales are those of the weights as they were |
/// | `damping` | 0.01 | from 0 | of `gptq` and `obr`: fraction of the mean diagonal that is added to Gram matrices |
/// | `block-size` | 128 | from 1 | of `gptq`: columns that are visited together |
/// | `clip` | true | | of `awq`: whether ranges are cut off |
/// | `smooth` | none | [0, 1] | SmoothQuant's α, of all but `awq`: norms' outputs are divided, and the weights behind them multiplied; 0.5 is the paper's |
/// | `activation-bits` | 32 | 32, 8 | what the layout `int-quantized` says of activations: 8 with a scale a token. Perplexity is measured without |
/// | `correct` | none | one or two of [0, 1] | of `gptq` and `obr` in turn: fractions of what earlier layers changed that a layer makes up for: of its inputs (GPTAQ), of the hidden states |
/// | `sparsity` | none | [0, 1) | what is pruned: of `gptq` in the same loop, of `obr` before, by Wanda's score, single weights within rows |
/// | `pattern` | `unstructured` | [`Pattern`] | of that: the shape that survivors take |
/// | `reconstruct-blocks` | none | from 1 | passes over the calibration in which each half of a block (attention, feed-forward; the whole block with `turn` `block`, and where the halves run side by side) trains on its levels towards the dense model's hidden states: weights behind, scales, biases and norms |
/// | `reconstruct-rate` | 3e-4 | above 0 | the largest learning rate of these passes |
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
pub struct QuantizeJob {
    /// The model's folder.
    pub model: Option<PathBuf>,
    /// The folder to write; it appears whole or not at all.
    pub out: Option<PathBuf>,
    /// How codes are chosen.
    pub method: QuantizeMethod,
    /// Bits of a code.
    pub bits: u32,
    /// Weights that share a scale.
    pub group: Granularity,
    /// Whether values lie evenly about 0.
    pub scheme: Option<QuantScheme>,
    /// How scales are stored.
    pub scale_type: Option<ScaleType>,
    /// How codes lie in files.
    pub layout: QuantLayout,
    /// Layers that are left alone.
    pub skip: Vec<String>,
    /// Layers that are quantised; all if there are none.
    pub only: Vec<String>,
    /// What is measured on.
    pub calibration: Option<PathBuf>,
    /// Sequences of calibration.
    pub samples: usize,
    /// Tokens of a sequence.
    pub context: usize,
    /// From which model inputs come.
    pub inputs: CalibrationInputs,
    /// When layers of a block are quantised.
    #[serde(rename = "turn")]
    pub sequential: Option<Sequential>,
    /// The order of columns.
    pub order: Order,
    /// Whether scales are those of the weights as they were.
    pub static_groups: bool,
    /// The fraction of the mean diagonal that is added to Gram matrices.
    pub damping: f64,
    /// Columns that are visited together.
    pub block_size: usize,
    /// Whether ranges are cut off.
    pub clip: bool,
    /// SmoothQuant's α, if inputs are scaled by it.
    pub smooth: Option<f64>,
    /// Bits of activations, of which the layout's config speaks.
    pub activation_bits: u32,
    /// Fractions of what earlier layers changed that each layer makes up for: of its inputs, of the hidden states.
    pub correct: Vec<f64>,
    /// What is pruned in the same loop.
    pub sparsity: Option<f64>,
    /// The shape that survivors take.
    pub pattern: Pattern,
    /// Passes over the calibration in which blocks are trained on their levels.
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
pub(super) const NAMES: [&str; 32] = [
    "model",
    "out",
    "method",
    "bits",
    "group",
    "scheme",
    "scale-type",
    "layout",
    "skip",
    "only",
    "calibration",
    "samples",
    "context",
    "inputs",
    "turn",
    "order",
    "static-groups",
    "damping",
    "block-size",
    "clip",
    "smooth",
    "activation-bits",
    "correct",
    "sparsity",
    "pattern",
    "reconstruct-blocks",
    "reconstruct-rate",
    "activations",
    "scratch",
    "text",
    "windows",
    "bos",
];

impl Default for QuantizeJob {
    fn default() -> Self {
        QuantizeJob {
            model: None,
            out: None,
            method: QuantizeMethod::Gptq,
            bits: 4,
            group: Granularity::Group(64),
            scheme: None,
            scale_type: None,
            layout: QuantLayout::CompressedTensors,
            skip: Vec::new(),
            only: Vec::new(),
            calibration: None,
            samples: 64,
            context: 1024,
            inputs: CalibrationInputs::Pruned,
            sequential: None,
            order: Order::Natural,
            static_groups: false,
            damping: 0.01,
            block_size: 128,
            clip: true,
            smooth: None,
            activation_bits: 32,
            correct: Vec::new(),
            sparsity: None,
            pattern: Pattern::Unstructured,
            reconstruct_blocks: None,
            reconstruct_rate: 3e-4,
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

impl Recipe for QuantizeJob {
    const COMMAND: &'static str = "quantize";
    const NAMES: &'static [&'static str] = &NAMES;

    fn in_range(&self) -> Result<()> {
        self.check_ranges()
    }

    fn check_paths(&self) -> Result<()> {
        let all = [&self.model, &self.out, &self.calibration, &self.scratch, &self.text];
        for (name, path) in ["model", "out", "calibration", "scratch", "text"].into_iter().zip(all) {
            if let Some(path) = path.as_deref().filter(|path| path.to_str().is_none()) {
                let reason = format!("{} is not UTF-8, which the record of the run could not hold", path.display());
                return Err(Error::invalid_option(name, reason));
            }
        }
        Ok(())
    }
}

impl QuantizeJob {
    /// Reads a recipe, or, if its text begins with `{`, the record of a run.
    ///
    /// # Errors
    /// As [`PruneJob::read`](crate::job::PruneJob::read).
    pub fn read(path: impl AsRef<Path>) -> Result<QuantizeJob> {
        recipe::read(path.as_ref())
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// With the key and the value, as [`QuantizeJob::read`].
    pub fn from_toml(text: &str) -> Result<QuantizeJob> {
        recipe::from_toml(text)
    }

    /// All settings, one a line, those that are not set behind a `#`. [`QuantizeJob::from_toml`] gives the job back.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a number is beyond the 64 bits with a sign that the format has, or a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        recipe::to_toml(self)
    }

    /// The grid, of weights that are stored with scales of `own` unless another type is asked for.
    pub fn grid(&self, own: ScaleType) -> CodeGrid {
        let symmetric = match self.scheme {
            Some(scheme) => scheme == QuantScheme::Symmetric,
            None => self.method == QuantizeMethod::Rtn || self.method.moves_weights(),
        };
        let own = if matches!(self.layout, QuantLayout::Gptq | QuantLayout::Awq) { ScaleType::F16 } else { own };
        CodeGrid { bits: self.bits, symmetric, granularity: self.group, scales: self.scale_type.unwrap_or(own) }
    }

    /// When layers of a block are quantised.
    pub fn turn(&self) -> Sequential {
        let by_block = self.scales().is_some() || self.inputs == CalibrationInputs::Dense;
        self.sequential.unwrap_or(if by_block { Sequential::Block } else { Sequential::Layer })
    }

    /// The quantiser by its settings.
    pub fn quantizer(&self) -> Box<dyn Quantizer> {
        match self.method {
            QuantizeMethod::Rtn => Box::new(Rtn),
            QuantizeMethod::Gptq => Box::new(Gptq {
                damping: self.damping,
                block: self.block_size,
                order: self.order,
                static_groups: self.static_groups || self.order == Order::Activation,
                prune: self.joint(),
            }),
            QuantizeMethod::Obr => Box::new(Obr { damping: self.damping, prune: self.joint() }),
            QuantizeMethod::Awq => Box::new(self.awq()),
            QuantizeMethod::Hqq => Box::new(Hqq::default()),
        }
    }

    /// How inputs are scaled before.
    pub(super) fn scales(&self) -> Option<InputScaling> {
        match self.method {
            QuantizeMethod::Awq => Some(InputScaling::Awq(self.awq())),
            _ => self.smooth.map(|strength| InputScaling::Smooth(SmoothQuant { strength })),
        }
    }

    /// Whether inputs are measured.
    pub fn measures(&self) -> bool {
        self.method.measures() || self.smooth.is_some() || self.reconstruct_blocks.is_some()
    }

    /// Bits of activations.
    ///
    /// # Errors
    /// If they are neither 32 nor 8.
    pub(super) fn activation(&self) -> Result<ActivationBits> {
        self.activation_bits.to_string().parse()
    }

    fn awq(&self) -> Awq {
        Awq { clip: self.clip, ..Awq::default() }
    }

    /// What is pruned in the same loop.
    fn joint(&self) -> Option<JointPruning> {
        let prunes = self.sparsity.is_some() || matches!(self.pattern, Pattern::Nm { .. });
        let whole_rows = self.method == QuantizeMethod::Obr && self.pattern == Pattern::Unstructured;
        let scope = if whole_rows { Scope::Row } else { Scope::Layer };
        prunes.then(|| JointPruning { pattern: self.pattern, scope, sparsity: self.sparsity.unwrap_or(0.0) })
    }

    /// Whether weights are pruned in the same loop.
    pub(super) fn prunes(&self) -> bool {
        self.joint().is_some()
    }

    /// Refuses numbers outside their range, whatever the method reads, and paths that no recipe and no record can hold.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the setting, its value and the range.
    pub fn check_ranges(&self) -> Result<()> {
        self.check_paths()?;
        let counts = [
            ("samples", Some(self.samples)),
            ("context", Some(self.context)),
            ("block-size", Some(self.block_size)),
            ("windows", self.windows),
            ("reconstruct-blocks", self.reconstruct_blocks),
        ];
        if let Some((option, _)) = counts.into_iter().find(|(_, n)| *n == Some(0)) {
            return Err(Error::invalid_option(option, "0 is not at least 1"));
        }
        if self.samples.checked_mul(self.context).is_none() {
            let reason = format!("{} sequences of {} tokens are more than can be counted", self.samples, self.context);
            return Err(Error::invalid_option("samples", reason));
        }
        if let Some(wrong) = self.smooth.filter(|s| !(0.0..=1.0).contains(s)) {
            return Err(Error::invalid_option("smooth", format!("{wrong} is not in [0, 1]; 0.5 is usual")));
        }
        self.activation()?;
        if !(self.damping.is_finite() && self.damping >= 0.0) {
            let reason = format!("{} is not a finite number of at least 0; 0.01 is usual", self.damping);
            return Err(Error::invalid_option("damping", reason));
        }
        if !(self.reconstruct_rate.is_finite() && self.reconstruct_rate > 0.0) {
            let reason = format!("{} is not a finite number above 0; 3e-4 is usual", self.reconstruct_rate);
            return Err(Error::invalid_option("reconstruct-rate", reason));
        }
        if let Some(s) = self.sparsity {
            Budget::from_sparsity(1, s)?;
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
        let grid = self.grid(ScaleType::F32);
        self.layout.check(grid)?;
        let refuse = |option: &str, reason: &str| Err(Error::invalid_option(option, reason));
        if self.method == QuantizeMethod::Hqq && grid.symmetric {
            return refuse("scheme", "hqq finds zero points, of which a symmetric grid has none");
        }
        if !self.method.moves_weights() && (self.prunes() || !self.correct.is_empty()) {
            let option = if self.prunes() { "sparsity" } else { "correct" };
            return Err(Error::invalid_option(option, format!("is for --method gptq or obr; {} moves no weights", self.method)));
        }
        let plain = QuantizeJob::default();
        let of_gptq = [
            ("order", self.order != plain.order),
            ("static-groups", self.static_groups),
            ("block-size", self.block_size != plain.block_size),
        ];
        if let Some((option, _)) = of_gptq.into_iter().find(|(_, given)| *given && self.method != QuantizeMethod::Gptq) {
            return Err(Error::invalid_option(option, format!("is for --method gptq; {} has no use for it", self.method)));
        }
        if let (Some(s), Pattern::Nm { .. }) = (self.sparsity, self.pattern) {
            let reason = format!("{s} given with pattern {}, which fixes the sparsity; leave one out", self.pattern);
            return Err(Error::invalid_option("sparsity", reason));
        }
        if self.sparsity.is_none() && !matches!(self.pattern, Pattern::Unstructured | Pattern::Nm { .. }) {
            return Err(Error::invalid_option("sparsity", format!("pattern {} needs one: give --sparsity", self.pattern)));
        }
        if self.turn() == Sequential::Layer && self.scales().is_some() {
            let by = if self.smooth.is_some() { "smooth" } else { "awq" };
            return refuse("turn", &format!("{by} scales the inputs of whole blocks: give block, or leave it out"));
        }
        if self.smooth.is_some() && self.method == QuantizeMethod::Awq {
            return refuse("smooth", "is given beside --method awq, which scales inputs by its own rule");
        }
        self.layout.check_activations(self.activation()?)?;
        if self.turn() == Sequential::Layer && self.inputs == CalibrationInputs::Dense {
            return refuse("turn", "dense inputs have no quantised layers before them: give block, or leave it out");
        }
        if self.turn() == Sequential::Block && !self.correct.is_empty() {
            return refuse("correct", "layers make up for earlier ones only where they are quantised in turn");
        }
        if self.reconstruct_blocks.is_some() && self.inputs == CalibrationInputs::Dense {
            return refuse("reconstruct-blocks", "blocks are trained on inputs from blocks in codes, not on --inputs dense");
        }
        if self.reconstruct_blocks.is_none() && self.reconstruct_rate != QuantizeJob::default().reconstruct_rate {
            return refuse("reconstruct-rate", "is for --reconstruct-blocks PASSES");
        }
        if let Some(folder) = self.scratch.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(Error::invalid_option("scratch", format!("{} is no folder", folder.display())));
        }
        if self.calibration.is_none() && self.measures() {
            let what = if self.method.measures() || self.smooth.is_some() {
                "this method measures inputs"
            } else {
                "blocks are trained on one"
            };
            return refuse("calibration", &format!("{what}: give --calibration FILE, text or token numbers"));
        }
        Ok(())
    }

    /// How far layers make up for earlier ones.
    pub(super) fn correction(&self) -> Result<Option<Correction>> {
        let (inputs, hidden_states) = match self.correct[..] {
            [] => return Ok(None),
            [inputs] => (inputs, 0.0),
            [inputs, hidden_states] => (inputs, hidden_states),
            _ => return Err(Error::invalid_option("correct", format!("{} fractions; at most 2", self.correct.len()))),
        };
        if let Some(wrong) = self.correct.iter().find(|f| !(0.0..=1.0).contains(*f)) {
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

//! The settings of a pruning job.

use super::chosen::ChosenSetting;
use super::setters::setters;
use crate::data::Bos;
use crate::lm::CalibrationSelection;
use crate::mask::{Pattern, Scope};
use crate::prune::{CalibrationInputs, Cost, Sequential};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What is pruned, how, and where it is written: everything that `lacuna prune` is asked for, as one value.
///
/// Settings have the names of the command's options: [`PruneJob::to_toml`] writes them as a recipe, [`PruneJob::read`] reads a recipe, or the
/// record `prune.json` of a run. [`PruneJob::check`] refuses what cannot be meant before anything is read, [`PruneJob::run`] works on files,
/// [`PruneJob::prune_model`] on a model in memory.
///
/// ```
/// use lacuna::job::{Methods, PruneJob};
/// use lacuna::mask::Pattern;
/// let job = PruneJob::new("sparsegpt").pattern(Pattern::Nm { n: 2, m: 4 }).calibration("ids.safetensors").samples(128);
/// job.check(&Methods::standard())?;
/// assert_eq!(PruneJob::from_toml(&job.to_toml()?)?, job);
/// let wrong = job.damping(-1.0).check(&Methods::standard()).unwrap_err();
/// assert_eq!(wrong.to_string(), "damping: -1 is not a finite number of at least 0; 0.01 is usual");
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `model` | | a path | a model's folder, or a safetensors file |
/// | `out` | | a path | the folder or the file to write |
/// | `method` | `magnitude` | a name of [`Methods`](super::Methods) | which weights matter, and what becomes of the others |
/// | `sparsity` | | [0, 1) | fraction of the weights that goes; an N:M pattern fixes it |
/// | `pattern` | `unstructured` | [`Pattern`] | the shape that survivors take |
/// | `allocate` | `uniform` | a name of [`Methods`](super::Methods) | how much of each layer |
/// | `scope` | the method's | `layer`, `row` | who competes with whom in a layer |
/// | `skip` | none | names; in folders and networks parts of names, or patterns with `*` | layers left alone |
/// | `only` | all | parts of names, or patterns with `*` | layers that are pruned |
/// | `layer` | none | name to [0, 1) | sparsities of single tensors of a file, or layers of a network |
/// | `seed` | 0 | 64 bits | of random scores and of `evolve` |
/// | `calibration` | | a path | text (feature `text`), or a safetensors file with `input_ids`, to measure on |
/// | `samples` | 64 | from 1 | sequences of calibration |
/// | `context` | 1024 | from 1 | tokens of a sequence |
/// | `inputs` | `pruned` | `pruned`, `dense` | from which model the inputs of a block come |
/// | `turn` | `layer` | `layer`, `block` | whether a block's layers are pruned sequentially by layer or by block |
/// | `damping` | 0.01 | from 0 | fraction of the mean diagonal that is added to Gram matrices |
/// | `fisher-damping` | 1e-5 | above 0 | λ of `woodfisher` |
/// | `block-size` | 128 | from 1 | columns whose mask `sparsegpt` and `d2prune` choose together; weights of a block of `woodfisher` |
/// | `actorder` | false | | `sparsegpt` and `d2prune` visit columns by falling activation |
/// | `bits` | | 1 to 16 | `sparsegpt` and `d2prune` round what stays to 2^bits values a row |
/// | `reconstruct` | | 0 to 1 000 000 | steps of conjugate gradients after pruning |
/// | `reconstruct-blocks` | | from 1 | passes over the calibration in which each block's kept weights and norms are trained towards the dense block's outputs |
/// | `reconstruct-rate` | 3e-5 | above 0 | the largest learning rate of these passes |
/// | `correct` | none | one or two of [0, 1] | fractions of what earlier layers changed that a layer makes up for: of its inputs, of the hidden states |
/// | `select` | the first of one file, `random` of several | [`CalibrationSelection`] | which sequences of a source are calibrated on |
/// | `shrinkage` | none | one or two of [0, 1] | fractions by which Gram matrices are drawn towards their diagonal, and towards the mean over texts |
/// | `robust` | none | 1 to 1000 | solves of a layer, in which texts weigh more where their error is worst |
/// | `choose` | none | [`ChosenSetting`]s | what is chosen for layers on texts that are left out |
/// | `hold-out` | none | a source of `calibration` | it is only judged by: what is chosen, and when block reconstruction stops |
/// | `activations` | half of the free memory | megabytes | activations that stay in memory |
/// | `scratch` | that of `out` | a folder | on whose disk the rest lies |
/// | `owl-lambda` | 0.08 | [0, 0.5] | spread of `owl`'s densities |
/// | `owl-threshold` | 5 | from 0 | multiple of the mean score above which `owl` counts an outlier |
/// | `save` | `weights` | [`Packing`](crate::io::Packing) | how pruned weights are stored |
/// | `text` | | a path | a text whose perplexity is measured before and after; several as `a.txt,b.txt` |
/// | `windows` | all | from 1 | only the first windows of that text |
/// | `bos` | `tokenizer` | [`Bos`] | where the token that begins a text stands |
/// | `levels` | seven around `sparsity` | at most 255 of (0, 1) | sparsities among which a search chooses |
/// | `cost` | `weights` | `weights`, `bytes`, `time` | what `sparsity` is a fraction of in a search |
/// | `search-tokens` | 1024 | from 2 | tokens on which a search compares predictions |
/// | `generations` | 25 | from 1 | generations of `evolve` |
/// | `offspring` | 8 | from 1; `generations · offspring` ≤ 10⁸ | choices that `evolve` tries a generation |
///
/// Two more say what becomes of what is there already, and are of one run: they are in no recipe and in no record. `force` replaces an older
/// output; `resume` goes on with a run that was interrupted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct PruneJob {
    /// The model's folder, or the safetensors file, to prune.
    pub model: Option<PathBuf>,
    /// The folder or the file to write; it appears whole or not at all.
    pub out: Option<PathBuf>,
    /// Which weights matter, by name.
    pub method: String,
    /// The fraction of the weights that goes.
    pub sparsity: Option<f64>,
    /// The shape that survivors take.
    pub pattern: Pattern,
    /// How much of each layer, by name.
    pub allocate: String,
    /// Who competes with whom in a layer.
    pub scope: Option<Scope>,
    /// Layers that are left alone.
    pub skip: Vec<String>,
    /// The only layers that are pruned.
    pub only: Vec<String>,
    /// The seed of random scores and of `evolve`.
    pub seed: u64,
    /// What is measured on.
    pub calibration: Option<PathBuf>,
    /// Sequences of calibration.
    pub samples: usize,
    /// Tokens of a sequence.
    pub context: usize,
    /// From which model the inputs of a block come.
    pub inputs: CalibrationInputs,
    /// Whether the layers of a block are pruned sequentially by layer, or by block.
    #[serde(rename = "turn")]
    pub sequential: Sequential,
    /// The fraction of the mean diagonal that is added to Gram matrices.
    pub damping: f64,
    /// λ of `woodfisher`.
    pub fisher_damping: f64,
    /// Columns whose mask `sparsegpt` and `d2prune` choose together; weights of a block of `woodfisher`.
    pub block_size: usize,
    /// Whether `sparsegpt` and `d2prune` visit columns by falling activation.
    pub actorder: bool,
    /// Rounds what stays to 2^bits values a row (`sparsegpt`, `d2prune`).
    pub bits: Option<u32>,
    /// Steps of conjugate gradients towards the least squares solution, after pruning.
    pub reconstruct: Option<usize>,
    /// Passes in which each block is trained towards the dense one after it is pruned.
    pub reconstruct_blocks: Option<usize>,
    /// The largest learning rate of these passes.
    pub reconstruct_rate: f64,
    /// Fractions of what earlier layers changed that each layer makes up for: of its inputs, of the hidden states.
    pub correct: Vec<f64>,
    /// Which sequences of a source are calibrated on.
    pub select: Option<CalibrationSelection>,
    /// Fractions by which Gram matrices are drawn towards their diagonal, and towards the mean over texts.
    pub shrinkage: Vec<f64>,
    /// Solves of a layer, in which texts weigh more where their error is worst.
    pub robust: Option<usize>,
    /// What is chosen for layers on texts that are left out.
    pub choose: Vec<ChosenSetting>,
    /// A source of the calibration that is only judged by.
    pub hold_out: Option<String>,
    /// Megabytes of activations that stay in memory.
    pub activations: Option<usize>,
    /// The folder on whose disk the rest lies.
    pub scratch: Option<PathBuf>,
    /// Spread of `owl`'s densities.
    pub owl_lambda: f64,
    /// Multiple of the mean score above which `owl` counts an outlier.
    pub owl_threshold: f64,
    /// How pruned weights are stored.
    pub save: String,
    /// A text whose perplexity is measured before and after.
    pub text: Option<PathBuf>,
    /// Only the first windows of that text.
    pub windows: Option<usize>,
    /// Where the token that begins a text stands.
    pub bos: Bos,
    /// Sparsities among which a search chooses.
    pub levels: Vec<f64>,
    /// What the sparsity is a fraction of in a search.
    pub cost: Cost,
    /// Tokens on which a search compares predictions.
    pub search_tokens: usize,
    /// Generations of `evolve`.
    pub generations: usize,
    /// Choices that `evolve` tries a generation.
    pub offspring: usize,
    /// Sparsities of single tensors or layers, apart from the rest.
    pub layer: BTreeMap<String, f64>,
    /// Whether an older output is replaced; in no recipe and no record.
    #[serde(skip)]
    pub force: bool,
    /// Whether a run that was interrupted is taken up again; in no recipe and no record.
    #[serde(skip)]
    pub resume: bool,
}

macro_rules! names {
    ($($name:literal: $field:ident),+ $(,)?) => {
        /// The names of the settings in recipes and records, in their order there.
        pub(super) const NAMES: [&str; 43] = [$($name),+];

        impl PruneJob {
            /// The settings, by name, that are not as they are by default. Paths of model and output are not counted.
            pub fn changed(&self) -> Vec<&'static str> {
                let default = PruneJob::default();
                let all = [$(($name, self.$field != default.$field)),+];
                all.into_iter().skip(2).filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
            }
        }
    };
}

names! {
    "model": model,
    "out": out,
    "method": method,
    "sparsity": sparsity,
    "pattern": pattern,
    "allocate": allocate,
    "scope": scope,
    "skip": skip,
    "only": only,
    "seed": seed,
    "calibration": calibration,
    "samples": samples,
    "context": context,
    "inputs": inputs,
    "turn": sequential,
    "damping": damping,
    "fisher-damping": fisher_damping,
    "block-size": block_size,
    "actorder": actorder,
    "bits": bits,
    "reconstruct": reconstruct,
    "reconstruct-blocks": reconstruct_blocks,
    "reconstruct-rate": reconstruct_rate,
    "correct": correct,
    "select": select,
    "shrinkage": shrinkage,
    "robust": robust,
    "choose": choose,
    "hold-out": hold_out,
    "activations": activations,
    "scratch": scratch,
    "owl-lambda": owl_lambda,
    "owl-threshold": owl_threshold,
    "save": save,
    "text": text,
    "windows": windows,
    "bos": bos,
    "levels": levels,
    "cost": cost,
    "search-tokens": search_tokens,
    "generations": generations,
    "offspring": offspring,
    "layer": layer,
}

impl Default for PruneJob {
    fn default() -> Self {
        PruneJob {
            model: None,
            out: None,
            method: "magnitude".into(),
            sparsity: None,
            pattern: Pattern::Unstructured,
            allocate: "uniform".into(),
            scope: None,
            skip: Vec::new(),
            only: Vec::new(),
            seed: 0,
            calibration: None,
            samples: 64,
            context: 1024,
            inputs: CalibrationInputs::Pruned,
            sequential: Sequential::Layer,
            damping: 0.01,
            fisher_damping: 1e-5,
            block_size: 128,
            actorder: false,
            bits: None,
            reconstruct: None,
            reconstruct_blocks: None,
            reconstruct_rate: 3e-5,
            correct: Vec::new(),
            select: None,
            shrinkage: Vec::new(),
            robust: None,
            choose: Vec::new(),
            hold_out: None,
            activations: None,
            scratch: None,
            owl_lambda: 0.08,
            owl_threshold: 5.0,
            save: "weights".into(),
            text: None,
            windows: None,
            bos: Bos::Tokenizer,
            levels: Vec::new(),
            cost: Cost::Weights,
            search_tokens: 1024,
            generations: 25,
            offspring: 8,
            layer: BTreeMap::new(),
            force: false,
            resume: false,
        }
    }
}

setters! {
    PruneJob;
    /// The model's folder, or the safetensors file, to prune.
    model(path: impl Into<PathBuf>) = Some(path.into());
    /// The folder or the file to write; it appears whole or not at all.
    out(path: impl Into<PathBuf>) = Some(path.into());
    /// Which weights matter, by name.
    method(name: impl Into<String>) = name.into();
    /// The fraction of the weights that goes.
    sparsity(fraction: f64) = Some(fraction);
    /// The shape that survivors take.
    pattern(pattern: Pattern) = pattern;
    /// How much of each layer, by name.
    allocate(name: impl Into<String>) = name.into();
    /// Who competes with whom in a layer.
    scope(scope: Scope) = Some(scope);
    /// Layers that are left alone.
    skip(names: impl IntoIterator<Item = impl Into<String>>) = names.into_iter().map(Into::into).collect();
    /// The only layers that are pruned.
    only(names: impl IntoIterator<Item = impl Into<String>>) = names.into_iter().map(Into::into).collect();
    /// Sparsities of single tensors or layers, apart from the rest.
    layer(sparsities: impl IntoIterator<Item = (impl Into<String>, f64)>) = sparsities.into_iter().map(|(name, s)| (name.into(), s)).collect();
    /// The seed of random scores and of `evolve`.
    seed(seed: u64) = seed;
    /// What is measured on.
    calibration(path: impl Into<PathBuf>) = Some(path.into());
    /// Sequences of calibration.
    samples(count: usize) = count;
    /// Tokens of a sequence.
    context(tokens: usize) = tokens;
    /// From which model the inputs of a block come.
    inputs(inputs: CalibrationInputs) = inputs;
    /// Whether the layers of a block are pruned sequentially by layer, or by block.
    sequential(sequential: Sequential) = sequential;
    /// The fraction of the mean diagonal that is added to Gram matrices.
    damping(fraction: f64) = fraction;
    /// λ of `woodfisher`.
    fisher_damping(lambda: f64) = lambda;
    /// Columns whose mask `sparsegpt` and `d2prune` choose together; weights of a block of `woodfisher`.
    block_size(size: usize) = size;
    /// Whether `sparsegpt` and `d2prune` visit columns by falling activation.
    actorder(on: bool) = on;
    /// Rounds what stays to 2^bits values a row (`sparsegpt`, `d2prune`).
    bits(bits: u32) = Some(bits);
    /// Steps of conjugate gradients towards the least squares solution, after pruning.
    reconstruct(steps: usize) = Some(steps);
    /// Passes in which each block is trained towards the dense one after it is pruned.
    reconstruct_blocks(passes: usize) = Some(passes);
    /// The largest learning rate of these passes.
    reconstruct_rate(rate: f64) = rate;
    /// Fractions of what earlier layers changed that each layer makes up for: of its inputs, of the hidden states.
    correct(inputs: f64, hidden_states: f64) = vec![inputs, hidden_states];
    /// Which sequences of a source are calibrated on.
    select(selection: CalibrationSelection) = Some(selection);
    /// Fractions by which Gram matrices are drawn towards their diagonal, and towards the mean over texts.
    shrinkage(diagonal: f64, texts: f64) = vec![diagonal, texts];
    /// Solves of a layer, in which texts weigh more where their error is worst.
    robust(rounds: usize) = Some(rounds);
    /// What is chosen for layers on texts that are left out.
    choose(settings: impl IntoIterator<Item = ChosenSetting>) = settings.into_iter().collect();
    /// A source of the calibration that is only judged by.
    hold_out(source: impl Into<String>) = Some(source.into());
    /// Megabytes of activations that stay in memory.
    activations(megabytes: usize) = Some(megabytes);
    /// The folder on whose disk the rest lies.
    scratch(folder: impl Into<PathBuf>) = Some(folder.into());
    /// Spread of `owl`'s densities.
    owl_lambda(lambda: f64) = lambda;
    /// Multiple of the mean score above which `owl` counts an outlier.
    owl_threshold(multiple: f64) = multiple;
    /// How pruned weights are stored.
    save(layout: impl Into<String>) = layout.into();
    /// A text whose perplexity is measured before and after.
    text(path: impl Into<PathBuf>) = Some(path.into());
    /// Only the first windows of that text.
    windows(most: usize) = Some(most);
    /// Where the token that begins a text stands.
    bos(bos: Bos) = bos;
    /// Sparsities among which a search chooses.
    levels(sparsities: impl IntoIterator<Item = f64>) = sparsities.into_iter().collect();
    /// What the sparsity is a fraction of in a search.
    cost(cost: Cost) = cost;
    /// Tokens on which a search compares predictions.
    search_tokens(tokens: usize) = tokens;
    /// Generations of `evolve`.
    generations(count: usize) = count;
    /// Choices that `evolve` tries a generation.
    offspring(count: usize) = count;
    /// Whether an older output is replaced.
    force(on: bool) = on;
    /// Whether a run that was interrupted is taken up again.
    resume(on: bool) = on;
}

impl PruneJob {
    /// A job by this method, with the defaults of the table.
    pub fn new(method: impl Into<String>) -> Self {
        PruneJob::default().method(method)
    }
}

/// The bytes of so many megabytes of activations, where a number was given.
pub(super) fn activation_megabytes(asked: Option<usize>) -> Result<Option<usize>> {
    let too_many = |megabytes| format!("{megabytes} megabytes; at most {} can be counted", usize::MAX >> 20);
    let bytes = |n: usize| n.checked_mul(1 << 20).ok_or_else(|| Error::invalid_option("activations", too_many(n)));
    asked.map(bytes).transpose()
}

#[cfg(test)]
mod tests {
    use super::{NAMES, PruneJob};

    #[test]
    fn the_names_are_those_of_the_fields() {
        let fields = serde_json::to_value(PruneJob::default()).unwrap();
        let (mut fields, mut names): (Vec<&str>, Vec<&str>) =
            (fields.as_object().unwrap().keys().map(String::as_str).collect(), NAMES.to_vec());
        fields.sort_unstable();
        names.sort_unstable();
        assert_eq!(fields, names);
    }

    #[test]
    fn what_is_not_as_by_default_is_said_by_name() {
        assert!(PruneJob::default().model("a").out("b").changed().is_empty());
        let job = PruneJob::new("wanda").sparsity(0.5).correct(1.0, 0.0).seed(0);
        assert_eq!(job.changed(), ["method", "sparsity", "correct"]);
    }
}

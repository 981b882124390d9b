//! The settings of a training job.

use super::super::setters::setters;
use crate::data::Bos;
use crate::io::QuantLayout;
use crate::quantize::Granularity;
use crate::train::{Cooldown, Divergence, HiddenLoss, HiddenPair, StepRule};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which of the models that a run has been is written at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// That of the least perplexity of validation.
    Best,
    /// That of the last step.
    Last,
}

/// What a language model is trained on, how, and where it is written: everything that `lacuna train` is asked for, as one value.
///
/// Settings have the names of the command's options, in recipes and in the record `train.json`. [`TrainJob::check`] refuses what cannot be meant
/// before anything is read, [`TrainJob::run`] trains. Masks of a pruned model are held through every step.
///
/// ```
/// use lacuna::job::TrainJob;
/// let job = TrainJob::new().model("half").out("recovered").text(["wiki.txt"]).steps(300).teacher("dense");
/// job.check()?;
/// assert_eq!(TrainJob::from_toml(&job.to_toml()?)?, job);
/// let wrong = job.hard(2.0).check().unwrap_err();
/// assert_eq!(wrong.to_string(), "hard: 2 is not in [0, 1]: 0 learns from the teacher alone");
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `model` | | a path | a model's folder |
/// | `out` | | a path | the folder to write |
/// | `text` | | paths | texts, `.jsonl` with a `text` a line, or safetensors with `input_ids` |
/// | `steps`, `tokens`, `epochs` | | above 0 | how long: one of the three; the latter two are rounded up to whole steps |
/// | `context` | 1024 | from 2 | tokens of a sequence |
/// | `batch` | 1 | from 1 | sequences of a pass |
/// | `accumulate` | 1 | from 1 | passes of a step, whose gradients are added up |
/// | `bos` | `tokenizer` | [`Bos`] | where the token that begins a text stands |
/// | `seed` | 0 | 64 bits | of the order of sequences, and of factors of `lora` |
/// | `lr` | 1e-4 | from 0 | the largest learning rate |
/// | `schedule` | `cosine` | [`Cooldown`] | how it goes down |
/// | `warmup` | 3 % of the steps | from 0 | steps until it is reached |
/// | `floor` | 0 | [0, 1] | where it goes down to, as a fraction |
/// | `weight-decay` | 0.01 | from 0 | of AdamW |
/// | `no-decay` | norms, biases, embeddings | patterns | parameters without weight decay |
/// | `beta1`, `beta2` | 0.9, 0.999 | [0, 1) | of AdamW |
/// | `epsilon` | 1e-8 | above 0 | of AdamW |
/// | `clip` | 1 | from 0 | the largest norm of a gradient; 0 clips none |
/// | `only` | all | patterns | the parameters that train, with `lora` the layers |
/// | `freeze` | none | patterns | parameters that do not |
/// | `lora` | | from 1 | the rank of factors that train in place of the weights |
/// | `lora-alpha` | twice the rank | above 0 | α |
/// | `quantize` | | 2, 3, 4, 8 | quantisation-aware training: linear layers of the blocks run on weights of so many bits, and are written as codes |
/// | `quantize-group` | 64 | [`Granularity`] | inputs of a row that share a scale, `row` or `tensor` |
/// | `quantize-rule` | `lsq` | [`StepRule`] | whether scales are learnt, or those of the weights as they are (`straight-through`) |
/// | `quantize-layout` | `compressed-tensors` | [`QuantLayout`] | how codes lie in files |
/// | `teacher` | | a path | the folder of a model to learn from, run beside |
/// | `teacher-cache` | | a path | what a teacher said of the same text, out of a file, in its place |
/// | `divergence` | `forward-kl` | [`Divergence`] | how the two are held against one another |
/// | `temperature` | 1 | above 0 | of both |
/// | `hard` | 0 | [0, 1] | weight of the text's cross-entropy beside the teacher |
/// | `margin` | | [0, 1) | lifts the text's token above the teacher's likeliest; for little data |
/// | `hidden-states` | none | [`HiddenPair`]s | blocks of the model and of `teacher` whose hidden states are learnt too, as `3:6` |
/// | `hidden-loss` | `cosine` | [`HiddenLoss`] | how these are held against one another |
/// | `hidden-weight` | 1 | above 0 | their weight; they are scaled to the loss of the predictions at every step |
/// | `average` | | [0, 1) | the model that is measured and written is a running average, of which so much stays in a step |
/// | `held-out` | 0 | below all | sequences at the end of the text that are not trained on but measured |
/// | `validation` | | a path | a text to measure in their place |
/// | `windows` | all | from 1 | only the first windows of `validation` |
/// | `eval-every` | at the end | from 1 | steps between two measurements |
/// | `keep` | `best` where it is measured | `best`, `last` | which model is written |
/// | `save-every` | 100 | from 1 | steps between two saved states |
/// | `activations` | half of the free memory | megabytes | activations that a pass keeps for the way back; what does not fit is made again, to the same bits |
/// | `scratch` | that of `out` | a folder | on whose disk the tokens lie while the run lasts |
///
/// In patterns `*` stands for any characters; one without it matches any name that contains it; `kind:norm`, `kind:bias`, `kind:embedding`,
/// `kind:attention`, `kind:feed_forward` and `kind:head` match by what a parameter is for. A tied head is an embedding.
///
/// Two more are of one run, and in no recipe and no record: `force` replaces an older output, `resume` goes on with a run that was interrupted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct TrainJob {
    /// The model's folder.
    pub model: Option<PathBuf>,
    /// The folder to write; it appears whole or not at all.
    pub out: Option<PathBuf>,
    /// What is trained on.
    pub text: Vec<PathBuf>,
    /// How many steps.
    pub steps: Option<usize>,
    /// How many tokens.
    pub tokens: Option<u64>,
    /// How many passes over the text.
    pub epochs: Option<f64>,
    /// Tokens of a sequence.
    pub context: usize,
    /// Sequences of a pass.
    pub batch: usize,
    /// Passes of a step.
    pub accumulate: usize,
    /// Where the token that begins a text stands.
    pub bos: Bos,
    /// Orders the sequences, draws the factors of `lora`.
    pub seed: u64,
    /// The largest learning rate.
    pub lr: f64,
    /// How it goes down.
    pub schedule: Cooldown,
    /// Steps until it is reached.
    pub warmup: Option<usize>,
    /// Where it goes down to, as a fraction.
    pub floor: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Parameters without weight decay.
    pub no_decay: Vec<String>,
    /// β₁
    pub beta1: f64,
    /// β₂
    pub beta2: f64,
    /// ε
    pub epsilon: f64,
    /// The largest norm of a gradient.
    pub clip: f64,
    /// The parameters that train.
    pub only: Vec<String>,
    /// Parameters that do not.
    pub freeze: Vec<String>,
    /// The rank of factors that train in place of the weights.
    pub lora: Option<usize>,
    /// α of these.
    pub lora_alpha: Option<f64>,
    /// Bits of the weights that the model runs on.
    pub quantize: Option<u32>,
    /// Weights that share a scale.
    pub quantize_group: Granularity,
    /// Where scales come from.
    pub quantize_rule: StepRule,
    /// How codes lie in files.
    pub quantize_layout: QuantLayout,
    /// A model to learn from.
    pub teacher: Option<PathBuf>,
    /// What a teacher said of the same text.
    pub teacher_cache: Option<PathBuf>,
    /// How the two are held against one another.
    pub divergence: Divergence,
    /// The temperature of both.
    pub temperature: f64,
    /// The weight of the text's cross-entropy.
    pub hard: f64,
    /// The margin of the text's token.
    pub margin: Option<f64>,
    /// Blocks of the model and of the teacher whose hidden states are learnt.
    pub hidden_states: Vec<HiddenPair>,
    /// How these are held against one another.
    pub hidden_loss: HiddenLoss,
    /// Their weight.
    pub hidden_weight: f64,
    /// How much of the running average stays in a step.
    pub average: Option<f64>,
    /// Sequences that are measured and not trained on.
    pub held_out: usize,
    /// A text to measure.
    pub validation: Option<PathBuf>,
    /// Only the first windows of that text.
    pub windows: Option<usize>,
    /// Steps between two measurements.
    pub eval_every: Option<usize>,
    /// Which model is written.
    pub keep: Option<Keep>,
    /// Steps between two saved states.
    pub save_every: usize,
    /// Megabytes of activations that a pass keeps for the way back.
    pub activations: Option<usize>,
    /// The folder on whose disk the tokens lie.
    pub scratch: Option<PathBuf>,
    /// Whether an older output is replaced; in no recipe and no record.
    #[serde(skip)]
    pub force: bool,
    /// Whether a run that was interrupted is taken up again; in no recipe and no record.
    #[serde(skip)]
    pub resume: bool,
}

/// The names of the settings in recipes and records, in their order there.
pub(super) const NAMES: [&str; 47] = [
    "model",
    "out",
    "text",
    "steps",
    "tokens",
    "epochs",
    "context",
    "batch",
    "accumulate",
    "bos",
    "seed",
    "lr",
    "schedule",
    "warmup",
    "floor",
    "weight-decay",
    "no-decay",
    "beta1",
    "beta2",
    "epsilon",
    "clip",
    "only",
    "freeze",
    "lora",
    "lora-alpha",
    "quantize",
    "quantize-group",
    "quantize-rule",
    "quantize-layout",
    "teacher",
    "teacher-cache",
    "divergence",
    "temperature",
    "hard",
    "margin",
    "hidden-states",
    "hidden-loss",
    "hidden-weight",
    "average",
    "held-out",
    "validation",
    "windows",
    "eval-every",
    "keep",
    "save-every",
    "activations",
    "scratch",
];

impl Default for TrainJob {
    fn default() -> Self {
        TrainJob {
            model: None,
            out: None,
            text: Vec::new(),
            steps: None,
            tokens: None,
            epochs: None,
            context: 1024,
            batch: 1,
            accumulate: 1,
            bos: Bos::Tokenizer,
            seed: 0,
            lr: 1e-4,
            schedule: Cooldown::Cosine,
            warmup: None,
            floor: 0.0,
            weight_decay: 0.01,
            no_decay: ["kind:norm", "kind:bias", "kind:embedding"].map(String::from).to_vec(),
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            clip: 1.0,
            only: Vec::new(),
            freeze: Vec::new(),
            lora: None,
            lora_alpha: None,
            quantize: None,
            quantize_group: Granularity::Group(64),
            quantize_rule: StepRule::Lsq,
            quantize_layout: QuantLayout::CompressedTensors,
            teacher: None,
            teacher_cache: None,
            divergence: Divergence::ForwardKl,
            temperature: 1.0,
            hard: 0.0,
            margin: None,
            hidden_states: Vec::new(),
            hidden_loss: HiddenLoss::Cosine,
            hidden_weight: 1.0,
            average: None,
            held_out: 0,
            validation: None,
            windows: None,
            eval_every: None,
            keep: None,
            save_every: 100,
            activations: None,
            scratch: None,
            force: false,
            resume: false,
        }
    }
}

setters! {
    TrainJob;
    /// The model's folder.
    model(path: impl Into<PathBuf>) = Some(path.into());
    /// The folder to write; it appears whole or not at all.
    out(path: impl Into<PathBuf>) = Some(path.into());
    /// What is trained on.
    text(files: impl IntoIterator<Item = impl Into<PathBuf>>) = files.into_iter().map(Into::into).collect();
    /// How many steps.
    steps(steps: usize) = Some(steps);
    /// How many tokens, in whole steps.
    tokens(tokens: u64) = Some(tokens);
    /// How many passes over the text, in whole steps.
    epochs(epochs: f64) = Some(epochs);
    /// Tokens of a sequence.
    context(tokens: usize) = tokens;
    /// Sequences of a pass.
    batch(sequences: usize) = sequences;
    /// Passes of a step.
    accumulate(passes: usize) = passes;
    /// Where the token that begins a text stands.
    bos(bos: Bos) = bos;
    /// Orders the sequences, draws the factors of `lora`.
    seed(seed: u64) = seed;
    /// The largest learning rate.
    lr(rate: f64) = rate;
    /// How it goes down.
    schedule(schedule: Cooldown) = schedule;
    /// Steps until it is reached.
    warmup(steps: usize) = Some(steps);
    /// Where it goes down to, as a fraction.
    floor(fraction: f64) = fraction;
    /// Weight decay.
    weight_decay(decay: f64) = decay;
    /// Parameters without weight decay.
    no_decay(patterns: impl IntoIterator<Item = impl Into<String>>) = patterns.into_iter().map(Into::into).collect();
    /// β₁
    beta1(beta: f64) = beta;
    /// β₂
    beta2(beta: f64) = beta;
    /// ε
    epsilon(epsilon: f64) = epsilon;
    /// The largest norm of a gradient; 0 clips none.
    clip(norm: f64) = norm;
    /// The parameters that train.
    only(patterns: impl IntoIterator<Item = impl Into<String>>) = patterns.into_iter().map(Into::into).collect();
    /// Parameters that do not.
    freeze(patterns: impl IntoIterator<Item = impl Into<String>>) = patterns.into_iter().map(Into::into).collect();
    /// The rank of factors that train in place of the weights.
    lora(rank: usize) = Some(rank);
    /// α of these.
    lora_alpha(alpha: f64) = Some(alpha);
    /// Bits of the weights that the model runs on.
    quantize(bits: u32) = Some(bits);
    /// Weights that share a scale.
    quantize_group(group: Granularity) = group;
    /// Where scales come from.
    quantize_rule(rule: StepRule) = rule;
    /// How codes lie in files.
    quantize_layout(layout: QuantLayout) = layout;
    /// A model to learn from.
    teacher(folder: impl Into<PathBuf>) = Some(folder.into());
    /// What a teacher said of the same text.
    teacher_cache(file: impl Into<PathBuf>) = Some(file.into());
    /// How the two are held against one another.
    divergence(divergence: Divergence) = divergence;
    /// The temperature of both.
    temperature(temperature: f64) = temperature;
    /// The weight of the text's cross-entropy.
    hard(weight: f64) = weight;
    /// The margin of the text's token.
    margin(margin: f64) = Some(margin);
    /// Blocks of the model and of the teacher whose hidden states are learnt.
    hidden_states(pairs: impl IntoIterator<Item = HiddenPair>) = pairs.into_iter().collect();
    /// How these are held against one another.
    hidden_loss(loss: HiddenLoss) = loss;
    /// Their weight.
    hidden_weight(weight: f64) = weight;
    /// How much of the running average stays in a step.
    average(beta: f64) = Some(beta);
    /// Sequences that are measured and not trained on.
    held_out(sequences: usize) = sequences;
    /// A text to measure.
    validation(path: impl Into<PathBuf>) = Some(path.into());
    /// Only the first windows of that text.
    windows(most: usize) = Some(most);
    /// Steps between two measurements.
    eval_every(steps: usize) = Some(steps);
    /// Which model is written.
    keep(keep: Keep) = Some(keep);
    /// Steps between two saved states.
    save_every(steps: usize) = steps;
    /// Megabytes of activations that a pass keeps for the way back.
    activations(megabytes: usize) = Some(megabytes);
    /// The folder on whose disk the tokens lie.
    scratch(folder: impl Into<PathBuf>) = Some(folder.into());
    /// Whether an older output is replaced.
    force(on: bool) = on;
    /// Whether a run that was interrupted is taken up again.
    resume(on: bool) = on;
}

impl TrainJob {
    /// A job with the defaults of the table.
    pub fn new() -> Self {
        TrainJob::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{NAMES, TrainJob};

    #[test]
    fn the_names_are_those_of_the_fields() {
        let fields = serde_json::to_value(TrainJob::default()).unwrap();
        let fields: std::collections::BTreeSet<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, NAMES.into_iter().collect());
    }
}

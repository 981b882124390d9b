//! Each setting of a job by a method of its name.

use super::method::{ShrinkMethod, UnitMetric};
use super::settings::ShrinkJob;
use crate::data::Bos;
use crate::prune::{Aggregation, DepthScore, ExpertScore, HiddenScore, SizeAmount, SubLayer};
use std::path::PathBuf;

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),+) = $value:expr;)+) => {
        impl ShrinkJob {
            $($(#[$doc])* #[must_use] pub fn $name(mut self, $($arg: $ty),+) -> Self {
                self.$name = $value;
                self
            })+
        }
    };
}

setters! {
    /// The model's folder.
    model(path: impl Into<PathBuf>) = Some(path.into());
    /// The folder to write; it appears whole or not at all.
    out(path: impl Into<PathBuf>) = Some(path.into());
    /// Features between the feed-forward layers that stay.
    intermediate(features: usize) = Some(features);
    /// Heads of queries that stay.
    heads(heads: usize) = Some(heads);
    /// Heads of keys and values that stay.
    kv_heads(heads: usize) = Some(heads);
    /// Hidden features that stay.
    hidden(features: usize) = Some(features);
    /// Layers that stay.
    layers(layers: usize) = Some(layers);
    /// Entries of the vocabulary that stay.
    vocabulary(entries: usize) = Some(entries);
    /// Of a mixture: experts of a block that stay.
    experts(count: usize) = Some(count);
    /// Of a mixture: how many experts a token meets.
    active_experts(count: usize) = Some(count);
    /// How experts are chosen.
    experts_by(score: ExpertScore) = score;
    /// Whether each block has its own widths.
    per_layer(on: bool) = on;
    /// By what `obs` chooses heads and features.
    metric(metric: UnitMetric) = metric;
    /// How hidden features are chosen.
    hidden_by(score: HiddenScore) = score;
    /// How many parameters stay, instead of sizes.
    parameters(amount: SizeAmount) = Some(amount);
    /// How many multiplications and additions a token stay, instead of sizes.
    flops(amount: SizeAmount) = Some(amount);
    /// How many bytes of weights stay, instead of sizes.
    bytes(amount: SizeAmount) = Some(amount);
    /// How many milliseconds a token takes that is written, instead of sizes.
    milliseconds(amount: SizeAmount) = Some(amount);
    /// How many sub-layers go.
    sublayers(count: usize) = Some(count);
    /// Sub-layers that go.
    drop(all: impl IntoIterator<Item = SubLayer>) = all.into_iter().collect();
    /// Whether blocks of different widths are padded to the widest.
    pad(on: bool) = on;
    /// What activations become, of `minitron`.
    aggregate(aggregation: Aggregation) = aggregation;
    /// A file of scores, written or read.
    scores(path: impl Into<PathBuf>) = Some(path.into());
    /// Feed-forward features that a search tries are multiples of it.
    round(features: usize) = features;
    /// Whether nothing goes, and units are put in order.
    sort(on: bool) = on;
    /// How heads and features are chosen.
    method(method: ShrinkMethod) = method;
    /// How layers are chosen.
    depth_by(score: DepthScore) = score;
    /// The seed of `random`.
    seed(seed: u64) = seed;
    /// What is measured on.
    calibration(path: impl Into<PathBuf>) = Some(path.into());
    /// Sequences of calibration.
    samples(count: usize) = count;
    /// Tokens of a sequence.
    context(tokens: usize) = tokens;
    /// The fraction of the mean diagonal that is added to Gram matrices.
    damping(fraction: f64) = fraction;
    /// Rounds in which units leave.
    rounds(count: usize) = count;
    /// The most units of a layer that are exchanged.
    swaps(most: usize) = most;
    /// Fractions of what earlier layers changed that each layer makes up for: of its inputs, of the hidden states.
    correct(inputs: f64, hidden_states: f64) = vec![inputs, hidden_states];
    /// Passes over the calibration in which halves of blocks are trained.
    reconstruct_blocks(passes: usize) = Some(passes);
    /// The largest learning rate of these passes.
    reconstruct_rate(rate: f64) = rate;
    /// Megabytes of activations that stay in memory.
    activations(megabytes: usize) = Some(megabytes);
    /// The folder on whose disk the rest lies.
    scratch(folder: impl Into<PathBuf>) = Some(folder.into());
    /// A text whose perplexity is measured before and after.
    text(path: impl Into<PathBuf>) = Some(path.into());
    /// Only the first windows of that text.
    windows(most: usize) = Some(most);
    /// Where the token that begins a text stands.
    bos(bos: Bos) = bos;
    /// Whether an older output is replaced.
    force(on: bool) = on;
    /// Whether a run that was interrupted is taken up again.
    resume(on: bool) = on;
}

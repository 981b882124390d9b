//! Each setting of a job by a method of its name.

use super::method::{QuantScheme, QuantizeMethod};
use super::settings::QuantizeJob;
use crate::data::Bos;
use crate::io::QuantLayout;
use crate::job::setters::setters;
use crate::mask::Pattern;
use crate::prune::{CalibrationInputs, Sequential};
use crate::quantize::{Granularity, ScaleType};
use crate::solve::Order;
use std::path::PathBuf;

setters! {
    QuantizeJob;
    /// The model's folder.
    model(path: impl Into<PathBuf>) = Some(path.into());
    /// The folder to write; it appears whole or not at all.
    out(path: impl Into<PathBuf>) = Some(path.into());
    /// How codes are chosen.
    method(method: QuantizeMethod) = method;
    /// Bits of a code.
    bits(bits: u32) = bits;
    /// Weights that share a scale.
    group(group: Granularity) = group;
    /// Whether values lie evenly about 0.
    scheme(scheme: QuantScheme) = Some(scheme);
    /// How scales are stored.
    scale_type(scales: ScaleType) = Some(scales);
    /// How codes lie in files.
    layout(layout: QuantLayout) = layout;
    /// Layers that are left alone: patterns with `*`, or parts of names.
    skip(patterns: impl IntoIterator<Item = impl Into<String>>) = patterns.into_iter().map(Into::into).collect();
    /// Layers that are quantised.
    only(patterns: impl IntoIterator<Item = impl Into<String>>) = patterns.into_iter().map(Into::into).collect();
    /// What is measured on.
    calibration(path: impl Into<PathBuf>) = Some(path.into());
    /// Sequences of calibration.
    samples(count: usize) = count;
    /// Tokens of a sequence.
    context(tokens: usize) = tokens;
    /// From which model inputs come.
    inputs(inputs: CalibrationInputs) = inputs;
    /// When layers of a block are quantised.
    sequential(sequential: Sequential) = Some(sequential);
    /// The order of columns.
    order(order: Order) = order;
    /// Whether scales are those of the weights as they were.
    static_groups(on: bool) = on;
    /// The fraction of the mean diagonal that is added to Gram matrices.
    damping(fraction: f64) = fraction;
    /// Columns that are visited together.
    block_size(columns: usize) = columns;
    /// Whether ranges are cut off.
    clip(on: bool) = on;
    /// SmoothQuant's α.
    smooth(strength: f64) = Some(strength);
    /// Bits of activations: 32 or 8.
    activation_bits(bits: u32) = bits;
    /// Fractions of what earlier layers changed that each layer makes up for: of its inputs, of the hidden states.
    correct(inputs: f64, hidden_states: f64) = vec![inputs, hidden_states];
    /// What is pruned in the same loop.
    sparsity(fraction: f64) = Some(fraction);
    /// The shape that survivors take.
    pattern(pattern: Pattern) = pattern;
    /// Passes over the calibration in which blocks are trained on their levels.
    reconstruct_blocks(passes: usize) = Some(passes);
    /// The largest learning rate of these passes.
    reconstruct_rate(rate: f64) = rate;
    /// Megabytes of activations that stay in memory.
    activations(megabytes: usize) = Some(megabytes);
    /// The folder on whose disk the rest lies.
    scratch(path: impl Into<PathBuf>) = Some(path.into());
    /// A text whose perplexity is measured before and after.
    text(path: impl Into<PathBuf>) = Some(path.into());
    /// Only the first windows of that text.
    windows(count: usize) = Some(count);
    /// Where the token that begins a text stands.
    bos(bos: Bos) = bos;
    /// Whether an older output is replaced.
    force(on: bool) = on;
    /// Whether a run that was interrupted is taken up again.
    resume(on: bool) = on;
}

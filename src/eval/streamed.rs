//! Losses of a model that need not fit into memory.

use crate::io::Weights;
use crate::lm::{Config, EmbeddingHead, Outline, load_block, next_tokens, positions};
use crate::nn::transformer::Linear;
use crate::{Error, Result};
use std::ops::ControlFlow;

/// -ln p of every token of each window but the first, with one block of the model in memory at a time. `budget` is how many bytes
/// the windows' features may take between blocks; more windows than fit are done in groups, each of which reads the model again.
/// `see` is told after each block how many of all are done, and may stop.
///
/// The numbers are those of [`LanguageModel::nll`](crate::lm::LanguageModel::nll) of a model that was loaded dense for inference
/// ([`LanguageModel::load_stored`](crate::lm::LanguageModel::load_stored)), to the bit.
///
/// # Errors
/// [`Error::InvalidOption`] for an encoder-decoder; if a tensor is missing or has another shape than the config says; [`Error::Interrupted`] if
/// `see` stops.
pub fn streamed_losses(
    weights: &dyn Weights,
    config: &Config,
    windows: &[Vec<u32>],
    budget: usize,
    mut see: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<Vec<f64>>> {
    if !config.is_decoder() {
        let reason = format!("an {} has no perplexity of a text alone", config.kind());
        return Err(Error::invalid_option("model_type", reason));
    }
    // What does not fit shows before anything is read.
    Outline::of(weights, config)?;
    let longest = windows.iter().map(Vec::len).max().unwrap_or(1);
    let group = (budget / (size_of::<f32>() * longest * config.hidden()).max(1)).max(1);
    let (steps, mut done) = (windows.len().div_ceil(group) * config.layers(), 0);
    let mut losses = Vec::with_capacity(windows.len());
    for windows in windows.chunks(group) {
        // Embedding and head are read when they are needed and let go.
        let ends = EmbeddingHead::load(weights, config)?;
        let mut features = windows.iter().map(|ids| ends.embed(ids, ids.len(), 0)).collect::<Result<Vec<_>>>()?;
        drop(ends);
        for i in 0..config.layers() {
            let mut block = load_block(weights, config, i)?;
            block.linears_mut().into_iter().for_each(Linear::pack);
            for (h, ids) in features.iter_mut().zip(windows) {
                block.forward(h, &positions(config, 1, ids.len(), 0), &mut ());
            }
            done += 1;
            Error::go_on(see(done, steps))?;
        }
        let mut ends = EmbeddingHead::load(weights, config)?;
        ends.linears_mut().for_each(Linear::pack);
        for (h, ids) in features.iter().zip(windows) {
            losses.push(ends.nll(h, &next_tokens(ids, ids.len()))?);
        }
    }
    Ok(losses)
}

//! Which layers and which hidden features go: by a run of the dense model.

use super::method::add_means;
use super::record::LayerChoice;
use crate::data::Sequences;
use crate::io::Folder;
use crate::lm::{Config, EmbeddingHead, LanguageModel, load_block, next_tokens, positions};
use crate::nn::{Block, Positions};
use crate::prune::language::{ActivationMemory, Activations, MemoryBudget, PART};
use crate::{Error, Result};
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// What leaving a layer out costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DepthScore {
    /// 1 − the cosine of what goes into the layer and what comes out of it, the mean over all tokens; the layers with the smallest go at once. Men et
    /// al., *ShortGPT*, 2024, arXiv:2403.03853.
    #[default]
    Cosine,
    /// The squared error of what the last norm gives without the layer, of its square; the layers with the smallest go at once. Taghibakhshi et al.,
    /// *Nemotron Elastic*, 2025, arXiv:2511.16664. On the first two sequences.
    Error,
    /// The perplexity without the layer, layer after layer, each time that whose loss is least. Kim et al., *Shortened LLaMA*, 2024, arXiv:2402.02834. On
    /// the first sequence.
    Perplexity,
}

/// Which hidden features stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HiddenScore {
    /// Those with the largest mean activations behind the norms of all blocks, as Minitron (arXiv:2407.14679) takes them.
    #[default]
    Minitron,
    /// The first principal components of all hidden states, into which one rotation turns them, folded into the weights: as SliceGPT (arXiv:2401.15024),
    /// with one rotation for all blocks.
    Pca,
}

/// Tells how far the run is, and may stop it.
pub(super) type Steps<'s> = dyn FnMut(usize, usize) -> ControlFlow<()> + 's;

/// What a pass of the dense model says.
pub(super) struct Survey {
    /// Of each layer 1 − cosine.
    pub cosines: Vec<f64>,
    /// Of each hidden feature Σ over norms √ Σ over sequences (mean over tokens |x|)².
    pub hidden: Vec<f64>,
    /// Of each layer Σ over sequences (mean over tokens |x|)² of the inputs of attention's output layer; empty if not asked for.
    pub heads: Vec<Vec<f64>>,
    /// The same of the last feed-forward layer.
    pub features: Vec<Vec<f64>>,
    /// Of each layer 1 − cosine of what goes into attention and what it makes of that, and of the feed-forward layers; empty if not asked for.
    pub halves: Vec<[f64; 2]>,
}

/// What a pass of the dense model is to say beside cosines of layers and hidden features.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted {
    /// The inputs of the layers that read heads and features.
    pub units: bool,
    /// Cosines of attention and feed-forward layers apart.
    pub halves: bool,
}

impl Survey {
    /// Runs the dense model once, a block at a time. The norms are those before attention and before the feed-forward layers of every block, and not the
    /// last one, as Minitron's authors take them.
    pub fn run(
        folder: &Folder,
        config: &Config,
        calibration: &Sequences,
        memory: &ActivationMemory,
        wanted: Wanted,
        see: &mut Steps<'_>,
    ) -> Result<Survey> {
        let ends = EmbeddingHead::for_embedding(folder, config)?;
        let length = calibration.length();
        let chunks: Vec<&[u32]> = calibration.ids().chunks((PART / length).max(1) * length).collect();
        let at: Vec<Positions> = chunks.iter().map(|c| positions(config, c.len() / length, length, 0)).collect();
        let mut states = Activations::new(chunks.len(), &MemoryBudget::new(memory));
        for (i, chunk) in chunks.iter().enumerate() {
            states.put(i, ends.embed(chunk, length, 0)?)?;
        }
        drop(ends);
        let (mut cosines, mut hidden) = (Vec::new(), Array1::<f64>::zeros(config.hidden()));
        let (mut heads, mut features, mut halves) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..config.layers() {
            let block = load_block(folder, config, number)?;
            let (mut apart, mut half) = (0.0, [0.0; 2]);
            let widths = config.widths(number);
            // What experts read are hidden features.
            let inner = if block.mixture().is_some() { config.hidden() } else { widths.intermediate };
            let mut inputs = [widths.heads * widths.head_dim, inner].map(Array1::<f64>::zeros);
            let mut norms = vec![Array1::<f64>::zeros(config.hidden()); if block.shares_input() { 1 } else { 2 }];
            for (i, at) in at.iter().enumerate() {
                let mut h = states.take(i)?;
                let before = h.clone();
                let x = block.attention_x(&h);
                add_means(&mut norms[0], &x, length);
                let mixed = block.mixed(&x, at);
                let feed_x = match norms.get_mut(1) {
                    None => x,
                    Some(norm) => {
                        if !block.is_parallel() {
                            block.add_attention(&mut h, &mixed);
                        }
                        let x = block.feed_x(&h);
                        add_means(norm, &x, length);
                        x
                    }
                };
                if block.is_parallel() {
                    block.add_attention(&mut h, &mixed);
                }
                let inner = block.inner(&feed_x);
                if wanted.halves {
                    half[0] += turned(&before, &h);
                    // Beside attention the feed-forward layers add to what that adds to.
                    let from = if block.is_parallel() { &before } else { &h };
                    let mut behind = from.clone();
                    block.add_feed(&mut behind, &inner);
                    half[1] += turned(from, &behind);
                }
                if wanted.units {
                    add_means(&mut inputs[0], &mixed, length);
                    add_means(&mut inputs[1], &inner, length);
                }
                block.add_feed(&mut h, &inner);
                apart += turned(&before, &h);
                states.put(i, h)?;
            }
            let tokens = calibration.ids().len() as f64;
            cosines.push(apart / tokens);
            halves.extend(wanted.halves.then(|| half.map(|sum| sum / tokens)));
            if wanted.units {
                heads.push(inputs[0].to_vec());
                features.push(inputs[1].to_vec());
            }
            norms.iter().for_each(|sums| hidden += &sums.mapv(f64::sqrt));
            Error::go_on(see(number + 1, config.layers()))?;
        }
        Ok(Survey { cosines, hidden: hidden.to_vec(), heads, features, halves })
    }
}

/// Σ over tokens of 1 − cosine.
fn turned(a: &Array2<f32>, b: &Array2<f32>) -> f64 {
    a.rows().into_iter().zip(b.rows()).map(|(a, b)| 1.0 - cosine(a.iter(), b.iter())).sum()
}

fn cosine<'a>(a: impl Iterator<Item = &'a f32>, b: impl Iterator<Item = &'a f32>) -> f64 {
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.zip(b) {
        let (a, b) = (f64::from(a), f64::from(b));
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    if aa * bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

/// The `keep` layers that cost most to leave out.
pub(super) fn at_once(scores: Vec<f64>, keep: usize) -> LayerChoice {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let mut kept = order[..keep].to_vec();
    kept.sort_unstable();
    LayerChoice { kept, scores }
}

/// Layers by what the whole model does without them; it is in memory.
pub(super) fn by_outputs(
    folder: &Folder,
    config: &Config,
    calibration: &Sequences,
    (score, keep): (DepthScore, usize),
    see: &mut Steps<'_>,
) -> Result<LayerChoice> {
    let model = LanguageModel::load(folder, config.clone())?;
    let length = calibration.length();
    let text = calibration.first(length * if score == DepthScore::Error { 2 } else { 1 })?;
    let (layers, at) = (config.layers(), model.positions(text.len(), text.length()));
    let ends = model.embedding_head();
    let start = ends.embed(text.ids(), text.length(), 0)?;
    let blocks = model.blocks();
    if score == DepthScore::Error {
        let whole = ends.final_norm(&through(blocks, &(0..layers).collect::<Vec<_>>(), start.clone(), &at));
        let square = whole.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        let (mut scores, mut before) = (Vec::new(), start);
        for layer in 0..layers {
            let without = ends.final_norm(&through(blocks, &(layer + 1..layers).collect::<Vec<_>>(), before.clone(), &at));
            let error = without.iter().zip(&whole).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>();
            scores.push(error / square);
            blocks[layer].forward(&mut before, &at, &mut ());
            Error::go_on(see(layer + 1, layers))?;
        }
        return Ok(at_once(scores, keep));
    }
    let targets = next_tokens(text.ids(), text.length());
    let (mut kept, mut scores) = ((0..layers).collect::<Vec<_>>(), vec![f64::INFINITY; layers]);
    let (mut done, of) = (0, (keep + 1..=layers).sum());
    while kept.len() > keep {
        let mut before = start.clone();
        for (place, &layer) in kept.iter().enumerate() {
            let losses = ends.nll(&through(blocks, &kept[place + 1..], before.clone(), &at), &targets)?;
            let loss = losses.iter().sum::<f64>() / losses.len() as f64;
            scores[layer] = if loss.is_finite() { loss } else { f64::MAX };
            blocks[layer].forward(&mut before, &at, &mut ());
            done += 1;
            Error::go_on(see(done, of))?;
        }
        let cheapest = kept.iter().enumerate().min_by(|a, b| scores[*a.1].total_cmp(&scores[*b.1])).map_or(0, |(place, _)| place);
        kept.remove(cheapest);
    }
    Ok(LayerChoice { kept, scores })
}

fn through(blocks: &[Block], layers: &[usize], mut h: Array2<f32>, at: &Positions) -> Array2<f32> {
    layers.iter().for_each(|&l| blocks[l].forward(&mut h, at, &mut ()));
    h
}

//! Which sub-layers go: by what leaving each out costs.

use super::sublayer::{SubLayer, SubLayerChoice, SubLayerKind};
use super::survey::{DepthScore, Steps};
use crate::data::Sequences;
use crate::io::Folder;
use crate::lm::{Config, LanguageModel, next_tokens};
use crate::nn::{Block, Positions};
use crate::{Error, Result};
use ndarray::Array2;

/// The sub-layers of some blocks that can be left out.
fn removable(config: &Config, layers: &[usize]) -> Vec<SubLayer> {
    let all = layers.iter().flat_map(|&block| SubLayerKind::ALL.map(|kind| SubLayer { block, kind }));
    all.filter(|sub| check(config, *sub).is_ok()).collect()
}

/// Refuses a sub-layer that cannot be left out.
fn check(config: &Config, sub: SubLayer) -> Result<()> {
    let refuse = |reason: String| Err(Error::invalid_option("drop", format!("{sub} {reason}")));
    if sub.block >= config.layers() {
        return refuse(format!("is of no block: the model has {}, the last is {}", config.layers(), config.layers() - 1));
    }
    if let Some(reason) = config.sublayers_stay() {
        return refuse(format!("stays: {reason}"));
    }
    let widths = config.widths(sub.block);
    match sub.kind {
        SubLayerKind::Attention if widths.heads == 0 => refuse("is not there any more".into()),
        SubLayerKind::Attention => config.heads_stay().map_or(Ok(()), |reason| refuse(format!("stays: {reason}"))),
        SubLayerKind::FeedForward if config.mixes(sub.block) => {
            refuse("stays: it is experts, of which --experts leaves out".into())
        }
        SubLayerKind::FeedForward if widths.intermediate == 0 => refuse("is not there any more".into()),
        SubLayerKind::FeedForward => Ok(()),
    }
}

/// Holds sub-layers that were named by hand, and the number of those that are to be found, against a model of which so many layers stay.
///
/// # Errors
/// [`Error::InvalidOption`] naming the first that cannot go, or with the nearest number that can.
pub(super) fn check_all(config: &Config, named: &[SubLayer], count: Option<usize>, layers: usize) -> Result<()> {
    named.iter().try_for_each(|sub| check(config, *sub))?;
    if let Some((_, twice)) = named.iter().enumerate().find(|(i, sub)| named[..*i].contains(sub)) {
        return Err(Error::invalid_option("drop", format!("names {twice} twice")));
    }
    let Some(count) = count else { return Ok(()) };
    let all = removable(config, &(0..config.layers()).collect::<Vec<_>>()).len();
    if all == 0 {
        return Err(Error::invalid_option("sublayers", config.sublayers_stay().unwrap_or("none of the model can go")));
    }
    // As many of the layers that stay as there are at least.
    let most = (all * layers / config.layers()).saturating_sub(1).max(1);
    if count > most {
        let reason = format!("{count} of {all} in {layers} layers cannot go; the nearest possible value is {most}");
        return Err(Error::invalid_option("sublayers", reason));
    }
    Ok(())
}

/// Runs a block without some of its halves.
pub(super) fn run_parts(block: &Block, h: &mut Array2<f32>, at: &Positions, [attention, feed]: [bool; 2]) {
    let beside = (block.is_parallel() && feed).then(|| block.feed_x(h));
    if attention {
        block.add_attention(h, &block.mixed(&block.attention_x(h), at));
    }
    if feed {
        let x = beside.unwrap_or_else(|| block.feed_x(h));
        block.add_feed(h, &block.inner(&x));
    }
}

/// The `count` with the smallest scores among those that can go, in the order of the model.
pub(super) fn smallest(config: &Config, layers: &[usize], scores: Vec<[f64; 2]>, count: usize) -> SubLayerChoice {
    let score = |sub: &SubLayer| scores[sub.block][sub.kind as usize];
    let mut gone = removable(config, layers);
    gone.sort_by(|a, b| score(a).total_cmp(&score(b)).then(a.cmp(b)));
    gone.truncate(count);
    gone.sort_unstable();
    SubLayerChoice { gone, scores }
}

/// A model in memory of which some halves are left out.
struct Halved<'m> {
    blocks: &'m [Block],
    at: &'m Positions,
    stay: Vec<[bool; 2]>,
}

impl Halved<'_> {
    /// The hidden states behind the last block, of those before block `from`; of that block other halves.
    fn through(&self, mut h: Array2<f32>, from: usize, first: [bool; 2]) -> Array2<f32> {
        for (number, block) in self.blocks.iter().enumerate().skip(from) {
            run_parts(block, &mut h, self.at, if number == from { first } else { self.stay[number] });
        }
        h
    }

    /// What `judge` makes of the model without each of some halves, one at a time.
    fn without(
        &self,
        start: &Array2<f32>,
        each: &[SubLayer],
        judge: &dyn Fn(&Array2<f32>) -> Result<f64>,
        step: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Vec<f64>> {
        let (mut before, mut block, mut values) = (start.clone(), 0, Vec::new());
        for sub in each {
            while block < sub.block {
                run_parts(&self.blocks[block], &mut before, self.at, self.stay[block]);
                block += 1;
            }
            let mut stay = self.stay[block];
            stay[sub.kind as usize] = false;
            let value = judge(&self.through(before.clone(), block, stay))?;
            values.push(if value.is_finite() { value } else { f64::MAX });
            step()?;
        }
        Ok(values)
    }
}

/// Sub-layers by what the whole model does without them; it is in memory. With [`DepthScore::Error`] those with the smallest error go at once, of the first
/// two sequences; with [`DepthScore::Perplexity`] one after another that without which the loss is least, of the first one.
pub(super) fn by_outputs(
    (folder, config): (&Folder, &Config),
    calibration: &Sequences,
    (score, count): (DepthScore, usize),
    layers: &[usize],
    see: &mut Steps<'_>,
) -> Result<SubLayerChoice> {
    let model = LanguageModel::load(folder, config.clone())?;
    let length = calibration.length();
    let text = calibration.first(length * if score == DepthScore::Error { 2 } else { 1 })?;
    let at = model.positions(text.len(), text.length());
    let ends = model.embedding_head();
    let start = ends.embed(text.ids(), text.length(), 0)?;
    let stay = (0..config.layers()).map(|block| [layers.contains(&block); 2]).collect();
    let mut halved = Halved { blocks: model.blocks(), at: &at, stay };
    let mut scores = vec![[0.0; 2]; config.layers()];
    let mut left = removable(config, layers);
    let rounds = if score == DepthScore::Error { 1 } else { count };
    let of = (0..rounds).map(|gone| left.len() - gone).sum();
    let mut done = 0;
    let mut step = || {
        done += 1;
        Error::go_on(see(done, of))
    };
    if score == DepthScore::Error {
        let whole = ends.final_norm(&halved.through(start.clone(), 0, halved.stay[0]));
        let square = whole.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        let judge = |h: &Array2<f32>| {
            let without = ends.final_norm(h);
            Ok(without.iter().zip(&whole).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>() / square)
        };
        let values = halved.without(&start, &left, &judge, &mut step)?;
        left.iter().zip(values).for_each(|(sub, value)| scores[sub.block][sub.kind as usize] = value);
        return Ok(smallest(config, layers, scores, count));
    }
    let targets = next_tokens(text.ids(), text.length());
    let judge = |h: &Array2<f32>| {
        let losses = ends.nll(h, &targets)?;
        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
    };
    let mut gone = Vec::new();
    while gone.len() < count {
        let values = halved.without(&start, &left, &judge, &mut step)?;
        left.iter().zip(&values).for_each(|(sub, value)| scores[sub.block][sub.kind as usize] = *value);
        let cheapest = values.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i);
        let sub = left.remove(cheapest);
        halved.stay[sub.block][sub.kind as usize] = false;
        gone.push(sub);
    }
    gone.sort_unstable();
    Ok(SubLayerChoice { gone, scores })
}

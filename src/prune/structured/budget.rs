//! A budget of parameters, operations, bytes or time: sizes that meet it, and which of them still predicts held-out text best.
//!
//! Candidates lie on a grid: layers, heads, and of the feed-forward features the largest multiple of `round` that the budget allows; at most 40 % of a
//! width and 20 % of the layers go, and of all that meet the budget the ten with most parameters are tried, as in Minitron's own search. One pass of
//! the dense model scores layers (cosine), heads and features (mean activations); a second one runs all candidates side by side over sequences that were
//! not scored on, block by block, with the units that would go set to 0. No weight moves, so the loss says how candidates compare and not what the
//! finished model has.
//!
//! What a budget counts is a sum over blocks, heads and features: exactly so of parameters, operations and bytes, by measurement of time ([`DecodeCost`]).

use super::decode::DecodeCost;
use super::record::{SearchRecord, Tried};
use super::sizes::ShrinkSizes;
use super::survey::{Steps, Survey, Wanted, at_once};
use super::target::{PartSize, SizeAmount, SizeTarget};
use crate::data::Sequences;
use crate::io::{Folder, Weights};
use crate::lm::{Config, EmbeddingHead, Widths, couplings, load_block, next_tokens, positions};
use crate::prune::language::ActivationMemory;
use crate::structure::{Coupling, Extent, UnitKind};
use crate::{Error, Result};
use ndarray::{Array2, Axis};

/// Candidates that are tried.
const TRIED: usize = 10;
/// The fraction of a width that may go.
const WIDTH: f64 = 0.4;
/// The fraction of the layers that may go.
const DEPTH: f64 = 0.2;
/// Sequences that candidates are judged on, at most, and the fraction of all.
const JUDGED: usize = 4;

/// A budget, and what the whole model has of what budgets count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SizeSearch {
    /// What stays.
    pub target: SizeTarget,
    /// Feed-forward features that are tried are multiples of it, or go in steps of it.
    pub round: usize,
    /// All parameters, a tied head counted once.
    pub parameters: usize,
    /// Bytes of all weights in the files.
    pub bytes: u64,
    /// Multiplications and additions of the linear layers and the head for one token.
    pub flops: usize,
    /// What a token takes; measured where the target is of time and it is not given.
    pub decode: Option<DecodeCost>,
}

impl SizeSearch {
    /// What the whole model has of what the target counts; `blocks` weights of the linear layers of blocks.
    pub(super) fn whole(&self, blocks: usize) -> f64 {
        match self.target {
            SizeTarget::Parameters(SizeAmount::Fraction(_)) => blocks as f64,
            SizeTarget::Parameters(_) => self.parameters as f64,
            SizeTarget::Flops(_) => self.flops as f64,
            SizeTarget::Bytes(_) => self.bytes as f64,
            SizeTarget::Milliseconds(_) => self.decode.unwrap_or_default().whole,
        }
    }

    /// With the time of a token measured, where that is what it is about and it was not yet.
    pub(super) fn timed(self, model: (&Folder, &Config), all: &[Coupling], see: &mut Steps<'_>) -> Result<SizeSearch> {
        if self.decode.is_some() || !matches!(self.target, SizeTarget::Milliseconds(_)) {
            return Ok(self);
        }
        alike(model.1)?;
        let least = Least::of(model.1.widths(0), self.round);
        Ok(SizeSearch { decode: Some(DecodeCost::measure(model, all, least.widths, see)?), ..self })
    }
}

/// Refuses a model whose blocks differ in widths.
fn alike(config: &Config) -> Result<()> {
    match (0..config.layers()).find(|&b| config.widths(b) != config.widths(0)) {
        None => Ok(()),
        Some(block) => {
            let reason = format!("block {block} has other widths than block 0; give the sizes that stay");
            Err(Error::invalid_option("budget", reason))
        }
    }
}

/// The fewest heads and features that a search tries.
struct Least {
    widths: Widths,
    /// Heads go by as many.
    groups: usize,
}

impl Least {
    fn of(w: Widths, round: usize) -> Least {
        let groups = if w.heads == w.kv_heads { 1 } else { w.kv_heads };
        let least = |n: usize| ((1.0 - WIDTH) * n as f64).ceil() as usize;
        let heads = (least(w.heads).max(1)..=w.heads).find(|h| h % groups == 0).unwrap_or(w.heads);
        let intermediate = (least(w.intermediate).div_ceil(round) * round).min(w.intermediate);
        Least { widths: Widths { heads, intermediate, ..w }, groups }
    }
}

/// What a tensor counts.
fn of_tensor(folder: &Folder, tensor: &str) -> Result<PartSize> {
    let shape = Weights::shape(folder, tensor)?;
    let numbers: usize = shape.iter().product();
    let weights = if shape.len() == 2 { numbers } else { 0 };
    Ok(PartSize { weights, numbers, bytes: (numbers * folder.dtype(tensor)?.bytes()) as u64 })
}

/// What a unit counts.
pub(super) fn of_unit(folder: &Folder, coupling: &Coupling) -> Result<PartSize> {
    let mut sum = PartSize::default();
    for member in &coupling.members {
        if let Extent::Slice { axis, width, .. } = member.part {
            let (shape, whole) = (Weights::shape(folder, &member.tensor)?, of_tensor(folder, &member.tensor)?);
            let part = |n: usize| n / shape[axis].max(1) * width;
            sum.weights += part(whole.weights);
            sum.numbers += part(whole.numbers);
            sum.bytes += whole.bytes / shape[axis].max(1) as u64 * width as u64;
        }
    }
    Ok(sum)
}

/// What a model's parts count, all blocks being alike.
struct Counts {
    block: PartSize,
    /// Of a head, with its own keys and values where it has some.
    head: PartSize,
    feature: PartSize,
    widths: Widths,
    layers: usize,
    search: SizeSearch,
}

impl Counts {
    fn of(folder: &Folder, config: &Config, all: &[Coupling], search: SizeSearch) -> Result<Counts> {
        alike(config)?;
        let unit = |kind: UnitKind| -> Result<PartSize> {
            let coupling: Option<&Coupling> = all.iter().find(|c| c.kind == kind && c.block == Some(0));
            coupling.map_or(Ok(PartSize::default()), |c| of_unit(folder, c))
        };
        let mut block = PartSize::default();
        for member in all.iter().filter(|c| c.kind == UnitKind::Layer).flat_map(|c| &c.members) {
            if member.part == (Extent::All { unit: 0 }) {
                let PartSize { weights, numbers, bytes } = of_tensor(folder, &member.tensor)?;
                block.weights += weights;
                block.numbers += numbers;
                block.bytes += bytes;
            }
        }
        let (head, feature) = (unit(UnitKind::Head)?, unit(UnitKind::FeedForward)?);
        Ok(Counts { block, head, feature, widths: config.widths(0), layers: config.layers(), search })
    }

    /// What goes with so many layers, heads and features left, by what counts of each part.
    fn gone(&self, [layers, heads, features]: [usize; 3], [block, head, feature]: [f64; 3]) -> f64 {
        let each = (self.widths.heads - heads) as f64 * head + (self.widths.intermediate - features) as f64 * feature;
        (self.layers - layers) as f64 * block + layers as f64 * each
    }

    /// What is left of what the target counts.
    fn cost(&self, left: [usize; 3]) -> f64 {
        let (target, time) = (self.search.target, self.search.decode.unwrap_or_default());
        let parts = [(self.block, time.block), (self.head, time.head), (self.feature, time.feature)];
        self.search.whole(self.layers * self.block.weights)
            - self.gone(left, parts.map(|(part, time)| part.counted(target, time)))
    }

    /// Sizes that leave so many layers, heads and features.
    fn tried(&self, [layers, heads, features]: [usize; 3]) -> Tried {
        let some = |n: usize, of: usize| (n < of).then_some(n);
        let of = |count: fn(&PartSize) -> usize| {
            let parts = [&self.block, &self.head, &self.feature];
            self.gone([layers, heads, features], parts.map(|part| count(part) as f64)) as usize
        };
        let sizes = ShrinkSizes {
            intermediate: some(features, self.widths.intermediate),
            heads: some(heads, self.widths.heads),
            kv_heads: None,
            hidden: None,
            layers: some(layers, self.layers),
        };
        Tried {
            sizes,
            parameters: self.search.parameters - of(|part| part.numbers),
            blocks: self.layers * self.block.weights - of(|part| part.weights),
            cost: self.cost([layers, heads, features]),
            loss: f64::INFINITY,
        }
    }

    /// Sizes that meet the target, those with most parameters first.
    fn candidates(&self) -> Result<Vec<Tried>> {
        let (w, SizeSearch { target, round, .. }) = (self.widths, self.search);
        let Least { widths: floor, groups } = Least::of(w, round);
        let whole = self.cost([self.layers, w.heads, w.intermediate]);
        let allowed = target.allowed(whole)?;
        let mut all = Vec::new();
        let mut smallest = f64::INFINITY;
        for layers in (((1.0 - DEPTH) * self.layers as f64).ceil() as usize).max(1)..=self.layers {
            for heads in (floor.heads..=w.heads).filter(|h| h % groups == 0) {
                smallest = smallest.min(self.cost([layers, heads, floor.intermediate]));
                // From the whole width down, along multiples of `round`.
                let steps = std::iter::once(w.intermediate).chain((1..=w.intermediate / round).rev().map(|k| k * round));
                let fits = |f: &usize| *f >= floor.intermediate && self.cost([layers, heads, *f]) <= allowed;
                let Some(features) = steps.into_iter().find(fits) else { continue };
                if (layers, heads, features) != (self.layers, w.heads, w.intermediate) {
                    all.push(self.tried([layers, heads, features]));
                }
            }
        }
        let layers = |tried: &Tried| tried.sizes.layers.unwrap_or(self.layers);
        all.sort_by(|a, b| b.parameters.cmp(&a.parameters).then(layers(b).cmp(&layers(a))));
        all.truncate(TRIED);
        if all.is_empty() {
            let reason = format!(
                "{} {} cannot be met: at most {:.0} % of a width and {:.0} % of the layers go at once, and {} stay, the nearest possible value ({:.3} of \
                 {}); ask for that, or make more than one step",
                target.shown(allowed),
                target.what(),
                100.0 * WIDTH,
                100.0 * DEPTH,
                target.shown(smallest),
                smallest / whole,
                target.shown(whole)
            );
            return Err(Error::invalid_option(target.option(), reason));
        }
        Ok(all)
    }
}

/// Which sizes meet a budget and predict best. `see` is told how many steps are done: turns of timing, where the budget is of time, then blocks of both
/// passes.
///
/// # Errors
/// If no sizes meet the budget, blocks have different widths, there are fewer than two sequences, or the model cannot be read or run;
/// [`Error::Interrupted`] if `see` stops.
pub fn search_sizes(
    (folder, config): (&Folder, &Config),
    calibration: &Sequences,
    search: &SizeSearch,
    memory: &ActivationMemory,
    see: &mut Steps<'_>,
) -> Result<SearchRecord> {
    let judged = JUDGED.min(calibration.len() / 2);
    let parts = |numbers: std::ops::Range<usize>| calibration.select(&numbers.collect::<Vec<_>>());
    let (scored, held) = (parts(0..calibration.len() - judged), parts(calibration.len() - judged..calibration.len()));
    let (Some(scored), Some(held)) = (scored, held.filter(|_| judged > 0)) else {
        return Err(Error::invalid_option("samples", "1 sequence; a budget is met by two or more, of which some are held out"));
    };
    let all = couplings(folder, config)?;
    let search = search.timed((folder, config), &all, see)?;
    let counts = Counts::of(folder, config, &all, search)?;
    let mut tried = counts.candidates()?;
    let layers = config.layers();
    let wanted = Wanted { units: true, ..Wanted::default() };
    let survey = Survey::run(folder, config, &scored, memory, wanted, &mut |done, _| see(done, 2 * layers))?;
    let losses = judge(folder, config, &tried, &survey, &held, &mut |done| see(layers + done, 2 * layers))?;
    tried.iter_mut().zip(losses).for_each(|(tried, loss)| tried.loss = loss);
    let best = tried.iter().enumerate().min_by(|a, b| a.1.loss.total_cmp(&b.1.loss)).map_or(0, |(i, _)| i);
    let (what, whole) = (search.target.what().to_string(), search.whole(layers * counts.block.weights));
    let (target, tokens) = (search.target.to_string(), held.ids().len());
    Ok(SearchRecord { target, what, whole, decode: search.decode, chosen: best, tried, tokens })
}

/// The loss of each candidate on held-out sequences.
fn judge(
    folder: &Folder,
    config: &Config,
    tried: &[Tried],
    survey: &Survey,
    held: &Sequences,
    see: &mut dyn FnMut(usize) -> std::ops::ControlFlow<()>,
) -> Result<Vec<f64>> {
    let length = held.length();
    let at = positions(config, held.len(), length, 0);
    let start = EmbeddingHead::for_embedding(folder, config)?.embed(held.ids(), length, 0)?;
    let mut states: Vec<Array2<f32>> = vec![start; tried.len()];
    let layers = |tried: &Tried| at_once(survey.cosines.clone(), tried.sizes.layers.unwrap_or(config.layers())).kept;
    let layers: Vec<Vec<usize>> = tried.iter().map(layers).collect();
    for number in 0..config.layers() {
        let block = load_block(folder, config, number)?;
        let w = config.widths(number);
        for ((tried, layers), h) in tried.iter().zip(&layers).zip(&mut states) {
            if !layers.contains(&number) {
                continue;
            }
            let x = block.attention_x(h);
            let mut mixed = block.mixed(&x, &at);
            let groups = if w.heads == w.kv_heads { 1 } else { w.kv_heads };
            clear(&mut mixed, &survey.heads[number], w.heads, groups, tried.sizes.heads);
            let parallel = block.is_parallel();
            if !parallel {
                block.add_attention(h, &mixed);
            }
            let mut inner = block.inner(&block.feed_x(h));
            clear(&mut inner, &survey.features[number], w.intermediate, 1, tried.sizes.intermediate);
            if parallel {
                block.add_attention(h, &mixed);
            }
            block.add_feed(h, &inner);
        }
        Error::go_on(see(number + 1))?;
    }
    let ends = EmbeddingHead::load(folder, config)?;
    let targets = next_tokens(held.ids(), length);
    let loss = |h: &Array2<f32>| {
        let losses = ends.nll(h, &targets)?;
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        Ok(if mean.is_finite() { mean } else { f64::MAX })
    };
    states.iter().map(loss).collect()
}

/// Sets the columns of units that would go to 0: those with the smallest sums of `squares`, as many of each run.
fn clear(x: &mut Array2<f32>, squares: &[f64], units: usize, runs: usize, keep: Option<usize>) {
    let Some(keep) = keep.filter(|keep| *keep < units) else { return };
    let width = squares.len() / units;
    let scores: Vec<f64> = squares.chunks(width).map(|c| c.iter().sum()).collect();
    let run = units / runs;
    for first in (0..units).step_by(run) {
        let mut order: Vec<usize> = (first..first + run).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        for unit in &order[keep / runs..] {
            (unit * width..(unit + 1) * width).for_each(|c| x.index_axis_mut(Axis(1), c).fill(0.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, PartSize, SizeSearch};
    use crate::lm::Widths;
    use crate::prune::{DecodeCost, SizeAmount, SizeTarget};

    fn counts(target: SizeTarget) -> Counts {
        let widths = Widths { heads: 9, kv_heads: 3, head_dim: 64, intermediate: 1536 };
        let of = |weights: usize, more: usize| PartSize { weights, numbers: weights + more, bytes: 2 * (weights + more) as u64 };
        let (head, feature) = (2 * 576 * 64, 3 * 576);
        let block = 9 * head + 2 * 192 * 576 + 1536 * feature;
        let decode = DecodeCost { whole: 30.0, block: 0.9, head: 0.02, feature: 0.0004, threads: 1 };
        Counts {
            block: of(block, 1152),
            head: of(head, 0),
            feature: of(feature, 0),
            widths,
            layers: 30,
            search: SizeSearch {
                target,
                round: 64,
                parameters: 134_515_008,
                bytes: 269_030_016,
                flops: 2 * (30 * block + 49_152 * 576),
                decode: Some(decode),
            },
        }
    }

    #[test]
    fn candidates_meet_the_budget_as_nearly_as_the_grid_lets_them() {
        let fraction = SizeAmount::Fraction(0.8);
        for (target, whole) in [
            (SizeTarget::Parameters(SizeAmount::Fraction(0.75)), 106_168_320.0),
            (SizeTarget::Parameters(SizeAmount::Absolute(108e6)), 134_515_008.0),
            (SizeTarget::Flops(fraction), 268_959_744.0),
            (SizeTarget::Bytes(fraction), 269_030_016.0),
            (SizeTarget::Milliseconds(SizeAmount::Absolute(24.5)), 30.0),
            (SizeTarget::Milliseconds(fraction), 30.0),
        ] {
            let counts = counts(target);
            assert_eq!(counts.cost([30, 9, 1536]), whole, "{target}");
            let (all, allowed) = (counts.candidates().unwrap(), target.allowed(whole).unwrap());
            assert!(all.len() > 5 && all.len() <= 10, "{target}: {}", all.len());
            for tried in &all {
                let left =
                    [tried.sizes.layers.unwrap_or(30), tried.sizes.heads.unwrap_or(9), tried.sizes.intermediate.unwrap_or(1536)];
                assert!(tried.cost <= allowed && tried.cost == counts.cost(left), "{target}: {tried:?}");
                // One step of the grid more would be too many.
                let more = [left[0], left[1], (left[2] + 64).min(1536)];
                assert!(left[2] == 1536 || counts.cost(more) > allowed, "{target}: {tried:?}");
                let gone = |part: usize| (30 - left[0]) * part;
                let each = (9 - left[1]) * counts.head.weights + (1536 - left[2]) * counts.feature.weights;
                assert_eq!(tried.blocks, 106_168_320 - gone(counts.block.weights) - left[0] * each, "{target}");
            }
        }
        let of = |target| counts(target).candidates();
        let features = of(SizeTarget::Parameters(SizeAmount::Fraction(0.75))).unwrap();
        assert!(
            features.iter().any(|t| t.sizes.intermediate == Some(1024) && t.sizes.layers.is_none() && t.sizes.heads.is_none())
        );
        let line = of(SizeTarget::Parameters(SizeAmount::Fraction(0.2))).unwrap_err().to_string();
        assert!(line.contains("cannot be met") && line.contains("nearest possible value"), "{line}");
        let line = of(SizeTarget::Parameters(SizeAmount::Absolute(2e8))).unwrap_err().to_string();
        assert!(line.contains("leaves all 134515008 of them"), "{line}");
        let line = of(SizeTarget::Milliseconds(SizeAmount::Absolute(2.0))).unwrap_err().to_string();
        assert!(line.starts_with("milliseconds: 2.000 milliseconds a token cannot be met"), "{line}");
    }
}

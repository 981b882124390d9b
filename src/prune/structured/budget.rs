//! A budget of parameters: sizes that meet it, and which of them still predicts held-out text best.
//!
//! Candidates lie on a grid: layers, heads, and of the feed-forward features the largest multiple of `round` that the budget allows; at most 40 % of a
//! width and 20 % of the layers go, and of all that meet the budget the ten with most parameters are tried, as in Minitron's own search. One pass of
//! the dense model scores layers (cosine), heads and features (mean activations); a second one runs all candidates side by side over sequences that were
//! not scored on, block by block, with the units that would go set to 0. No weight moves, so the loss says how candidates compare and not what the
//! finished model has.

use super::record::{SearchRecord, Tried};
use super::sizes::ShrinkSizes;
use super::survey::{Steps, Survey, at_once};
use crate::data::Sequences;
use crate::io::{Folder, Weights};
use crate::lm::{Config, EmbeddingHead, Widths, couplings, load_block, next_tokens, positions};
use crate::prune::language::ActivationMemory;
use crate::structure::{Coupling, Extent, UnitKind};
use crate::{Error, Result};
use ndarray::{Array2, Axis};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Candidates that are tried.
const TRIED: usize = 10;
/// The fraction of a width that may go.
const WIDTH: f64 = 0.4;
/// The fraction of the layers that may go.
const DEPTH: f64 = 0.2;
/// Sequences that candidates are judged on, at most, and the fraction of all.
const JUDGED: usize = 4;

/// How many parameters stay.
///
/// ```
/// use lacuna::prune::SizeTarget;
/// assert_eq!("0.75".parse::<SizeTarget>()?, SizeTarget::Blocks(0.75));
/// assert_eq!("100M".parse::<SizeTarget>()?, SizeTarget::Parameters(100_000_000));
/// assert_eq!("1.5B".parse::<SizeTarget>()?.to_string(), "1500000000");
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SizeTarget {
    /// A fraction of the weights of the blocks' linear layers, in (0, 1).
    Blocks(f64),
    /// Parameters of the whole model, a tied head counted once.
    Parameters(usize),
}

impl FromStr for SizeTarget {
    type Err = Error;

    /// # Errors
    /// If the text is neither a fraction below 1 nor a count, with K, M or B behind it or not.
    fn from_str(text: &str) -> Result<SizeTarget> {
        let refuse = || {
            let reason = format!("'{text}' is neither a fraction in (0, 1), as 0.75, nor a number of parameters, as 100M");
            Error::invalid_option("parameters", reason)
        };
        let (digits, unit) = match text.trim().to_ascii_uppercase().chars().last() {
            Some('K') => (&text.trim()[..text.trim().len() - 1], 1e3),
            Some('M') => (&text.trim()[..text.trim().len() - 1], 1e6),
            Some('B' | 'G') => (&text.trim()[..text.trim().len() - 1], 1e9),
            _ => (text.trim(), 1.0),
        };
        let number: f64 = digits.parse().map_err(|_| refuse())?;
        match number * unit {
            x if unit == 1.0 && x > 0.0 && x < 1.0 => Ok(SizeTarget::Blocks(x)),
            x if (1.0..1e15).contains(&x) => Ok(SizeTarget::Parameters(x.round() as usize)),
            _ => Err(refuse()),
        }
    }
}

impl fmt::Display for SizeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SizeTarget::Blocks(fraction) => write!(f, "{fraction}"),
            SizeTarget::Parameters(count) => write!(f, "{count}"),
        }
    }
}

impl TryFrom<String> for SizeTarget {
    type Error = Error;

    fn try_from(text: String) -> Result<SizeTarget> {
        text.parse()
    }
}

impl From<SizeTarget> for String {
    fn from(target: SizeTarget) -> String {
        target.to_string()
    }
}

/// Weights of linear layers and all numbers of a tensor.
fn of_tensor(folder: &Folder, tensor: &str) -> Result<(usize, usize)> {
    let shape = Weights::shape(folder, tensor)?;
    let numbers = shape.iter().product();
    Ok((if shape.len() == 2 { numbers } else { 0 }, numbers))
}

/// Weights of linear layers and all numbers of a unit.
pub(super) fn of_unit(folder: &Folder, coupling: &Coupling) -> Result<(usize, usize)> {
    let mut sum = (0, 0);
    for member in &coupling.members {
        if let Extent::Slice { axis, width, .. } = member.part {
            let shape = Weights::shape(folder, &member.tensor)?;
            let (weights, numbers) = of_tensor(folder, &member.tensor)?;
            let part = |n: usize| n / shape[axis].max(1) * width;
            sum = (sum.0 + part(weights), sum.1 + part(numbers));
        }
    }
    Ok(sum)
}

/// What a model's parts count, all blocks being alike.
struct Counts {
    /// Weights of the linear layers of a block, and all its numbers.
    block: (usize, usize),
    /// The same of a head, with its own keys and values where it has some, and of a feed-forward unit.
    head: (usize, usize),
    feature: (usize, usize),
    widths: Widths,
    layers: usize,
    /// Parameters of the whole model.
    whole: usize,
}

impl Counts {
    fn of(folder: &Folder, config: &Config, whole: usize) -> Result<Counts> {
        let widths = config.widths(0);
        if let Some(block) = (0..config.layers()).find(|&b| config.widths(b) != widths) {
            let reason = format!("block {block} has other widths than block 0; give the sizes that stay");
            return Err(Error::invalid_option("parameters", reason));
        }
        let all = couplings(folder, config)?;
        let unit = |kind: UnitKind| -> Result<(usize, usize)> {
            let coupling: Option<&Coupling> = all.iter().find(|c| c.kind == kind && c.block == Some(0));
            coupling.map_or(Ok((0, 0)), |c| of_unit(folder, c))
        };
        let mut block = (0, 0);
        for member in all.iter().filter(|c| c.kind == UnitKind::Layer).flat_map(|c| &c.members) {
            if member.part == (Extent::All { unit: 0 }) {
                let (weights, numbers) = of_tensor(folder, &member.tensor)?;
                block = (block.0 + weights, block.1 + numbers);
            }
        }
        let (head, feature) = (unit(UnitKind::Head)?, unit(UnitKind::FeedForward)?);
        Ok(Counts { block, head, feature, widths, layers: config.layers(), whole })
    }

    /// Weights of the blocks and parameters of the whole with so many layers, heads and features.
    fn left(&self, layers: usize, heads: usize, features: usize) -> (usize, usize) {
        let gone = |unit: fn(&(usize, usize)) -> usize| {
            let block =
                (self.widths.heads - heads) * unit(&self.head) + (self.widths.intermediate - features) * unit(&self.feature);
            (self.layers - layers) * unit(&self.block) + layers * block
        };
        (self.layers * self.block.0 - gone(|u| u.0), self.whole - gone(|u| u.1))
    }

    /// What of the model the target is about, and how much of it may stay.
    fn allowed(&self, target: SizeTarget) -> usize {
        match target {
            SizeTarget::Blocks(fraction) => (fraction * (self.layers * self.block.0) as f64).round() as usize,
            SizeTarget::Parameters(count) => count,
        }
    }

    /// Sizes that meet the target, those with most parameters first.
    fn candidates(&self, target: SizeTarget, round: usize) -> Result<Vec<Tried>> {
        let w = self.widths;
        let (groups, allowed) = (if w.heads == w.kv_heads { 1 } else { w.kv_heads }, self.allowed(target));
        let measure = |left: (usize, usize)| if matches!(target, SizeTarget::Blocks(_)) { left.0 } else { left.1 };
        let least = |n: usize, goes: f64| ((1.0 - goes) * n as f64).ceil() as usize;
        let all_stay = measure(self.left(self.layers, w.heads, w.intermediate));
        if allowed >= all_stay {
            return Err(Error::invalid_option("parameters", format!("{target} leaves all {all_stay} of them")));
        }
        let mut all = Vec::new();
        let mut smallest = usize::MAX;
        for layers in least(self.layers, DEPTH).max(1)..=self.layers {
            for heads in (least(w.heads, WIDTH).max(1)..=w.heads).filter(|h| h % groups == 0) {
                let floor = least(w.intermediate, WIDTH).div_ceil(round) * round;
                let floor = floor.min(w.intermediate);
                smallest = smallest.min(measure(self.left(layers, heads, floor)));
                // From the whole width down, along multiples of `round`.
                let steps = std::iter::once(w.intermediate).chain((1..=w.intermediate / round).rev().map(|k| k * round));
                let fits = |f: &usize| *f >= floor && measure(self.left(layers, heads, *f)) <= allowed;
                let Some(features) = steps.into_iter().find(fits) else { continue };
                if (layers, heads, features) == (self.layers, w.heads, w.intermediate) {
                    continue;
                }
                let (blocks, parameters) = self.left(layers, heads, features);
                let some = |n: usize, of: usize| (n < of).then_some(n);
                let sizes = ShrinkSizes {
                    intermediate: some(features, w.intermediate),
                    heads: some(heads, w.heads),
                    kv_heads: None,
                    hidden: None,
                    layers: some(layers, self.layers),
                };
                all.push(Tried { sizes, parameters, blocks, loss: f64::INFINITY });
            }
        }
        all.sort_by(|a, b| {
            b.parameters
                .cmp(&a.parameters)
                .then(b.sizes.layers.unwrap_or(self.layers).cmp(&a.sizes.layers.unwrap_or(self.layers)))
        });
        all.truncate(TRIED);
        if all.is_empty() {
            let of = if matches!(target, SizeTarget::Blocks(_)) { " of the blocks" } else { "" };
            let reason = format!(
                "{allowed} parameters{of} cannot be met: at most {:.0} % of a width and {:.0} % of the layers go at once, and {smallest} stay ({:.3} of \
                 {all_stay}); ask for that, or make more than one step",
                100.0 * WIDTH,
                100.0 * DEPTH,
                smallest as f64 / all_stay as f64
            );
            return Err(Error::invalid_option("parameters", reason));
        }
        Ok(all)
    }
}

/// Which sizes meet a budget and predict best. `whole` is the number of parameters of the model; `see` is told how many blocks of both passes are done.
///
/// # Errors
/// If no sizes meet the budget, blocks have different widths, there are fewer than two sequences, or the model cannot be read or run;
/// [`Error::Interrupted`] if `see` stops.
pub fn search_sizes(
    (folder, config): (&Folder, &Config),
    calibration: &Sequences,
    (target, round): (SizeTarget, usize),
    whole: usize,
    memory: &ActivationMemory,
    see: &mut Steps<'_>,
) -> Result<SearchRecord> {
    let counts = Counts::of(folder, config, whole)?;
    let mut tried = counts.candidates(target, round)?;
    let judged = JUDGED.min(calibration.len() / 2);
    let parts = |numbers: std::ops::Range<usize>| calibration.select(&numbers.collect::<Vec<_>>());
    let (scored, held) = (parts(0..calibration.len() - judged), parts(calibration.len() - judged..calibration.len()));
    let (Some(scored), Some(held)) = (scored, held.filter(|_| judged > 0)) else {
        return Err(Error::invalid_option("samples", "1 sequence; a budget is met by two or more, of which some are held out"));
    };
    let layers = config.layers();
    let survey = Survey::run(folder, config, &scored, memory, true, &mut |done, _| see(done, 2 * layers))?;
    let losses = judge(folder, config, &tried, &survey, &held, &mut |done| see(layers + done, 2 * layers))?;
    tried.iter_mut().zip(losses).for_each(|(tried, loss)| tried.loss = loss);
    let best = tried.iter().enumerate().min_by(|a, b| a.1.loss.total_cmp(&b.1.loss)).map_or(0, |(i, _)| i);
    Ok(SearchRecord { target: target.to_string(), chosen: best, tried, tokens: held.ids().len() })
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
    use super::{Counts, SizeTarget};
    use crate::lm::Widths;

    fn counts() -> Counts {
        let widths = Widths { heads: 9, kv_heads: 3, head_dim: 64, intermediate: 1536 };
        let (head, feature) = (2 * 576 * 64, 3 * 576);
        let block = 9 * head + 2 * 192 * 576 + 1536 * feature;
        Counts {
            block: (block, block + 1152),
            head: (head, head),
            feature: (feature, feature),
            widths,
            layers: 30,
            whole: 134_515_008,
        }
    }

    #[test]
    fn candidates_meet_the_budget_as_nearly_as_the_grid_lets_them() {
        let counts = counts();
        assert_eq!(counts.left(30, 9, 1536), (106_168_320, 134_515_008));
        for (target, whole) in [(SizeTarget::Blocks(0.75), 106_168_320.0), (SizeTarget::Parameters(108_000_000), 0.0)] {
            let all = counts.candidates(target, 64).unwrap();
            assert!(all.len() > 5 && all.len() <= 10, "{}", all.len());
            for tried in &all {
                let (found, allowed) = match target {
                    SizeTarget::Blocks(f) => (tried.blocks, (f * whole).round() as usize),
                    SizeTarget::Parameters(n) => (tried.parameters, n),
                };
                // One step of the grid more would be too many.
                let step = 64 * 1728 * tried.sizes.layers.unwrap_or(30);
                assert!(found <= allowed && (found + step > allowed || tried.sizes.intermediate.is_none()), "{tried:?}");
            }
            assert!(
                all.iter().any(|t| t.sizes.intermediate == Some(1024) && t.sizes.layers.is_none() && t.sizes.heads.is_none())
            );
        }
        let line = |target| counts.candidates(target, 64).unwrap_err().to_string();
        assert!(line(SizeTarget::Blocks(0.2)).contains("cannot be met"), "{}", line(SizeTarget::Blocks(0.2)));
        assert!(line(SizeTarget::Parameters(200_000_000)).contains("leaves all 134515008 of them"));
    }

    #[test]
    fn texts_that_are_no_target_are_refused() {
        for text in ["0", "1.5.", "-3", "M", "", "half", "0M", "nan"] {
            assert!(text.parse::<SizeTarget>().is_err(), "{text}");
        }
        assert_eq!("0.5M".parse::<SizeTarget>().unwrap(), SizeTarget::Parameters(500_000));
    }
}

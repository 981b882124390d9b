//! Pruning at once.

use crate::allocate::{Allocate, Layer, Target};
use crate::calibrate::{Calibration, evidence, measure};
use crate::criteria::{Evidence, Measured, Saliency};
use crate::mask::{Budget, Mask, Pattern, Scope, select};
use crate::nn::{Map, Network};
use crate::solve::WoodFisher;
use crate::{Error, Result};
use ndarray::Array2;

/// What to prune by, how much, and in what shape.
#[derive(Clone, Copy)]
pub struct Pruning<'a> {
    /// Which weights matter.
    pub saliency: &'a dyn Saliency,
    /// How much of each layer stays.
    pub allocate: &'a dyn Allocate,
    /// How much of all layers stays.
    pub target: Target,
    /// The shape that survivors take. An N:M pattern fixes the budget of every layer, whatever the target.
    pub pattern: Pattern,
    /// Who competes with whom in a layer.
    pub scope: Scope,
    /// Layers left alone, by name.
    pub skip: &'a [String],
}

/// A pruned network, and what was predicted of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The network with its masks held.
    pub network: Network,
    /// The masks of the layers that were pruned.
    pub masks: Vec<(String, Mask)>,
    /// The sum of the scores of the weights that went, for criteria that predict the increase of the loss.
    pub predicted_increase: Option<f64>,
}

/// Measures what the criterion needs, scores, allocates, selects, and holds the masks.
///
/// What a mask already dropped stays dropped: it ranks below every other weight, and where the budget has room for more than
/// is left, only what is left stays.
///
/// # Errors
/// Those of measuring, scoring, allocating and selecting, naming the layer; an unknown name in `skip`; a network in which
/// nothing is left to prune.
pub fn one_shot(network: &Network, data: &Calibration<'_>, pruning: &Pruning<'_>) -> Result<Outcome> {
    prune(network, &measure(network, data, pruning.saliency.needs())?, pruning)
}

/// As [`one_shot`], and then the survivors of each layer answer by [`WoodFisher::compensate`], whatever criterion chose them. The
/// predicted increase is that of the answer.
///
/// # Errors
/// As [`one_shot`]; those of the answer, naming the layer.
pub fn compensated(network: &Network, data: &Calibration<'_>, pruning: &Pruning<'_>, woodfisher: &WoodFisher) -> Result<Outcome> {
    let measured = measure(network, data, pruning.saliency.needs().union(woodfisher.needs()))?;
    let mut outcome = prune(network, &measured, pruning)?;
    let mut predicted = 0.0;
    for layer in evidence(network, &measured) {
        let Some((_, mask)) = outcome.masks.iter().find(|(name, _)| name == layer.layer) else { continue };
        let gradients = layer.sample_gradients("woodfisher")?;
        let answer = woodfisher.compensate(&layer.weight, gradients, layer.mask, mask);
        let (weight, increase) = answer.map_err(|e| e.in_layer(layer.layer))?;
        outcome.network.param_mut(&format!("{}.weight", layer.layer))?.set_value(weight)?;
        predicted += increase;
    }
    outcome.predicted_increase = Some(predicted);
    Ok(outcome)
}

/// Scores, allocates, selects, and holds the masks, from what was measured.
fn prune(network: &Network, measured: &[Measured], pruning: &Pruning<'_>) -> Result<Outcome> {
    let names: Vec<&str> = network.affines().map(|(_, name, _)| name).collect();
    if let Some(unknown) = pruning.skip.iter().find(|s| !names.contains(&s.as_str())) {
        return Err(Error::unknown_layer(unknown, names.into_iter()));
    }
    let layers: Vec<Evidence<'_>> =
        evidence(network, measured).into_iter().filter(|e| !pruning.skip.iter().any(|s| s == e.layer)).collect();
    let scores: Vec<Array2<f32>> = layers.iter().map(|e| scores(e, pruning)).collect::<Result<_>>()?;
    let shapes: Vec<Layer<'_>> = layers
        .iter()
        .zip(&scores)
        .map(|(e, s)| {
            let map = network.affines().find(|(_, name, _)| *name == e.layer).map(|(_, _, a)| &a.map);
            let kernel = map.and_then(|m| if let Map::Conv2d(c) = m { Some(c.kernel) } else { None });
            Layer { name: e.layer, weight: e.weight, kernel, positions: map.map_or(1, Map::positions), scores: Some(s.view()) }
        })
        .collect();
    let chosen = choose(&shapes, pruning.allocate, pruning.target, pruning.pattern, pruning.scope)?;

    let mut pruned = network.clone();
    let (mut masks, mut predicted) = (Vec::new(), 0.0);
    for ((layer, scores), mask) in layers.iter().zip(&scores).zip(chosen) {
        let mask = layer.mask.map_or_else(|| mask.clone(), |old| mask.and(old));
        let removed = layer.mask.map_or_else(|| mask.not(), |old| old.minus(&mask));
        predicted += removed.iter_kept().map(|(r, c)| f64::from(scores[[r, c]])).sum::<f64>();
        pruned.param_mut(&format!("{}.weight", layer.layer))?.set_mask(mask.clone())?;
        masks.push((layer.layer.to_string(), mask));
    }
    Ok(Outcome { network: pruned, masks, predicted_increase: pruning.saliency.predicts_loss().then_some(predicted) })
}

/// Scores of one layer, with what is already dropped below everything else.
pub(super) fn scores(layer: &Evidence<'_>, pruning: &Pruning<'_>) -> Result<Array2<f32>> {
    let mut scores = pruning.saliency.score(layer).map_err(|e| e.in_layer(layer.layer))?;
    lower(&mut scores, layer.mask, pruning.pattern);
    Ok(scores)
}

/// Puts the scores of what a mask dropped below everything else. In a block, row or column of which something is left, what is dropped
/// scores 0: it adds nothing to the others.
pub(crate) fn lower(scores: &mut Array2<f32>, held: Option<&Mask>, pattern: Pattern) {
    if let Some(mask) = held {
        let (rows, cols) = mask.dim();
        let (r, c) = pattern.unit(rows, cols);
        let left = mask.block_counts(r.max(1), c.max(1));
        for (row, col) in mask.not().iter_kept() {
            scores[[row, col]] = if left[[row / r.max(1), col / c.max(1)]] > 0 { 0.0 } else { f32::MIN };
        }
    }
}

/// One mask a layer from scores alone: allocates the target over the layers, then selects in each.
///
/// An N:M pattern fixes the budget of every layer, whatever the target. For blocks, rows and columns each layer's share of
/// weights is rounded once to whole units. A layer without weights has a mask without bits.
///
/// ```
/// use lacuna::{allocate::{Global, Layer, Target}, mask::{Pattern, Scope}, prune::choose};
/// use ndarray::array;
/// let (a, b) = (array![[1., 2.], [3., 4.]], array![[9., 8., 0.5]]);
/// let layers = [
///     Layer { scores: Some(a.view()), ..Layer::linear("a", a.view()) },
///     Layer { scores: Some(b.view()), ..Layer::linear("b", b.view()) },
/// ];
/// let masks = choose(&layers, &Global, Target::Parameters(3), Pattern::Unstructured, Scope::Layer).unwrap();
/// assert_eq!((masks[0].kept(), masks[1].kept()), (1, 2));
/// ```
///
/// # Errors
/// Those of allocating and selecting, naming the layer; a layer without scores.
pub fn choose(
    layers: &[Layer<'_>],
    allocate: &dyn Allocate,
    target: Target,
    pattern: Pattern,
    scope: Scope,
) -> Result<Vec<Mask>> {
    let budgets = budgets(layers, allocate, target, pattern)?;
    let mask = |(l, budget): (&Layer<'_>, Budget)| {
        if l.is_empty() {
            return Ok(Mask::full(l.weight.nrows(), l.weight.ncols()));
        }
        let missing =
            || Error::MissingEvidence { criterion: "selection".into(), need: "the scores".into(), layer: l.name.into() };
        select(&l.scores.ok_or_else(missing)?, pattern, scope, budget).map_err(|e| e.in_layer(l.name))
    };
    layers.iter().zip(budgets).map(mask).collect()
}

/// One budget a layer in units of the pattern; see [`choose`].
///
/// # Errors
/// Those of allocating, and of a pattern that does not fit a layer, naming it.
pub(crate) fn budgets(layers: &[Layer<'_>], allocate: &dyn Allocate, target: Target, pattern: Pattern) -> Result<Vec<Budget>> {
    // No pattern can be laid over a layer without weights, which has none to choose among.
    let units = |l: &Layer<'_>| match l.is_empty() {
        true => Ok(0),
        false => pattern.units(l.weight.nrows(), l.weight.ncols()).map_err(|e| e.in_layer(l.name)),
    };
    if let Pattern::Nm { n, m } = pattern {
        return layers.iter().map(|l| units(l).and_then(|u| Budget::new(u / m * n, u))).collect();
    }
    let parts = target.allocate(allocate, layers)?;
    let in_units = |(l, part): (&Layer<'_>, Budget)| {
        let units = units(l)?;
        if part.of() == 0 {
            return Ok(Budget::all(0));
        }
        Budget::new((units as f64 * part.keep() as f64 / part.of() as f64).round() as usize, units)
    };
    layers.iter().zip(parts).map(in_units).collect()
}

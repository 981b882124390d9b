//! Pruning at once.

use crate::allocate::{Allocate, LayerView, Target};
use crate::calibrate::{LayerWeights, measure};
use crate::criteria::{Evidence, Measured, Saliency};
use crate::mask::{Budget, Mask, Pattern, Scope, select};
use crate::nn::{LayerInfo, Layers, Model, Network, Samples, find_layer};
use crate::solve::{Pruned, Pruner, WoodFisher, scores};
use crate::{Error, Result};
use ndarray::Array2;

/// What to prune by, how much, and in what shape.
#[derive(Debug, Clone, Copy)]
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

/// A pruned model, and what was predicted of it.
#[derive(Debug, Clone)]
pub struct Outcome<M = Network> {
    /// The model with its masks held.
    pub model: M,
    /// The masks of the layers that were pruned.
    pub masks: Vec<(String, Mask)>,
    /// The sum of the scores of the weights that went, for criteria that predict the increase of the loss.
    pub predicted_increase: Option<f64>,
}

/// Measures what the criterion needs, scores, allocates, selects, and holds the masks: of a chain of layers, a language model, or any
/// other [`Model`].
///
/// What a mask already dropped stays dropped: it ranks below every other weight, and where the budget has room for more than
/// is left, only what is left stays.
///
/// # Errors
/// Those of measuring, scoring, allocating and selecting, naming the layer; an unknown name in `skip`; a model in which
/// nothing is left to prune.
pub fn one_shot<M, S>(model: &M, data: &S, pruning: &Pruning<'_>) -> Result<Outcome<M>>
where
    M: Model + Clone,
    S: Samples<Batch = M::Batch>,
{
    check_pruning(model, pruning)?;
    let measured = measure(model, data, pruning.saliency.needs())?;
    let mut pruned = model.clone();
    let (masks, predicted_increase) = prune_layers(&mut pruned, &measured, pruning)?;
    Ok(Outcome { model: pruned, masks, predicted_increase })
}

/// As [`one_shot`], and then the survivors of each layer answer by [`WoodFisher::compensate`], whatever criterion chose them. The
/// predicted increase is that of the answer.
///
/// # Errors
/// As [`one_shot`]; those of the answer, naming the layer.
pub fn compensated<M, S>(model: &M, data: &S, pruning: &Pruning<'_>, woodfisher: &WoodFisher) -> Result<Outcome<M>>
where
    M: Model + Clone,
    S: Samples<Batch = M::Batch>,
{
    check_pruning(model, pruning)?;
    woodfisher.check()?;
    let measured = measure(model, data, pruning.saliency.needs().union(Saliency::needs(woodfisher)))?;
    let mut pruned = model.clone();
    let (masks, _) = prune_layers(&mut pruned, &measured, pruning)?;
    let predicted = answer(&mut pruned, (model, &measured), &masks, woodfisher)?;
    Ok(Outcome { model: pruned, masks, predicted_increase: Some(predicted) })
}

/// Refuses before anything is measured what cannot be pruned so: unknown names in `skip`, nothing left, a pattern that does not fit a layer,
/// budgets that shapes alone show to be impossible.
///
/// # Errors
/// Naming the layer.
pub(crate) fn check_pruning(model: &dyn Layers, pruning: &Pruning<'_>) -> Result<()> {
    let (infos, none) = (model.layers(), Array2::zeros((1, 1)));
    let wanted = wanted(&infos, pruning.skip)?;
    pruning.pattern.check_scope(pruning.scope)?;
    let infos = infos.iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(info, _)| info);
    let shape = |info| {
        let LayerInfo { name, shape, kernel, positions, .. }: &LayerInfo = info;
        Some(LayerView { name, weight: none.broadcast(*shape)?, kernel: *kernel, positions: *positions, scores: None })
    };
    let shapes: Vec<LayerView<'_>> = infos.filter_map(shape).collect();
    for layer in shapes.iter().filter(|layer| !layer.is_empty()) {
        pruning.pattern.units(layer.weight.nrows(), layer.weight.ncols()).map_err(|e| e.in_layer(layer.name))?;
    }
    if matches!(pruning.pattern, Pattern::Nm { .. }) {
        return Ok(());
    }
    if pruning.allocate.needs_scores() || pruning.allocate.needs_weights() {
        let Target::Sparsity(sparsity) = pruning.target else { return Ok(()) };
        let total = Budget::from_sparsity(shapes.iter().map(LayerView::len).sum(), sparsity)?;
        return pruning.allocate.given(&shapes, total).map(|_| ());
    }
    budgets(&shapes, pruning.allocate, pruning.target, pruning.pattern).map(|_| ())
}

/// Which layers are pruned: those that are not skipped.
///
/// # Errors
/// [`Error::UnknownName`] for a name of no layer; if none is left.
pub(crate) fn wanted(layers: &[LayerInfo], skip: &[String]) -> Result<Vec<bool>> {
    let skipped = skip.iter().map(|name| find_layer(layers, name)).collect::<Result<Vec<_>>>()?;
    let wanted: Vec<bool> = layers.iter().map(|layer| !skipped.contains(&layer)).collect();
    if !wanted.contains(&true) {
        return Err(Error::invalid_option("layers", format!("none of {} is left to prune", layers.len())));
    }
    Ok(wanted)
}

/// Moves the survivors of each layer, and says by how much the loss is predicted to grow.
fn answer(
    pruned: &mut dyn Layers,
    (before, measured): (&dyn Layers, &[Measured]),
    masks: &[(String, Mask)],
    woodfisher: &WoodFisher,
) -> Result<f64> {
    let weights = LayerWeights::of(before)?;
    let mut predicted = 0.0;
    for layer in weights.evidence(measured) {
        let Some((_, mask)) = masks.iter().find(|(name, _)| name == layer.layer) else { continue };
        let gradients = layer.sample_gradients("woodfisher")?;
        let answer = woodfisher.compensate(&layer.weight, gradients, layer.mask, mask);
        let (weight, increase) = answer.map_err(|e| e.in_layer(layer.layer))?;
        pruned.write(layer.layer, Pruned { mask: mask.clone(), weight, loss: None })?;
        predicted += increase;
    }
    Ok(predicted)
}

/// Masks by the names of their layers, in order.
pub type NamedMasks = Vec<(String, Mask)>;

/// Scores, allocates, selects, and holds the masks, from what was measured of each layer ([`measure`], or of one's own activations). Gives
/// the masks of the layers that were pruned, and the sum of the scores of what went where the criterion predicts the loss.
///
/// ```
/// use lacuna::{allocate::{Global, Target}, criteria::{Magnitude, Measured}, mask::{Pattern, Scope}, nn::NamedLayers};
/// use lacuna::prune::{Pruning, prune_layers};
/// use ndarray::array;
/// let mut own = NamedLayers::new([("a", array![[1., 2.], [3., 4.]]), ("b", array![[9., 8., 0.5]])])?;
/// let magnitude = Magnitude::default();
/// let pruning = Pruning {
///     saliency: &magnitude, allocate: &Global, target: Target::Parameters(3), pattern: Pattern::Unstructured, scope: Scope::Layer,
///     skip: &[],
/// };
/// let (masks, _) = prune_layers(&mut own, &[Measured::default(), Measured::default()], &pruning)?;
/// assert_eq!((masks[0].1.kept(), masks[1].1.kept()), (1, 2));
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// As [`one_shot`], but for measuring.
///
/// # Panics
/// If there is not one measure a layer.
pub fn prune_layers(model: &mut dyn Layers, measured: &[Measured], pruning: &Pruning<'_>) -> Result<(NamedMasks, Option<f64>)> {
    let (masks, predicted) = {
        let weights = LayerWeights::of(model)?;
        let layers = ToPrune::of(&weights, measured, &wanted(weights.layers(), pruning.skip)?);
        let scores = layers.scores(pruning.saliency, pruning.pattern)?;
        layers.masks(&scores, (pruning.allocate, pruning.target), (pruning.pattern, pruning.scope))?
    };
    for (name, mask) in &masks {
        let weight = mask.applied(&model.read(name)?);
        model.write(name, Pruned { mask: mask.clone(), weight, loss: None })?;
    }
    Ok((masks, pruning.saliency.predicts_loss().then_some(predicted)))
}

/// As [`prune_layers`], by a [`Pruner`], which may move what stays: one budget over all layers, shared out by the pruning's allocation (by the
/// scores of its criterion, where that ranks), then each layer pruned by itself. Gives what became of the layers that were not skipped.
///
/// ```
/// use lacuna::{allocate::{Lamp, Target}, criteria::{Magnitude, Measured}, mask::{Pattern, Scope}, nn::NamedLayers};
/// use lacuna::{prune::{Pruning, prune_layers_by}, solve::SparseGpt};
/// use ndarray::array;
/// let mut own = NamedLayers::new([("a", array![[1., 2.], [3., 4.]]), ("b", array![[9., 8.]])])?;
/// let x = array![[1., 0.5], [0.5, 1.], [1., 1.]];
/// let measured = [Measured::of_inputs(&x)?, Measured::of_inputs(&x)?];
/// let magnitude = Magnitude::default();
/// let pruning = Pruning {
///     saliency: &magnitude, allocate: &Lamp, target: Target::Parameters(3), pattern: Pattern::Unstructured, scope: Scope::Layer,
///     skip: &[],
/// };
/// let pruned = prune_layers_by(&mut own, &measured, &SparseGpt::default(), &pruning)?;
/// assert_eq!(pruned.iter().map(|(_, p)| p.mask.kept()).sum::<usize>(), 3);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// Those of scoring, allocating and pruning, naming the layer; what the pruner gave and [`Pruned::fulfils`] refuses; an unknown name in `skip`.
///
/// # Panics
/// If there is not one measure a layer.
pub fn prune_layers_by(
    model: &mut dyn Layers,
    measured: &[Measured],
    pruner: &dyn Pruner,
    pruning: &Pruning<'_>,
) -> Result<Vec<(String, Pruned)>> {
    let pruned = {
        let weights = LayerWeights::of(model)?;
        let layers = ToPrune::of(&weights, measured, &wanted(weights.layers(), pruning.skip)?);
        let ranks = ranks(pruning.allocate, pruning.pattern);
        let scores = ranks.then(|| layers.scores(pruning.saliency, pruning.pattern)).transpose()?;
        let (how, shape) = ((pruning.allocate, pruning.target), (pruning.pattern, pruning.scope));
        layers.by_pruner(pruner, scores.as_deref(), how, shape)?
    };
    pruned.iter().try_for_each(|(name, pruned)| model.write(name, pruned.clone()))?;
    Ok(pruned)
}

/// One layer by a pruner, whose result is held to what was asked. A layer without weights has a mask without bits.
///
/// # Errors
/// The pruner's, and those of [`Pruned::fulfils`], naming the layer.
pub(crate) fn prune_one(
    layer: &Evidence<'_>,
    pruner: &dyn Pruner,
    pattern: Pattern,
    scope: Scope,
    budget: Budget,
) -> Result<Pruned> {
    if layer.weight.is_empty() {
        let (rows, cols) = layer.weight.dim();
        return Ok(Pruned { mask: Mask::full(rows, cols), weight: layer.weight.to_owned(), loss: None });
    }
    let pruned = pruner.prune(layer, pattern, scope, budget).map_err(|e| e.in_layer(layer.layer))?;
    pruned.fulfils(layer, pattern, budget)?;
    Ok(pruned)
}

/// Whether budgets hang on scores: an N:M pattern fixes each layer's, whatever the allocation.
pub(crate) fn ranks(allocate: &dyn Allocate, pattern: Pattern) -> bool {
    allocate.needs_scores() && !matches!(pattern, Pattern::Nm { .. })
}

/// The layers that are pruned, as an allocation sees them and with what was measured of them.
pub(crate) struct ToPrune<'a> {
    infos: Vec<&'a LayerInfo>,
    /// What was measured.
    pub evidence: Vec<Evidence<'a>>,
}

impl<'a> ToPrune<'a> {
    /// Those of `wanted`.
    pub fn of(weights: &'a LayerWeights<'_>, measured: &'a [Measured], wanted: &[bool]) -> Self {
        let all = weights.layers().iter().zip(weights.evidence(measured)).zip(wanted);
        let (infos, evidence) = all.filter(|(_, wanted)| **wanted).map(|(layer, _)| layer).unzip();
        ToPrune { infos, evidence }
    }

    /// The scores of every layer, what was dropped before below everything else.
    pub fn scores(&self, saliency: &dyn Saliency, pattern: Pattern) -> Result<Vec<Array2<f32>>> {
        self.evidence.iter().map(|layer| scores(layer, saliency, pattern)).collect()
    }

    /// As an allocation sees them, with the scores of all, or none.
    pub fn views<'s>(&'s self, scores: Option<&'s [Array2<f32>]>) -> Vec<LayerView<'s>> {
        let one = |(l, (info, e)): (usize, (&'s &LayerInfo, &'s Evidence<'a>))| {
            let (kernel, positions) = (info.kernel, info.positions);
            LayerView { name: e.layer, weight: e.weight, kernel, positions, scores: scores.map(|all| all[l].view()) }
        };
        self.infos.iter().zip(&self.evidence).enumerate().map(one).collect()
    }

    /// The masks of all by their scores, and the sum of the scores of what goes.
    pub fn masks(
        &self,
        scores: &[Array2<f32>],
        (allocate, target): (&dyn Allocate, Target),
        (pattern, scope): (Pattern, Scope),
    ) -> Result<(NamedMasks, f64)> {
        let chosen = choose(&self.views(Some(scores)), allocate, target, pattern, scope)?;
        let (mut masks, mut predicted) = (Vec::new(), 0.0);
        for ((layer, scores), mask) in self.evidence.iter().zip(scores).zip(chosen) {
            let mask = layer.mask.map_or_else(|| mask.clone(), |old| mask.and(old));
            let removed = layer.mask.map_or_else(|| mask.not(), |old| old.minus(&mask));
            predicted += removed.iter_kept().map(|(r, c)| f64::from(scores[[r, c]])).sum::<f64>();
            masks.push((layer.layer.to_string(), mask));
        }
        Ok((masks, predicted))
    }

    /// What a pruner makes of each under its budget; `scores` are looked at by an allocation that ranks.
    pub fn by_pruner(
        &self,
        pruner: &dyn Pruner,
        scores: Option<&[Array2<f32>]>,
        (allocate, target): (&dyn Allocate, Target),
        (pattern, scope): (Pattern, Scope),
    ) -> Result<Vec<(String, Pruned)>> {
        let budgets = budgets(&self.views(scores), allocate, target, pattern)?;
        let one = |(layer, budget): (&Evidence<'_>, Budget)| {
            Ok((layer.layer.to_string(), prune_one(layer, pruner, pattern, scope, budget)?))
        };
        self.evidence.iter().zip(budgets).map(one).collect()
    }
}

/// One mask a layer from scores alone: allocates the target over the layers, then selects in each.
///
/// An N:M pattern fixes the budget of every layer, whatever the target. For blocks, rows and columns each layer's share of
/// weights is rounded once to whole units. A layer without weights has a mask without bits.
///
/// ```
/// use lacuna::{allocate::{Global, LayerView, Target}, mask::{Pattern, Scope}, prune::choose};
/// use ndarray::array;
/// let (a, b) = (array![[1., 2.], [3., 4.]], array![[9., 8., 0.5]]);
/// let layers = [
///     LayerView { scores: Some(a.view()), ..LayerView::linear("a", &a) },
///     LayerView { scores: Some(b.view()), ..LayerView::linear("b", &b) },
/// ];
/// let masks = choose(&layers, &Global, Target::Parameters(3), Pattern::Unstructured, Scope::Layer).unwrap();
/// assert_eq!((masks[0].kept(), masks[1].kept()), (1, 2));
/// ```
///
/// # Errors
/// Those of allocating and selecting, naming the layer; a layer without scores.
pub fn choose(
    layers: &[LayerView<'_>],
    allocate: &dyn Allocate,
    target: Target,
    pattern: Pattern,
    scope: Scope,
) -> Result<Vec<Mask>> {
    let budgets = budgets(layers, allocate, target, pattern)?;
    let mask = |(l, budget): (&LayerView<'_>, Budget)| {
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
pub(crate) fn budgets(
    layers: &[LayerView<'_>],
    allocate: &dyn Allocate,
    target: Target,
    pattern: Pattern,
) -> Result<Vec<Budget>> {
    // No pattern can be laid over a layer without weights, which has none to choose among.
    let units = |l: &LayerView<'_>| match l.is_empty() {
        true => Ok(0),
        false => pattern.units(l.weight.nrows(), l.weight.ncols()).map_err(|e| e.in_layer(l.name)),
    };
    if let Pattern::Nm { n, m } = pattern {
        return layers.iter().map(|l| units(l).and_then(|u| Budget::new(u / m * n, u))).collect();
    }
    let parts = target.allocate(allocate, layers)?;
    let in_units = |(l, part): (&LayerView<'_>, Budget)| {
        let units = units(l)?;
        if part.of() == 0 {
            return Ok(Budget::all(0));
        }
        Budget::new((units as f64 * part.keep() as f64 / part.of() as f64).round() as usize, units)
    };
    layers.iter().zip(parts).map(in_units).collect()
}

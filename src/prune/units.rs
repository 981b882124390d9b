//! Pruning whole units along the coupling groups that a network declares.

use crate::Result;
use crate::calibrate::{Calibration, LayerWeights, measure};
use crate::criteria::Saliency;
use crate::mask::{Mask, Pattern, Scope, select, unit_scores};
use crate::nn::{Group, Layer, Network, Param};
use ndarray::Array2;

/// Masks the share `sparsity` of the units (channels, hidden units) of every group, at least one unit staying: rows of the
/// producer with their bias and batch normalisation, and the columns of the consumer that read them.
///
/// A unit's score is the sum of the scores of its row in the producer and of its columns in the consumer: what is lost if
/// the unit goes, for criteria that predict the loss. A unit that masks have cut off before, on one side or the other, goes first. [`shrink`](crate::prune::shrink) then removes the units for real.
///
/// # Errors
/// Those of measuring, scoring and selecting, naming the layer.
pub fn prune_units(network: &Network, data: &Calibration<'_>, saliency: &dyn Saliency, sparsity: f64) -> Result<Network> {
    let measured = measure(network, data, saliency.needs())?;
    let weights = LayerWeights::of(network)?;
    let scores: Vec<(usize, Array2<f32>)> = network
        .affines()
        .zip(weights.evidence(&measured))
        .map(|((i, _, _), e)| Ok((i, saliency.score(&e).map_err(|x| x.in_layer(e.layer))?)))
        .collect::<Result<_>>()?;
    let of = |layer: usize| scores.iter().find(|(i, _)| *i == layer).map(|(_, s)| s);
    let mut pruned = network.clone();
    for group in network.groups() {
        let (Some(rows), Some(cols)) = (of(group.producer), of(group.consumer)) else { continue };
        let name = |layer: usize| network.layers()[layer].0.as_str();
        let mut units: Array2<f64> = unit_scores(rows, Pattern::Rows).map_err(|e| e.in_layer(name(group.producer)))?;
        let columns = unit_scores(cols, Pattern::Cols).map_err(|e| e.in_layer(name(group.consumer)))?;
        columns.iter().enumerate().for_each(|(c, s)| units[[c / group.width, 0]] += s);
        units.iter_mut().zip(dead(network, &group)).filter(|(_, dead)| *dead).for_each(|(s, _)| *s = f64::from(f32::MIN));
        let budget = Pattern::Unstructured.budget(group.units, 1, sparsity)?;
        let budget = if budget.keep() == 0 { crate::mask::Budget::new(1, group.units)? } else { budget };
        let chosen = select(&units.mapv(|s| s as f32), Pattern::Unstructured, Scope::Layer, budget);
        let chosen = chosen.map_err(|e| e.in_layer(name(group.producer)))?;
        let mut hold = |param: String, unit_of: &dyn Fn(usize, usize) -> usize| -> Result<()> {
            let param: &mut Param = pruned.param_mut(&param)?;
            let (r, c) = param.value().dim();
            let mask = Mask::from_fn(r, c, |r, c| chosen.get(unit_of(r, c), 0));
            let mask = param.mask().map_or_else(|| mask.clone(), |old| old.and(&mask));
            param.set_mask(mask)
        };
        for &layer in std::iter::once(&group.producer).chain(&group.norms) {
            for (param, _) in network.layers()[layer].1.params() {
                hold(format!("{}.{param}", name(layer)), &|r, _| r)?;
            }
        }
        if let Layer::Affine(_) = network.layers()[group.consumer].1 {
            hold(format!("{}.weight", name(group.consumer)), &|_, c| c / group.width)?;
        }
    }
    Ok(pruned)
}

/// Of each unit whether masks have cut it off: nothing comes into it, or nobody reads it.
fn dead(network: &Network, group: &Group) -> Vec<bool> {
    let mask = |layer: usize| match &network.layers()[layer].1 {
        Layer::Affine(a) => a.weight.mask(),
        _ => None,
    };
    let rows = mask(group.producer).map(Mask::row_counts);
    let read = mask(group.consumer).map(|m| m.block_counts(m.rows().max(1), group.width));
    let cut = |u: usize| rows.as_ref().is_some_and(|r| r[u] == 0) || read.as_ref().is_some_and(|r| r[[0, u]] == 0);
    (0..group.units).map(cut).collect()
}

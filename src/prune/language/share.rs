//! How much of each layer of a language model stays.

use super::CalibrationInputs;
use super::activations::ActivationMemory;
use super::gradients::SequenceGradients;
use super::layers::LanguageLayer;
use super::walk::Walk;
use crate::allocate::{Allocate, Layer, Outliers, Target};
use crate::criteria::{Evidence, Magnitude, Need, Needs, Saliency, Wanda};
use crate::data::Sequences;
use crate::io::Folder;
use crate::lm::{Config, load_block};
use crate::mask::{Budget, Pattern, check_finite};
use crate::{Error, Result};
use ndarray::Array2;
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Budgets in units of the pattern from counts of weights.
fn in_units(layers: &[LanguageLayer], parts: &[Budget], pattern: Pattern) -> Result<HashMap<String, Budget>> {
    let one = |(layer, part): (&LanguageLayer, &Budget)| {
        let units = pattern.units(layer.shape.0, layer.shape.1).map_err(|e| e.in_layer(&layer.name))?;
        let keep = match pattern {
            Pattern::Nm { n, m } => units / m * n,
            Pattern::Unstructured => part.keep(),
            _ => (units as f64 * part.keep() as f64 / part.of().max(1) as f64).round() as usize,
        };
        Ok((layer.name.clone(), Budget::new(keep, units)?))
    };
    layers.iter().zip(parts).map(one).collect()
}

/// How much of each layer stays, by `allocation`, or by given counts of weights. An N:M pattern fixes all budgets.
///
/// Allocations that look at weights have the weights of all layers in memory; those that rank, rank by `ranking`, a criterion that needs
/// gradients alone, or by magnitude.
///
/// # Errors
/// Those of the allocation, of the pattern (naming the layer) and of reading.
pub fn allocated(
    folder: &Folder,
    config: &Config,
    layers: &[LanguageLayer],
    pattern: Pattern,
    sparsity: f64,
    (allocation, ranking): (&dyn Allocate, Option<(&dyn Saliency, &SequenceGradients)>),
) -> Result<HashMap<String, Budget>> {
    let uniform = allocation.name() == "uniform" || matches!(pattern, Pattern::Nm { .. });
    if uniform {
        let budget = |l: &LanguageLayer| {
            let budget = pattern.budget(l.shape.0, l.shape.1, sparsity).map_err(|e| e.in_layer(&l.name))?;
            Ok((l.name.clone(), budget))
        };
        return layers.iter().map(budget).collect();
    }
    let mut weights: Vec<Array2<f32>> = Vec::new();
    for block in 0..config.layers() {
        if layers.iter().any(|l| l.block == block) {
            let loaded = load_block(folder, config, block)?;
            let wanted = loaded.linears().into_iter().filter(|l| layers.iter().any(|w| w.name == l.name()));
            weights.extend(wanted.map(|l| l.dense_weight().into_owned()));
        }
    }
    let scores: Vec<Array2<f32>> = if allocation.needs_scores() {
        let score = |(l, w): (&LanguageLayer, &Array2<f32>)| {
            let plain = Evidence::weight_only(&l.name, w);
            match ranking {
                None => Magnitude::default().score(&plain),
                Some((saliency, gradients)) => saliency.score(&Evidence { measured: &gradients.measured(&l.name)?, ..plain }),
            }
        };
        layers.iter().zip(&weights).map(score).collect::<Result<_>>()?
    } else {
        vec![]
    };
    let seen: Vec<Layer<'_>> = layers
        .iter()
        .zip(&weights)
        .enumerate()
        .map(|(i, (l, w))| Layer { scores: scores.get(i).map(|s| s.view()), ..Layer::linear(&l.name, w) })
        .collect();
    in_units(layers, &Target::Sparsity(sparsity).allocate(allocation, &seen)?, pattern)
}

/// The outliers of one block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockOutliers {
    /// How many of its Wanda scores are outliers, in percent.
    pub percent: f64,
    /// Its weights that are pruned.
    pub weights: usize,
}

/// The outliers among the Wanda scores of each block that has layers to prune: what [`Owl`](crate::allocate::Owl) reads. Runs the dense model
/// once. `see` is told how many blocks of all are done, and may stop.
///
/// # Errors
/// If the model is an encoder-decoder or cannot be read, the threshold is not a finite number of at least 0, or activations or scores are not
/// finite (naming the layer); [`Error::Interrupted`] if `see` stops.
pub fn outliers(
    folder: &Folder,
    config: &Config,
    calibration: &Sequences,
    layers: &[LanguageLayer],
    threshold: f64,
    memory: &ActivationMemory,
    mut see: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<BlockOutliers>> {
    if !(threshold.is_finite() && threshold >= 0.0) {
        return Err(Error::setting("owl-threshold", format!("{threshold} is not a finite number of at least 0; 5 is usual")));
    }
    let needs = Needs::none().and(Need::InputSquares);
    let mut walk = Walk::new(folder, config, calibration, needs, false, memory)?;
    let mut found = Vec::new();
    for number in 0..config.layers() {
        let mut block = load_block(folder, config, number)?;
        let (mut outliers, mut weights) = (Outliers::new(threshold), 0);
        walk.at_once(&mut block, CalibrationInputs::Dense, &mut |block, found, names| {
            for layer in block.linears().into_iter().filter(|l| names.iter().any(|n| n == l.name())) {
                if layers.iter().any(|w| w.name == layer.name()) {
                    let weight = layer.dense_weight();
                    let evidence = Evidence { measured: found.inputs(), ..Evidence::weight_only(layer.name(), &weight) };
                    let scores = Wanda.score(&evidence).and_then(|s| check_finite(&s, "scores").map(|()| s));
                    outliers.add(&scores.map_err(|e| e.in_layer(layer.name()))?);
                    weights += weight.len();
                }
            }
            Ok(())
        })?;
        if weights > 0 {
            found.push(BlockOutliers { percent: outliers.percent(), weights });
        }
        Error::go_on(see(number + 1, config.layers()))?;
    }
    Ok(found)
}

/// Budgets of layers from budgets of their blocks in weights, in order: every layer of a block has its density.
///
/// # Errors
/// Those of the pattern, naming the layer.
pub fn of_blocks(layers: &[LanguageLayer], blocks: &[Budget], pattern: Pattern) -> Result<HashMap<String, Budget>> {
    let mut numbers: Vec<usize> = layers.iter().map(|l| l.block).collect();
    numbers.dedup();
    let mut parts = Vec::with_capacity(layers.len());
    for (number, block) in numbers.iter().zip(blocks) {
        let inside: Vec<&LanguageLayer> = layers.iter().filter(|l| l.block == *number).collect();
        let sizes: Vec<usize> = inside.iter().map(|l| l.shape.0 * l.shape.1).collect();
        let density = block.keep() as f64 / block.of().max(1) as f64;
        let ideal: Vec<f64> = sizes.iter().map(|&n| density * n as f64).collect();
        let keep = crate::allocate::apportion(block.keep(), &ideal, &sizes);
        for (keep, size) in keep.into_iter().zip(sizes) {
            parts.push(Budget::new(keep, size)?);
        }
    }
    in_units(layers, &parts, pattern)
}

//! How much of each layer of a language model stays.

use super::CalibrationInputs;
use super::activations::ActivationMemory;
use super::layers::LanguageLayer;
use super::read_ahead::{FolderLayers, LayerRanking, ReadProgress};
use super::record::Place;
use super::walk::Walk;
use crate::allocate::{Allocate, LayerView, Outliers, by_rank};
use crate::calibrate::LayerStatistics;
use crate::criteria::{Evidence, Need, Needs, Saliency, Wanda};
use crate::data::Sequences;
use crate::io::Folder;
use crate::lm::{Config, Outline, load_block};
use crate::mask::{Budget, Pattern, check_finite};
use crate::nn::Block;
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
/// Allocations that go by shapes read no weights. Those that rank ([`Allocate::ranking`]) read each layer once, beside a sample
/// ([`sampled_rows`](crate::allocate::sampled_rows)), with the weights of two layers and the scores of one in memory, and rank by `ranking`, a
/// criterion that needs weights and gradients alone, or by magnitude. Any other has the weights of all layers in memory.
///
/// # Errors
/// Those of the allocation, of the pattern (naming the layer) and of reading; if a layer is not one of the model's.
pub fn allocated(
    folder: &Folder,
    config: &Config,
    layers: &[LanguageLayer],
    pattern: Pattern,
    sparsity: f64,
    by: (&dyn Allocate, Option<LayerRanking<'_>>),
) -> Result<HashMap<String, Budget>> {
    allocated_with(folder, config, layers, pattern, sparsity, by, &mut |_| ControlFlow::Continue(()))
}

/// As [`allocated`]; `see` is told after each layer that is read, and may stop.
///
/// # Errors
/// As [`allocated`].
pub fn allocated_with(
    folder: &Folder,
    config: &Config,
    layers: &[LanguageLayer],
    pattern: Pattern,
    sparsity: f64,
    (allocation, ranking): (&dyn Allocate, Option<LayerRanking<'_>>),
    see: &mut dyn FnMut(ReadProgress) -> ControlFlow<()>,
) -> Result<HashMap<String, Budget>> {
    let uniform = allocation.name() == "uniform" || matches!(pattern, Pattern::Nm { .. });
    if uniform {
        let budget = |l: &LanguageLayer| {
            let budget = pattern.budget(l.shape.0, l.shape.1, sparsity).map_err(|e| e.in_layer(&l.name))?;
            Ok((l.name.clone(), budget))
        };
        return layers.iter().map(budget).collect();
    }
    let outline = Outline::of(folder, config)?;
    let all: Vec<Place> = outline.layers.iter().filter_map(Place::of).collect();
    let place = |l: &LanguageLayer| {
        let unknown = || Error::unknown_layer(&l.name, all.iter().map(|p| p.name.as_str()));
        all.iter().find(|p| p.name == l.name).ok_or_else(unknown)
    };
    let places: Vec<&Place> = layers.iter().map(place).collect::<Result<_>>()?;
    // Shapes without numbers: one number stands for all.
    let none = Array2::zeros((1, 1));
    let shapes: Vec<LayerView<'_>> = places
        .iter()
        .filter_map(|p| none.broadcast(p.shape()).map(|weight| LayerView { weight, ..LayerView::linear(&p.name, &none) }))
        .collect();
    let total = Budget::from_sparsity(shapes.iter().map(LayerView::len).sum(), sparsity)?;
    let scored = allocation.needs_scores();
    let mut read = FolderLayers { folder, places: &places, scored, ranking, see };
    let parts = if allocation.ranking().is_some() {
        by_rank(allocation, &shapes, total, &mut read)?
    } else if scored || allocation.needs_weights() {
        let mut found = Vec::with_capacity(places.len());
        let every: Vec<usize> = (0..places.len()).collect();
        read.read(&every, 1, |_, weight, scores| {
            found.push((weight, scores));
            Ok(())
        })?;
        let whole = shapes.iter().zip(&found).map(|(layer, (weight, scores))| LayerView {
            scores: scores.as_ref().map(|s: &Array2<f32>| s.view()),
            ..LayerView::linear(layer.name, weight)
        });
        allocation.allocate(&whole.collect::<Vec<_>>(), total)?
    } else {
        allocation.allocate(&shapes, total)?
    };
    in_units(layers, &parts, pattern)
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
        return Err(Error::invalid_option(
            "owl-threshold",
            format!("{threshold} is not a finite number of at least 0; 5 is usual"),
        ));
    }
    let needs = Needs::none().and(Need::InputSquares);
    let mut walk = Walk::new(folder, config, calibration, needs, (false, false), memory)?;
    let mut found = Vec::new();
    for number in 0..config.layers() {
        let mut block = load_block(folder, config, number)?;
        let (mut outliers, mut weights) = (Outliers::new(threshold), 0);
        walk.at_once(
            &mut block,
            CalibrationInputs::Dense,
            &mut |block: &mut Block, found: &mut LayerStatistics, names: &[String]| {
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
            },
        )?;
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

//! One layer: measured, given a target, pruned, written.

use super::LanguagePruning;
use super::before::{mask_before, turned};
use super::generalise::{Choices, ChosenOnTexts};
use super::gradients::with_gradients;
use super::read_ahead::turned_weight;
use super::record::{LayerRecord, Place};
use crate::calibrate::LayerStatistics;
use crate::criteria::Evidence;
use crate::io::{Folder, FolderWriter};
use crate::mask::Mask;
use crate::nn::Block;
use crate::prune::oneshot::prune_one;
use crate::solve::{Regularised, Retarget, chosen_shares, relative_error, squared_error};
use crate::{Error, Result};
use ndarray::{Array2, ArrayView2};
use std::time::Instant;

/// A weight as it was written.
pub(super) fn read_back(writer: &FolderWriter, tensor: &str, transposed: bool) -> Result<Array2<f32>> {
    Ok(turned_weight(writer.read_matrix(tensor)?, transposed))
}

/// Prunes layers one after another.
pub(super) struct PruneLayer<'a, 'p> {
    settings: &'a LanguagePruning<'p>,
    folder: &'a Folder,
    choices: Choices,
}

impl<'a, 'p> PruneLayer<'a, 'p> {
    /// `before` are the layers that were pruned before the run was taken up.
    pub fn new(settings: &'a LanguagePruning<'p>, folder: &'a Folder, before: &[LayerRecord]) -> Self {
        let mut choices = Choices::default();
        for record in before {
            if let Some(shrinkage) = record.chosen.and_then(|chosen| chosen.shrinkage) {
                choices.note(&record.layer, record.block, shrinkage);
            }
        }
        PruneLayer { settings, folder, choices }
    }

    /// Prunes one layer of a block, writes it, and lets the block go on with what was written.
    pub fn within(
        &mut self,
        block: &mut Block,
        found: &mut LayerStatistics,
        (name, number): (&str, usize),
        writer: &mut FolderWriter,
    ) -> Result<LayerRecord> {
        let begun = Instant::now();
        let misplaced = || Error::unknown_layer(name, std::iter::empty());
        let layer = block.linears_mut().into_iter().find(|l| l.name() == name).ok_or_else(misplaced)?;
        let (tensor, transposed) = (layer.tensor(), layer.is_transposed());
        let weight = layer.dense_weight();
        let stored = if transposed { (weight.ncols(), weight.nrows()) } else { weight.dim() };
        let place = Place { block: number, name: name.to_string(), tensor, stored, transposed };
        let (record, mask) = self.prune(&place, weight.view(), found, writer)?;
        // What was written may have been rounded.
        layer.set_weight(read_back(writer, &place.tensor, transposed)?)?;
        layer.set_mask(Some(mask))?;
        Ok(LayerRecord { seconds: begun.elapsed().as_secs_f64(), ..record })
    }

    /// Prunes one layer and writes it.
    pub fn prune(
        &mut self,
        layer: &Place,
        weight: ArrayView2<'_, f32>,
        found: &mut LayerStatistics,
        writer: &mut FolderWriter,
    ) -> Result<(LayerRecord, Mask)> {
        let begun = Instant::now();
        let (name, tensor, transposed) = (&*layer.name, &*layer.tensor, layer.transposed);
        let (settings, general) = (self.settings, self.settings.generalisation);
        let old = mask_before(tensor, transposed, self.folder)?;
        with_gradients(found, name, settings.gradients)?;
        let measured = found.inputs();
        let evidence = Evidence { layer: name, weight, mask: old.as_ref(), measured };
        let in_layer = |e: Error| e.in_layer(name);
        let mut chosen = ChosenOnTexts::default();
        let target = match settings.correction {
            None => None,
            Some(c) => {
                let mut shares = (c.inputs, c.hidden_states);
                if general.choose_correction {
                    shares = chosen_shares(&evidence, &found.products(), shares, c.damping).map_err(in_layer)?;
                    chosen.correction = Some(shares);
                }
                let inputs = found.crossed.as_ref().map(|m| (shares.0, m.matrix()));
                let stream = found.drift.as_ref().map(|m| (shares.1, m.matrix()));
                Some(Retarget { damping: c.damping, inputs, hidden_states: stream }.run(&evidence).map_err(in_layer)?)
            }
        };
        let evidence = Evidence { weight: target.as_ref().map_or(weight, |t| t.view()), ..evidence };
        let budget = settings.budgets[name];
        let mut pruner =
            Regularised { shrinkage: general.shrinkage, robust: general.robust, ..Regularised::new(settings.pruner) };
        if general.chooses_shrinkage() {
            let how = (settings.pattern, settings.scope, budget);
            pruner.shrinkage = match self.choices.held(name, layer.block) {
                Some(held) => held,
                None => general.choose(|list| pruner.chosen(&evidence, how, list)).map_err(in_layer)?,
            };
            self.choices.note(name, layer.block, pruner.shrinkage);
            chosen.shrinkage = Some(pruner.shrinkage);
        }
        let pruned = prune_one(&evidence, &pruner, settings.pattern, settings.scope, budget)?;
        let error = pruned.loss.zip(measured.gram.as_ref()).map(|(loss, gram)| {
            let whole = squared_error(&evidence.weight, &Array2::zeros(evidence.weight.dim()), gram);
            if whole > 0.0 { loss / whole } else { 0.0 }
        });
        let texts = measured.texts.iter().map(|text| relative_error(&pruned.weight, &evidence.weight, &text.gram)).collect();
        let moved = fraction_moved(weight, &pruned.weight);
        let (shape, kept, tokens) = (pruned.mask.dim(), pruned.mask.kept(), measured.tokens);
        if transposed {
            writer.write(tensor, &pruned.weight.t())?;
        } else {
            writer.write(tensor, &pruned.weight)?;
        }
        writer.write_mask(tensor, &turned(pruned.mask.clone(), transposed))?;
        let record = LayerRecord {
            layer: name.to_string(),
            block: layer.block,
            shape,
            kept,
            tokens,
            routed: found.routed,
            error,
            moved,
            reconstructed: None,
            texts,
            chosen: (chosen != ChosenOnTexts::default()).then_some(chosen),
            seconds: begun.elapsed().as_secs_f64(),
        };
        Ok((record, pruned.mask))
    }
}

/// ‖Ŵ − W‖² / ‖W‖²; 0 of a weight that is 0 and stays it, none of one that does not.
fn fraction_moved(weight: ArrayView2<'_, f32>, pruned: &Array2<f32>) -> Option<f64> {
    let (moved, whole) = weight.iter().zip(pruned).fold((0.0, 0.0), |(moved, whole), (&w, &p)| {
        let (w, p) = (f64::from(w), f64::from(p));
        (moved + (p - w) * (p - w), whole + w * w)
    });
    if moved > 0.0 { (whole > 0.0).then(|| moved / whole) } else { Some(0.0) }
}

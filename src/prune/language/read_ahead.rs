//! Weights of a folder, one layer at a time.

use super::gradients::SequenceGradients;
use super::record::Place;
use crate::allocate::{LayerView, ReadLayers, sampled_rows};
use crate::criteria::{Evidence, Magnitude, Measured, Saliency};
use crate::io::Folder;
use crate::{Error, Result};
use ndarray::{Array2, Axis};
use std::ops::ControlFlow;

/// Calls `f` with each layer and its weight `(out, in)`, the next of which is read meanwhile.
pub(in crate::prune) fn read_ahead(
    folder: &Folder,
    layers: &[&Place],
    mut f: impl FnMut(&Place, Array2<f32>) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (send, weights) = std::sync::mpsc::sync_channel(0);
        scope.spawn(move || {
            for layer in layers {
                let weight = folder.matrix(&layer.tensor, layer.stored).map(|w| turned_weight(w, layer.transposed));
                // Nobody listens any more after an error.
                if send.send(weight).is_err() {
                    return;
                }
            }
        });
        layers.iter().zip(weights).try_for_each(|(layer, weight)| f(layer, weight?))
    })
}

/// A weight as the checkpoint holds it, as `(out, in)`.
pub(super) fn turned_weight(stored: Array2<f32>, transposed: bool) -> Array2<f32> {
    if transposed { stored.t().as_standard_layout().into_owned() } else { stored }
}

/// How far an allocation is with reading weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadProgress {
    /// 0 for the small sample that predicts where the budget falls, 1 for the pass over all layers, and 2 for one more, which is made only if
    /// the sample misled.
    pub pass: usize,
    /// Layers that are read in this pass.
    pub layers: usize,
    /// All layers.
    pub of: usize,
}

/// What layers of a folder are ranked by: a criterion, and the gradients of sequences, where it needs them.
pub type LayerRanking<'a> = (&'a dyn Saliency, Option<&'a SequenceGradients>);

/// Layers of a folder as an allocation reads them.
pub(super) struct FolderLayers<'a> {
    pub folder: &'a Folder,
    pub places: &'a [&'a Place],
    /// Whether scores are asked for.
    pub scored: bool,
    /// What scores are by, if not by magnitude.
    pub ranking: Option<LayerRanking<'a>>,
    pub see: &'a mut dyn FnMut(ReadProgress) -> ControlFlow<()>,
}

impl FolderLayers<'_> {
    /// Reads these layers, by their numbers, with their scores if they are asked for.
    pub fn read(
        &mut self,
        layers: &[usize],
        pass: usize,
        mut f: impl FnMut(&Place, Array2<f32>, Option<Array2<f32>>) -> Result<()>,
    ) -> Result<()> {
        let places: Vec<&Place> = layers.iter().map(|&i| self.places[i]).collect();
        let (of, mut done) = (places.len(), 0);
        read_ahead(self.folder, &places, |place, weight| {
            let scores = self.scores(&place.name, &weight, None)?;
            f(place, weight, scores)?;
            done += 1;
            Error::go_on((self.see)(ReadProgress { pass, layers: done, of }))?;
            Ok(())
        })
    }

    /// The scores of a layer, or of those of its rows or columns that the weight holds.
    fn scores(&self, name: &str, weight: &Array2<f32>, part: Option<(Axis, &[usize])>) -> Result<Option<Array2<f32>>> {
        if !self.scored {
            return Ok(None);
        }
        let plain = Evidence::weight_only(name, weight);
        let Some((saliency, gradients)) = self.ranking else { return Magnitude::default().score(&plain).map(Some) };
        let measured = match (gradients, part) {
            (None, _) => Measured::default(),
            (Some(gradients), None) => gradients.measured(name)?,
            (Some(gradients), Some(part)) => gradients.measured_part(name, part)?,
        };
        saliency.score(&Evidence { measured: &measured, ..plain }).map(Some)
    }
}

impl ReadLayers for FolderLayers<'_> {
    /// Rows as the checkpoint holds them: of a transposed weight these are columns.
    fn sample(&mut self, layers: &[usize], see: &mut dyn FnMut(usize, &LayerView<'_>) -> Result<()>) -> Result<()> {
        for (done, &i) in layers.iter().enumerate() {
            let place = self.places[i];
            let rows = sampled_rows(&place.name, place.stored.0);
            let weight = turned_weight(self.folder.rows(&place.tensor, place.stored, &rows)?, place.transposed);
            let axis = Axis(usize::from(place.transposed));
            let scores = self.scores(&place.name, &weight, Some((axis, &rows)))?;
            see(i, &LayerView { scores: scores.as_ref().map(|s| s.view()), ..LayerView::linear(&place.name, &weight) })?;
            Error::go_on((self.see)(ReadProgress { pass: 0, layers: done + 1, of: layers.len() }))?;
        }
        Ok(())
    }

    fn pass(&mut self, layers: &[usize], pass: usize, see: &mut dyn FnMut(&LayerView<'_>) -> Result<()>) -> Result<()> {
        self.read(layers, pass, |place, weight, scores| {
            see(&LayerView { scores: scores.as_ref().map(|s| s.view()), ..LayerView::linear(&place.name, &weight) })
        })
    }
}

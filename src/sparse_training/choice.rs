//! How many weights stay, and where, for methods that choose masks by scores.

use super::method::Prunable;
use crate::allocate::{Allocate, LayerView, Target, Uniform};
use crate::mask::{Budget, Mask, Pattern, Scope};
use crate::nn::{LayerInfo, find_layer};
use crate::prune::choose;
use crate::rng::Stream;
use crate::{Error, Result};
use ndarray::{Array2, ArrayD, Ix2};
use std::sync::Arc;

/// How sparse, shared out how, and in what shape.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `sparsity` | given | [0, 1) | fraction of the weights of all layers that goes |
/// | `allocate` | uniform | any allocation | how much of each layer stays; [`Global`](crate::allocate::Global) ranks over all |
/// | `pattern` | unstructured | any | the shape that survivors take |
/// | `scope` | layer | layer, row | who competes with whom |
/// | `skip` | none | layers' names | layers that stay dense, and do not count |
#[derive(Debug, Clone)]
pub struct MaskChoice {
    /// Fraction that goes.
    pub sparsity: f64,
    /// How it is shared out.
    pub allocate: Arc<dyn Allocate>,
    /// The shape.
    pub pattern: Pattern,
    /// Among whom is ranked.
    pub scope: Scope,
    /// Layers that stay dense.
    pub skip: Vec<String>,
}

impl MaskChoice {
    /// Unstructured, the same sparsity in every layer.
    pub fn uniform(sparsity: f64) -> Self {
        MaskChoice::allocated(sparsity, Uniform)
    }

    /// Unstructured, shared out by an allocation.
    pub fn allocated(sparsity: f64, allocate: impl Allocate + 'static) -> Self {
        let (pattern, scope) = (Pattern::Unstructured, Scope::Layer);
        MaskChoice { sparsity, allocate: Arc::new(allocate), pattern, scope, skip: Vec::new() }
    }

    /// The same with layers that stay dense.
    #[must_use]
    pub fn skipping(mut self, layers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.skip = layers.into_iter().map(Into::into).collect();
        self
    }

    /// The same in another shape.
    #[must_use]
    pub fn pattern(mut self, pattern: Pattern) -> Self {
        self.pattern = pattern;
        self
    }

    /// The layers that are pruned.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for a name of no layer; if none is left, the sparsity is not in [0, 1), or the pattern does not fit a layer.
    pub fn layers(&self, model: &dyn Prunable) -> Result<Vec<LayerInfo>> {
        Budget::from_sparsity(1, self.sparsity)?;
        self.pattern.check_scope(self.scope)?;
        let all = model.layers();
        let skipped = self.skip.iter().map(|name| find_layer(&all, name).cloned()).collect::<Result<Vec<_>>>()?;
        let wanted: Vec<LayerInfo> = all.into_iter().filter(|layer| !skipped.contains(layer)).collect();
        if wanted.is_empty() {
            return Err(Error::invalid_option("layers", format!("none of {} is left to prune", skipped.len())));
        }
        let fits = |layer: &LayerInfo| self.pattern.units(layer.shape.0, layer.shape.1).map_err(|e| e.in_layer(&layer.name));
        wanted.iter().filter(|layer| !layer.is_empty()).try_for_each(|layer| fits(layer).map(drop))?;
        Ok(wanted)
    }

    /// One mask a layer by scores, at a sparsity of this moment.
    ///
    /// # Errors
    /// Those of allocating and selecting, naming the layer.
    ///
    /// # Panics
    /// If there are not weights and scores of every layer.
    pub fn masks(
        &self,
        layers: &[LayerInfo],
        weights: &[Array2<f32>],
        scores: &[Array2<f32>],
        sparsity: f64,
    ) -> Result<Vec<Mask>> {
        assert!(layers.len() == weights.len() && layers.len() == scores.len(), "weights and scores of every layer");
        let views: Vec<LayerView<'_>> = layers
            .iter()
            .zip(weights)
            .zip(scores)
            .map(|((layer, weight), scores)| LayerView {
                name: &layer.name,
                weight: weight.view(),
                kernel: layer.kernel,
                positions: layer.positions,
                scores: Some(scores.view()),
            })
            .collect();
        choose(&views, &*self.allocate, Target::Sparsity(sparsity), self.pattern, self.scope)
    }

    /// Masks by |w|, at a sparsity of this moment.
    ///
    /// # Errors
    /// As [`MaskChoice::masks`].
    pub fn by_magnitude(&self, layers: &[LayerInfo], weights: &[Array2<f32>], sparsity: f64) -> Result<Vec<Mask>> {
        let scores: Vec<Array2<f32>> = weights.iter().map(|w| w.mapv(f32::abs)).collect();
        self.masks(layers, weights, &scores, sparsity)
    }

    /// Masks by chance; the allocation sees the weights.
    ///
    /// # Errors
    /// As [`MaskChoice::masks`].
    pub fn by_chance(&self, layers: &[LayerInfo], weights: &[Array2<f32>], random: &mut Stream) -> Result<Vec<Mask>> {
        let draw = |layer: &LayerInfo| Array2::from_shape_simple_fn(layer.shape, || random.uniform());
        let scores: Vec<Array2<f32>> = layers.iter().map(draw).collect();
        self.masks(layers, weights, &scores, self.sparsity)
    }
}

/// The weights of these layers, as they are now.
pub(super) fn weights_of(model: &dyn Prunable, layers: &[LayerInfo]) -> Result<Vec<Array2<f32>>> {
    layers.iter().map(|layer| Ok(model.read(&layer.name)?.into_owned())).collect()
}

/// Holds one mask a layer.
pub(super) fn hold_masks(model: &mut dyn Prunable, layers: &[LayerInfo], masks: &[Mask]) -> Result<()> {
    layers.iter().zip(masks).try_for_each(|(layer, mask)| model.set_mask(&layer.parameter, Some(mask.clone())))
}

/// The gradient of a layer's weight as a matrix of its shape.
pub(super) fn matrix(gradient: ArrayD<f32>, layer: &LayerInfo) -> Result<Array2<f32>> {
    let found = gradient.shape().to_vec();
    let wrong = || Error::shape(format!("gradient of {}", layer.parameter), &[layer.shape.0, layer.shape.1], &found);
    let matrix = gradient.into_dimensionality::<Ix2>().map_err(|_| wrong())?;
    if matrix.dim() == layer.shape { Ok(matrix) } else { Err(wrong()) }
}

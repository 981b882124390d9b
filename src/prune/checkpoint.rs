//! Pruning the weights of a plain file, by criteria that need the weights alone.

use crate::allocate::Layer;
use crate::criteria::{Evidence, Measured};
use crate::io::{Checkpoint, check_finite};
use crate::mask::Mask;
use crate::prune::Pruning;
use crate::prune::oneshot::{choose, scores};
use crate::{Error, Result};
use ndarray::Array2;
use serde::Serialize;

/// What became of one tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrunedTensor {
    /// Its name.
    pub name: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// Number of weights.
    pub weights: usize,
    /// Of these, those that stay.
    pub kept: usize,
}

/// The names of the tensors that are weights of linear or convolutional layers, as far as a plain file can tell: those of
/// two dimensions or more with a floating-point type. Tensors of one dimension (biases, norms) are never pruned.
pub fn prunable(checkpoint: &Checkpoint) -> Vec<String> {
    checkpoint.weights().filter(|(_, w)| w.ndim() >= 2).map(|(name, _)| name.to_string()).collect()
}

/// A weight as a matrix, its mask, and its kernel if it is a convolution's.
type Weight = (Array2<f32>, Option<Mask>, Option<(usize, usize)>);

/// Prunes the weights of a checkpoint: what goes becomes 0, and every mask is stored beside its weight. All else is left as
/// it is. A weight of more than two dimensions counts as `(first, rest)`. Masks that the file already has are kept to: what
/// they dropped stays dropped.
///
/// # Errors
/// If the criterion needs more than weights, a weight is not finite, the file has no weights, a name in `skip` is unknown,
/// or the pattern or budget is impossible; each naming the tensor.
pub fn prune_checkpoint(checkpoint: &Checkpoint, pruning: &Pruning<'_>) -> Result<(Checkpoint, Vec<PrunedTensor>)> {
    let names = prunable(checkpoint);
    if let Some(unknown) = pruning.skip.iter().find(|s| !names.contains(s)) {
        return Err(Error::unknown_layer(unknown, names.iter().map(String::as_str)));
    }
    let names: Vec<String> = names.into_iter().filter(|n| !pruning.skip.contains(n)).collect();
    if names.is_empty() {
        let path = checkpoint.path();
        return Err(Error::malformed(path, "holds no weights to prune (tensors of two dimensions or more in F32, F16 or BF16)"));
    }
    let mut weights: Vec<Weight> = Vec::new();
    for name in &names {
        check_finite(name, checkpoint.get(name)?)?;
        let shape = checkpoint.get(name)?.shape();
        let kernel = if let [_, _, h, w] = shape { Some((*h, *w)) } else { None };
        weights.push((checkpoint.matrix(name)?, checkpoint.mask(name)?, kernel));
    }
    let nothing = Measured::default();
    let scored: Vec<Array2<f32>> = names
        .iter()
        .zip(&weights)
        .map(|(name, (w, mask, _))| {
            let evidence = Evidence { layer: name, weight: w.view(), mask: mask.as_ref(), measured: &nothing };
            scores(&evidence, pruning)
        })
        .collect::<Result<_>>()?;
    let layers: Vec<Layer<'_>> = names
        .iter()
        .zip(&weights)
        .zip(&scored)
        .map(|((name, (w, _, kernel)), s)| Layer { kernel: *kernel, scores: Some(s.view()), ..Layer::linear(name, w.view()) })
        .collect();
    let masks = choose(&layers, pruning.allocate, pruning.target, pruning.pattern, pruning.scope)?;

    let mut pruned = checkpoint.clone();
    let mut report = Vec::new();
    for ((name, (weight, old, _)), mask) in names.iter().zip(&weights).zip(&masks) {
        let mask = old.as_ref().map_or_else(|| mask.clone(), |old| mask.and(old));
        pruned.set_matrix(name, mask.applied(weight))?;
        pruned.insert_mask(name, &mask)?;
        let shape = checkpoint.get(name)?.shape().to_vec();
        report.push(PrunedTensor { name: name.clone(), shape, weights: mask.len(), kept: mask.kept() });
    }
    Ok((pruned, report))
}

//! Any criterion as a pruner: score, select, leave the rest as it was.

use super::layer::{checked_weight, finish};
use super::{Pruned, Pruner};
use crate::criteria::{Evidence, Needs, Saliency};
use crate::mask::{Budget, Mask, Pattern, Scope, check_finite, select};
use crate::{Error, Result};
use ndarray::Array2;

/// The mask that a criterion and selection give, on weights that are not moved.
///
/// A loss is reported if a Gram matrix was measured, which this pruner does not ask for. The criterion may be owned, borrowed or boxed.
///
/// ```
/// use lacuna::criteria::{Evidence, Magnitude};
/// use lacuna::mask::{Budget, Pattern, Scope};
/// use lacuna::solve::{Pruner, Scored};
/// use ndarray::array;
/// let w = array![[1., -3.], [2., 0.]];
/// let magnitude = Magnitude::default();
/// let layer = Evidence::weight_only("fc1", &w);
/// let pruned = Scored(&magnitude).prune(&layer, Pattern::Unstructured, Scope::Layer, Budget::new(2, 4)?)?;
/// assert_eq!(pruned.weight, array![[0., -3.], [2., 0.]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Scored<S>(pub S);

impl<S: Saliency> Pruner for Scored<S> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn needs(&self) -> Needs {
        self.0.needs()
    }

    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned> {
        by_scores(&self.0, layer, pattern, scope, budget)
    }
}

fn by_scores(saliency: &dyn Saliency, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned> {
    let weight = checked_weight(layer, pattern, scope, budget)?;
    let scores = scores(&Evidence { weight: weight.view(), ..*layer }, saliency, pattern)?;
    let chosen = select(&scores, pattern, scope, budget)?;
    finish(layer, layer.mask.map_or_else(|| chosen.clone(), |m| chosen.and(m)), weight)
}

/// Scores of one layer, with what is already dropped below everything else.
///
/// # Errors
/// The criterion's; scores of another shape than the weight's, or that are not finite: naming the layer.
pub(crate) fn scores(layer: &Evidence<'_>, saliency: &dyn Saliency, pattern: Pattern) -> Result<Array2<f32>> {
    let of = || {
        let mut scores = saliency.score(layer)?;
        let ((rows, cols), (r, c)) = (layer.weight.dim(), scores.dim());
        if (rows, cols) != (r, c) {
            return Err(Error::shape("scores", &[rows, cols], &[r, c]));
        }
        if let Some(mask) = layer.mask {
            lower(&mut scores, mask, pattern);
        }
        check_finite(&scores, "scores")?;
        Ok(scores)
    };
    of().map_err(|e| e.in_layer(layer.layer))
}

/// Ranks what a mask dropped below everything else; in a unit of which something is left it adds nothing to the others.
pub(super) fn lower(scores: &mut Array2<f32>, mask: &Mask, pattern: Pattern) {
    let (rows, cols) = mask.dim();
    let (r, c) = pattern.unit(rows, cols);
    let (r, c) = (r.max(1), c.max(1));
    let left = mask.block_counts(r, c);
    for (row, col) in mask.not().iter_kept() {
        scores[[row, col]] = if left[[row / r, col / c]] > 0 { 0.0 } else { f32::MIN };
    }
}

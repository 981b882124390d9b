//! Any criterion as a pruner: score, select, leave the rest as it was.

use super::layer::{checked_weight, finish};
use super::{Pruned, Pruner};
use crate::Result;
use crate::criteria::{Evidence, Needs, Saliency};
use crate::mask::{Budget, Pattern, Scope, select};

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
    let mut scores = saliency.score(&Evidence { weight: weight.view(), ..*layer })?;
    if let Some(mask) = layer.mask {
        lower(&mut scores, mask, pattern);
    }
    let chosen = select(&scores, pattern, scope, budget)?;
    finish(layer, layer.mask.map_or_else(|| chosen.clone(), |m| chosen.and(m)), weight)
}

/// Ranks what a mask dropped below everything else; in a unit of which something is left it adds nothing to the others.
pub(crate) fn lower(scores: &mut ndarray::Array2<f32>, mask: &crate::mask::Mask, pattern: Pattern) {
    let (rows, cols) = mask.dim();
    let (r, c) = pattern.unit(rows, cols);
    let (r, c) = (r.max(1), c.max(1));
    let left = mask.block_counts(r, c);
    for (row, col) in mask.not().iter_kept() {
        scores[[row, col]] = if left[[row / r, col / c]] > 0 { 0.0 } else { f32::MIN };
    }
}

//! Ranking over all layers.

use super::{Allocate, Layer, budgets, check};
use crate::mask::{Budget, rank_cut};
use crate::{Error, Result};
use ndarray::{ArrayRef2, Zip};

/// As many of each layer as have their scores among the `keep` largest of all layers; of equal scores the first layer's.
///
/// Scores must mean the same in every layer (see each criterion's page). A layer may be left with nothing.
///
/// Cost: three passes over the scores, with no copy of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Global;

impl Allocate for Global {
    fn name(&self) -> &str {
        "global"
    }

    fn needs_scores(&self) -> bool {
        true
    }

    fn allocate(&self, layers: &[Layer<'_>], total: Budget) -> Result<Vec<Budget>> {
        check(layers, total)?;
        let missing = |l: &Layer<'_>| Error::MissingEvidence {
            criterion: "global".into(),
            need: "the scores".into(),
            layer: l.name.into(),
        };
        let scores: Vec<&ArrayRef2<f32>> =
            layers.iter().map(|l| l.scores.as_deref().ok_or_else(|| missing(l))).collect::<Result<_>>()?;
        budgets(layers, counts(layers, &scores, total.keep())?)
    }
}

/// How many scores of each layer are among the `keep` largest of all.
pub(super) fn counts(layers: &[Layer<'_>], scores: &[&ArrayRef2<f32>], keep: usize) -> Result<Vec<usize>> {
    for (layer, s) in layers.iter().zip(scores) {
        let (expected, found) = (layer.weight.dim(), s.dim());
        if expected != found {
            return Err(Error::shape(format!("scores of layer {}", layer.name), &[expected.0, expected.1], &[found.0, found.1]));
        }
        if let Some(((row, col), &value)) = s.indexed_iter().find(|(_, s)| !s.is_finite()) {
            let error = Error::NonFinite { what: "scores".into(), row, col, value: f64::from(value) };
            return Err(error.in_layer(layer.name));
        }
    }
    if keep == 0 {
        return Ok(vec![0; layers.len()]);
    }
    let (cut, mut ties) = rank_cut(scores, keep);
    Ok(scores
        .iter()
        .map(|s| {
            let (above, equal) = Zip::from(*s).fold((0, 0), |(a, e), &s| (a + usize::from(s > cut), e + usize::from(s == cut)));
            let taken = ties.min(equal);
            ties -= taken;
            above + taken
        })
        .collect())
}

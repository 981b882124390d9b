//! Ranking over all layers.

use super::counter::{RankCounter, RankSample};
use super::ranking::{InMemory, Ranking, by_rank};
use super::{Allocate, LayerView, check};
use crate::mask::Budget;
use crate::{Error, Result};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// As many of each layer as have their scores among the `keep` largest of all layers; of equal scores the first layer's.
///
/// Scores must mean the same in every layer (see each criterion's page). A layer may be left with nothing.
///
/// Cost: one pass over the scores, or two ([`RankCounter`]), with no copy of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Global;

impl Allocate for Global {
    fn name(&self) -> &str {
        "global"
    }

    fn needs_scores(&self) -> bool {
        true
    }

    fn ranking(&self) -> Option<&dyn Ranking> {
        Some(self)
    }

    fn allocate(&self, layers: &[LayerView<'_>], total: Budget) -> Result<Vec<Budget>> {
        check(layers, total)?;
        layers.iter().try_for_each(|l| scores(l).map(|_| ()))?;
        by_rank(self, layers, total, &mut InMemory(layers))
    }
}

impl Ranking for Global {
    fn count(&self, layer: &LayerView<'_>, counter: &mut RankCounter) -> Result<()> {
        let scores = scores(layer)?;
        let (expected, found) = (layer.weight.dim(), scores.dim());
        if expected != found {
            let misfit = Error::shape("scores", &[expected.0, expected.1], &[found.0, found.1]);
            return Err(misfit.in_layer(layer.name));
        }
        counter.add(scores).map_err(|e| e.in_layer(layer.name))
    }

    fn sample(&self, rows: &LayerView<'_>, of: usize, sample: &mut RankSample) -> Result<()> {
        sample.add(scores(rows)?, of);
        Ok(())
    }
}

fn scores<'a>(layer: &LayerView<'a>) -> Result<ArrayView2<'a, f32>> {
    let missing = || Error::MissingEvidence { criterion: "global".into(), need: "the scores".into(), layer: layer.name.into() };
    layer.scores.ok_or_else(missing)
}

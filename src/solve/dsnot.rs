//! DSnoT: without training, weights are exchanged until each output's mean is what it was.
//!
//! Zhang, Zhao, Lin, Sun, Yao, Han, Tanner, Liu, Ji. *Dynamic sparse no training: training-free fine-tuning for sparse LLMs.* ICLR
//! 2024, arXiv:2310.08915, equations 3 to 5.
//!
//! ```text
//! each row for itself:  ε = Σ over what is dropped of w_j E[x_j]             what its output lacks on average
//! while |ε| > threshold, at most `cycles` times:
//!     grow   the dropped weight of largest  w_j E[x_j] / Var[x_j]^p  with ε's sign
//!     prune  the kept weight of least |w_j| ‖x_j‖ whose w_j E[x_j] has the other sign; in an N:M pattern, the least of its group
//!     ε ← ε + w_prune E[x_prune] − w_grow E[x_grow]
//! ```
//!
//! A weight is exchanged once. The weights that stay keep their values; the mask to begin with is another pruner's.
//!
//! Departures. The authors' E[x] is a sum over a sequence of 2048 tokens, so that their threshold of 0.1 is 0.1 / 2048 here; their
//! pointers run on into weights that were kept all along, where here a row is done when no dropped weight of the right sign is left;
//! they skip the feed-forward layers, where here the caller chooses. Like theirs by default, a step may change the sign of ε, except in
//! an N:M pattern.
//!
//! Cost: a sort a row.

use super::layer::{checked_weight, finish};
use super::{Pruned, Pruner};
use crate::criteria::{Evidence, Need, Needs};
use crate::mask::{Budget, Mask, Pattern, Scope};
use crate::{Error, Result};
use ndarray::{Array1, ArrayView1};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The name users know.
const NAME: &str = "dsnot";

/// DSnoT on the mask of another pruner; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DsNoT<P> {
    /// Who chooses the mask to begin with, owned, borrowed or boxed; its weights are not used.
    pub pruner: P,
    /// Exchanges of a row at most.
    pub cycles: usize,
    /// The mean output error at which a row is done.
    pub threshold: f64,
    /// p, the power of the variance.
    pub power: f64,
}

impl<P> DsNoT<P> {
    /// The authors' settings: 50 exchanges, a threshold of 0.1 for 2048 tokens, p = 1.
    pub fn new(pruner: P) -> Self {
        DsNoT { pruner, cycles: 50, threshold: 0.1 / 2048.0, power: 1.0 }
    }
}

/// What a row is judged by.
struct Inputs {
    mean: Array1<f64>,
    spread: Array1<f64>,
    norm: Array1<f64>,
}

impl<P: Pruner> Pruner for DsNoT<P> {
    fn name(&self) -> &str {
        NAME
    }

    fn needs(&self) -> Needs {
        self.pruner.needs().and(Need::InputSquares).and(Need::InputSums)
    }

    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned> {
        let DsNoT { pruner, cycles, threshold, power } = self;
        DsNoT::<&dyn Pruner> { pruner, cycles: *cycles, threshold: *threshold, power: *power }
            .exchanged(layer, pattern, scope, budget)
    }
}

impl DsNoT<&dyn Pruner> {
    fn exchanged(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned> {
        let weight = checked_weight(layer, pattern, scope, budget)?;
        let group = match pattern {
            Pattern::Unstructured => None,
            Pattern::Nm { m, .. } => Some(m),
            _ => {
                return Err(Error::invalid_option(
                    "pattern",
                    format!("dsnot exchanges single weights, which {pattern} does not allow"),
                ));
            }
        };
        for (option, value) in [("threshold", self.threshold), ("power", self.power)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid_option(option, format!("{value} is not a finite number of at least 0")));
            }
        }
        if layer.measured.tokens == 0 {
            return Err(Error::invalid_option("calibration", "dsnot needs means, and no tokens were measured"));
        }
        let tokens = layer.measured.tokens as f64;
        let squares = layer.input_squares(NAME)?;
        let mean = layer.input_sums(NAME)? / tokens;
        let variance = &squares / tokens - &mean * &mean;
        let inputs = Inputs { spread: variance.mapv(|v| v.max(0.0).powf(self.power)), norm: squares.mapv(f64::sqrt), mean };
        let first = self.pruner.prune(layer, pattern, scope, budget)?.mask;
        let (rows, cols) = weight.dim();
        let exchanged: Vec<Vec<bool>> = (0..rows)
            .into_par_iter()
            .map(|r| {
                let mut kept: Vec<bool> = (0..cols).map(|c| first.get(r, c)).collect();
                let free = |c: usize| layer.mask.is_none_or(|m| m.get(r, c));
                self.exchange(weight.row(r), &inputs, &mut kept, group, free);
                kept
            })
            .collect();
        finish(layer, Mask::from_fn(rows, cols, |r, c| exchanged[r][c]), weight)
    }

    fn exchange(
        &self,
        w: ArrayView1<'_, f32>,
        inputs: &Inputs,
        kept: &mut [bool],
        group: Option<usize>,
        free: impl Fn(usize) -> bool,
    ) {
        let part = |c: usize| f64::from(w[c]) * inputs.mean[c];
        let score = |c: usize| f64::from(w[c].abs()) * inputs.norm[c];
        let gain = |c: usize| if inputs.spread[c] > 0.0 { part(c) / inputs.spread[c] } else { 0.0 };
        let mut error: f64 = (0..w.len()).filter(|&c| !kept[c]).map(part).sum();
        let sign = error.signum();
        // Dropped weights by rising gain; kept ones by rising score. What was exchanged is taken off.
        let mut grow: Vec<usize> = (0..w.len()).filter(|&c| !kept[c] && free(c)).collect();
        grow.sort_by(|&a, &b| gain(a).total_cmp(&gain(b)).then(a.cmp(&b)));
        let mut prune: Vec<usize> = (0..w.len()).filter(|&c| kept[c]).collect();
        prune.sort_by(|&a, &b| score(a).total_cmp(&score(b)).then(a.cmp(&b)));
        for _ in 0..self.cycles {
            if error.abs() <= self.threshold {
                return;
            }
            let at = if error > 0.0 { grow.len().checked_sub(1) } else { (!grow.is_empty()).then_some(0) };
            let Some(at) = at.filter(|&at| part(grow[at]) * error > 0.0) else { return };
            let grown = grow[at];
            let found = match group {
                None => prune.iter().position(|&c| part(c) * error < 0.0),
                Some(m) => prune.iter().position(|&c| c / m == grown / m),
            };
            let Some(found) = found else { return };
            let pruned = prune[found];
            let after = error + part(pruned) - part(grown);
            if group.is_some() && after.signum() != sign {
                return;
            }
            grow.remove(at);
            prune.remove(found);
            (kept[grown], kept[pruned]) = (true, false);
            error = after;
        }
    }
}

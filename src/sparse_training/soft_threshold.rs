//! STR: soft threshold reparametrisation.
//!
//! Kusupati, Ramanujan, Somani, Wortsman, Jain, Kakade, Farhadi. *Soft threshold weight reparameterization for learnable sparsity.* ICML 2020, arXiv:2002.03231,
//! equations 2 to 5.
//!
//! ```text
//! f(W, s) = sign(W) · max(|W| − g(s), 0)         one s a layer, g = σ
//! ∂L/∂W = G at |W| > g(s), else 0
//! ∂L/∂s = −g'(s) Σ G sign(W) at |W| > g(s)
//! ```
//!
//! How sparse a layer becomes follows from the weight decay λ of W and of s, which pulls s up to 0 from where it begins, and W down: there is no budget. Give the optimiser a
//! weight decay.
//!
//! Departures: none that is known. Cost: nothing to speak of; one number a layer.

use super::method::{Prunable, UsedWeights};
use super::movement::sigmoid;
use super::reparametrized::{Effective, Reparametrization, pruned};
use crate::mask::Mask;
use crate::nn::{LayerInfo, find_layer};
use crate::rng::Stream;
use crate::solve::Pruned;
use crate::train::TrainStep;
use crate::{Error, Result};
use ndarray::Array2;

/// Thresholds that are learnt; see the module. [`Reparametrized`](super::Reparametrized) makes a method of it.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `initial` | −10 | finite | s at the beginning; at −10 the threshold is 5e-5 |
/// | `skip` | none | layers' names | layers that stay dense |
#[derive(Debug, Clone, PartialEq)]
pub struct SoftThreshold {
    /// s₀
    pub initial: f32,
    /// Layers that stay dense.
    pub skip: Vec<String>,
}

impl Default for SoftThreshold {
    fn default() -> Self {
        SoftThreshold { initial: -10.0, skip: Vec::new() }
    }
}

/// Where |W| passes the threshold.
fn passes(weight: &Array2<f32>, own: &Array2<f32>) -> (f32, Mask) {
    let threshold = own.first().map_or(0.0, |s| sigmoid(*s));
    (threshold, Mask::from_array(&weight.mapv(|w| w.abs() > threshold)))
}

/// f(W, s)
fn shrunk(weight: &Array2<f32>, own: &Array2<f32>) -> (Array2<f32>, Mask) {
    let (threshold, mask) = passes(weight, own);
    (weight.mapv(|w| (w.abs() - threshold).max(0.0).copysign(w)), mask)
}

impl Reparametrization for SoftThreshold {
    fn name(&self) -> &str {
        "str"
    }

    fn layers(&self, model: &dyn Prunable) -> Result<Vec<LayerInfo>> {
        if !self.initial.is_finite() {
            return Err(Error::invalid_option("initial", format!("{} is not finite", self.initial)));
        }
        unskipped(model, &self.skip)
    }

    fn begin(&mut self, layers: &[LayerInfo], _: &mut [Array2<f32>], _: &mut Stream) -> Result<Vec<Array2<f32>>> {
        Ok(layers.iter().map(|_| Array2::from_elem((1, 1), self.initial)).collect())
    }

    fn effective(
        &mut self,
        _: &[LayerInfo],
        weights: &[Array2<f32>],
        own: &[Array2<f32>],
        _: TrainStep,
        _: &mut Stream,
    ) -> Result<Effective> {
        let (weights, masks): (Vec<_>, Vec<_>) = weights.iter().zip(own).map(|(w, s)| shrunk(w, s)).unzip();
        let used = masks.iter().map(|m| UsedWeights { run: m.kept(), gradient: m.kept() }).collect();
        Ok(Effective { weights, used })
    }

    fn back(&self, _: usize, weight: &Array2<f32>, own: &Array2<f32>, gradient: Array2<f32>) -> (Array2<f32>, Array2<f32>) {
        let (threshold, mask) = passes(weight, own);
        let sum: f64 = mask.iter_kept().map(|at| f64::from(gradient[at] * weight[at].signum())).sum();
        let slope = threshold * (1.0 - threshold);
        (mask.applied(&gradient), Array2::from_elem((1, 1), -slope * sum as f32))
    }

    fn finish(&mut self, _: &[LayerInfo], weights: &[Array2<f32>], own: &[Array2<f32>]) -> Result<Vec<Pruned>> {
        let (weights, masks): (Vec<_>, Vec<_>) = weights.iter().zip(own).map(|(w, s)| shrunk(w, s)).unzip();
        Ok(pruned(&weights, masks))
    }
}

/// All layers but these.
///
/// # Errors
/// [`Error::UnknownName`]; if none is left.
pub(super) fn unskipped(model: &dyn Prunable, skip: &[String]) -> Result<Vec<LayerInfo>> {
    let all = model.layers();
    let skipped = skip.iter().map(|name| find_layer(&all, name).cloned()).collect::<Result<Vec<_>>>()?;
    let left: Vec<LayerInfo> = all.into_iter().filter(|layer| !skipped.contains(layer)).collect();
    if left.is_empty() {
        return Err(Error::invalid_option("layers", format!("none of {} is left to prune", skipped.len())));
    }
    Ok(left)
}

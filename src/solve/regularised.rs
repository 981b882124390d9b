//! Any pruner, kept from learning its calibration by heart: a shrunk Gram matrix, weights of texts that look after the worst, and both chosen on
//! texts that were left out.
//!
//! What is lost on text of another kind is two to four times what is lost on that of the calibration, and a method that fits better loses no less
//! there. With the Gram matrices H_g of several texts apart:
//!
//! ```text
//! e_g = ‖X_g (Ŵ − W)ᵀ‖² / ‖X_g Wᵀ‖²                                 the relative error on text g
//! robust     Ŵ of the least max_g e_g among rounds with    w_g ∝ w_g exp(η (e_g / mean e − 1))
//! chosen     δ, ι of the least Σ_h e_h, where Ŵ is fitted without text h
//! ```
//!
//! The first is min-max by multiplicative weights, as in Sagawa, Koh, Hashimoto, Liang. *Distributionally robust neural networks for group shifts.* ICLR
//! 2020, arXiv:1911.08731, algorithm 1, with whole solves for gradient steps. The second is cross-validation that leaves out a text at a time, or judges
//! on those that are held out.
//!
//! Departures: errors are relative and weights move by their share of the mean, so that η has no scale; the best round is returned, and the first is the plain
//! solve, so that the worst text never fares worse than by it.
//!
//! Cost: robust a solve a round; chosen a solve for each candidate and text that is left out.

use super::layer::squared_error;
use super::shrinkage::{GramShrinkage, fitted};
use super::{Pruned, Pruner};
use crate::criteria::{Evidence, Measured, Need, Needs, TextGram};
use crate::mask::{Budget, Pattern, Scope};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use serde::{Deserialize, Serialize};

/// Weights of texts that rise where the relative error is worst; see [`Regularised`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RobustTexts {
    /// Solves, from 1; the first is the plain one.
    pub rounds: usize,
    /// η, above 0.
    pub rate: f64,
}

impl RobustTexts {
    /// So many solves, with a rate of 1.
    pub fn new(rounds: usize) -> RobustTexts {
        RobustTexts { rounds, rate: 1.0 }
    }
}

/// A pruner on a Gram matrix that is shrunk and weighs texts as it is told; its loss is that on the matrix as it was measured. See the module.
///
/// ```
/// use lacuna::criteria::{Evidence, Measured, Wanda};
/// use lacuna::mask::{Budget, Pattern, Scope};
/// use lacuna::solve::{GramShrinkage, Pruner, Regularised, SparseGpt};
/// use ndarray::array;
/// // Towards the diagonal all the way no weight takes over what another loses.
/// let measured = Measured { tokens: 4, gram: Some(array![[4., 4.], [4., 4.]]), ..Measured::default() };
/// let w = array![[1., 2.]];
/// let layer = Evidence { measured: &measured, ..Evidence::weight_only("fc1", &w) };
/// let shrinkage = GramShrinkage { diagonal: 1., ..GramShrinkage::default() };
/// let pruned = Regularised { shrinkage, ..Regularised::new(SparseGpt::default()) };
/// let pruned = pruned.prune(&layer, Pattern::Unstructured, Scope::Layer, Budget::new(1, 2)?)?;
/// assert_eq!((pruned.weight, pruned.loss), (array![[0., 2.]], Some(4.)));
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Regularised<P> {
    /// Who prunes.
    pub pruner: P,
    /// How the Gram matrix is shrunk.
    pub shrinkage: GramShrinkage,
    /// Whether weights of texts follow their errors.
    pub robust: Option<RobustTexts>,
}

impl<P: Pruner> Regularised<P> {
    /// With nothing changed.
    pub fn new(pruner: P) -> Self {
        Regularised { pruner, shrinkage: GramShrinkage::default(), robust: None }
    }

    /// One solve with these weights of texts.
    fn solve(
        &self,
        layer: &Evidence<'_>,
        weights: Option<&[f64]>,
        (pattern, scope, budget): (Pattern, Scope, Budget),
    ) -> Result<Pruned> {
        let shrunk = self.shrinkage.gram(layer.measured, weights).map_err(|e| e.in_layer(layer.layer))?;
        let Some(gram) = shrunk else { return self.pruner.prune(layer, pattern, scope, budget) };
        // The squares of inputs are the diagonal.
        let measured = Measured { gram: Some(gram), input_squares: None, texts: Vec::new(), ..layer.measured.clone() };
        let pruned = self.pruner.prune(&Evidence { measured: &measured, ..*layer }, pattern, scope, budget)?;
        let loss = layer.measured.gram.as_ref().map(|gram| squared_error(&pruned.weight, &layer.weight, gram));
        Ok(Pruned { loss, ..pruned })
    }

    /// The shrinkage among `candidates` by which the layer errs least on texts that it was not fitted on: those held out, or each in turn. Of
    /// equals the first. A candidate's `texts` is taken as it is.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] without candidates, or if there are not two texts, of which one can be left out; those of the pruner.
    pub fn chosen(
        &self,
        layer: &Evidence<'_>,
        how: (Pattern, Scope, Budget),
        candidates: &[GramShrinkage],
    ) -> Result<GramShrinkage> {
        let texts = &layer.measured.texts;
        let without = |left_out: &dyn Fn(usize) -> bool| -> Option<Measured> {
            let texts: Vec<TextGram> = texts.iter().enumerate().filter(|(g, _)| !left_out(*g)).map(|(_, t)| t.clone()).collect();
            let tokens = texts.iter().map(|text| text.tokens).sum();
            let gram = texts.iter().map(|text| text.gram.clone()).reduce(|a, b| a + b)?;
            Some(Measured { tokens, gram: Some(gram), texts, input_squares: None, ..layer.measured.clone() })
        };
        let held: Vec<usize> = (0..texts.len()).filter(|g| texts[*g].held_out).collect();
        let folds: Vec<(Measured, Vec<usize>)> = match held.is_empty() {
            false => without(&|g| texts[g].held_out).map(|rest| (rest, held)).into_iter().collect(),
            true if texts.len() < 2 => Vec::new(),
            true => (0..texts.len()).filter_map(|g| Some((without(&|other| other == g)?, vec![g]))).collect(),
        };
        let (Some(first), false) = (candidates.first(), folds.is_empty()) else {
            let reason =
                format!("{} candidates and {} texts: one is left out, and one is fitted on", candidates.len(), texts.len());
            return Err(Error::invalid_option("choose", reason).in_layer(layer.layer));
        };
        let (mut best, mut least) = (*first, f64::INFINITY);
        for &shrinkage in candidates {
            let tried = Regularised { pruner: &self.pruner, shrinkage, robust: None };
            let mut sum = 0.0;
            for (rest, judged) in &folds {
                let pruned = tried.solve(&Evidence { measured: rest, ..*layer }, None, how)?;
                sum += judged.iter().map(|&g| relative_error(&pruned.weight, &layer.weight, &texts[g].gram)).sum::<f64>();
            }
            if sum < least {
                (best, least) = (shrinkage, sum);
            }
        }
        Ok(best)
    }
}

impl<P: Pruner> Pruner for Regularised<P> {
    fn name(&self) -> &str {
        self.pruner.name()
    }

    fn needs(&self) -> Needs {
        let needs = self.pruner.needs();
        let texts = self.robust.is_some() || self.shrinkage.texts > 0.0;
        let needs = if texts || !self.shrinkage.is_none() { needs.and(Need::Gram) } else { needs };
        if texts { needs.and(Need::TextGrams) } else { needs }
    }

    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned> {
        let (how, texts) = ((pattern, scope, budget), fitted(layer.measured));
        if self.needs().contains(Need::TextGrams) && texts.is_empty() {
            let need = Need::TextGrams.to_string();
            return Err(Error::MissingEvidence { criterion: self.name().into(), need, layer: layer.layer.into() });
        }
        if !self.shrinkage.is_none() {
            layer.gram(self.name())?;
        }
        let Some(robust) = self.robust else { return self.solve(layer, None, how) };
        if robust.rounds == 0 || !(robust.rate.is_finite() && robust.rate > 0.0) {
            let reason = format!("{} rounds at a rate of {}; from 1 at a rate above 0", robust.rounds, robust.rate);
            return Err(Error::invalid_option("robust", reason));
        }
        let mut weights = self.shrinkage.weights(&texts);
        let mut best: Option<(f64, Pruned)> = None;
        for round in 0..robust.rounds {
            // The first is the plain solve, to the bit.
            let given = (round > 0).then_some(&weights[..]);
            let pruned = self.solve(layer, given, how)?;
            let errors: Vec<f64> = texts.iter().map(|text| relative_error(&pruned.weight, &layer.weight, &text.gram)).collect();
            let worst = errors.iter().copied().fold(0.0, f64::max);
            if best.as_ref().is_none_or(|(least, _)| worst < *least) {
                best = Some((worst, pruned));
            }
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            if texts.len() < 2 || mean <= 0.0 {
                break;
            }
            weights.iter_mut().zip(&errors).for_each(|(w, e)| *w *= (robust.rate * (e / mean - 1.0)).exp());
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        best.map(|(_, pruned)| pruned).ok_or_else(|| Error::invalid_option("robust", "0 rounds"))
    }
}

/// ‖X (Ŵ − W)ᵀ‖² / ‖X Wᵀ‖² on inputs of this Gram matrix; 0 where the layer gives nothing.
///
/// # Panics
/// If the shapes do not agree.
pub fn relative_error(pruned: &ArrayRef2<f32>, weight: &ArrayRef2<f32>, gram: &Array2<f64>) -> f64 {
    let whole = squared_error(weight, &Array2::zeros(weight.dim()), gram);
    if whole > 0.0 { squared_error(pruned, weight, gram) / whole } else { 0.0 }
}

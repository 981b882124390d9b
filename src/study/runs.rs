//! All runs of one seed: its model measured once, then pruned by every method at every sparsity, and judged.

use super::candidate::{Candidate, Chooser};
use super::comparison::{Measurement, Trial};
use super::subject::{Metric, Subject};
use crate::allocate::{Allocate, Target};
use crate::calibrate::LayerWeights;
use crate::criteria::{Evidence, Measured, Need, Needs, Saliency};
use crate::mask::{Mask, Pattern, Scope};
use crate::prune::{ToPrune, ranks, wanted};
use crate::rng::Seed;
use crate::solve::{Pruned, Pruner};
use crate::{Error, Result};
use ndarray::Array2;
use std::borrow::Cow;

/// How layers are pruned, and how much.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    pub pattern: Pattern,
    /// Nothing for that of each method.
    pub scope: Option<Scope>,
    pub allocate: &'a dyn Allocate,
    pub skip: &'a [String],
    pub sparsities: &'a [f64],
}

impl How<'_> {
    /// Whether budgets hang on scores.
    fn ranks(&self) -> bool {
        ranks(self.allocate, self.pattern)
    }

    /// How a sparsity is divided over the layers.
    fn division(&self, sparsity: f64) -> (&dyn Allocate, Target) {
        (self.allocate, Target::Sparsity(sparsity))
    }
}

/// The one sparsity of an N:M pattern.
pub(super) fn only_sparsity(pattern: Pattern) -> Option<f64> {
    let Pattern::Nm { n, m } = pattern else { return None };
    Some(1.0 - n as f64 / m as f64)
}

/// One seed's model with everything that was measured of it.
pub(super) struct SeedRun<'a, S: Subject> {
    subject: &'a S,
    model: &'a S::Model,
    seed: Seed,
    metrics: &'a [Metric],
    how: How<'a>,
    weights: LayerWeights<'a>,
    wanted: Vec<bool>,
    measures: Measures<'a>,
}

/// What a method makes of the layers: them as pruned, and the increase of the loss that it predicts.
type Made = (Vec<(String, Pruned)>, Option<f64>);

impl<'a, S: Subject> SeedRun<'a, S> {
    pub(super) fn new(
        subject: &'a S,
        model: &'a S::Model,
        seed: Seed,
        metrics: &'a [Metric],
        how: How<'a>,
        candidates: &[Candidate<'_>],
    ) -> Result<Self> {
        let layers = subject.layers(model);
        let (weights, wanted) = (LayerWeights::of(layers)?, wanted(&layers.layers(), how.skip)?);
        let needs =
            candidates.iter().try_fold(Needs::none(), |all, c| Ok::<_, Error>(all.union(c.of(seed)?.needs(how.ranks()))))?;
        let measures = Measures::of(subject, model, needs, wanted.len())?;
        Ok(SeedRun { subject, model, seed, metrics, how, weights, wanted, measures })
    }

    /// The metrics of the dense model.
    pub(super) fn dense(&self) -> Result<Vec<f64>> {
        let wrong = |reason: String| Error::invalid_option(format!("dense model of seed {}", self.seed.0), reason);
        self.checked(self.subject.judge(self.model, self.seed, &[])?).map_err(wrong)
    }

    /// A method at every sparsity.
    pub(super) fn trials(&self, candidate: &Candidate<'_>, seen: Option<&(dyn Fn(&Trial) + Sync)>) -> Result<Vec<Trial>> {
        let chooser = candidate.of(self.seed)?;
        let (ranks, scope) = (self.how.ranks(), candidate.scope(self.how.scope, self.how.pattern));
        // Scores do not hang on the sparsity.
        let ready = match (self.measures.reason(chooser.needs(ranks)), chooser.scores(ranks)) {
            (Some(reason), _) => Err(reason),
            (None, None) => Ok(None),
            (None, Some(criterion)) => self.layers().scores(criterion, self.how.pattern).map(Some).map_err(|e| e.to_string()),
        };
        let outcome = |sparsity: f64| -> std::result::Result<Measurement, String> {
            if let Some(only) = only_sparsity(self.how.pattern).filter(|only| (only - sparsity).abs() > 1e-12) {
                return Err(format!("pattern {} has no sparsity but {only}", self.how.pattern));
            }
            let scores = ready.as_ref().map_err(String::clone)?.as_deref();
            let (pruned, predicted) = match &chooser {
                Chooser::Criterion(held) => self.by_scores(held.get(), scores.unwrap_or_default(), scope, sparsity),
                Chooser::Pruner(pruner, _) => self.by_pruner(pruner.get(), scores, scope, sparsity),
            }
            .map_err(|e| e.to_string())?;
            let kept = pruned.iter().map(|(_, p)| p.mask.kept()).sum();
            let of = pruned.iter().map(|(_, p)| p.mask.len()).sum();
            let values = self.subject.judge(self.model, self.seed, &pruned).map_err(|e| e.to_string())?;
            Ok(Measurement { values: self.checked(values)?, kept, of, predicted })
        };
        let trial = |&sparsity: &f64| {
            let trial = Trial { method: candidate.name().into(), sparsity, seed: self.seed, outcome: outcome(sparsity) };
            seen.iter().for_each(|seen| seen(&trial));
            trial
        };
        Ok(self.how.sparsities.iter().map(trial).collect())
    }

    /// The layers that are pruned.
    fn layers(&self) -> ToPrune<'_> {
        ToPrune::of(&self.weights, &self.measures.layers, &self.wanted)
    }

    /// As [`prune::one_shot`](crate::prune::one_shot) does it.
    fn by_scores(&self, criterion: &dyn Saliency, scores: &[Array2<f32>], scope: Scope, sparsity: f64) -> Result<Made> {
        let layers = self.layers();
        let (masks, predicted) = layers.masks(scores, self.how.division(sparsity), (self.how.pattern, scope))?;
        let pruned = |(layer, (name, mask)): (&Evidence<'_>, (String, Mask))| {
            let weight = mask.applied(&layer.weight);
            (name, Pruned { mask, weight, loss: None })
        };
        let made = layers.evidence.iter().zip(masks).map(pruned).collect();
        Ok((made, criterion.predicts_loss().then_some(predicted)))
    }

    /// Every layer for itself.
    fn by_pruner(&self, pruner: &dyn Pruner, scores: Option<&[Array2<f32>]>, scope: Scope, sparsity: f64) -> Result<Made> {
        if scores.is_none() && self.how.ranks() {
            let reason = "ranks scores, and this pruner was given none to be ranked by";
            return Err(Error::invalid_option(format!("allocation {}", self.how.allocate.name()), reason));
        }
        let made = self.layers().by_pruner(pruner, scores, self.how.division(sparsity), (self.how.pattern, scope))?;
        Ok((made, None))
    }

    /// One finite number for each metric.
    fn checked(&self, values: Vec<f64>) -> std::result::Result<Vec<f64>, String> {
        if values.len() != self.metrics.len() {
            return Err(format!("judged by {} numbers, and there are {} metrics", values.len(), self.metrics.len()));
        }
        match values.iter().zip(self.metrics).find(|(v, _)| !v.is_finite()) {
            Some((v, metric)) => Err(format!("{} is {v}", metric.name)),
            None => Ok(values),
        }
    }
}

/// What was measured of one model, and what could not be.
struct Measures<'m> {
    layers: Cow<'m, [Measured]>,
    failed: Vec<(Need, String)>,
}

impl<'m> Measures<'m> {
    /// All needs in one go, or if that fails each for itself, so that a need that cannot be measured leaves the others.
    fn of<S: Subject>(subject: &S, model: &'m S::Model, needs: Needs, layers: usize) -> Result<Self> {
        let measured = |needs: Needs| {
            let found = subject.measure(model, needs)?;
            if found.len() == layers { Ok(found) } else { Err(Error::shape("measures of layers", &[layers], &[found.len()])) }
        };
        if let Ok(all) = measured(needs) {
            return Ok(Measures { layers: all, failed: Vec::new() });
        }
        let mut all = Measures { layers: measured(Needs::none())?, failed: Vec::new() };
        for need in needs.iter() {
            match measured(Needs::none().and(need)) {
                // What lies in the model is lent again and again.
                Ok(more) if std::ptr::eq(more.as_ptr(), all.layers.as_ptr()) => {}
                Ok(more) => all.layers.to_mut().iter_mut().zip(more.iter()).for_each(|(old, new)| merge(old, new)),
                Err(e) => all.failed.push((need, e.to_string())),
            }
        }
        Ok(all)
    }

    /// Why these needs are not met, if they are not.
    fn reason(&self, needs: Needs) -> Option<String> {
        let failed = self.failed.iter().find(|(need, _)| needs.contains(*need));
        failed.map(|(need, reason)| format!("needs {need}, which cannot be measured: {reason}"))
    }
}

/// Takes over what the other has and this has not.
fn merge(old: &mut Measured, new: &Measured) {
    fn take<T: Clone>(old: &mut Option<T>, new: &Option<T>) {
        if old.is_none() {
            old.clone_from(new);
        }
    }
    // Every field by its name, so that a new one is not forgotten.
    let Measured {
        tokens,
        input_squares,
        gram,
        input_sums,
        gradient,
        squared_gradients,
        second_derivatives,
        hessian_gradient,
        synaptic_flow,
        sample_gradients,
        input_magnitudes,
        input_maxima,
        texts,
    } = new;
    old.tokens = old.tokens.max(*tokens);
    take(&mut old.input_squares, input_squares);
    take(&mut old.gram, gram);
    take(&mut old.input_sums, input_sums);
    take(&mut old.gradient, gradient);
    take(&mut old.squared_gradients, squared_gradients);
    take(&mut old.second_derivatives, second_derivatives);
    take(&mut old.hessian_gradient, hessian_gradient);
    take(&mut old.synaptic_flow, synaptic_flow);
    take(&mut old.sample_gradients, sample_gradients);
    take(&mut old.input_magnitudes, input_magnitudes);
    take(&mut old.input_maxima, input_maxima);
    if old.texts.is_empty() {
        old.texts.clone_from(texts);
    }
}

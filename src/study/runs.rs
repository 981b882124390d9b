//! All runs of one seed: its model measured once, then pruned by every method at every sparsity, and judged.

use super::candidate::{Candidate, Chooser};
use super::comparison::{Measurement, Trial};
use super::subject::{Metric, Subject};
use crate::allocate::{Allocate, LayerView, Target};
use crate::calibrate::LayerWeights;
use crate::criteria::{Evidence, Measured, Need, Needs, Saliency};
use crate::mask::{Pattern, Scope};
use crate::nn::{LayerInfo, Layers, find_layer};
use crate::prune::{budgets, choose, prune_one, ranks};
use crate::rng::Seed;
use crate::solve::{Pruned, Pruner, scores};
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
}

/// The one sparsity of an N:M pattern.
pub(super) fn only_sparsity(pattern: Pattern) -> Option<f64> {
    let Pattern::Nm { n, m } = pattern else { return None };
    Some(1.0 - n as f64 / m as f64)
}

/// Which layers are pruned, one for each: those that are not skipped.
///
/// # Errors
/// [`Error::UnknownName`] for a name of no layer; if none is left.
pub(super) fn wanted(model: &dyn Layers, skip: &[String]) -> Result<Vec<bool>> {
    let all = model.layers();
    let skipped = skip.iter().map(|name| find_layer(&all, name)).collect::<Result<Vec<_>>>()?;
    let wanted: Vec<bool> = all.iter().map(|layer| !skipped.contains(&layer)).collect();
    if !wanted.contains(&true) {
        return Err(Error::invalid_option("layers", format!("none of {} is left to prune", all.len())));
    }
    Ok(wanted)
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
        let (weights, wanted) = (LayerWeights::of(layers)?, wanted(layers, how.skip)?);
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
            (None, Some(criterion)) => self.scores(criterion).map(Some).map_err(|e| e.to_string()),
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

    /// The layers that are pruned, with what was measured of them.
    fn evidence(&self) -> Vec<Evidence<'_>> {
        let all = self.weights.evidence(&self.measures.layers);
        all.into_iter().zip(&self.wanted).filter(|(_, wanted)| **wanted).map(|(evidence, _)| evidence).collect()
    }

    /// The scores of every layer, what was dropped before below everything else.
    fn scores(&self, criterion: &dyn Saliency) -> Result<Vec<Array2<f32>>> {
        self.evidence().iter().map(|layer| scores(layer, criterion, self.how.pattern)).collect()
    }

    /// The layers as an allocation sees them.
    fn layers<'e>(&'e self, evidence: &[Evidence<'e>], scores: Option<&'e [Array2<f32>]>) -> Vec<LayerView<'e>> {
        let infos = self.weights.layers().iter().zip(&self.wanted).filter(|(_, wanted)| **wanted);
        let one = |(l, (e, (info, _))): (usize, (&Evidence<'e>, (&LayerInfo, &bool)))| {
            let (kernel, positions) = (info.kernel, info.positions);
            LayerView { name: e.layer, weight: e.weight, kernel, positions, scores: scores.map(|all| all[l].view()) }
        };
        evidence.iter().zip(infos).enumerate().map(one).collect()
    }

    /// As [`prune::one_shot`](crate::prune::one_shot) does it.
    fn by_scores(&self, criterion: &dyn Saliency, scores: &[Array2<f32>], scope: Scope, sparsity: f64) -> Result<Made> {
        let evidence = self.evidence();
        let layers = self.layers(&evidence, Some(scores));
        let masks = choose(&layers, self.how.allocate, Target::Sparsity(sparsity), self.how.pattern, scope)?;
        let (mut made, mut predicted) = (Vec::new(), 0.0);
        for ((layer, scores), chosen) in evidence.iter().zip(scores).zip(masks) {
            let mask = layer.mask.map_or_else(|| chosen.clone(), |old| chosen.and(old));
            let removed = layer.mask.map_or_else(|| mask.not(), |old| old.minus(&mask));
            predicted += removed.iter_kept().map(|(r, c)| f64::from(scores[[r, c]])).sum::<f64>();
            let weight = mask.applied(&layer.weight);
            made.push((layer.layer.to_string(), Pruned { mask, weight, loss: None }));
        }
        Ok((made, criterion.predicts_loss().then_some(predicted)))
    }

    /// Every layer for itself.
    fn by_pruner(&self, pruner: &dyn Pruner, scores: Option<&[Array2<f32>]>, scope: Scope, sparsity: f64) -> Result<Made> {
        if scores.is_none() && self.how.ranks() {
            let reason = "ranks scores, and this pruner was given none to be ranked by";
            return Err(Error::invalid_option(format!("allocation {}", self.how.allocate.name()), reason));
        }
        let evidence = self.evidence();
        let layers = self.layers(&evidence, scores);
        let budgets = budgets(&layers, self.how.allocate, Target::Sparsity(sparsity), self.how.pattern)?;
        let of = |(layer, budget): (&Evidence<'_>, _)| {
            Ok((layer.layer.to_string(), prune_one(layer, pruner, self.how.pattern, scope, budget)?))
        };
        Ok((evidence.iter().zip(budgets).map(of).collect::<Result<_>>()?, None))
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
}

//! All runs of one seed: its model measured once, then pruned by every method at every sparsity, and judged.

use super::candidate::{Candidate, Chooser};
use super::comparison::{Measurement, Trial};
use super::subject::{Metric, Subject};
use crate::allocate::{Allocate, Layer, Target};
use crate::criteria::{Evidence, Measured, Need, Needs, Saliency};
use crate::mask::{Budget, Mask, Pattern, Scope, select};
use crate::prune::budgets;
use crate::rng::Seed;
use crate::solve::lower;
use crate::solve::{Pruned, Pruner};
use crate::{Error, Result};
use ndarray::Array2;

/// How layers are pruned, and how much.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    pub pattern: Pattern,
    pub scope: Scope,
    pub allocate: &'a dyn Allocate,
    pub skip: &'a [String],
    pub sparsities: &'a [f64],
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
    /// Those that are pruned, by their places in [`Subject::layers`].
    places: Vec<usize>,
    layers: Vec<Layer<'a>>,
    held: Vec<Option<&'a Mask>>,
    measures: Measures,
}

/// What a method makes of the layers: them as pruned, and the increase of the loss that it predicts.
type Made = (Vec<(usize, Pruned)>, Option<f64>);

impl<'a, S: Subject> SeedRun<'a, S> {
    pub(super) fn new(
        subject: &'a S,
        model: &'a S::Model,
        seed: Seed,
        metrics: &'a [Metric],
        how: How<'a>,
        candidates: &[Candidate<'_>],
    ) -> Result<Self> {
        let all = subject.layers(model);
        if let Some(unknown) = how.skip.iter().find(|name| !all.iter().any(|l| l.name == name.as_str())) {
            return Err(Error::unknown_layer(unknown, all.iter().map(|l| l.name)));
        }
        let places: Vec<usize> = (0..all.len()).filter(|&l| !how.skip.iter().any(|name| name == all[l].name)).collect();
        if places.is_empty() {
            return Err(Error::invalid_option("layers", format!("none of {} is left to prune", all.len())));
        }
        let layers = places.iter().map(|&l| Layer { scores: None, ..all[l] }).collect();
        let held = places.iter().map(|&l| subject.mask(model, l)).collect();
        let needs = candidates.iter().fold(Needs::none(), |needs, c| needs.union(c.of(seed).needs()));
        let measures = Measures::of(subject, model, needs, all.len())?;
        Ok(SeedRun { subject, model, seed, metrics, how, places, layers, held, measures })
    }

    /// The metrics of the dense model.
    pub(super) fn dense(&self) -> Result<Vec<f64>> {
        let wrong = |reason: String| Error::invalid_option(format!("dense model of seed {}", self.seed.0), reason);
        self.checked(self.subject.judge(self.model, self.seed, &[])?).map_err(wrong)
    }

    /// A method at every sparsity.
    pub(super) fn trials(&self, candidate: &Candidate<'_>, seen: Option<&(dyn Fn(&Trial) + Sync)>) -> Vec<Trial> {
        let chooser = candidate.of(self.seed);
        // Scores do not hang on the sparsity.
        let ready = match (self.measures.reason(chooser.needs()), chooser.scores()) {
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
                Chooser::Criterion(held) => self.by_scores(held.get(), scores.unwrap_or_default(), sparsity),
                Chooser::Pruner(pruner, _) => self.by_pruner(*pruner, scores, sparsity),
            }
            .map_err(|e| e.to_string())?;
            let kept = pruned.iter().map(|(_, p)| p.mask.kept()).sum();
            let of = self.layers.iter().map(Layer::len).sum();
            let values = self.subject.judge(self.model, self.seed, &pruned).map_err(|e| e.to_string())?;
            Ok(Measurement { values: self.checked(values)?, kept, of, predicted })
        };
        let trial = |&sparsity: &f64| {
            let trial = Trial { method: candidate.name().into(), sparsity, seed: self.seed, outcome: outcome(sparsity) };
            seen.iter().for_each(|seen| seen(&trial));
            trial
        };
        self.how.sparsities.iter().map(trial).collect()
    }

    /// A layer with what was measured of it.
    fn evidence(&self, layer: usize) -> Evidence<'_> {
        let Layer { name, weight, .. } = self.layers[layer];
        Evidence { layer: name, weight, mask: self.held[layer], measured: &self.measures.layers[self.places[layer]] }
    }

    /// The scores of every layer, what was dropped before below everything else.
    fn scores(&self, criterion: &dyn Saliency) -> Result<Vec<Array2<f32>>> {
        let of = |layer: usize| {
            let evidence = self.evidence(layer);
            let mut scores = criterion.score(&evidence)?;
            let ((rows, cols), (r, c)) = (evidence.weight.dim(), scores.dim());
            if (rows, cols) != (r, c) {
                return Err(Error::shape("scores", &[rows, cols], &[r, c]));
            }
            if let Some(mask) = evidence.mask {
                lower(&mut scores, mask, self.how.pattern);
            }
            Ok(scores)
        };
        (0..self.layers.len()).map(|layer| of(layer).map_err(|e| e.in_layer(self.layers[layer].name))).collect()
    }

    /// How much of each layer stays.
    fn budgets(&self, scores: Option<&[Array2<f32>]>, sparsity: f64) -> Result<Vec<Budget>> {
        let mut layers: Vec<Layer<'_>> = self.layers.iter().map(|l| Layer { ..*l }).collect();
        match scores {
            Some(scores) => layers.iter_mut().zip(scores).for_each(|(layer, scores)| layer.scores = Some(scores.view())),
            None if self.how.allocate.needs_scores() => {
                let reason = "ranks scores, and this pruner was given none to be ranked by";
                return Err(Error::invalid_option(format!("allocation {}", self.how.allocate.name()), reason));
            }
            None => {}
        }
        budgets(&layers, self.how.allocate, Target::Sparsity(sparsity), self.how.pattern)
    }

    /// As [`prune::one_shot`](crate::prune::one_shot) does it.
    fn by_scores(&self, criterion: &dyn Saliency, scores: &[Array2<f32>], sparsity: f64) -> Result<Made> {
        let (mut made, mut predicted) = (Vec::new(), 0.0);
        for (layer, budget) in self.budgets(Some(scores), sparsity)?.into_iter().enumerate() {
            let Layer { name, weight, .. } = self.layers[layer];
            let (rows, cols) = weight.dim();
            let chosen = match weight.is_empty() {
                true => Mask::full(rows, cols),
                false => select(&scores[layer], self.how.pattern, self.how.scope, budget).map_err(|e| e.in_layer(name))?,
            };
            let mask = self.held[layer].map_or_else(|| chosen.clone(), |old| chosen.and(old));
            let removed = self.held[layer].map_or_else(|| mask.not(), |old| old.minus(&mask));
            predicted += removed.iter_kept().map(|(r, c)| f64::from(scores[layer][[r, c]])).sum::<f64>();
            let weight = mask.applied(&weight);
            made.push((self.places[layer], Pruned { mask, weight, loss: None }));
        }
        Ok((made, criterion.predicts_loss().then_some(predicted)))
    }

    /// Every layer for itself.
    fn by_pruner(&self, pruner: &dyn Pruner, scores: Option<&[Array2<f32>]>, sparsity: f64) -> Result<Made> {
        let (pattern, scope) = (self.how.pattern, self.how.scope);
        let one = |(layer, budget): (usize, Budget)| {
            let Layer { weight, .. } = self.layers[layer];
            let (rows, cols) = weight.dim();
            if weight.is_empty() {
                return Ok(Pruned { mask: Mask::full(rows, cols), weight: weight.to_owned(), loss: None });
            }
            let pruned = pruner.prune(&self.evidence(layer), pattern, scope, budget)?;
            // What a pruner of the caller's gives is held to what all others are held to.
            if pruned.mask.dim() != weight.dim() || pruned.weight.dim() != weight.dim() {
                let ((r, c), (x, y)) = (pruned.mask.dim(), pruned.weight.dim());
                return Err(Error::shape("mask and weight of a pruner", &[rows, cols, rows, cols], &[r, c, x, y]));
            }
            pattern.check(&pruned.mask)?;
            let (r, c) = pattern.unit(rows, cols);
            let most = r * c * budget.keep();
            if pruned.mask.kept() > most {
                let reason = format!("{} weights were kept, and the budget has {most}", pruned.mask.kept());
                return Err(Error::Budget { keep: budget.keep(), of: budget.of(), reason });
            }
            Ok(pruned)
        };
        let budgets = self.budgets(scores, sparsity)?;
        let of = |(layer, budget)| -> Result<(usize, Pruned)> {
            let mut pruned = one((layer, budget)).map_err(|e| e.in_layer(self.layers[layer].name))?;
            pruned.mask.apply(&mut pruned.weight);
            Ok((self.places[layer], pruned))
        };
        Ok((budgets.into_iter().enumerate().map(of).collect::<Result<_>>()?, None))
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
struct Measures {
    layers: Vec<Measured>,
    failed: Vec<(Need, String)>,
}

impl Measures {
    /// All needs in one go, or if that fails each for itself, so that a need that cannot be measured leaves the others.
    fn of<S: Subject>(subject: &S, model: &S::Model, needs: Needs, layers: usize) -> Result<Self> {
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
                Ok(more) => all.layers.iter_mut().zip(more).for_each(|(old, new)| merge(old, new)),
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
fn merge(old: &mut Measured, new: Measured) {
    fn take<T>(old: &mut Option<T>, new: Option<T>) {
        *old = old.take().or(new);
    }
    old.tokens = old.tokens.max(new.tokens);
    take(&mut old.input_squares, new.input_squares);
    take(&mut old.gram, new.gram);
    take(&mut old.input_sums, new.input_sums);
    take(&mut old.gradient, new.gradient);
    take(&mut old.squared_gradients, new.squared_gradients);
    take(&mut old.second_derivatives, new.second_derivatives);
    take(&mut old.hessian_gradient, new.hessian_gradient);
    take(&mut old.synaptic_flow, new.synaptic_flow);
    take(&mut old.sample_gradients, new.sample_gradients);
}

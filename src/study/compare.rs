//! The comparison: which methods, at which sparsities, with which seeds, and the runs.

use super::candidate::{Candidate, built_in, built_in_names};
use super::comparison::{Comparison, DENSE, Setting, Trial};
use super::runs::{How, SeedRun, only_sparsity};
use super::subject::{Metric, Subject};
use crate::allocate::{Allocate, Uniform};
use crate::criteria::Saliency;
use crate::mask::{Pattern, Scope};
use crate::prune::wanted;
use crate::rng::Seed;
use crate::solve::Pruner;
use crate::train::side_by_side;
use crate::{Error, Result};
use std::fmt;

/// What is compared, at which sparsities, with which seeds, and how layers are pruned.
///
/// | setting | default | meaning |
/// |---|---|---|
/// | [`criterion`](Compare::criterion), [`pruner`](Compare::pruner), [`with`](Compare::with) | none | the caller's own methods |
/// | [`built_in`](Compare::built_in) | all of [`built_in_names`] | the others |
/// | [`sparsities`](Compare::sparsities) | 0.5, 0.8, 0.9, 0.95; that of an N:M pattern | shares of the weights that go, in \[0, 1) |
/// | [`seeds`](Compare::seeds) | 0, 1, 2 | one model each |
/// | [`pattern`](Compare::pattern) | unstructured | the shape survivors take |
/// | [`scope`](Compare::scope) | the method's: the row for `wanda`, `ria`, `dsnot` with unstructured masks, otherwise the layer | who competes with whom in a layer |
/// | [`allocate`](Compare::allocate) | [`Uniform`] | how much of each layer |
/// | [`skip`](Compare::skip) | none | layers left alone, by name |
///
/// ```
/// use lacuna::criteria::{Evidence, Saliency};
/// use lacuna::data::digits;
/// use lacuna::models::{Init, mlp};
/// use lacuna::nn::{Activation, Loss, Method};
/// use lacuna::study::{Compare, Networks, Trained};
/// use lacuna::train::{Decay, TrainConfig, fit};
/// use ndarray::Array2;
///
/// /// Weights far from 0 go first: about the worst that can be done.
/// #[derive(Debug)]
/// struct Smallest;
///
/// impl Saliency for Smallest {
///     fn name(&self) -> &str {
///         "smallest"
///     }
///     fn score(&self, layer: &Evidence<'_>) -> lacuna::Result<Array2<f32>> {
///         Ok(layer.weight.mapv(|w| -w.abs()))
///     }
/// }
///
/// let (train, test) = digits().split(&(1500..1797).collect::<Vec<_>>());
/// let (x, target) = (train.x().to_shared(), train.one_hot(1.0, 0.0).to_shared());
/// let networks = Networks::new(|seed| {
///     let (loss, method, decay) = (Loss::CrossEntropy, Method::Adam { weight_decay: 0.0 }, Decay::Cosine);
///     let mut network = mlp(&[64, 16, 10], Activation::Relu, Init::He, seed)?;
///     fit(&mut network, &x, &target, &TrainConfig { loss, method, learning_rate: 1e-2, decay, epochs: 2, batch: 32, seed })?;
///     let calibration = (x.clone(), target.clone());
///     Ok(Trained::new(network, calibration, (test.x().clone(), test.one_hot(1.0, 0.0)), loss))
/// });
/// let found = Compare::new().criterion(&Smallest).built_in(["magnitude", "obd"]).sparsities([0.5, 0.8]).seeds([0, 1]).run(&networks)?;
/// println!("{}", found.table().to_text());
/// let difference = &found.differences("smallest", "magnitude")?.all[0]; // at 50 %
/// assert!(difference.summary.is_some_and(|s| s.mean < -10.0) && difference.counts() == (0, 0, 2));
/// assert!(found.figure().to_svg()?.contains("smallest"));
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Clone)]
pub struct Compare<'a> {
    own: Vec<Candidate<'a>>,
    built_in: Vec<String>,
    sparsities: Option<Vec<f64>>,
    seeds: Vec<Seed>,
    pattern: Pattern,
    scope: Option<Scope>,
    allocate: &'a dyn Allocate,
    skip: Vec<String>,
    seen: Option<&'a (dyn Fn(&Trial) + Sync)>,
}

impl fmt::Debug for Compare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compare")
            .field("own", &self.own)
            .field("built_in", &self.built_in)
            .field("sparsities", &self.sparsities)
            .field("seeds", &self.seeds)
            .field("pattern", &self.pattern)
            .field("scope", &self.scope)
            .field("allocate", &self.allocate.name())
            .field("skip", &self.skip)
            .finish()
    }
}

impl Default for Compare<'_> {
    fn default() -> Self {
        Compare {
            own: Vec::new(),
            built_in: built_in_names(),
            sparsities: None,
            seeds: vec![Seed(0), Seed(1), Seed(2)],
            pattern: Pattern::Unstructured,
            scope: None,
            allocate: &Uniform,
            skip: Vec::new(),
            seen: None,
        }
    }
}

impl<'a> Compare<'a> {
    /// Every built-in method, at the usual sparsities, with seeds 0, 1 and 2.
    pub fn new() -> Self {
        Compare::default()
    }

    /// Adds a criterion of the caller's, by its own name.
    pub fn criterion(self, criterion: &'a dyn Saliency) -> Self {
        self.with(Candidate::criterion(criterion))
    }

    /// Adds a pruner of the caller's, by its own name.
    pub fn pruner(self, pruner: &'a dyn Pruner) -> Self {
        self.with(Candidate::pruner(pruner))
    }

    /// Adds a method of the caller's.
    pub fn with(mut self, candidate: Candidate<'a>) -> Self {
        self.own.push(candidate);
        self
    }

    /// Chooses among the methods of [`built_in_names`], instead of all of them: these, in this order.
    pub fn built_in<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.built_in = names.into_iter().map(Into::into).collect();
        self
    }

    /// The caller's own methods alone.
    pub fn only_own(mut self) -> Self {
        self.built_in.clear();
        self
    }

    /// The shares of the weights that go, each in \[0, 1).
    pub fn sparsities(mut self, sparsities: impl IntoIterator<Item = f64>) -> Self {
        self.sparsities = Some(sparsities.into_iter().collect());
        self
    }

    /// The seeds, one model each; differences are paired over them.
    pub fn seeds<S: Into<Seed>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        self.seeds = seeds.into_iter().map(Into::into).collect();
        self
    }

    /// The shape that survivors take. An N:M pattern has one sparsity, 1 − N/M.
    pub fn pattern(mut self, pattern: Pattern) -> Self {
        self.pattern = pattern;
        self
    }

    /// Who competes with whom in a layer, for all methods alike; see also [`Candidate::by_row`].
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// How much of each layer. An allocation that ranks goes by a criterion's own scores; a pruner of the caller's has to be given
    /// some by [`Candidate::ranked_by`]. An N:M pattern fixes the budget of every layer, whatever the allocation.
    pub fn allocate(mut self, allocate: &'a dyn Allocate) -> Self {
        self.allocate = allocate;
        self
    }

    /// Layers left alone, by name.
    pub fn skip<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.skip = names.into_iter().map(Into::into).collect();
        self
    }

    /// Calls `seen` after each run, from the thread that made it: in no fixed order.
    pub fn seen(mut self, seen: &'a (dyn Fn(&Trial) + Sync)) -> Self {
        self.seen = Some(seen);
        self
    }

    /// Trains, measures, prunes and judges.
    ///
    /// Models are made side by side, a thread for each seed; then of one seed after another everything is measured once, and methods are run
    /// side by side. The same numbers to the bit for any number of threads. All models, and the measures of one seed, are in memory.
    ///
    /// # Errors
    /// Before a model is made: methods, metrics, sparsities or seeds that are none, twice, unknown ([`Error::UnknownName`] with the nearest) or out of
    /// range; a pattern that no weight can have, or that cannot be chosen in this scope. As soon as there is a model: an unknown name in `skip`,
    /// no layer left. Then the subject's errors of making, measuring and judging dense models. What a method cannot do at a sparsity is no
    /// error: it is in the table.
    pub fn run<S: Subject>(&self, subject: &S) -> Result<Comparison> {
        let metrics = subject.metrics();
        let (candidates, sparsities) = self.check(&metrics)?;
        let made = |k: usize| {
            let model = subject.model(self.seeds[k])?;
            wanted(&subject.layers(&model).layers(), &self.skip)?;
            Ok(model)
        };
        let models = spread(self.seeds.len(), made)?;
        let how =
            How { pattern: self.pattern, scope: self.scope, allocate: self.allocate, skip: &self.skip, sparsities: &sparsities };
        let (mut dense, mut trials) = (Vec::new(), Vec::new());
        for (model, &seed) in models.into_iter().zip(&self.seeds) {
            let run = SeedRun::new(subject, &model, seed, &metrics, how, &candidates)?;
            dense.push(run.dense()?);
            let of = |m: usize| run.trials(&candidates[m], self.seen);
            trials.extend(spread(candidates.len(), of)?.into_iter().flatten());
        }
        let setting = Setting {
            pattern: self.pattern.to_string(),
            scope: self.scope.map_or("the method's", |scope| if scope == Scope::Row { "row" } else { "layer" }).into(),
            allocate: self.allocate.name().into(),
        };
        let methods = candidates.iter().map(|c| c.name().to_string()).collect();
        Ok(Comparison { setting, metrics, methods, sparsities, seeds: self.seeds.clone(), dense, trials, shown: 0 })
    }

    /// The methods and the sparsities, if everything can be meant.
    fn check(&self, metrics: &[Metric]) -> Result<(Vec<Candidate<'a>>, Vec<f64>)> {
        let mut candidates = self.own.clone();
        for name in &self.built_in {
            candidates.push(built_in(name)?);
        }
        // As it is read, which refuses what no weight can have.
        self.pattern.to_string().parse::<Pattern>()?;
        self.scope.map_or(Ok(()), |scope| self.pattern.check_scope(scope))?;
        let usual = only_sparsity(self.pattern).map_or_else(|| vec![0.5, 0.8, 0.9, 0.95], |s| vec![s]);
        let sparsities = self.sparsities.clone().unwrap_or(usual);
        unique("methods", candidates.iter().map(Candidate::name))?;
        unique("sparsities", sparsities.iter())?;
        unique("seeds", self.seeds.iter().map(|s| s.0))?;
        unique("metrics", metrics.iter().map(|m| &m.name))?;
        if candidates.iter().any(|c| c.name() == DENSE) {
            return Err(Error::invalid_option("methods", format!("'{DENSE}' is the name of what was not pruned")));
        }
        if let Some(wrong) = sparsities.iter().find(|s| !(0.0..1.0).contains(*s)) {
            return Err(Error::invalid_option("sparsities", format!("{wrong:?} is not in [0, 1)")));
        }
        Ok((candidates, sparsities))
    }
}

/// Refuses none, and one that is there twice.
fn unique<T: PartialEq + fmt::Debug>(what: &str, items: impl Iterator<Item = T>) -> Result<()> {
    let items: Vec<T> = items.collect();
    if items.is_empty() {
        return Err(Error::invalid_option(what, "there are none"));
    }
    match (1..items.len()).find(|&i| items[..i].contains(&items[i])) {
        Some(i) => Err(Error::invalid_option(what, format!("{:?} is there twice", items[i]))),
        None => Ok(()),
    }
}

/// Jobs side by side where they fill the threads; else one after the other on all of them. The same bits either way.
fn spread<T: Send>(jobs: usize, job: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    if jobs * 2 > rayon::current_num_threads() { side_by_side(jobs, job) } else { (0..jobs).map(job).collect() }
}

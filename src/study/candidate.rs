//! The methods that are compared: the caller's own and the built-in ones.

use crate::criteria::{Grasp, Magnitude, Needs, Obd, Saliency, Snip, SynFlow};
use crate::job::{Methods, PruneJob, PruneMethod};
use crate::mask::{Pattern, Scope};
use crate::rng::Seed;
use crate::solve::Pruner;
use crate::{Error, Result};
use std::fmt;

/// One method of a comparison: a criterion or a pruner, and the name it has in tables.
///
/// ```
/// use lacuna::solve::WoodFisher;
/// use lacuna::study::Candidate;
/// let fisher = WoodFisher { damping: 1e-5, block: 1 };
/// assert_eq!(Candidate::criterion(&fisher).name(), "woodfisher");
/// assert_eq!(Candidate::criterion(&fisher).named("diagonal Fisher").name(), "diagonal Fisher");
/// ```
#[derive(Clone)]
pub struct Candidate<'a> {
    name: String,
    kind: Kind<'a>,
    by_row: bool,
}

/// What makes a criterion for a seed.
type Make<'a> = dyn Fn(Seed) -> Box<dyn Saliency> + Sync + 'a;

#[derive(Clone)]
enum Kind<'a> {
    Criterion(&'a dyn Saliency),
    Seeded(&'a Make<'a>),
    Pruner(&'a dyn Pruner, Option<&'a dyn Saliency>),
    /// As jobs have it, by the seed of the run.
    OfJobs(PruneMethod),
}

/// A candidate as one seed has it.
pub(super) enum Chooser<'a> {
    /// Masks by scores; what stays is as it was.
    Criterion(Held<'a, dyn Saliency + 'a>),
    /// Masks and weights; an allocation that ranks is given the scores, if there are any.
    Pruner(Held<'a, dyn Pruner + 'a>, Option<Held<'a, dyn Saliency + 'a>>),
}

/// A method of the caller's, or one made for a seed.
pub(super) enum Held<'a, T: ?Sized> {
    Lent(&'a T),
    Made(Box<T>),
}

impl<T: ?Sized> Held<'_, T> {
    pub(super) fn get(&self) -> &T {
        match self {
            Held::Lent(method) => method,
            Held::Made(method) => method,
        }
    }
}

impl Chooser<'_> {
    /// By what its weights are ranked, if they are: those of a pruner only where the budgets hang on scores.
    pub(super) fn scores(&self, ranks: bool) -> Option<&dyn Saliency> {
        match self {
            Chooser::Criterion(held) => Some(held.get()),
            Chooser::Pruner(_, scores) => scores.as_ref().filter(|_| ranks).map(|held| held.get() as &dyn Saliency),
        }
    }

    pub(super) fn needs(&self, ranks: bool) -> Needs {
        let scores = self.scores(ranks).map_or(Needs::none(), Saliency::needs);
        match self {
            Chooser::Criterion(_) => scores,
            Chooser::Pruner(pruner, _) => pruner.get().needs().union(scores),
        }
    }
}

impl fmt::Debug for Candidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Criterion(_) => "criterion",
            Kind::Seeded(_) => "criterion of a seed",
            Kind::Pruner(..) => "pruner",
            Kind::OfJobs(_) => "method of jobs",
        };
        f.debug_struct("Candidate").field("name", &self.name).field("kind", &kind).finish()
    }
}

impl<'a> Candidate<'a> {
    /// A criterion by its own name: it chooses the masks, and the weights that stay are as they were.
    pub fn criterion(criterion: &'a dyn Saliency) -> Self {
        Candidate { name: criterion.name().to_string(), kind: Kind::Criterion(criterion), by_row: false }
    }

    /// A criterion that hangs on the seed, as a random one does: `make` gives it.
    pub fn seeded(name: impl Into<String>, make: &'a Make<'a>) -> Self {
        Candidate { name: name.into(), kind: Kind::Seeded(make), by_row: false }
    }

    /// A pruner by its own name: it chooses each layer's mask and the weights that survive.
    pub fn pruner(pruner: &'a dyn Pruner) -> Self {
        Candidate { name: pruner.name().to_string(), kind: Kind::Pruner(pruner, None), by_row: false }
    }

    /// The scores that an allocation which ranks, as [`Global`](crate::allocate::Global), goes by for this pruner. A criterion goes by its own.
    pub fn ranked_by(mut self, criterion: &'a dyn Saliency) -> Self {
        if let Kind::Pruner(_, scores) = &mut self.kind {
            *scores = Some(criterion);
        }
        self
    }

    /// The same, whose weights compete row by row in unstructured masks, unless the comparison says otherwise: as its paper has it.
    pub fn by_row(mut self) -> Self {
        self.by_row = true;
        self
    }

    /// The same under another name, where one method stands in a table with several settings.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The name in tables.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who competes with whom in a layer.
    pub(super) fn scope(&self, said: Option<Scope>, pattern: Pattern) -> Scope {
        let own = if self.by_row && pattern == Pattern::Unstructured { Scope::Row } else { Scope::Layer };
        said.unwrap_or(own)
    }

    /// # Errors
    /// If a method of jobs cannot be made.
    pub(super) fn of(&self, seed: Seed) -> Result<Chooser<'a>> {
        let method = match &self.kind {
            Kind::Criterion(criterion) => return Ok(Chooser::Criterion(Held::Lent(*criterion))),
            Kind::Seeded(make) => return Ok(Chooser::Criterion(Held::Made(make(seed)))),
            Kind::Pruner(pruner, scores) => return Ok(Chooser::Pruner(Held::Lent(*pruner), scores.map(Held::Lent))),
            Kind::OfJobs(method) => method,
        };
        let job = PruneJob::new(method.name()).seed(seed.0);
        if let Some(criterion) = method.make_criterion(&job)? {
            return Ok(Chooser::Criterion(Held::Made(criterion)));
        }
        // As jobs rank a pruner that has nothing else to be ranked by.
        let ranking = method.make_ranking(&job)?.unwrap_or_else(|| Box::new(Magnitude::default()));
        Ok(Chooser::Pruner(Held::Made(method.make_pruner(&job)?), Some(Held::Made(ranking))))
    }
}

/// The criteria that need a pass which networks alone have; jobs, which prune language models too, do not know them.
const OF_NETWORKS: [&str; 4] = ["snip", "grasp", "synflow", "obd"];

/// The names of the built-in methods, in the order of tables: those of [`Methods::standard`], which are those of `lacuna prune --method`, and
/// the criteria of networks alone.
///
/// Settings are those of a job where nothing is said ([`PruneJob::default`]), so `woodfisher` has blocks of 128; `random` draws by the seed of
/// the run; weights of `wanda`, `ria` and `dsnot` compete row by row in unstructured masks; where an allocation ranks, pruners are ranked by
/// magnitude, `woodfisher` by its own scores.
///
/// ```
/// let names = lacuna::study::built_in_names();
/// assert!(["magnitude", "sparsegpt", "obd"].iter().all(|name| names.iter().any(|n| n == name)));
/// ```
pub fn built_in_names() -> Vec<String> {
    let standard = Methods::standard();
    standard.methods().iter().map(|m| m.name().to_string()).chain(OF_NETWORKS.map(String::from)).collect()
}

/// The built-in method of this name.
///
/// # Errors
/// [`Error::UnknownName`] with the nearest.
pub(super) fn built_in(name: &str) -> Result<Candidate<'static>> {
    match name {
        "snip" => return Ok(Candidate::criterion(&Snip)),
        "grasp" => return Ok(Candidate::criterion(&Grasp)),
        "synflow" => return Ok(Candidate::criterion(&SynFlow)),
        "obd" => return Ok(Candidate::criterion(&Obd)),
        _ => {}
    }
    let unknown = |_| Error::unknown_name("built-in method", name, built_in_names().iter().map(String::as_str));
    let method = Methods::standard().method(name).map_err(unknown)?.clone();
    Ok(Candidate { name: name.into(), by_row: method.is_by_row(), kind: Kind::OfJobs(method) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_method_is_found_by_the_name_it_has() {
        for name in built_in_names() {
            let found = built_in(&name).unwrap();
            let own = match found.of(Seed(0)).unwrap() {
                Chooser::Criterion(held) => held.get().name().to_string(),
                Chooser::Pruner(pruner, _) => pruner.get().name().to_string(),
            };
            assert_eq!((found.name(), own.as_str()), (name.as_str(), name.as_str()));
        }
        let error = built_in("magnitud").unwrap_err().to_string();
        assert_eq!(
            error,
            format!("no built-in method is named 'magnitud' among {}; did you mean 'magnitude'?", built_in_names().len())
        );
    }
}

//! The methods that are compared: the caller's own and the built-in ones.

use crate::criteria::{Fisher, Grasp, Magnitude, MagnitudeNorm, Needs, Obd, Random, Ria, Saliency, Snip, SynFlow, Taylor, Wanda};
use crate::job::{Methods, PruneJob};
use crate::mask::{Pattern, Scope};
use crate::rng::Seed;
use crate::solve::{Alps, DsNoT, ExactObs, Pruner, Scored, SparseGpt, WoodFisher};
use crate::{Error, Result};
use std::fmt;
use std::sync::LazyLock;

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

#[derive(Clone, Copy)]
enum Kind<'a> {
    Criterion(&'a dyn Saliency),
    Seeded(&'a Make<'a>),
    Pruner(&'a dyn Pruner, Option<&'a dyn Saliency>),
}

/// A candidate as one seed has it.
pub(super) enum Chooser<'a> {
    /// Masks by scores; what stays is as it was.
    Criterion(Held<'a>),
    /// Masks and weights; an allocation that ranks is given the scores, if there are any.
    Pruner(&'a dyn Pruner, Option<&'a dyn Saliency>),
}

/// A criterion of the caller's, or one made for a seed.
pub(super) enum Held<'a> {
    Lent(&'a dyn Saliency),
    Made(Box<dyn Saliency>),
}

impl Held<'_> {
    pub(super) fn get(&self) -> &dyn Saliency {
        match self {
            Held::Lent(criterion) => *criterion,
            Held::Made(criterion) => criterion.as_ref(),
        }
    }
}

impl Chooser<'_> {
    /// By what its weights are ranked, if they are: those of a pruner only where the budgets hang on scores.
    pub(super) fn scores(&self, ranks: bool) -> Option<&dyn Saliency> {
        match self {
            Chooser::Criterion(held) => Some(held.get()),
            Chooser::Pruner(_, scores) => scores.filter(|_| ranks),
        }
    }

    pub(super) fn needs(&self, ranks: bool) -> Needs {
        let scores = self.scores(ranks).map_or(Needs::none(), Saliency::needs);
        match self {
            Chooser::Criterion(_) => scores,
            Chooser::Pruner(pruner, _) => pruner.needs().union(scores),
        }
    }
}

impl fmt::Debug for Candidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Criterion(_) => "criterion",
            Kind::Seeded(_) => "criterion of a seed",
            Kind::Pruner(..) => "pruner",
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

    pub(super) fn of(&self, seed: Seed) -> Chooser<'a> {
        match self.kind {
            Kind::Criterion(criterion) => Chooser::Criterion(Held::Lent(criterion)),
            Kind::Seeded(make) => Chooser::Criterion(Held::Made(make(seed))),
            Kind::Pruner(pruner, scores) => Chooser::Pruner(pruner, scores),
        }
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

static JOB: LazyLock<PruneJob> = LazyLock::new(PruneJob::default);
static MAGNITUDE: Magnitude = Magnitude { norm: MagnitudeNorm::L1 };
static MAGNITUDE_L2: Magnitude = Magnitude { norm: MagnitudeNorm::L2 };
static RIA: LazyLock<Ria> = LazyLock::new(Ria::default);
static SPARSEGPT: LazyLock<SparseGpt> =
    LazyLock::new(|| SparseGpt { damping: JOB.damping, block: JOB.block_size, ..SparseGpt::default() });
static OBC: LazyLock<ExactObs> = LazyLock::new(|| ExactObs { damping: JOB.damping });
static ALPS: LazyLock<Alps> = LazyLock::new(|| Alps { damping: JOB.damping, ..Alps::default() });
static DSNOT: LazyLock<DsNoT<Scored<Wanda>>> = LazyLock::new(|| DsNoT::new(Scored(Wanda)));
static WOODFISHER: LazyLock<WoodFisher> = LazyLock::new(|| WoodFisher { damping: JOB.fisher_damping, block: JOB.block_size });

fn random(seed: Seed) -> Box<dyn Saliency> {
    Box::new(Random { seed })
}

/// The built-in method of this name. `tests/study` holds each that jobs know to a job of the same name.
///
/// # Errors
/// [`Error::UnknownName`] with the nearest.
pub(super) fn built_in(name: &str) -> Result<Candidate<'static>> {
    let candidate = match name {
        "magnitude" => Candidate::criterion(&MAGNITUDE),
        "magnitude-l2" => Candidate::criterion(&MAGNITUDE_L2),
        "random" => Candidate::seeded(name, &random),
        "taylor" => Candidate::criterion(&Taylor),
        "snip" => Candidate::criterion(&Snip),
        "grasp" => Candidate::criterion(&Grasp),
        "synflow" => Candidate::criterion(&SynFlow),
        "fisher" => Candidate::criterion(&Fisher),
        "obd" => Candidate::criterion(&Obd),
        "wanda" => Candidate::criterion(&Wanda).by_row(),
        "ria" => Candidate::criterion(&*RIA).by_row(),
        "sparsegpt" => Candidate::pruner(&*SPARSEGPT).ranked_by(&MAGNITUDE),
        "obc" => Candidate::pruner(&*OBC).ranked_by(&MAGNITUDE),
        "alps" => Candidate::pruner(&*ALPS).ranked_by(&MAGNITUDE),
        "dsnot" => Candidate::pruner(&*DSNOT).ranked_by(&MAGNITUDE).by_row(),
        "woodfisher" => Candidate::pruner(&*WOODFISHER).ranked_by(&*WOODFISHER),
        _ => return Err(Error::unknown_name("built-in method", name, built_in_names().iter().map(String::as_str))),
    };
    Ok(candidate.named(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_method_is_found_by_the_name_it_has() {
        for name in built_in_names() {
            let found = built_in(&name).unwrap();
            let own = match found.of(Seed(0)) {
                Chooser::Criterion(held) => held.get().name().to_string(),
                Chooser::Pruner(pruner, _) => pruner.name().to_string(),
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

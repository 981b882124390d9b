//! The methods that are compared: the caller's own and the built-in ones.

use crate::criteria::{Fisher, Grasp, Magnitude, MagnitudeNorm, Needs, Obd, Random, Ria, Saliency, Snip, SynFlow, Taylor, Wanda};
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
    /// By what its weights are ranked, if they are.
    pub(super) fn scores(&self) -> Option<&dyn Saliency> {
        match self {
            Chooser::Criterion(held) => Some(held.get()),
            Chooser::Pruner(_, scores) => *scores,
        }
    }

    pub(super) fn needs(&self) -> Needs {
        match self {
            Chooser::Criterion(held) => held.get().needs(),
            Chooser::Pruner(pruner, scores) => pruner.needs().union(scores.map_or(Needs::none(), |s| s.needs())),
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
        Candidate { name: criterion.name().to_string(), kind: Kind::Criterion(criterion) }
    }

    /// A criterion that hangs on the seed, as a random one does: `make` gives it.
    pub fn seeded(name: impl Into<String>, make: &'a Make<'a>) -> Self {
        Candidate { name: name.into(), kind: Kind::Seeded(make) }
    }

    /// A pruner by its own name: it chooses each layer's mask and the weights that survive.
    pub fn pruner(pruner: &'a dyn Pruner) -> Self {
        Candidate { name: pruner.name().to_string(), kind: Kind::Pruner(pruner, None) }
    }

    /// The scores that an allocation which ranks, as [`Global`](crate::allocate::Global), goes by for this pruner. A criterion goes by its own.
    pub fn ranked_by(mut self, criterion: &'a dyn Saliency) -> Self {
        if let Kind::Pruner(_, scores) = &mut self.kind {
            *scores = Some(criterion);
        }
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

    pub(super) fn of(&self, seed: Seed) -> Chooser<'a> {
        match self.kind {
            Kind::Criterion(criterion) => Chooser::Criterion(Held::Lent(criterion)),
            Kind::Seeded(make) => Chooser::Criterion(Held::Made(make(seed))),
            Kind::Pruner(pruner, scores) => Chooser::Pruner(pruner, scores),
        }
    }
}

/// The names of the built-in methods, in the order of tables: those of `lacuna prune --method` and the criteria of networks. `random` draws
/// by the seed of the run; `dsnot` begins at Wanda's mask; pruners have their default settings.
pub const BUILT_IN: [&str; 16] = [
    "magnitude",
    "magnitude-l2",
    "random",
    "taylor",
    "snip",
    "grasp",
    "synflow",
    "fisher",
    "obd",
    "wanda",
    "ria",
    "sparsegpt",
    "obc",
    "alps",
    "dsnot",
    "woodfisher",
];

static MAGNITUDE: Magnitude = Magnitude { norm: MagnitudeNorm::L1 };
static MAGNITUDE_L2: Magnitude = Magnitude { norm: MagnitudeNorm::L2 };
static RIA: LazyLock<Ria> = LazyLock::new(Ria::default);
static SPARSEGPT: LazyLock<SparseGpt> = LazyLock::new(SparseGpt::default);
static OBC: LazyLock<ExactObs> = LazyLock::new(ExactObs::default);
static ALPS: LazyLock<Alps> = LazyLock::new(Alps::default);
static DSNOT: LazyLock<DsNoT<Scored<Wanda>>> = LazyLock::new(|| DsNoT::new(Scored(Wanda)));
static WOODFISHER: LazyLock<WoodFisher> = LazyLock::new(WoodFisher::default);

fn random(seed: Seed) -> Box<dyn Saliency> {
    Box::new(Random { seed })
}

/// The built-in method of this name.
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
        "wanda" => Candidate::criterion(&Wanda),
        "ria" => Candidate::criterion(&*RIA),
        "sparsegpt" => Candidate::pruner(&*SPARSEGPT),
        "obc" => Candidate::pruner(&*OBC),
        "alps" => Candidate::pruner(&*ALPS),
        "dsnot" => Candidate::pruner(&*DSNOT),
        "woodfisher" => Candidate::pruner(&*WOODFISHER).ranked_by(&*WOODFISHER),
        _ => return Err(Error::invalid_option("built-in method", format!("'{name}' is not among {}", BUILT_IN.join(", ")))),
    };
    Ok(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_method_is_found_by_the_name_it_has() {
        for name in BUILT_IN {
            assert_eq!(built_in(name).unwrap().name(), name);
        }
        assert!(built_in("magnitud").unwrap_err().to_string().contains("'magnitud' is not among magnitude, magnitude-l2"));
    }
}

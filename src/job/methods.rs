//! The methods and allocations of a job by their names.

use super::settings::PruneJob;
use crate::allocate::Allocate;
use crate::criteria::Saliency;
use crate::prune::SequenceGradients;
use crate::solve::{Pruner, Scored};
use crate::{Error, Result};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

type Make<T> = Arc<dyn Fn(&PruneJob) -> Result<Box<T>> + Send + Sync>;

/// What makes a method of a job's settings.
#[derive(Clone)]
enum Maker {
    Criterion(Make<dyn Saliency>),
    Pruner(Make<dyn Pruner>),
}

/// A method: a name, and what makes a criterion or a pruner of a job's settings.
///
/// ```
/// use lacuna::criteria::Magnitude;
/// use lacuna::job::PruneMethod;
/// let method = PruneMethod::criterion("mine", "|w| again", |_| Ok(Box::new(Magnitude::default())));
/// assert_eq!((method.name(), method.about()), ("mine", "|w| again"));
/// ```
#[derive(Clone)]
pub struct PruneMethod {
    name: Cow<'static, str>,
    about: Cow<'static, str>,
    reads: Vec<&'static str>,
    by_row: bool,
    make: Maker,
    /// The criterion by which layers are ranked against one another, where it is another than the method's own.
    ranking: Option<Make<dyn Saliency>>,
    /// Whether layers of a folder are ranked by magnitude, though the criterion needs weights alone.
    by_magnitude: bool,
}

impl PruneMethod {
    fn new(name: Cow<'static, str>, about: Cow<'static, str>, make: Maker) -> PruneMethod {
        PruneMethod { name, about, reads: Vec::new(), by_row: false, make, ranking: None, by_magnitude: false }
    }

    /// A criterion: what it scores lowest goes, and what stays is as it was. One that needs nothing but weights prunes plain files too.
    pub fn criterion(
        name: impl Into<Cow<'static, str>>,
        about: impl Into<Cow<'static, str>>,
        make: impl Fn(&PruneJob) -> Result<Box<dyn Saliency>> + Send + Sync + 'static,
    ) -> PruneMethod {
        PruneMethod::new(name.into(), about.into(), Maker::Criterion(Arc::new(make)))
    }

    /// A pruner, which chooses the mask and the weights that stay together.
    pub fn pruner(
        name: impl Into<Cow<'static, str>>,
        about: impl Into<Cow<'static, str>>,
        make: impl Fn(&PruneJob) -> Result<Box<dyn Pruner>> + Send + Sync + 'static,
    ) -> PruneMethod {
        PruneMethod::new(name.into(), about.into(), Maker::Pruner(Arc::new(make)))
    }

    /// The same, whose layers are ranked against one another by this criterion, where an allocation ranks. Without it those of a criterion are
    /// ranked by itself, those of a pruner by magnitude. Of a folder's layers weights and gradients are known when they are ranked: one that
    /// needs anything else is refused there, and a criterion that does gives way to magnitude. Plain files are ranked by the method's own alone.
    #[must_use]
    pub fn ranked_by(mut self, make: impl Fn(&PruneJob) -> Result<Box<dyn Saliency>> + Send + Sync + 'static) -> PruneMethod {
        self.ranking = Some(Arc::new(make));
        self
    }

    /// The same, which reads these settings of a job: what it is known by, beside what all methods are, when a run is taken up again.
    #[must_use]
    pub fn reads(mut self, settings: impl IntoIterator<Item = &'static str>) -> PruneMethod {
        self.reads = settings.into_iter().collect();
        self
    }

    /// The same, whose weights compete row by row in unstructured masks, unless a job says otherwise.
    #[must_use]
    pub fn by_row(mut self) -> PruneMethod {
        self.by_row = true;
        self
    }

    /// The same, whose layers are ranked by magnitude in folders, as they have always been.
    pub(super) fn by_magnitude_in_folders(mut self) -> PruneMethod {
        self.by_magnitude = true;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does, in a line; may be empty.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// Whether it reads a setting.
    pub(super) fn reads_setting(&self, setting: &str) -> bool {
        self.reads.contains(&setting)
    }

    pub(crate) fn is_by_row(&self) -> bool {
        self.by_row
    }

    pub(super) fn is_criterion(&self) -> bool {
        matches!(self.make, Maker::Criterion(_))
    }

    /// Whether layers are ranked against one another by another criterion than the method's own.
    pub(super) fn is_ranked_by_another(&self) -> bool {
        self.ranking.is_some()
    }

    /// The criterion, if the method is one.
    pub(crate) fn make_criterion(&self, job: &PruneJob) -> Result<Option<Box<dyn Saliency>>> {
        if let Maker::Criterion(make) = &self.make { make(job).map(Some) } else { Ok(None) }
    }

    /// The criterion by which layers are ranked against one another, if there is one.
    pub(crate) fn make_ranking(&self, job: &PruneJob) -> Result<Option<Box<dyn Saliency>>> {
        match (&self.ranking, &self.make) {
            (Some(make), _) | (None, Maker::Criterion(make)) => make(job).map(Some),
            (None, Maker::Pruner(_)) => Ok(None),
        }
    }

    /// The same of layers that are read one at a time, whose weights and gradients are known; by magnitude if there is none.
    ///
    /// # Errors
    /// If the criterion was asked for ([`PruneMethod::ranked_by`]) and needs anything else.
    pub(super) fn make_folder_ranking(&self, job: &PruneJob) -> Result<Option<Box<dyn Saliency>>> {
        let Some(criterion) = self.make_ranking(job)?.filter(|_| !self.by_magnitude) else { return Ok(None) };
        match criterion.needs().iter().find(|need| !SequenceGradients::NEEDS.contains(need)) {
            None => Ok(Some(criterion)),
            Some(_) if self.ranking.is_none() => Ok(None),
            Some(need) => {
                let reason = format!(
                    "{} ranks the layers of {} by {}, which needs {need}: of a folder's layers weights and gradients alone are known before \
                     they are pruned",
                    job.allocate,
                    self.name,
                    criterion.name()
                );
                Err(Error::invalid_option("allocate", reason))
            }
        }
    }

    /// The pruner, which is the criterion's where there is no other.
    pub(crate) fn make_pruner(&self, job: &PruneJob) -> Result<Box<dyn Pruner>> {
        match &self.make {
            Maker::Criterion(make) => Ok(Box::new(Scored(make(job)?))),
            Maker::Pruner(make) => make(job),
        }
    }
}

impl fmt::Debug for PruneMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PruneMethod").field("name", &self.name).field("about", &self.about).finish_non_exhaustive()
    }
}

/// How budgets are found.
#[derive(Clone)]
pub(super) enum Kind {
    /// From weights or scores.
    Layers(Make<dyn Allocate>),
    /// From the outliers of each block.
    Outliers,
    /// From what the predictions lose by each layer alone.
    Sensitivity,
    /// From the layers' own errors.
    Dynamic,
    /// By an evolutionary search.
    Evolve,
}

/// An allocation: a name, and how the budget is divided over layers.
#[derive(Clone)]
pub struct Allocation {
    name: Cow<'static, str>,
    about: Cow<'static, str>,
    reads: Vec<&'static str>,
    pub(super) kind: Kind,
}

impl Allocation {
    /// An allocation that sees weights or scores.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        about: impl Into<Cow<'static, str>>,
        make: impl Fn(&PruneJob) -> Result<Box<dyn Allocate>> + Send + Sync + 'static,
    ) -> Allocation {
        Allocation { name: name.into(), about: about.into(), reads: Vec::new(), kind: Kind::Layers(Arc::new(make)) }
    }

    pub(super) fn built_in(name: &'static str, about: &'static str, kind: Kind) -> Allocation {
        Allocation { name: name.into(), about: about.into(), reads: Vec::new(), kind }
    }

    /// The same, which reads these settings of a job.
    #[must_use]
    pub fn reads(mut self, settings: impl IntoIterator<Item = &'static str>) -> Allocation {
        self.reads = settings.into_iter().collect();
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does, in a line; may be empty.
    pub fn about(&self) -> &str {
        &self.about
    }

    pub(super) fn reads_setting(&self, setting: &str) -> bool {
        self.reads.contains(&setting)
    }

    /// Whether a model must run for it.
    pub fn needs_folder(&self) -> bool {
        !matches!(self.kind, Kind::Layers(_))
    }

    /// What makes the budgets of layers of their weights or scores.
    ///
    /// # Errors
    /// If a model must run for them.
    pub(super) fn make(&self, job: &PruneJob) -> Result<Box<dyn Allocate>> {
        match &self.kind {
            Kind::Layers(make) => make(job),
            _ => Err(Error::invalid_option(
                "allocate",
                format!("{} needs the inputs of the layers: give a model's folder", self.name),
            )),
        }
    }

    /// Whether budgets are searched for among levels of every layer.
    pub(super) fn searches(&self) -> bool {
        matches!(self.kind, Kind::Sensitivity | Kind::Dynamic | Kind::Evolve)
    }

    /// Whether it compares the predictions of whole models.
    pub(super) fn predicts(&self) -> bool {
        matches!(self.kind, Kind::Sensitivity | Kind::Evolve)
    }
}

impl fmt::Debug for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocation").field("name", &self.name).field("about", &self.about).finish_non_exhaustive()
    }
}

/// The methods and allocations that jobs may name. [`Methods::standard`] has those of this library; others are added by
/// [`Methods::register`] and [`Methods::register_allocation`].
///
/// ```
/// use lacuna::criteria::{Evidence, Saliency};
/// use lacuna::job::{PruneMethod, Methods, PruneJob};
/// use ndarray::Array2;
///
/// /// Keeps the first inputs.
/// #[derive(Debug)]
/// struct First;
/// impl Saliency for First {
///     fn name(&self) -> &str {
///         "first"
///     }
///     fn score(&self, layer: &Evidence<'_>) -> lacuna::Result<Array2<f32>> {
///         Ok(Array2::from_shape_fn(layer.weight.dim(), |(_, col)| -(col as f32)))
///     }
/// }
///
/// let mut methods = Methods::standard();
/// methods.register(PruneMethod::criterion("first", "the first inputs stay", |_| Ok(Box::new(First))));
/// PruneJob::new("first").sparsity(0.5).check(&methods)?;
/// let e = PruneJob::new("fist").sparsity(0.5).check(&methods).unwrap_err();
/// assert_eq!(e.to_string(), "no method is named 'fist' among 14; did you mean 'first'?");
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Methods {
    pub(super) methods: Vec<PruneMethod>,
    pub(super) allocations: Vec<Allocation>,
}

impl Methods {
    /// Adds a method; one of the same name is replaced.
    pub fn register(&mut self, method: PruneMethod) -> &mut Self {
        self.methods.retain(|m| m.name != method.name);
        self.methods.push(method);
        self
    }

    /// Adds an allocation; one of the same name is replaced.
    pub fn register_allocation(&mut self, allocation: Allocation) -> &mut Self {
        self.allocations.retain(|a| a.name != allocation.name);
        self.allocations.push(allocation);
        self
    }

    /// All methods.
    pub fn methods(&self) -> &[PruneMethod] {
        &self.methods
    }

    /// All allocations.
    pub fn allocations(&self) -> &[Allocation] {
        &self.allocations
    }

    /// The method of this name.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest.
    pub fn method(&self, name: &str) -> Result<&PruneMethod> {
        let found = self.methods.iter().find(|m| m.name == name);
        found.ok_or_else(|| Error::unknown_name("method", name, self.methods.iter().map(PruneMethod::name)))
    }

    /// The allocation of this name.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest.
    pub fn allocation(&self, name: &str) -> Result<&Allocation> {
        let found = self.allocations.iter().find(|a| a.name == name);
        found.ok_or_else(|| Error::unknown_name("allocation", name, self.allocations.iter().map(Allocation::name)))
    }
}

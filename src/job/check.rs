//! What a job is refused for before anything is read, and what its settings come to.

use super::methods::{Allocation, Methods, PruneMethod};
use super::settings::PruneJob;
use crate::criteria::{Need, Needs, Saliency};
use crate::io::Packing;
use crate::mask::{Budget, Pattern, Scope};
use crate::prune::{CalibrationInputs, Correction, SequenceGradients, Sequential};
use crate::solve::{Pruner, Reconstruct, Reconstructed, Solver};
use crate::sparse::Format;
use crate::{Error, Result};

/// Steps of conjugate gradients that are still a number and no slip.
const STEPS: usize = 1_000_000;
/// Choices that a search is asked to try and that are no slip.
const TRIED: usize = 100_000_000;

/// What is pruned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// A model's folder.
    Folder,
    /// A plain file of weights.
    File,
    /// A network in memory.
    Network,
}

impl PruneJob {
    /// The settings, by name, that a plain file of weights has a use for.
    pub const OF_FILES: [&str; 8] = ["method", "sparsity", "pattern", "allocate", "scope", "skip", "layer", "seed"];

    /// Refuses settings that are outside their range, exclude one another, or name no method; those of a folder for a plain file, and the other
    /// way round, where there is a model. Reads no weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the setting, its value and the range; [`Error::UnknownName`].
    pub fn check(&self, methods: &Methods) -> Result<()> {
        match &self.model {
            Some(model) if !model.is_dir() => self.check_file(methods, || Ok(())).map(|_| ()),
            _ => {
                self.check_folder(methods)?;
                self.check_measured(methods)?;
                Plan::new(self, methods, Subject::Folder).map(|_| ())
            }
        }
    }

    /// Refuses names of no method and of no allocation.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest.
    pub fn check_names(&self, methods: &Methods) -> Result<()> {
        methods.method(&self.method)?;
        methods.allocation(&self.allocate).map(|_| ())
    }

    /// Refuses numbers outside their range, whatever the method reads.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the setting, its value and the range.
    pub fn check_ranges(&self) -> Result<()> {
        if let Some(s) = self.sparsity {
            Budget::from_sparsity(1, s)?;
        }
        for s in self.layer.values() {
            Budget::from_sparsity(1, *s).map_err(|e| Error::invalid_option("layer", e.to_string()))?;
        }
        self.check_numbers()?;
        if !self.levels.is_empty() {
            self.check_levels()?;
        }
        self.packing()?;
        self.correction().map(|_| ())
    }

    /// Refuses numbers of a model's folder outside their domain, whether the method reads them or not.
    fn check_numbers(&self) -> Result<()> {
        let at_least_0 = |option: &str, value: f64, usual: &str| match value.is_finite() && value >= 0.0 {
            true => Ok(()),
            false => {
                Err(Error::invalid_option(option, format!("{value} is not a finite number of at least 0; {usual} is usual")))
            }
        };
        at_least_0("damping", self.damping, "0.01")?;
        at_least_0("owl-threshold", self.owl_threshold, "5")?;
        if !(self.fisher_damping.is_finite() && self.fisher_damping > 0.0) {
            let reason = format!("{} is not a finite number above 0; 1e-5 is usual", self.fisher_damping);
            return Err(Error::invalid_option("fisher-damping", reason));
        }
        if !(0.0..=0.5).contains(&self.owl_lambda) {
            return Err(Error::invalid_option("owl-lambda", format!("{} is not in [0, 0.5]; 0.08 is usual", self.owl_lambda)));
        }
        if self.block_size == 0 {
            return Err(Error::invalid_option("block-size", "0 columns have no mask to choose; 128 is usual"));
        }
        if let Some(bits) = self.bits.filter(|bits| !(1..=16).contains(bits)) {
            return Err(Error::invalid_option("bits", format!("{bits} is not 1 to 16")));
        }
        match self.reconstruct.filter(|steps| *steps > STEPS) {
            Some(steps) => Err(Error::invalid_option("reconstruct", format!("{steps} steps; at most {STEPS} are run"))),
            None => Ok(()),
        }
    }

    fn check_levels(&self) -> Result<()> {
        if let Some(bad) = self.levels.iter().find(|s| !(**s > 0.0 && **s < 1.0)) {
            return Err(Error::invalid_option("levels", format!("{bad}: {:?} are not sparsities between 0 and 1", self.levels)));
        }
        if self.levels.len() > 255 {
            return Err(Error::invalid_option("levels", format!("{} sparsities; at most 255 are searched", self.levels.len())));
        }
        Ok(())
    }

    /// Refuses numbers of a search, where something is searched.
    fn check_search(&self, allocation: &Allocation) -> Result<()> {
        if !allocation.searches() {
            return Ok(());
        }
        if self.search_tokens < 2 {
            return Err(Error::invalid_option("search-tokens", format!("{} tokens have none to predict", self.search_tokens)));
        }
        self.check_levels()?;
        match self.generations.checked_mul(self.offspring).filter(|n| *n <= TRIED) {
            Some(_) => Ok(()),
            None => {
                let reason =
                    format!("{} of {} offspring each; at most {TRIED} choices are tried", self.generations, self.offspring);
                Err(Error::invalid_option("generations", reason))
            }
        }
    }

    /// Refuses what only a search has a use for, where none was asked for.
    fn refuse_search(&self, searches: bool) -> Result<()> {
        let option = if self.levels.is_empty() { "cost" } else { "levels" };
        let given = !self.levels.is_empty() || self.cost != Default::default();
        if given && !searches {
            return Err(Error::invalid_option(option, "is for --allocate sensitivity, dynamic or evolve"));
        }
        Ok(())
    }

    /// How pruned weights are stored.
    pub(super) fn packing(&self) -> Result<Packing> {
        self.save.parse()
    }

    /// The bytes of activations that stay in memory, where a number was given.
    pub(super) fn activation_bytes(&self) -> Result<Option<usize>> {
        let bytes = |megabytes: usize| {
            megabytes.checked_mul(1 << 20).ok_or_else(|| {
                Error::invalid_option(
                    "activations",
                    format!("{megabytes} megabytes; at most {} can be counted", usize::MAX >> 20),
                )
            })
        };
        self.activations.map(bytes).transpose()
    }

    /// The fraction that goes.
    pub(super) fn fraction(&self) -> Result<f64> {
        match (self.sparsity, self.pattern) {
            (Some(s), pattern @ Pattern::Nm { .. }) => {
                let reason = format!("{s} given with pattern {pattern}, which fixes the sparsity; leave one out");
                Err(Error::invalid_option("sparsity", reason))
            }
            (None, Pattern::Nm { n, m }) => Ok(1.0 - n as f64 / m as f64),
            (Some(s), _) => Budget::from_sparsity(1, s).map(|_| s),
            (None, pattern) => Err(Error::invalid_option("sparsity", format!("pattern {pattern} needs one: give --sparsity"))),
        }
    }

    /// What must be right of a folder's job before the folder is opened.
    pub(super) fn check_folder(&self, methods: &Methods) -> Result<()> {
        self.check_names(methods)?;
        self.fraction()?;
        if !self.layer.is_empty() {
            return Err(Error::invalid_option("layer", "sparsities of single layers are for files; use --only in several runs"));
        }
        let allocation = methods.allocation(&self.allocate)?;
        self.check_numbers()?;
        self.check_search(allocation)?;
        self.activation_bytes()?;
        self.refuse_search(allocation.searches())?;
        fits(self.packing()?, self.pattern)?;
        if matches!(self.pattern, Pattern::Nm { .. }) && allocation.needs_folder() {
            let reason = format!("pattern {} fixes the sparsity of every layer; nothing is left to move", self.pattern);
            return Err(Error::invalid_option("allocate", reason));
        }
        Ok(())
    }

    /// What must be right of the calibration before it is read: there is one where something is measured.
    pub(super) fn check_measured(&self, methods: &Methods) -> Result<()> {
        if let Some(folder) = self.scratch.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(Error::invalid_option("scratch", format!("{} is no folder", folder.display())));
        }
        self.check_calibration(methods)
    }

    /// The same, without looking for the scratch folder.
    pub(super) fn check_calibration(&self, methods: &Methods) -> Result<()> {
        let needs = methods.method(&self.method)?.make_pruner(self)?.needs();
        if self.calibration.is_none() {
            return match self.measures(needs, methods.allocation(&self.allocate)?) {
                false => Ok(()),
                true => {
                    let reason = "this method measures inputs: give --calibration FILE, text or token numbers";
                    Err(Error::invalid_option("calibration", reason))
                }
            };
        }
        if self.samples.checked_mul(self.context).is_none_or(|n| n == 0) {
            return Err(Error::invalid_option("samples", format!("{} sequences of {} tokens", self.samples, self.context)));
        }
        if SequenceGradients::wanted(needs) && self.context < 2 {
            let reason = format!("{} token has none that follows it, so there is no gradient", self.context);
            return Err(Error::invalid_option("context", reason));
        }
        Ok(())
    }

    /// Whether inputs of layers, gradients or predictions must be measured for a method of these needs.
    pub(super) fn measures(&self, needs: Needs, allocation: &Allocation) -> bool {
        let of_weights = needs.iter().next().is_none();
        !of_weights || allocation.needs_folder() || self.reconstruct.is_some() || !self.correct.is_empty()
    }

    /// What must be right of a file's job before the file is read, and its criterion. `opened` is asked once the job is known to be of a file.
    pub(super) fn check_file(&self, methods: &Methods, opened: impl FnOnce() -> Result<()>) -> Result<Box<dyn Saliency>> {
        self.check_names(methods)?;
        opened()?;
        self.refuse_search(false)?;
        if let Some(option) = self.changed().into_iter().find(|option| !PruneJob::OF_FILES.contains(option)) {
            return Err(Error::invalid_option(option, "is for language models: give a model's folder"));
        }
        if self.resume {
            return Err(Error::invalid_option("resume", "is for language models: give a model's folder"));
        }
        // An N:M pattern has no sparsity, and that of others is checked where it is divided.
        let nm = matches!(self.pattern, Pattern::Nm { .. });
        if self.sparsity.is_none() || nm {
            self.fraction()?;
        }
        let criterion = methods.method(&self.method)?.make_criterion(self)?;
        let Some(criterion) = criterion.filter(|criterion| criterion.needs().iter().next().is_none()) else {
            let reason = "needs the inputs of the layers: give a model's folder, not a file of weights";
            return Err(Error::invalid_option("method", reason));
        };
        if nm && !self.layer.is_empty() {
            return Err(Error::invalid_option("layer", format!("pattern {} fixes the sparsity of every tensor", self.pattern)));
        }
        Ok(criterion)
    }

    fn correction(&self) -> Result<Option<Correction>> {
        if self.correct.is_empty() {
            return Ok(None);
        }
        let text = self.correct.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        match self.correct[..] {
            [inputs] | [inputs, _] if self.correct.iter().all(|s| (0.0..=1.0).contains(s)) => {
                let hidden_states = self.correct.get(1).copied().unwrap_or(0.0);
                Ok(Some(Correction { inputs, hidden_states, damping: self.damping }))
            }
            _ => Err(Error::invalid_option("correct", format!("'{text}' is not one or two shares in [0, 1], as 1 or 1,0.5"))),
        }
    }
}

/// Refuses layouts that cannot hold the pattern.
fn fits(packing: Packing, pattern: Pattern) -> Result<()> {
    let held = match (packing, pattern) {
        (Packing::Sparse24Bitmask, p) => p == Pattern::Nm { n: 2, m: 4 },
        (Packing::Storage(Format::Nm(n, m)), p) => p == Pattern::Nm { n, m },
        (Packing::Storage(Format::Bsr(r, c)), p) => p == Pattern::Block { rows: r, cols: c },
        _ => true,
    };
    if held { Ok(()) } else { Err(Error::invalid_option("save", format!("{packing} cannot hold pattern {pattern}"))) }
}

/// What the settings of a job come to.
pub(super) struct Plan<'a> {
    pub method: &'a PruneMethod,
    pub allocation: &'a Allocation,
    /// By which layers are ranked against one another, if there is one.
    pub ranking: Option<Box<dyn Saliency>>,
    /// The method, with least squares behind it where they were asked for.
    pub pruner: Box<dyn Pruner>,
    /// What the method itself needs.
    pub needs: Needs,
    /// The fraction that goes.
    pub sparsity: f64,
    pub scope: Scope,
    pub sequential: Sequential,
    pub correction: Option<Correction>,
    /// Whether inputs of layers, gradients or predictions must be measured.
    pub measures: bool,
}

impl<'a> Plan<'a> {
    /// # Errors
    /// If settings of one method were given for another, or contradict one another.
    pub fn new(job: &PruneJob, methods: &'a Methods, subject: Subject) -> Result<Plan<'a>> {
        let (method, allocation) = (methods.method(&job.method)?, methods.allocation(&job.allocate)?);
        for (option, given) in [("actorder", job.actorder), ("bits", job.bits.is_some())] {
            if given && !method.reads_setting(option) {
                let those =
                    methods.methods().iter().filter(|m| m.reads_setting(option)).map(PruneMethod::name).collect::<Vec<_>>();
                return Err(Error::invalid_option(option, format!("is for --method {}", those.join(" or "))));
            }
        }
        let first = method.make_pruner(job)?;
        let needs = first.needs();
        let pruner: Box<dyn Pruner> = match job.reconstruct {
            Some(steps) => {
                let solver = Solver::Gradients { steps, tolerance: 1e-6 };
                Box::new(Reconstructed::new(first, Reconstruct { damping: job.damping, solver }))
            }
            None => first,
        };
        let dense = job.inputs == CalibrationInputs::Dense;
        let correction = job.correction()?;
        if correction.is_some() && (job.sequential == Sequential::Block || dense) {
            return Err(Error::invalid_option("correct", "layers make up for earlier ones only where they are pruned in turn"));
        }
        let row = match job.scope {
            Some(scope) => scope == Scope::Row,
            None => method.is_by_row() && job.pattern == Pattern::Unstructured && subject != Subject::File,
        };
        Ok(Plan {
            method,
            allocation,
            ranking: method.make_ranking(job)?,
            pruner,
            needs,
            sparsity: job.fraction()?,
            scope: if row { Scope::Row } else { Scope::Layer },
            sequential: if dense { Sequential::Block } else { job.sequential },
            correction,
            measures: job.measures(needs, allocation),
        })
    }

    /// Whether the method, its least squares, its correction or the allocation read what inputs measure.
    pub fn reads_inputs(&self) -> bool {
        of_inputs(self.pruner.needs()) || self.allocation.needs_folder() || self.correction.is_some()
    }
}

/// Whether inputs of layers are among these needs.
pub(super) fn of_inputs(needs: Needs) -> bool {
    [Need::Gram, Need::InputSquares, Need::InputSums].into_iter().any(|n| needs.contains(n))
}

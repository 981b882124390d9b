//! What a job is refused for before anything is read, and what its settings come to.

use super::methods::{Allocation, Kind, Methods, PruneMethod};
use super::settings::{PruneJob, activation_megabytes};
use crate::criteria::{Need, Needs, Saliency};
use crate::io::{Packing, refuse_gguf};
use crate::mask::{Budget, Pattern, Scope};
use crate::prune::{BlockReconstruction, CalibrationInputs, Correction, Generalisation, SequenceGradients, Sequential};
use crate::solve::{Pruner, Reconstruct, Reconstructed, Solver};
use crate::sparse::Format;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Steps of conjugate gradients that are still a number and no slip.
const STEPS: usize = 1_000_000;
/// Choices that a search is asked to try and that are no slip.
const TRIED: usize = 100_000_000;
/// What is said of a setting that a plain file has no use for.
const OF_MODELS: &str = "is for language models: give a model's folder";

/// What is pruned, where layers are ranked against one another in different ways.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// A model's folder, of which one layer is read at a time.
    Folder,
    /// A model in memory.
    Network,
}

impl PruneJob {
    /// The settings, by name, that a plain file of weights has a use for.
    const OF_FILES: [&str; 8] = ["method", "sparsity", "pattern", "allocate", "scope", "skip", "layer", "seed"];

    /// Refuses settings that are outside their range, exclude one another, or name no method; those of a folder for a plain file, and the other
    /// way round, where there is a model. Reads no weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the setting, its value and the range; [`Error::UnknownName`].
    pub fn check(&self, methods: &Methods) -> Result<()> {
        match &self.model {
            Some(model) if !model.is_dir() => self.check_file(methods, || Ok(())).map(|_| ()),
            _ => self.plan_of_folder(methods).map(|_| ()),
        }
    }

    /// Refuses settings, by name and whatever their values, that a plain file of weights has no use for, where `model` is one.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the first of them; what [`refuse_gguf`] says of the model.
    pub fn check_given<'n>(&self, mut given: impl Iterator<Item = &'n str>) -> Result<()> {
        let Some(model) = self.model.as_deref().filter(|model| !model.is_dir()) else { return Ok(()) };
        // Those of a search are refused by what they are for.
        let searches = !self.levels.is_empty() || self.cost != Default::default();
        match given.find(|name| !searches && !PruneJob::OF_FILES.contains(name)) {
            None => Ok(()),
            Some(name) => {
                refuse_gguf(model)?;
                Err(Error::invalid_option(name, OF_MODELS))
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

    /// Refuses numbers outside their range, whatever the method reads, and paths that no recipe and no record can hold.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the setting, its value and the range.
    pub fn check_ranges(&self) -> Result<()> {
        self.check_paths()?;
        if let Some(s) = self.sparsity {
            Budget::from_sparsity(1, s)?;
        }
        for (name, &s) in &self.layer {
            Budget::from_sparsity(1, s).map_err(|e| match e {
                Error::InvalidOption { reason, .. } => Error::invalid_option("layer", format!("'{name}': {reason}")),
                e => e,
            })?;
        }
        self.check_numbers()?;
        if !self.levels.is_empty() {
            self.check_levels()?;
        }
        self.packing()?;
        self.correction().map(|_| ())
    }

    /// Refuses paths that are not UTF-8: recipes and records are text.
    pub(super) fn check_paths(&self) -> Result<()> {
        let paths = [
            ("model", &self.model),
            ("out", &self.out),
            ("calibration", &self.calibration),
            ("scratch", &self.scratch),
            ("text", &self.text),
        ];
        for (name, path) in paths {
            if let Some(path) = path.as_deref().filter(|path| path.to_str().is_none()) {
                let reason = format!("{} is not UTF-8, which the record of the run could not hold", path.display());
                return Err(Error::invalid_option(name, reason));
            }
        }
        Ok(())
    }

    /// Refuses numbers of a model's folder outside their domain, whether the method reads them or not.
    fn check_numbers(&self) -> Result<()> {
        let usual = PruneJob::default();
        let counts = [
            ("samples", Some(self.samples), 1, Some(usual.samples)),
            ("context", Some(self.context), 1, Some(usual.context)),
            ("block-size", Some(self.block_size), 1, Some(usual.block_size)),
            ("windows", self.windows, 1, usual.windows),
            // One token has none behind it to predict.
            ("search-tokens", Some(self.search_tokens), 2, Some(usual.search_tokens)),
            ("generations", Some(self.generations), 1, Some(usual.generations)),
            ("offspring", Some(self.offspring), 1, Some(usual.offspring)),
            ("reconstruct-blocks", self.reconstruct_blocks, 1, None),
        ];
        for (option, value, least, usual) in counts {
            if let Some(value) = value.filter(|value| *value < least) {
                let usual = usual.map_or_else(String::new, |usual| format!("; {usual} is usual"));
                return Err(Error::invalid_option(option, format!("{value} is not at least {least}{usual}")));
            }
        }
        if self.samples.checked_mul(self.context).is_none() {
            let reason = format!("{} sequences of {} tokens are more than can be counted", self.samples, self.context);
            return Err(Error::invalid_option("samples", reason));
        }
        self.activation_bytes()?;
        let at_least_0 = |option: &str, value: f64, usual: &str| match value.is_finite() && value >= 0.0 {
            true => Ok(()),
            false => {
                Err(Error::invalid_option(option, format!("{value} is not a finite number of at least 0; {usual} is usual")))
            }
        };
        self.generalisation()?;
        at_least_0("damping", self.damping, "0.01")?;
        at_least_0("owl-threshold", self.owl_threshold, "5")?;
        if !(self.fisher_damping.is_finite() && self.fisher_damping > 0.0) {
            let reason = format!("{} is not a finite number above 0; 1e-5 is usual", self.fisher_damping);
            return Err(Error::invalid_option("fisher-damping", reason));
        }
        if !(self.reconstruct_rate.is_finite() && self.reconstruct_rate > 0.0) {
            let reason = format!("{} is not a finite number above 0; 3e-5 is usual", self.reconstruct_rate);
            return Err(Error::invalid_option("reconstruct-rate", reason));
        }
        if !(0.0..=0.5).contains(&self.owl_lambda) {
            return Err(Error::invalid_option("owl-lambda", format!("{} is not in [0, 0.5]; 0.08 is usual", self.owl_lambda)));
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

    /// Refuses more choices than a search can try, where something is searched.
    fn check_search(&self, allocation: &Allocation) -> Result<()> {
        if !allocation.searches() {
            return Ok(());
        }
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
        activation_megabytes(self.activations)
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

    /// What a folder's job comes to, with all that must be right before the folder is opened.
    pub(super) fn plan_of_folder<'m>(&self, methods: &'m Methods) -> Result<Plan<'m>> {
        self.check_names(methods)?;
        self.fraction()?;
        if !self.layer.is_empty() {
            return Err(Error::invalid_option("layer", "sparsities of single layers are for files; use --only in several runs"));
        }
        let allocation = methods.allocation(&self.allocate)?;
        self.check_ranges()?;
        self.check_search(allocation)?;
        self.refuse_search(allocation.searches())?;
        fits(self.packing()?, self.pattern)?;
        if matches!(self.pattern, Pattern::Nm { .. }) && allocation.needs_folder() {
            let reason = format!("pattern {} fixes the sparsity of every layer; nothing is left to move", self.pattern);
            return Err(Error::invalid_option("allocate", reason));
        }
        let plan = Plan::new(self, methods, Subject::Folder)?;
        if let Some(folder) = self.scratch.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(Error::invalid_option("scratch", format!("{} is no folder", folder.display())));
        }
        if self.calibration.is_none() && plan.measures {
            let reason = "this method measures inputs: give --calibration FILE, text or token numbers";
            return Err(Error::invalid_option("calibration", reason));
        }
        if SequenceGradients::wanted(plan.needs) && self.context < 2 {
            let reason = format!("{} token has none that follows it, so there is no gradient", self.context);
            return Err(Error::invalid_option("context", reason));
        }
        Ok(plan)
    }

    /// What must be right of a file's job before the file is read, and its criterion. `opened` is asked once the job is known to be of a file.
    pub(super) fn check_file(&self, methods: &Methods, opened: impl FnOnce() -> Result<()>) -> Result<Box<dyn Saliency>> {
        self.check_names(methods)?;
        self.check_paths()?;
        opened()?;
        self.refuse_search(false)?;
        let others = self.changed().into_iter().chain(self.resume.then_some("resume"));
        if let Some(option) = others.into_iter().find(|option| !PruneJob::OF_FILES.contains(option)) {
            return Err(Error::invalid_option(option, OF_MODELS));
        }
        self.fraction()?;
        self.check_ranges()?;
        let criterion = methods.method(&self.method)?.make_criterion(self)?;
        let Some(criterion) = criterion.filter(|criterion| criterion.needs().iter().next().is_none()) else {
            let reason = "needs the inputs of the layers: give a model's folder, not a file of weights";
            return Err(Error::invalid_option("method", reason));
        };
        self.refuse_layers_of_nm("tensor")?;
        self.pattern.check_scope(self.scope.unwrap_or_default())?;
        let allocation = methods.allocation(&self.allocate)?.make(self)?;
        if allocation.needs_scores()
            && !matches!(self.pattern, Pattern::Nm { .. })
            && methods.method(&self.method)?.is_ranked_by_another()
        {
            let reason =
                format!("{} ranks the layers of {} by another criterion: give a model's folder", self.allocate, self.method);
            return Err(Error::invalid_option("allocate", reason));
        }
        Ok(criterion)
    }

    /// Refuses sparsities of single layers beside a pattern that fixes them.
    pub(super) fn refuse_layers_of_nm(&self, what: &str) -> Result<()> {
        if matches!(self.pattern, Pattern::Nm { .. }) && !self.layer.is_empty() {
            return Err(Error::invalid_option("layer", format!("pattern {} fixes the sparsity of every {what}", self.pattern)));
        }
        Ok(())
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
            _ => Err(Error::invalid_option("correct", format!("'{text}' is not one or two fractions in [0, 1], as 1 or 1,0.5"))),
        }
    }
}

/// Sparsities of single layers by the names that `of` finds for them.
///
/// # Errors
/// If two of them are of one layer; what `of` returns.
pub(super) fn each_once(given: &BTreeMap<String, f64>, of: impl Fn(&str) -> Result<String>) -> Result<BTreeMap<String, f64>> {
    let mut found: BTreeMap<String, (&str, f64)> = BTreeMap::new();
    for (name, &sparsity) in given {
        if let Some((other, _)) = found.insert(of(name)?, (name, sparsity)) {
            return Err(Error::invalid_option("layer", format!("'{other}' and '{name}' are one layer, which is given twice")));
        }
    }
    Ok(found.into_iter().map(|(name, (_, sparsity))| (name, sparsity)).collect())
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
    /// By which layers are ranked against one another, where the allocation ranks; by magnitude if there is none.
    pub ranking: Option<Box<dyn Saliency>>,
    /// Whether layers are ranked by magnitude because what the criterion looks at is not known when they are.
    pub ranks_by_magnitude: bool,
    /// The method, with least squares behind it where they were asked for.
    pub pruner: Box<dyn Pruner>,
    /// What the method itself needs, and what layers of a folder are ranked by.
    pub needs: Needs,
    /// The fraction that goes.
    pub sparsity: f64,
    pub scope: Scope,
    pub sequential: Sequential,
    pub correction: Option<Correction>,
    pub reconstruction: Option<BlockReconstruction>,
    pub generalisation: Generalisation,
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
        let of_method = first.needs();
        let ranks = match &allocation.kind {
            Kind::Layers(make) => make(job)?.needs_scores() && !matches!(job.pattern, Pattern::Nm { .. }),
            _ => false,
        };
        let ranking = match subject {
            _ if !ranks => None,
            Subject::Network => method.make_ranking(job)?,
            Subject::Folder => method.make_folder_ranking(job)?,
        };
        let of_ranking = ranking.as_ref().filter(|_| subject == Subject::Folder).map_or_else(Needs::none, |r| r.needs());
        let needs = of_method.union(of_ranking);
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
        if dense && job.reconstruct_blocks.is_some() {
            return Err(Error::invalid_option(
                "reconstruct-blocks",
                "blocks are reconstructed on pruned inputs, not on --inputs dense",
            ));
        }
        if let (Some(bits), Some(_)) = (job.bits, job.reconstruct_blocks) {
            let reason = format!("{bits} bits beside reconstruct-blocks: weights that are trained leave their grid");
            return Err(Error::invalid_option("bits", reason));
        }
        let row = match job.scope {
            Some(scope) => scope == Scope::Row,
            None => method.is_by_row() && job.pattern == Pattern::Unstructured,
        };
        let scope = if row { Scope::Row } else { Scope::Layer };
        job.pattern.check_scope(scope)?;
        let of_weights = needs.iter().next().is_none();
        let generalisation = match subject {
            Subject::Folder => job.checked_generalisation()?,
            Subject::Network => job.generalisation()?,
        };
        Ok(Plan {
            method,
            allocation,
            ranks_by_magnitude: ranks && ranking.is_none() && method.is_criterion() && of_method.iter().next().is_some(),
            ranking,
            pruner,
            needs,
            sparsity: job.fraction()?,
            scope,
            sequential: if dense { Sequential::Block } else { job.sequential },
            correction,
            reconstruction: job
                .reconstruct_blocks
                .map(|passes| BlockReconstruction::new(passes).learning_rate(job.reconstruct_rate)),
            generalisation,
            measures: !of_weights
                || of_inputs(generalisation.needs())
                || allocation.needs_folder()
                || job.reconstruct.is_some()
                || job.reconstruct_blocks.is_some()
                || correction.is_some(),
        })
    }

    /// Whether the method, its least squares, its correction or the allocation read what inputs measure.
    pub fn reads_inputs(&self) -> bool {
        let beside = self.correction.is_some() || self.reconstruction.is_some();
        let needs = self.pruner.needs().union(self.generalisation.needs());
        of_inputs(needs) || self.allocation.needs_folder() || beside
    }
}

/// Whether inputs of layers are among these needs.
pub(super) fn of_inputs(needs: Needs) -> bool {
    [Need::Gram, Need::InputSquares, Need::InputSums, Need::InputMagnitudes, Need::InputMaxima]
        .into_iter()
        .any(|n| needs.contains(n))
}

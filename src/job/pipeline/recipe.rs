//! Pipelines in files.
//!
//! ```text
//! model = "smollm2"
//! out = "small"
//! text = "wiki.test.tokens"       perplexity of the model before and behind each stage, in windows of context tokens
//!
//! [[stage]]
//! [stage.prune]                   the settings of lacuna prune by their names; model and out are those of the pipeline
//! method = "alps"
//! sparsity = 0.5
//! calibration = "wiki.valid.tokens"
//!
//! [[stage]]
//! job = "train"                   the same, written flat
//! text = ["wiki.valid.tokens"]
//! steps = 300
//! teacher = "smollm2"
//!
//! [[stage]]                       pruned in rounds with training between: prune to s_1, train, prune to s_2, train, …
//! schedule = "cubic"              or linear, exponential: `prune::Schedule`
//! rounds = 4
//! from = 0.0                      the sparsity that the model has by then
//! prune = { method = "magnitude", sparsity = 0.7 }
//! train = { text = ["wiki.valid.tokens"], steps = 100 }
//! ```

use super::super::export::ExportJob;
use super::super::pack::PackJob;
use super::super::quantize::QuantizeJob;
use super::super::recipe::{from_table, to_toml};
use super::super::settings::PruneJob;
use super::super::shrink::ShrinkJob;
use super::super::train::TrainJob;
use crate::data::Bos;
use crate::io::one_line;
use crate::prune::Schedule;
use crate::{Error, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// One stage of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StageJob {
    /// `lacuna prune`.
    Prune(Box<PruneJob>),
    /// `lacuna train`.
    Train(Box<TrainJob>),
    /// `lacuna shrink`.
    Shrink(Box<ShrinkJob>),
    /// `lacuna quantize`.
    Quantize(Box<QuantizeJob>),
    /// `lacuna export`: a file beside the folders of the stages; the stage behind it goes on from the folder before it.
    Export(Box<ExportJob>),
    /// `lacuna pack`.
    Pack(Box<PackJob>),
}

/// The names of the jobs that a stage may be.
const JOBS: [&str; 6] = ["prune", "train", "shrink", "quantize", "export", "pack"];

impl StageJob {
    /// The subcommand.
    pub fn name(&self) -> &'static str {
        match self {
            StageJob::Prune(_) => "prune",
            StageJob::Train(_) => "train",
            StageJob::Shrink(_) => "shrink",
            StageJob::Quantize(_) => "quantize",
            StageJob::Export(_) => "export",
            StageJob::Pack(_) => "pack",
        }
    }

    fn of(name: &str, table: toml::Table) -> Result<StageJob> {
        match name {
            "prune" => Ok(StageJob::Prune(Box::new(from_table(table)?))),
            "train" => Ok(StageJob::Train(Box::new(from_table(table)?))),
            "shrink" => Ok(StageJob::Shrink(Box::new(from_table(table)?))),
            "quantize" => Ok(StageJob::Quantize(Box::new(from_table(table)?))),
            "export" => Ok(StageJob::Export(Box::new(from_table(table)?))),
            "pack" => Ok(StageJob::Pack(Box::new(from_table(table)?))),
            _ => Err(Error::unknown_name("job", name, JOBS.into_iter())),
        }
    }

    /// All its settings as a recipe of its own.
    ///
    /// # Errors
    /// As [`PruneJob::to_toml`].
    pub fn to_toml(&self) -> Result<String> {
        match self {
            StageJob::Prune(job) => to_toml(job.as_ref()),
            StageJob::Train(job) => to_toml(job.as_ref()),
            StageJob::Shrink(job) => to_toml(job.as_ref()),
            StageJob::Quantize(job) => to_toml(job.as_ref()),
            StageJob::Export(job) => to_toml(job.as_ref()),
            StageJob::Pack(job) => to_toml(job.as_ref()),
        }
    }

    /// The model and the output that it names itself.
    pub(super) fn paths(&self) -> (Option<&Path>, Option<&Path>) {
        match self {
            StageJob::Prune(job) => (job.model.as_deref(), job.out.as_deref()),
            StageJob::Train(job) => (job.model.as_deref(), job.out.as_deref()),
            StageJob::Shrink(job) => (job.model.as_deref(), job.out.as_deref()),
            StageJob::Quantize(job) => (job.model.as_deref(), job.out.as_deref()),
            StageJob::Export(job) => (job.model.as_deref(), job.out.as_deref()),
            StageJob::Pack(job) => (job.model.as_deref(), job.out.as_deref()),
        }
    }

    /// The same on this model, taken up where it was if it was begun.
    pub(super) fn on(&self, model: &Path, out: &Path, begun: bool) -> StageJob {
        match self.clone() {
            StageJob::Prune(job) => StageJob::Prune(Box::new(job.model(model).out(out).resume(begun))),
            StageJob::Train(job) => StageJob::Train(Box::new(job.model(model).out(out).resume(begun))),
            StageJob::Shrink(job) => StageJob::Shrink(Box::new(job.model(model).out(out).resume(begun))),
            StageJob::Quantize(job) => StageJob::Quantize(Box::new(job.model(model).out(out).resume(begun))),
            StageJob::Export(job) => StageJob::Export(Box::new(job.model(model).out(out).resume(begun))),
            StageJob::Pack(job) => StageJob::Pack(Box::new(job.model(model).out(out).resume(begun))),
        }
    }
}

/// Stages that follow one another.
///
/// ```
/// use lacuna::job::Pipeline;
/// let text = "
///     model = 'dense'
///     out = 'small'
///     [[stage]]
///     prune = { method = 'magnitude', sparsity = 0.5 }
///     [[stage]]
///     job = 'train'
///     text = ['a.txt']
///     steps = 30
/// ";
/// let pipeline = Pipeline::from_toml(text)?;
/// assert_eq!(pipeline.stages.iter().map(|s| s.name()).collect::<Vec<_>>(), ["prune", "train"]);
/// let e = Pipeline::from_toml("model = 'a'\nout = 'b'\n[[stage]]\njob = 'train'\nstep = 3").unwrap_err();
/// assert_eq!(e.to_string(), "stage 1: step: no setting is named 'step' among 47; did you mean 'steps'?");
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Pipeline {
    /// The folder of the model to begin with.
    pub model: PathBuf,
    /// The folder in which the folders of the stages, the record and the page are made.
    pub out: PathBuf,
    /// A text whose perplexity is measured before the first stage and behind each.
    pub text: Option<PathBuf>,
    /// Tokens of a window of it.
    pub context: usize,
    /// Only its first windows.
    pub windows: Option<usize>,
    /// Where the token that begins a text stands.
    pub bos: Bos,
    /// What is done, in order.
    pub stages: Vec<StageJob>,
}

impl Pipeline {
    /// Reads a recipe. Relative paths are as they were given.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] with the file, the stage, the key and the value.
    pub fn read(path: impl AsRef<Path>) -> Result<Pipeline> {
        let path = path.as_ref();
        Pipeline::from_toml(&crate::data::read_text(path)?).map_err(|e| Error::malformed(path, e.to_string()))
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] or [`Error::UnknownName`] with the stage, the key and the value.
    pub fn from_toml(text: &str) -> Result<Pipeline> {
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            Error::invalid_option(format!("line {}", before.matches('\n').count() + 1), one_line(e.message(), 300))
        })?;
        let known = ["model", "out", "text", "context", "windows", "bos", "stage"];
        if let Some(name) = table.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(Error::unknown_name("setting", name, known.into_iter()));
        }
        let path = |value: Option<toml::Value>, key: &str| match value {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(PathBuf::from(text))),
            Some(other) => Err(Error::invalid_option(key, format!("{}: is no path", one_line(&other.to_string(), 60)))),
        };
        let count = |value: Option<toml::Value>, key: &str, least: i64| match value {
            None => Ok(None),
            Some(toml::Value::Integer(n)) if n >= least => Ok(usize::try_from(n).ok()),
            Some(other) => {
                Err(Error::invalid_option(key, format!("{} is not at least {least}", one_line(&other.to_string(), 60))))
            }
        };
        let missing = |key: &str, what: &str| Error::invalid_option(key, format!("is not given: {what}"));
        let stages = match table.remove("stage") {
            Some(toml::Value::Array(stages)) if !stages.is_empty() => stages,
            _ => return Err(missing("stage", "a pipeline has at least one table [[stage]]")),
        };
        let bos = match table.remove("bos") {
            None => Bos::default(),
            Some(value) => value.as_str().unwrap_or_default().parse()?,
        };
        Ok(Pipeline {
            model: path(table.remove("model"), "model")?.ok_or_else(|| missing("model", "the folder to begin with"))?,
            out: path(table.remove("out"), "out")?.ok_or_else(|| missing("out", "the folder for the stages"))?,
            text: path(table.remove("text"), "text")?,
            context: count(table.remove("context"), "context", 2)?.unwrap_or(1024),
            windows: count(table.remove("windows"), "windows", 1)?,
            bos,
            stages: stages.into_iter().enumerate().map(|(i, stage)| of_stage(i + 1, stage)).collect::<Result<Vec<_>>>()?.concat(),
        })
    }
}

/// A stage: one key that names its job and holds its settings, or `job` and the settings beside; with a schedule the rounds of two jobs.
fn of_stage(number: usize, stage: toml::Value) -> Result<Vec<StageJob>> {
    let at = |e: Error| match e {
        Error::InvalidOption { option, reason } => Error::invalid_option(format!("stage {number}: {option}"), reason),
        Error::UnknownName { ref name, .. } => Error::invalid_option(format!("stage {number}: {name}"), e.to_string()),
        e => e,
    };
    let toml::Value::Table(mut table) = stage else {
        return Err(Error::invalid_option(format!("stage {number}"), "is no table"));
    };
    if let Some(schedule) = table.remove("schedule") {
        return rounds(schedule, table).map_err(at);
    }
    if let Some(job) = table.remove("job") {
        return StageJob::of(job.as_str().unwrap_or_default(), table).map(|stage| vec![stage]).map_err(at);
    }
    let mut entries = table.into_iter();
    match (entries.next(), entries.next()) {
        (Some((name, toml::Value::Table(settings))), None) => StageJob::of(&name, settings).map(|stage| vec![stage]).map_err(at),
        _ => Err(Error::invalid_option(
            format!("stage {number}"),
            format!("names no job: [stage.{}] with its settings, or job = \"{}\" beside them", JOBS[0], JOBS[0]),
        )),
    }
}

/// Pruning in rounds with training behind each: as many pairs of jobs, whose sparsities are those of the schedule.
fn rounds(schedule: toml::Value, mut table: toml::Table) -> Result<Vec<StageJob>> {
    let known = ["schedule", "rounds", "from", "prune", "train"];
    if let Some(name) = table.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(Error::unknown_name("setting", name, known.into_iter()));
    }
    let wrong = |key: &str, value: String, is: &str| Error::invalid_option(key, format!("{} is not {is}", one_line(&value, 60)));
    let steps = match table.remove("rounds") {
        Some(toml::Value::Integer(n @ 1..=1000)) => n as usize,
        other => return Err(wrong("rounds", other.map_or("nothing".into(), |v| v.to_string()), "a number of 1 to 1000")),
    };
    let schedule = match schedule.as_str() {
        Some("linear") => Schedule::Linear { steps },
        Some("cubic") => Schedule::Cubic { steps },
        Some("exponential") => Schedule::Exponential { steps },
        _ => return Err(wrong("schedule", schedule.to_string(), "linear, cubic or exponential")),
    };
    let from = match table.remove("from") {
        None => 0.0,
        Some(value) => value
            .as_float()
            .or_else(|| value.as_integer().map(|n| n as f64))
            .ok_or_else(|| wrong("from", value.to_string(), "a sparsity in [0, 1)"))?,
    };
    let mut job = |name: &str| match table.remove(name) {
        Some(toml::Value::Table(settings)) => StageJob::of(name, settings),
        _ => Err(Error::invalid_option(name, "is not given: a schedule prunes and trains")),
    };
    let (StageJob::Prune(prune), train) = (job("prune")?, job("train")?) else {
        return Err(Error::invalid_option("prune", "is no job of prune"));
    };
    let Some(last) = prune.sparsity else {
        return Err(Error::invalid_option("sparsity", "is not given: a schedule ends at one"));
    };
    let pair = |sparsity| [StageJob::Prune(Box::new(prune.clone().sparsity(sparsity))), train.clone()];
    Ok(schedule.sparsities(from, last)?.into_iter().flat_map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::{Pipeline, StageJob};

    #[test]
    fn a_schedule_is_rounds_of_pruning_and_training() {
        let of = |schedule: &str| {
            let stage = format!("[[stage]]\n{schedule}\ntrain = {{ text = ['a'], steps = 3 }}");
            Pipeline::from_toml(&format!("model = 'a'\nout = 'b'\n{stage}"))
        };
        let found = of("schedule = 'cubic'\nrounds = 2\nprune = { method = 'magnitude', sparsity = 0.8 }").unwrap();
        let sparsities: Vec<Option<f64>> =
            found.stages.iter().map(|s| if let StageJob::Prune(p) = s { p.sparsity } else { None }).collect();
        assert_eq!(sparsities, [Some(0.700_000_000_000_000_1), None, Some(0.8), None]);
        let later = of("schedule = 'linear'\nrounds = 1\nfrom = 0.5\nprune = { sparsity = 0.6 }").unwrap();
        assert_eq!(later.stages.iter().map(StageJob::name).collect::<Vec<_>>(), ["prune", "train"]);
        for (schedule, line) in [
            (
                "schedule = 'cubical'\nrounds = 2\nprune = { sparsity = 0.8 }",
                "stage 1: schedule: \"cubical\" is not linear, cubic or exponential",
            ),
            ("schedule = 'cubic'\nprune = { sparsity = 0.8 }", "stage 1: rounds: nothing is not a number of 1 to 1000"),
            ("schedule = 'cubic'\nrounds = 2", "stage 1: prune: is not given: a schedule prunes and trains"),
            (
                "schedule = 'cubic'\nrounds = 2\nprune = { pattern = '2:4' }",
                "stage 1: sparsity: is not given: a schedule ends at one",
            ),
            (
                "schedule = 'cubic'\nrounds = 2\nfrom = 0.9\nprune = { sparsity = 0.8 }",
                "stage 1: sparsity: a schedule grows: it cannot go from 0.9 to 0.8",
            ),
        ] {
            assert_eq!(of(schedule).unwrap_err().to_string(), line);
        }
    }
}

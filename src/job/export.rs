//! Writing a GGUF file as a value: [`ExportJob`], what `lacuna export` is asked for, and a stage of a pipeline.

use super::recipe::{self, Recipe};
use super::setters::setters;
use crate::io::gguf::{ExportTypes, Exported, Gguf, Quant, export};
use crate::io::{Folder, outputs};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A folder that becomes a GGUF file. Settings have the names of the command's options.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `model` | | a path | a model's folder |
/// | `out` | | a path | the file to write |
/// | `type` | | [`Quant`] | how weights are stored: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k |
/// | `ends` | as weights, of fewer than eight bits `q8_0` | [`Quant`] | how embedding and head are stored |
/// | `fallback` | none | [`Quant`] | how weights are stored whose rows are no whole number of blocks: those of K types have 256 numbers |
/// | `like` | | a path | an older file of the same model, whose keys, tokenizer, order and types are taken |
///
/// ```
/// use lacuna::job::ExportJob;
/// let job = ExportJob::default().model("small").out("small.gguf").weights("q4_0");
/// job.check()?;
/// assert_eq!(job.clone().weights("q9").check().unwrap_err().to_string().split(':').next(), Some("type"));
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct ExportJob {
    /// The model's folder.
    pub model: Option<PathBuf>,
    /// The file to write; it appears whole or not at all.
    pub out: Option<PathBuf>,
    /// How weights are stored.
    #[serde(rename = "type")]
    pub weights: Option<String>,
    /// How embedding and head are stored.
    pub ends: Option<String>,
    /// How weights are stored whose rows are no whole number of blocks.
    pub fallback: Option<String>,
    /// An older file of the same model.
    pub like: Option<PathBuf>,
    /// Whether an older file is replaced; in no recipe and no record.
    #[serde(skip)]
    pub force: bool,
    /// Whether a GGUF file that is there is an earlier run's, to be written again; in no recipe and no record.
    #[serde(skip)]
    pub resume: bool,
}

setters! {
    ExportJob;
    /// The model's folder.
    model(path: impl Into<PathBuf>) = Some(path.into());
    /// The file to write.
    out(path: impl Into<PathBuf>) = Some(path.into());
    /// How weights are stored.
    weights(name: impl Into<String>) = Some(name.into());
    /// How embedding and head are stored.
    ends(name: impl Into<String>) = Some(name.into());
    /// How weights are stored whose rows are no whole number of blocks.
    fallback(name: impl Into<String>) = Some(name.into());
    /// An older file of the same model.
    like(path: impl Into<PathBuf>) = Some(path.into());
    /// Whether an older file is replaced.
    force(on: bool) = on;
    /// Whether a GGUF file that is there is an earlier run's.
    resume(on: bool) = on;
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
#[must_use]
pub struct ExportReport {
    /// The file that was written.
    pub out: PathBuf,
    /// How long it took.
    pub seconds: f64,
    /// What is in it.
    #[serde(flatten)]
    pub exported: Exported,
}

impl Recipe for ExportJob {
    const COMMAND: &'static str = "export";
    const NAMES: &'static [&'static str] = &["model", "out", "type", "ends", "fallback", "like"];

    fn in_range(&self) -> Result<()> {
        self.types().map(|_| ())
    }

    fn check_paths(&self) -> Result<()> {
        for (name, path) in [("model", &self.model), ("out", &self.out), ("like", &self.like)] {
            if let Some(path) = path.as_deref().filter(|path| path.to_str().is_none()) {
                return Err(Error::invalid_option(name, format!("{} is not UTF-8, which a recipe cannot hold", path.display())));
            }
        }
        Ok(())
    }
}

impl ExportJob {
    /// Reads a recipe.
    ///
    /// # Errors
    /// With the key and the value, as [`PruneJob::read`](crate::job::PruneJob::read).
    pub fn from_toml(text: &str) -> Result<ExportJob> {
        recipe::from_toml(text)
    }

    /// The types of the file, of which weights are F32 where none is given.
    fn types(&self) -> Result<ExportTypes> {
        let of = |name: &str, option: &str| -> Result<Quant> {
            name.parse().map_err(|e| match e {
                Error::InvalidOption { reason, .. } => Error::invalid_option(option, reason),
                e => e,
            })
        };
        let weights = self.weights.as_deref().map_or(Ok(Quant::F32), |name| of(name, "type"))?;
        let types = ExportTypes::new(weights);
        let types = self.ends.as_deref().map_or(Ok(types), |name| of(name, "ends").map(|quant| types.ends(quant)))?;
        self.fallback.as_deref().map_or(Ok(types), |name| of(name, "fallback").map(|quant| types.fallback(quant)))
    }

    /// Refuses types that are none, and settings that exclude one another. Reads nothing.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the setting and the value.
    pub fn check(&self) -> Result<()> {
        self.types()?;
        match (&self.like, &self.weights) {
            (None, None) => Err(Error::invalid_option(
                "type",
                "is not given: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, or one of the K types q2_k to q6_k",
            )),
            (Some(_), Some(_)) => Err(Error::invalid_option("type", "goes not with like, whose types are taken")),
            (Some(_), None) if self.ends.is_some() || self.fallback.is_some() => {
                let option = if self.ends.is_some() { "ends" } else { "fallback" };
                Err(Error::invalid_option(option, "goes not with like, whose types are taken"))
            }
            _ => Ok(()),
        }
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// As [`ExportJob::check`]; if `model` or `out` is not set; [`Error::Exists`]; as [`export`].
    pub fn run(&self) -> Result<ExportReport> {
        let begun = Instant::now();
        self.check()?;
        let missing = |name: &str, what: &str| Error::invalid_option(name, format!("is not set: {what}"));
        let model = self.model.as_deref().ok_or_else(|| missing("model", "the folder to export"))?;
        let out = self.out.as_deref().ok_or_else(|| missing("out", "the file to write"))?;
        let inputs: Vec<&Path> = [Some(model), self.like.as_deref()].into_iter().flatten().collect();
        let own = self.resume && Gguf::open(out).is_ok();
        outputs::file(out, &inputs, self.force || own)?;
        let folder = Folder::open(model)?;
        let like = self.like.as_ref().map(Gguf::open).transpose()?;
        let exported = export(&folder, out, self.types()?, like.as_ref()).map_err(|e| match e {
            e @ (Error::Io { .. } | Error::Malformed { .. }) => e,
            e => Error::malformed(model, e.to_string()),
        })?;
        Ok(ExportReport { out: out.to_path_buf(), seconds: begun.elapsed().as_secs_f64(), exported })
    }
}

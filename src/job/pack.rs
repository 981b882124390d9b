//! Laying a folder's weights in another way as a value: [`PackJob`], what `lacuna pack` does, as a stage of a pipeline.

use super::recipe::Recipe;
use super::setters::setters;
use crate::io::{Folder, Packing, outputs, repack};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// What a finished job leaves in its folder.
const RECORD: &str = "pack.json";

/// A folder whose packed weights, those of masks or in codes, are laid in another way. Settings have the names of the command's options.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `model` | | a path | a model's folder |
/// | `out` | | a path | the folder to write |
/// | `save` | `weights` | [`Packing`] | how weights are laid; `weights`: whole, masks beside |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct PackJob {
    /// The model's folder.
    pub model: Option<PathBuf>,
    /// The folder to write; it appears whole or not at all.
    pub out: Option<PathBuf>,
    /// How weights are laid.
    pub save: String,
    /// Whether an older output is replaced; in no recipe and no record.
    #[serde(skip)]
    pub force: bool,
    /// Whether a folder that is there is an earlier run's; in no recipe and no record.
    #[serde(skip)]
    pub resume: bool,
}

impl Default for PackJob {
    fn default() -> Self {
        PackJob { model: None, out: None, save: "weights".into(), force: false, resume: false }
    }
}

setters! {
    PackJob;
    /// The model's folder.
    model(path: impl Into<PathBuf>) = Some(path.into());
    /// The folder to write.
    out(path: impl Into<PathBuf>) = Some(path.into());
    /// How weights are laid.
    save(layout: impl Into<String>) = layout.into();
    /// Whether an older output is replaced.
    force(on: bool) = on;
    /// Whether a folder that is there is an earlier run's.
    resume(on: bool) = on;
}

impl Recipe for PackJob {
    const COMMAND: &'static str = "pack";
    const NAMES: &'static [&'static str] = &["model", "out", "save"];

    fn in_range(&self) -> Result<()> {
        self.check()
    }

    fn check_paths(&self) -> Result<()> {
        for (name, path) in [("model", &self.model), ("out", &self.out)] {
            if let Some(path) = path.as_deref().filter(|path| path.to_str().is_none()) {
                return Err(Error::invalid_option(name, format!("{} is not UTF-8, which a recipe cannot hold", path.display())));
            }
        }
        Ok(())
    }
}

impl PackJob {
    /// Refuses what is no layout. Reads nothing.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the layouts that there are.
    pub fn check(&self) -> Result<()> {
        self.save.parse::<Packing>().map(|_| ())
    }

    /// Writes the folder, whole or not at all; with [`PackJob::resume`] one that an equal job has written stays as it is. Gives the seconds that it took.
    ///
    /// # Errors
    /// As [`PackJob::check`]; if `model` or `out` is not set; if nothing of the model is packed; [`Error::Exists`]; as [`repack`].
    pub fn run(&self) -> Result<f64> {
        let begun = Instant::now();
        let packing: Packing = self.save.parse()?;
        let missing = |name: &str, what: &str| Error::invalid_option(name, format!("is not set: {what}"));
        let model = self.model.as_deref().ok_or_else(|| missing("model", "the folder to pack"))?;
        let out = self.out.as_deref().ok_or_else(|| missing("out", "the folder to write"))?;
        let folder = Folder::open(model)?;
        let asked = json!({"save": self.save, "model_hash": folder.fingerprint()?});
        let record: Option<Value> = std::fs::read(out.join(RECORD)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(record) = record.filter(|_| self.resume) {
            if record["settings"] == asked {
                return Ok(record["seconds"].as_f64().unwrap_or(0.0));
            }
            let reason = format!("the finished run {} has other settings or another model; name a new folder", out.display());
            return Err(Error::invalid_option("save", reason));
        }
        let output = outputs::folder(out, &[model], self.force)?;
        if !folder.is_pruned() && folder.packed().next().is_none() {
            return Err(Error::malformed(model, "has neither masks nor packed weights"));
        }
        let writer = repack(&folder, output, packing, |_, _| {})?;
        let seconds = begun.elapsed().as_secs_f64();
        writer.json(RECORD, &json!({"settings": asked, "seconds": seconds}))?;
        writer.finish()?;
        Ok(seconds)
    }
}

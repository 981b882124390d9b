//! A file of units' scores beside a job: whether it is written or read, and what it must be of.

use super::method::ShrinkMethod;
use super::settings::ShrinkJob;
use crate::io::FolderWriter;
use crate::prune::{UnitScores, unfinished_settings};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The setting of a run that says what it did with the file.
pub(super) const KEY: &str = "scores";

impl ShrinkJob {
    /// Whether scores are read. A run that is taken up again does what it did.
    pub(super) fn reuses_scores(&self) -> bool {
        let Some(path) = &self.scores else { return false };
        let noted = self.out.as_deref().filter(|_| self.resume).and_then(noted);
        match noted.as_deref() {
            Some(noted) => noted == "read",
            None => path.exists(),
        }
    }

    /// Refuses a file of scores that could not be written, or reads the one that is there and holds it against the run: `described` is what that is asked
    /// for.
    pub(super) fn read_scores(&self, described: &Value) -> Result<Option<UnitScores>> {
        let Some(path) = &self.scores else { return Ok(None) };
        if !self.reuses_scores() {
            let above = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let inside = self.out.as_ref().is_some_and(|out| path.starts_with(out));
            return match above.is_dir() && !inside && path.file_name().is_some() {
                true => Ok(None),
                false => {
                    let reason = format!(
                        "{} cannot be written: its folder is {}",
                        path.display(),
                        if inside { "that of the output" } else { "not there" }
                    );
                    Err(Error::invalid_option("scores", reason))
                }
            };
        }
        let scores = UnitScores::read(path)?;
        let now = self.said(described);
        for (key, now) in now.iter().filter(|(key, _)| *key != "lacuna") {
            let Some(before) = scores.said(key).filter(|before| before != now) else { continue };
            let what = match key.as_str() {
                "model" => "another model".to_string(),
                "tokens" => "another calibration".to_string(),
                key => format!("another {key}"),
            };
            let reason = format!("{} is of {what}: {before} there, {now} here; name another file", path.display());
            return Err(Error::invalid_option("scores", reason));
        }
        Ok(Some(scores))
    }

    /// What scores of this run are of.
    pub(super) fn said(&self, described: &Value) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
        let mut said: BTreeMap<String, String> = [
            ("model".to_string(), text(&described["model_hash"])),
            ("method".to_string(), self.method.to_string()),
            ("lacuna".to_string(), env!("CARGO_PKG_VERSION").to_string()),
        ]
        .into();
        let mut also = |key: &str, matters: bool, value: String| {
            if matters {
                said.insert(key.to_string(), value);
            }
        };
        also("metric", self.method == ShrinkMethod::Obs, self.metric.to_string());
        also("aggregate", self.method == ShrinkMethod::Minitron, self.aggregate.to_string());
        also("seed", self.method == ShrinkMethod::Random, self.seed.to_string());
        let name = |value: Result<String>| value.unwrap_or_default();
        let json = |value: serde_json::Result<Value>| {
            name(value.map(|v| text(&v)).map_err(|e| Error::invalid_option("scores", e.to_string())))
        };
        also("hidden-by", self.hidden.is_some(), json(serde_json::to_value(self.hidden_by)));
        also("depth-by", self.layers.is_some() || self.sublayers.is_some(), json(serde_json::to_value(self.depth_by)));
        let tokens = format!("{} of {}", text(&described["tokens_hash"]), described["tokens"]);
        // One token is that of a run that measures nothing.
        also("tokens", described["tokens"].as_u64().is_some_and(|n| n > 1), tokens);
        said
    }
}

/// What an earlier run towards `out` did with the file.
fn noted(out: &Path) -> Option<String> {
    let settings = match FolderWriter::is_unfinished(out) {
        Ok(true) => unfinished_settings(out).ok()?,
        _ => {
            let text = std::fs::read(out.join("shrink.json")).ok()?;
            serde_json::from_slice::<Value>(&text).ok()?["settings"].clone()
        }
    };
    settings[KEY].as_str().map(String::from)
}

//! How a run is begun, or taken up again.

use super::run::LayerRecord;
use crate::io::{FolderWriter, Layout, RECORDS, SETTINGS};
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// What the unfinished run towards `out` was asked for: the `described` of [`prune_language`](super::prune_language).
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn unfinished_settings(out: &Path) -> Result<Value> {
    let part = FolderWriter::working_folder(out);
    let none = || Error::malformed(&part, "holds no unfinished run; begin without --resume");
    kept(&part, SETTINGS)?.ok_or_else(none)
}

/// A file of a working folder, if it is there.
fn kept(part: &Path, name: &str) -> Result<Option<Value>> {
    let path = part.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
    serde_json::from_slice(&text).map(Some).map_err(|e| Error::malformed(&path, e.to_string()))
}

/// The writer and the records so far.
pub(super) fn begin(out: &Path, layout: Layout, described: &Value, resume: bool) -> Result<(FolderWriter, Vec<LayerRecord>)> {
    if !resume {
        let writer = FolderWriter::create_resumable(out, layout)?;
        return match writer.json(SETTINGS, described) {
            Ok(()) => Ok((writer, vec![])),
            Err(e) => {
                writer.discard();
                Err(e)
            }
        };
    }
    let before = unfinished_settings(out)?;
    let part = FolderWriter::working_folder(out);
    if let (Value::Object(before), Value::Object(now)) = (&before, described) {
        // A build that did not say something yet cannot be held to it.
        let differs = |(key, value): &(&String, &Value)| before.get(*key).is_some_and(|old| old != *value);
        if let Some((key, value)) = now.iter().find(differs) {
            let (old, new) = (short(&before[key]), short(value));
            let reason = format!("the unfinished run has {old}, this one {new}; ask for the same, or remove {}", part.display());
            return Err(Error::setting(key, reason));
        }
    }
    let writer = FolderWriter::resume(out, layout)?;
    let records =
        kept(&part, RECORDS)?.map(serde_json::from_value).transpose().map_err(|e| Error::malformed(&part, e.to_string()))?;
    Ok((writer, records.unwrap_or_default()))
}

/// A value as it is shown, at most 60 characters of it.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

//! How a run is begun, or taken up again.

use super::record::{LayerRecord, Place};
use crate::io::{FolderWriter, Layout, MaskFile, Output, RECORDS, SETTINGS, one_line, quoted};
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// What the unfinished run towards `out` was asked for: the `described` of its [`LanguageRun`](super::LanguageRun).
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

/// What the unfinished run towards `out` has noted of what is done; `None` if nothing.
pub(in crate::prune) fn unfinished_records<T: DeserializeOwned>(out: &Path) -> Result<Option<T>> {
    let part = FolderWriter::working_folder(out);
    let refuse = |e: serde_json::Error| Error::malformed(part.join(RECORDS), one_line(&e.to_string(), 300));
    kept(&part, RECORDS)?.map(serde_json::from_value).transpose().map_err(refuse)
}

/// The writer and the records so far.
pub(in crate::prune) fn begin<T: DeserializeOwned + Default>(
    out: &Output,
    layout: Layout,
    described: &Value,
    resume: bool,
) -> Result<(FolderWriter, T)> {
    if !resume {
        let writer = FolderWriter::create_resumable(out.clone(), layout)?;
        return match writer.json(SETTINGS, described) {
            Ok(()) => Ok((writer, T::default())),
            Err(e) => {
                writer.discard();
                Err(e)
            }
        };
    }
    let before = unfinished_settings(out.path())?;
    let part = FolderWriter::working_folder(out.path());
    // A build that did not say something yet cannot be held to it.
    let said = |(key, value): &(&String, &Value)| before.get(*key).is_some_and(|old| old != *value);
    let differs = match (&before, described) {
        (Value::Object(before), Value::Object(now)) => {
            now.iter().find(said).map(|(key, value)| difference(key, &before[key], value))
        }
        (before, now) => (before != now).then(|| difference("settings", before, now)),
    };
    if let Some((option, old, new)) = differs {
        let (old, new) = (short(old), short(new));
        let reason = format!("the unfinished run has {old}, this one {new}; ask for the same, or remove {}", part.display());
        return Err(Error::invalid_option(option, reason));
    }
    let writer = FolderWriter::resume(out.clone(), layout)?;
    Ok((writer, unfinished_records(out.path())?.unwrap_or_default()))
}

/// The innermost setting in which two values differ, and its two values.
fn difference<'v>(name: &str, before: &'v Value, now: &'v Value) -> (String, &'v Value, &'v Value) {
    let (Value::Object(old), Value::Object(new)) = (before, now) else { return (name.to_string(), before, now) };
    match new.keys().chain(old.keys()).find(|key| old.get(*key) != new.get(*key)) {
        Some(key) => difference(key, &before[key], &now[key]),
        None => (name.to_string(), before, now),
    }
}

/// Refuses records that say other than was written, or leave out a layer of a block that is done.
pub(super) fn fits(out: &Path, records: &[LayerRecord], pruned: &[&Place], writer: &FolderWriter) -> Result<()> {
    let refuse = |reason: String| {
        let path = FolderWriter::working_folder(out).join(RECORDS);
        Err(Error::malformed(path, format!("{reason}; remove its folder to begin anew")))
    };
    let masks = if records.is_empty() { None } else { MaskFile::open(&FolderWriter::working_folder(out))? };
    for record in records {
        let (name, block) = (quoted(&record.layer), record.block);
        let Some(layer) = pruned.iter().find(|l| (&l.name, l.block) == (&record.layer, block)) else {
            return refuse(format!("names the layer {name} of block {block}, which this run does not prune"));
        };
        if !writer.is_written(&layer.tensor) || !writer.is_mask_written(&layer.tensor) {
            return refuse(format!("says that the layer {name} is done, which was not written"));
        }
        let mask = masks.as_ref().map(|masks| masks.read(&layer.tensor)).transpose()?.flatten();
        let (shape, kept) = (layer.shape(), mask.map_or(0, |mask| mask.kept()));
        if record.shape != shape || record.kept != kept {
            let said = format!("{} of {:?} stay", record.kept, record.shape);
            return refuse(format!(
                "says that of the weights of the layer {name} {said}, where {kept} of {shape:?} were written"
            ));
        }
        if [record.error, record.moved, Some(record.seconds)].into_iter().flatten().any(|number| number < 0.0) {
            return refuse(format!("says a number below 0 of the layer {name}"));
        }
    }
    let done = records.iter().map(|r| r.block).max();
    match pruned.iter().find(|l| Some(l.block) <= done && !records.iter().any(|r| r.layer == l.name)) {
        Some(l) => refuse(format!("leaves out the layer {} of block {}, which is done", quoted(&l.name), l.block)),
        None => Ok(()),
    }
}

/// A value as it is shown, at most 60 characters of it.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

//! Where something is written. One rule for all: what is there already stays, unless it is to be replaced; and what is read is never
//! replaced.
//!
//! - A file is replaced with `force`. What is no regular file (`/dev/stdout`, a pipe) is written to, and an empty one is nothing.
//! - A folder is replaced with `force` if it is a model's folder as [`FolderWriter`] writes one: `config.json` and weights, and no folder in it.
//!   It stays until the new one is whole ([`Output`]).

use super::{FolderWriter, Output};
use crate::{Error, Result};
use std::fs;
use std::path::Path;

/// Whether two paths lead to the same file or folder.
fn is_same(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    if let (Ok(a), Ok(b)) = (fs::metadata(a), fs::metadata(b)) {
        use std::os::unix::fs::MetadataExt;
        if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
            return true;
        }
    }
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// Whether a path lies in a folder, or is it.
fn is_in(path: &Path, folder: &Path) -> bool {
    matches!((fs::canonicalize(path), fs::canonicalize(folder)), (Ok(path), Ok(folder)) if path.starts_with(&folder))
}

fn exists(out: &Path) -> Error {
    Error::exists(out, "exists already; name another, or replace it with --force")
}

/// Refuses a file that may not be written: an input, a file of an input's folder, or one that is there without `force`.
///
/// # Errors
/// [`Error::Exists`] if it is an input, or there; [`Error::Malformed`] with the reason otherwise.
pub fn file(out: &Path, inputs: &[&Path], force: bool) -> Result<()> {
    apart(out, inputs)?;
    if fs::symlink_metadata(out).is_err() {
        return Ok(());
    }
    let target = fs::metadata(out);
    if target.as_ref().is_ok_and(|t| t.is_dir()) {
        return Err(Error::malformed(out, "is a folder, not a file"));
    }
    if inputs.iter().any(|input| input.is_dir() && is_in(out, input)) {
        return Err(Error::malformed(out, "belongs to the model that is read; name another file to write"));
    }
    // A device, a pipe, or a file with nothing in it.
    let nothing = target.is_ok_and(|t| !t.is_file() || t.len() == 0);
    if force || nothing { Ok(()) } else { Err(exists(out)) }
}

/// Refuses an output that is an input.
///
/// # Errors
/// [`Error::Exists`].
pub fn apart(out: &Path, inputs: &[&Path]) -> Result<()> {
    match inputs.iter().any(|input| is_same(out, input)) {
        true => Err(Error::exists(out, "exists already and is what is read here; name another")),
        false => Ok(()),
    }
}

/// The folder to write, if it may be written. Refused are an input or the folder of one, and one that is there and not empty without `force`,
/// or is no model's.
///
/// # Errors
/// [`Error::Exists`] if it is an input, or there; [`Error::Malformed`] with the reason otherwise; [`Error::Io`] if the folder above it is missing.
pub fn folder(out: &Path, inputs: &[&Path], force: bool) -> Result<Output> {
    apart(out, inputs)?;
    if let Some(input) = inputs.iter().find(|input| is_in(input, out)) {
        let reason = format!("holds {}, which is read here; name another folder to write", input.display());
        return Err(Error::malformed(out, reason));
    }
    let output = if force { Output::replacing(out) } else { Output::from(out) };
    match FolderWriter::check_free(output.clone()) {
        Ok(()) => Ok(output),
        Err(_) if !force && out.file_name().is_some() && fs::symlink_metadata(out).is_ok() => Err(exists(out)),
        Err(e) => Err(e),
    }
}

//! Working folders: what in them was made by a writer, and so may be removed.
//!
//! ```text
//! .OUT.part/            made, then marked before anything else lies in it
//!   .lacuna.json        the mark: the names of all files that writers have made here, or are about to make
//!   .settings.json      what the run was asked for: from here on there is something to take up again
//!   .written.json       the tensors that are on the disk
//!   .records.json       what became of the layers so far
//!   .packed/            the same folder laid in another way, marked like this one
//! ```
//!
//! A folder without a mark and without the other files was made by somebody else, and nothing in it is touched. Of a marked one only what its
//! mark names is removed, and the folder itself only if nothing else is left in it.

use super::layout::Layout;
use super::names::{COMPANIONS, CONFIG, INDEX, JOURNAL, MASKS, RECORDS, SETTINGS};
use crate::io::atomic;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

/// The mark.
const MARK: &str = ".lacuna.json";
/// A working folder within this one.
pub(super) const PACKED: &str = ".packed";

/// Whether a file is one of those that writers keep for themselves.
pub(super) fn is_internal(name: &str) -> bool {
    [MARK, JOURNAL, SETTINGS, RECORDS].contains(&name)
}

/// The names that a writer of this layout may give to files.
pub(super) fn own(layout: &Layout) -> BTreeSet<String> {
    let plain = [CONFIG, INDEX, MASKS].into_iter().chain(COMPANIONS).map(String::from);
    layout.files.iter().map(|f| f.file.clone()).chain(plain).collect()
}

/// Notes what belongs to writers.
pub(super) fn mark(part: &Path, own: &BTreeSet<String>) -> Result<()> {
    let names = serde_json::to_vec(own).map_err(|e| Error::invalid_option("mark", e.to_string()))?;
    atomic::write_bytes(part.join(MARK), &names)
}

/// Whether a folder is marked.
pub(super) fn is_marked(part: &Path) -> bool {
    part.join(MARK).is_file()
}

/// The names that a mark holds; none where there is no mark.
pub(super) fn marked(part: &Path) -> BTreeSet<String> {
    fs::read(part.join(MARK)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Whether a run has noted there what it was asked for, or what it did.
///
/// # Errors
/// If there is something that no writer has made.
pub(super) fn is_begun(part: &Path) -> Result<bool> {
    let foreign = |what: &str| {
        let reason = format!("{what}, which no run has made and none removes; move it away, or name another output");
        Err(Error::malformed(part, reason))
    };
    match fs::symlink_metadata(part) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::io(part, e)),
        Ok(found) if !found.is_dir() => return foreign("stands in the place of the working folder"),
        Ok(_) => {}
    }
    if [SETTINGS, JOURNAL].iter().any(|name| part.join(name).is_file()) {
        return Ok(true);
    }
    let (mark, names) = (is_marked(part), marked(part));
    for entry in fs::read_dir(part).map_err(|e| Error::io(part, e))? {
        let entry = entry.map_err(|e| Error::io(part, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = is_internal(&name) || name == PACKED || names.contains(&name);
        if !(mark && known || is_half_written(&entry)) {
            return foreign(&format!("holds {}", crate::io::quoted(&name)));
        }
    }
    Ok(false)
}

/// Refuses a folder in which a run has begun.
///
/// # Errors
/// As [`claim`].
pub(super) fn check_begin(part: &Path) -> Result<()> {
    match is_begun(part)? {
        false => Ok(()),
        true => Err(Error::malformed(part, "holds an unfinished run: --resume goes on with it; remove it to begin anew")),
    }
}

/// Makes the folder, or takes over one in which no run has begun: it is then there, without files.
///
/// # Errors
/// If a run has begun there, or something lies there that no writer has made.
pub(super) fn claim(part: &Path) -> Result<()> {
    check_begin(part)?;
    match fs::create_dir(part) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => remove_own(part, &marked(part)).map_err(|e| Error::io(part, e)),
        made => made.map_err(|e| Error::io(part, e)),
    }
}

/// Removes what writers have made, and the folder if nothing else is in it. What cannot be removed stays.
pub(super) fn clear(part: &Path, own: &BTreeSet<String>) {
    let names = own.iter().cloned().chain(marked(part)).collect();
    if part.join(PACKED).is_dir() {
        clear(&part.join(PACKED), own);
    }
    let _ = remove_own(part, &names);
    let _ = fs::remove_dir(part);
}

/// Removes the files of a finished folder that were for its writer alone.
pub(super) fn clear_hidden(part: &Path, own: &BTreeSet<String>) -> io::Result<()> {
    if part.join(PACKED).is_dir() {
        clear(&part.join(PACKED), own);
    }
    remove_own(part, &own.iter().filter(|name| name.starts_with('.')).cloned().collect())
}

/// Removes the files of these names, those that writers keep for themselves, and those that were cut off half written; the mark last.
fn remove_own(part: &Path, names: &BTreeSet<String>) -> io::Result<()> {
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    for entry in fs::read_dir(part)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = names.contains(&name) || is_internal(&name) || is_half_written(&entry);
        if ours && name != MARK && entry.file_type()?.is_file() {
            remove(&entry.path())?;
        }
    }
    remove(&part.join(MARK))
}

/// Whether this is a file of [`atomic`] that has not come to its name: a run was killed while it wrote it.
fn is_half_written(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy().into_owned();
    let middle = name.strip_prefix(".lacuna-").and_then(|n| n.strip_suffix(".part"));
    let random = middle.is_some_and(|m| m.len() == 6 && m.bytes().all(|b| b.is_ascii_alphanumeric()));
    random && entry.file_type().is_ok_and(|t| t.is_file())
}

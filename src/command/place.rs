//! Where a command writes. One rule for all of them: what is there already stays, unless `--force` is given; and what a command
//! reads is never replaced.
//!
//! - A file is replaced with `--force`. What is no regular file (`/dev/stdout`, a pipe) is written to, and an empty one is nothing.
//! - A folder is replaced with `--force` if it is a model's folder as these commands write one: `config.json` and weights, and no
//!   folder in it. It is renamed when the new one begins to be written, and removed when that is whole.
//! - A folder of reports may be there; the reports of an earlier run, known by their page, are replaced. Without the page, files of
//!   the reports' names are somebody else's and need `--force`.

use lacuna::io::FolderWriter;
use lacuna::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The option of every command that writes.
#[derive(clap::Args)]
pub struct Force {
    /// Replace what is there already: a file, or a model's folder
    #[arg(long)]
    pub force: bool,
}

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
    Error::malformed(out, "exists already; name another, or replace it with --force")
}

/// Refuses a file that may not be written: an input, a file of an input's folder, or one that is there without `force`.
pub fn file(out: &Path, inputs: &[&Path], force: bool) -> Result<()> {
    for input in inputs {
        if is_same(out, input) {
            return Err(Error::malformed(out, "exists already and is what is read here; name another"));
        }
    }
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

/// Refuses a folder that may not be written: an input or the folder of one, or one that is there and not empty without `force`, or
/// is no model's.
pub fn folder(out: &Path, inputs: &[&Path], force: bool) -> Result<()> {
    for input in inputs {
        if is_same(out, input) {
            return Err(Error::malformed(out, "exists already and is what is read here; name another"));
        }
    }
    let Ok(found) = fs::symlink_metadata(out) else { return FolderWriter::check_free(out) };
    if let Some(input) = inputs.iter().find(|input| is_in(input, out)) {
        let reason = format!("holds {}, which is read here; name another folder to write", input.display());
        return Err(Error::malformed(out, reason));
    }
    let entries = || fs::read_dir(out).map(|entries| entries.flatten());
    if found.is_dir() && entries().is_ok_and(|mut entries| entries.next().is_none()) {
        return Ok(());
    }
    if !force {
        return Err(exists(out));
    }
    let has = |name: &str| out.join(name).is_file();
    let flat = || entries().is_ok_and(|mut entries| entries.all(|e| e.file_type().is_ok_and(|t| !t.is_dir())));
    let model = has("config.json") && (has("model.safetensors") || has("model.safetensors.index.json"));
    if found.is_dir() && model && flat() {
        return Ok(());
    }
    Err(Error::malformed(out, "is no model's folder (config.json, weights, no folder in it), so --force does not replace it"))
}

/// Refuses a folder of reports in which files of these names are, unless the first of them, the page, says that they are those of an
/// earlier run, or `force` is given.
pub fn reports(out: &Path, names: &[&str], force: bool) -> Result<()> {
    let there = |name: &&&str| fs::symlink_metadata(out.join(name)).is_ok();
    match names.iter().find(there) {
        Some(name) if !force && !names.first().is_some_and(|page| there(&page)) => Err(exists(&out.join(name))),
        _ => Ok(()),
    }
}

/// A folder that stands aside for the one that takes its place. Dropped before [`Aside::gone`], it goes back.
pub struct Aside {
    out: PathBuf,
    aside: PathBuf,
    is_away: bool,
}

impl Aside {
    /// Nothing moves yet. [`folder`] must have allowed it.
    pub fn new(out: &Path) -> Aside {
        let name = out.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Aside { out: out.to_path_buf(), aside: out.with_file_name(format!(".{name}.old")), is_away: false }
    }

    /// Makes room at the place, if a folder is there.
    pub fn away(&mut self) -> Result<()> {
        if self.is_away || !self.out.is_dir() {
            return Ok(());
        }
        if fs::symlink_metadata(&self.aside).is_ok() {
            return Err(Error::malformed(&self.aside, "is left of a run that was killed; move it, or remove it"));
        }
        fs::rename(&self.out, &self.aside).map_err(|e| Error::io(&self.out, e))?;
        self.is_away = true;
        Ok(())
    }

    /// Puts the folder where it was.
    pub fn back(&mut self) -> Result<()> {
        if self.is_away {
            fs::rename(&self.aside, &self.out).map_err(|e| Error::io(&self.out, e))?;
            self.is_away = false;
        }
        Ok(())
    }

    /// Removes what stood aside: the new folder is whole.
    pub fn gone(mut self) -> Result<()> {
        let was_away = std::mem::replace(&mut self.is_away, false);
        if was_away { fs::remove_dir_all(&self.aside).map_err(|e| Error::io(&self.aside, e)) } else { Ok(()) }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = self.back();
    }
}

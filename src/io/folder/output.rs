//! Where a folder is written, and what becomes of one that is there already.
//!
//! ```text
//! OUT/                  the older folder, until the new one is whole
//! .OUT.part/            the new one, as long as it is not
//! .OUT.old/             the older one between the two renames and while it is removed; marked, so that it is known for what it is
//! ```
//!
//! A run that is killed leaves OUT as it was, or the new folder, or, between the renames, none and `.OUT.old`: the next writer of OUT puts
//! that back, or removes it where the new folder has its name.

use super::{CONFIG, INDEX, WEIGHTS};
use crate::{Error, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The mark of a folder that was to be replaced.
const REPLACED: &str = ".lacuna-replaced";

/// A folder that is to be written: its path, and whether a model's folder that is there makes room for it. A path alone replaces nothing but
/// an empty folder.
///
/// ```
/// use lacuna::io::Output;
/// let out = Output::from("model");
/// assert!(!out.replaces() && Output::replacing("model").replaces());
/// assert_eq!(out.path(), std::path::Path::new("model"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    path: PathBuf,
    replaces: bool,
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Output {
    fn from(path: &P) -> Self {
        Output { path: path.as_ref().to_path_buf(), replaces: false }
    }
}

impl From<PathBuf> for Output {
    fn from(path: PathBuf) -> Self {
        Output { path, replaces: false }
    }
}

impl Output {
    /// A folder in whose place a model's folder (`config.json`, weights, no folder in it) may be. That stays until the new one is whole.
    pub fn replacing(path: impl AsRef<Path>) -> Output {
        Output { path: path.as_ref().to_path_buf(), replaces: true }
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a model's folder that is there makes room.
    pub fn replaces(&self) -> bool {
        self.replaces
    }

    /// Where an older folder stands while the new one gets its name.
    fn aside(&self) -> PathBuf {
        let name = self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        self.path.with_file_name(format!(".{name}.old"))
    }

    /// Refuses a path at which the folder may not be begun; gives the folder above it. What a run that was killed between two renames has
    /// left is put back, or removed.
    ///
    /// # Errors
    /// [`Error::Malformed`] if something is there that does not make room; [`Error::Io`] if the folder above it is missing or cannot be read.
    pub(super) fn check(&self) -> Result<PathBuf> {
        let out = &*self.path;
        if out.file_name().is_none() {
            return Err(Error::malformed(out, "is no name of a new folder"));
        }
        let parent = match out.parent() {
            Some(parent) if parent != Path::new("") => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        match fs::metadata(&parent) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Error::malformed(&parent, "is not a folder")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let reason = format!("the folder {} does not exist", parent.display());
                return Err(Error::io(out, io::Error::new(e.kind(), reason)));
            }
            Err(e) => return Err(Error::io(&parent, e)),
        }
        self.check_aside()?;
        if fs::symlink_metadata(out).is_err() || is_empty(out) {
            return Ok(parent);
        }
        if !self.replaces {
            return Err(Error::exists(out, "exists already; name a new folder"));
        }
        if !is_model(out) {
            return Err(Error::malformed(
                out,
                "is no model's folder (config.json, weights, no folder in it) and is not replaced",
            ));
        }
        Ok(parent)
    }

    /// Looks for an older folder that a killed run has left aside: it is put back, or removed where the new one has its name.
    pub(super) fn check_aside(&self) -> Result<()> {
        let aside = self.aside();
        if fs::symlink_metadata(&aside).is_err() {
            return Ok(());
        }
        let there = fs::symlink_metadata(&self.path).is_ok() && !is_empty(&self.path);
        if !aside.join(REPLACED).is_file() {
            // Another's. It is in nobody's way unless something has to stand aside.
            return match self.replaces && there {
                true => Err(Error::malformed(&aside, "stands where the older folder has to stand for a moment; move it away")),
                false => Ok(()),
            };
        }
        match there {
            true => remove(&aside),
            false => back(&aside, &self.path),
        }
    }

    /// Gives `part` the name, in place of what is there.
    ///
    /// # Errors
    /// As [`Output::check`], and if the system refuses; the older folder is then where it was.
    pub(super) fn take(&self, part: &Path) -> Result<()> {
        self.check()?;
        let io = |e| Error::io(&self.path, e);
        // An empty folder of that name may be there.
        let _ = fs::remove_dir(&self.path);
        if fs::symlink_metadata(&self.path).is_err() {
            return fs::rename(part, &self.path).map_err(io);
        }
        let aside = self.aside();
        fs::write(self.path.join(REPLACED), []).map_err(io)?;
        fs::rename(&self.path, &aside).map_err(io)?;
        fs::rename(part, &self.path).map_err(|e| match back(&aside, &self.path) {
            Ok(()) => io(e),
            Err(lost) => lost,
        })
    }

    /// Removes the older folder, once the new one has its name.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn clear(&self) -> Result<()> {
        let aside = self.aside();
        if aside.join(REPLACED).is_file() { remove(&aside) } else { Ok(()) }
    }
}

/// Puts an older folder back.
fn back(aside: &Path, out: &Path) -> Result<()> {
    let _ = fs::remove_dir(out);
    fs::rename(aside, out).map_err(|e| Error::io(aside, e))?;
    let _ = fs::remove_file(out.join(REPLACED));
    Ok(())
}

/// Removes an older folder, its mark last.
fn remove(aside: &Path) -> Result<()> {
    let all = || -> io::Result<()> {
        for entry in fs::read_dir(aside)? {
            let entry = entry?;
            if entry.file_name() != REPLACED {
                fs::remove_file(entry.path())?;
            }
        }
        fs::remove_file(aside.join(REPLACED))?;
        fs::remove_dir(aside)
    };
    let reason =
        |e: io::Error| io::Error::new(e.kind(), format!("the new folder is whole; the older one, which stood aside, stays: {e}"));
    all().map_err(|e| Error::io(aside, reason(e)))
}

fn is_empty(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
        && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Whether a folder is a model's as these writers make one.
fn is_model(path: &Path) -> bool {
    let has = |name: &str| path.join(name).is_file();
    let flat = |mut entries: fs::ReadDir| entries.all(|e| e.is_ok_and(|e| e.file_type().is_ok_and(|t| !t.is_dir())));
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
        && has(CONFIG)
        && (has(WEIGHTS) || has(INDEX))
        && fs::read_dir(path).is_ok_and(flat)
}

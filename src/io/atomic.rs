//! Files that appear whole or not at all.
//!
//! The content is written to a new file beside the final one, flushed to the disk and only then renamed. Whoever reads the
//! path sees the old content or the new, never a half, even if the machine loses power; a write that fails leaves the folder
//! as it was.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes a file through `content`, whole or not at all.
///
/// - A new file gets the permissions of any new file (0666 less the umask); one that is replaced keeps its own.
/// - A symbolic link is followed: the file it points to is replaced, the link stays.
/// - What exists and is no regular file (`/dev/stdout`, a named pipe) cannot be renamed over and is written directly.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("row.csv");
/// lacuna::io::atomic::write(&path, |out| writeln!(out, "layer,kept\nfc1,{}", 12))?;
/// assert_eq!(std::fs::read_to_string(&path).unwrap(), "layer,kept\nfc1,12\n");
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] naming `path` (never the temporary file): the folder is missing or may not be written, the disk is full, or
/// `content` returned an error. `path` is then as it was before.
pub fn write(path: impl AsRef<Path>, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let path = path.as_ref();
    replace(path, content).map_err(|e| Error::io(path, e))
}

/// Writes a file with this content, whole or not at all; see [`write()`].
///
/// # Errors
/// As [`write()`].
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write(path, |out| out.write_all(bytes))
}

/// Makes a folder for output, and the folders above it that are missing. One that is already there is left as it is.
///
/// # Errors
/// [`Error::Io`] naming `path`: a file stands in the way, or the folder above may not be written.
pub fn create_dir(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    fs::create_dir_all(path).map_err(|e| Error::io(path, e))
}

fn replace(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let old = fs::metadata(&target).ok();
    match &old {
        Some(old) if old.is_dir() => return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder, not a file")),
        Some(old) if !old.is_file() => return fill(&mut File::options().write(true).open(&target)?, content),
        _ => {}
    }
    let folder = match target.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    match fs::metadata(&folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(io::Error::new(e.kind(), format!("the folder {} does not exist", folder.display())));
        }
        Ok(found) if !found.is_dir() => {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is not a folder", folder.display())));
        }
        _ => {}
    }
    // Opened like any new file: the umask says who may read it, and the system's own words come back if it cannot be made.
    let open = |beside: &Path| File::options().write(true).create_new(true).open(beside);
    let mut beside = tempfile::Builder::new().prefix(".lacuna-").suffix(".part").make_in(&folder, open)?;
    if let Some(old) = old {
        beside.as_file().set_permissions(old.permissions())?;
    }
    fill(beside.as_file_mut(), content)?;
    beside.as_file().sync_all()?;
    beside.persist(&target).map_err(|e| e.error)?;
    // The file is whole now; that its name outlives a power cut is up to the file system, and not all can sync a folder.
    #[cfg(unix)]
    let _ = File::open(&folder).and_then(|folder| folder.sync_all());
    Ok(())
}

fn fill(file: &mut File, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 18, file);
    content(&mut out)?;
    out.flush()
}

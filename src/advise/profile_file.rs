//! The file in which a profile is kept.

use super::grid::MeasurementGrid;
use super::profile::{Key, Profile};
use crate::io::atomic;
use crate::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the profile of a machine is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileFile {
    path: PathBuf,
    /// Whether somebody named the file: then it is read whatever machine it is of.
    named: bool,
}

impl ProfileFile {
    /// A file of this name.
    pub fn file(path: impl Into<PathBuf>) -> ProfileFile {
        ProfileFile { path: path.into(), named: true }
    }

    /// `$XDG_CACHE_HOME/lacuna/advise-….json`, or the same in `~/.cache`, with a number made of the key and the grid in its name.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if the system names neither folder.
    pub fn of(key: &Key, grid: &MeasurementGrid) -> Result<ProfileFile> {
        ProfileFile::within(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"), key, grid)
    }

    fn within(cache: Option<OsString>, home: Option<OsString>, key: &Key, grid: &MeasurementGrid) -> Result<ProfileFile> {
        // A relative name is to be passed over, says the specification of these folders.
        let named = |folder: Option<OsString>| folder.map(PathBuf::from).filter(|f| f.is_absolute());
        let folder = named(cache).or_else(|| named(home).map(|home| home.join(".cache")));
        let none = || Error::invalid_option("machine", "neither XDG_CACHE_HOME nor HOME names a folder; name a file");
        let text = serde_json::to_string(&(key, grid)).map_err(|e| Error::invalid_option("machine", e.to_string()))?;
        // FNV-1a, 64 bits.
        let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let path = folder.ok_or_else(none)?.join("lacuna").join(format!("advise-{digest:016x}.json"));
        Ok(ProfileFile { path, named: false })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether somebody named the file.
    pub fn is_named(&self) -> bool {
        self.named
    }

    /// The profile of the file; `None` if there is no such file, or if nobody named it and it is of another machine or grid.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Malformed`] if it holds no profile.
    pub fn read(&self, key: &Key, grid: &MeasurementGrid) -> Result<Option<Profile>> {
        let text = match std::fs::read_to_string(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&self.path, e)),
            Ok(text) => text,
        };
        let profile: Profile = serde_json::from_str(&text)
            .map_err(|e| Error::malformed(&self.path, format!("is no profile of a machine: {e}; measure it anew")))?;
        profile.check().map_err(|e| Error::malformed(&self.path, e.to_string()))?;
        Ok(Some(profile).filter(|p| self.named || (p.key == *key && p.grid == *grid)))
    }

    /// Writes a profile, whole or not at all; of a file that nobody named the folder is made.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    pub fn write(&self, profile: &Profile) -> Result<()> {
        if let (false, Some(folder)) = (self.named, self.path.parent()) {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        let text = serde_json::to_string(profile).map_err(|e| Error::malformed(&self.path, e.to_string()))?;
        atomic::write_bytes(&self.path, (text + "\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(threads: usize) -> Key {
        Key { cpu: "made up".into(), isa: "avx2".into(), threads, version: "0".into() }
    }

    #[test]
    fn files_lie_in_the_folder_of_caches_and_differ_by_machine_and_grid() {
        let of = |cache: Option<&str>, home: Option<&str>, threads: usize, grid: &MeasurementGrid| {
            ProfileFile::within(cache.map(Into::into), home.map(Into::into), &key(threads), grid)
        };
        let path = of(Some("/c"), Some("/h"), 1, &MeasurementGrid::full()).unwrap().path().to_owned();
        assert!(path.starts_with("/c/lacuna") && path.extension().is_some_and(|e| e == "json"), "{path:?}");
        let at_home = of(None, Some("/h"), 1, &MeasurementGrid::full()).unwrap().path().to_owned();
        assert_eq!(at_home, Path::new("/h/.cache/lacuna").join(path.file_name().unwrap()));
        assert_eq!(of(Some("relative"), Some("/h"), 1, &MeasurementGrid::full()).unwrap().path(), at_home);
        assert_ne!(of(Some("/c"), None, 2, &MeasurementGrid::full()).unwrap().path(), path);
        assert_ne!(of(Some("/c"), None, 1, &MeasurementGrid::quick()).unwrap().path(), path);
        let says = of(None, None, 1, &MeasurementGrid::full()).unwrap_err().to_string();
        assert_eq!(says, "machine: neither XDG_CACHE_HOME nor HOME names a folder; name a file");
    }
}

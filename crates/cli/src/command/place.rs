//! Where a command writes. One rule for all of them: what is there already stays, unless `--force` is given; and what a command
//! reads is never replaced.
//!
//! - Files and models' folders: [`lacuna::io::outputs`].
//! - A folder of reports may be there; the reports of an earlier run, known by their page, are replaced. Without the page, files of
//!   the reports' names are somebody else's and need `--force`.

use lacuna::io::atomic;
pub use lacuna::io::outputs::{file, folder};
use lacuna::report::Page;
use lacuna::{Error, Result};
use std::fs;
use std::path::Path;

/// The option of every command that writes.
#[derive(clap::Args)]
pub struct Force {
    /// Replace what is there already: a file, or a model's folder
    #[arg(long)]
    pub force: bool,
}

fn exists(out: &Path) -> Error {
    Error::exists(out, "exists already; name another, or replace it with --force")
}

/// Refuses a folder of reports in which files of these names are, unless the first of them is a page that this library has made, or `force`
/// is given.
pub fn reports(out: &Path, names: &[&str], force: bool) -> Result<()> {
    let there = |name: &&&str| fs::symlink_metadata(out.join(name)).is_ok();
    let ours = || {
        let page = names.first().and_then(|page| fs::read(out.join(page)).ok());
        page.is_some_and(|page| Page::is_page(&String::from_utf8_lossy(&page)))
    };
    match names.iter().find(there) {
        Some(name) if !force && !ours() => Err(exists(&out.join(name))),
        _ => Ok(()),
    }
}

/// Makes a folder of reports, if there is none. One that cannot be written to is refused before the work, not after.
pub fn reports_folder(out: &Path) -> Result<()> {
    atomic::create_dir(out)?;
    tempfile::tempfile_in(out).map_err(|e| Error::io(out, e))?;
    Ok(())
}

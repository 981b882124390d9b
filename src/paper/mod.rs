//! What the programs of `papers/` share: options, claims with the rule by which each is judged, and the files they leave.
//!
//! ```text
//! main.rs ── run(Options) ─► Study ─┬─ results.csv     a row for each claim and seed
//!                                   ├─ README.md       the table of claims, between its markers, made from results.csv alone
//!                                   └─ *.csv, *.svg    curves and figures
//! ```
//!
//! A claim's *holds?* is never stored apart from what it follows from: [`Claims::from_csv`] judges the numbers anew and refuses a
//! file that says otherwise.

mod claims;
mod options;
mod rule;

pub use claims::{Claim, Claims};
pub use options::Options;
pub use rule::Rule;

use crate::io::atomic;
use crate::kernels::check_environment;
use crate::report::{Table, replace_between};
use crate::{Error, Result};
use std::path::Path;
use std::process::ExitCode;

/// What a paper's program found.
#[derive(Debug, Clone, Default)]
pub struct Study {
    /// What is claimed, and what was measured of it.
    pub claims: Claims,
    /// Further tables: name of the file without `.csv`, table.
    pub tables: Vec<(String, Table)>,
    /// Figures: name of the file without `.svg`, document.
    pub figures: Vec<(String, String)>,
}

impl Study {
    /// Writes everything to `folder`: `results.csv`, the tables, the figures, and the claims into `README.md` where there is one,
    /// otherwise into `claims.md`. Each file appears whole or not at all.
    ///
    /// # Errors
    /// If a claim has no value or one that is not finite, a file cannot be written, or the README has no markers.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let results = self.claims.to_csv()?;
        let block = Claims::block(&results)?;
        let readme = folder.join("README.md");
        let (path, text) = if readme.exists() {
            let old = std::fs::read_to_string(&readme).map_err(|e| Error::io(&readme, e))?;
            let new = replace_between(&old, "claims", &block).map_err(|e| Error::malformed(&readme, e.to_string()))?;
            (readme, new)
        } else {
            (folder.join("claims.md"), block)
        };
        let tables = self.tables.iter().map(|(name, table)| (folder.join(format!("{name}.csv")), table.to_csv()));
        let figures = self.figures.iter().map(|(name, svg)| (folder.join(format!("{name}.svg")), svg.clone()));
        let all = tables.chain(figures).chain([(folder.join("results.csv"), results), (path, text)]);
        for (path, text) in all {
            atomic::write_bytes(&path, text.as_bytes())?;
        }
        Ok(())
    }
}

/// A paper's whole `main`: reads the options, runs, prints the claims, writes the files. Bad input is one line and exit code 2.
///
/// Files go to `--out`; without it to `papers/<slug>`, or for a quick run to `lacuna-papers/<slug>`, so that a quick run does
/// not replace the full one's numbers.
pub fn main(slug: &str, run: impl FnOnce(&Options) -> Result<Study>) -> ExitCode {
    let done = || -> Result<()> {
        let Some(options) = Options::parse(std::env::args().skip(1))? else {
            println!("{}", Options::help(slug));
            return Ok(());
        };
        check_environment()?;
        let study = run(&options)?;
        let folder = options.folder(slug);
        study.write(&folder)?;
        println!("{}", study.claims.table()?.to_text());
        println!("Written to {}.", folder.display());
        Ok(())
    };
    match done() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{slug}: {e}");
            ExitCode::from(2)
        }
    }
}

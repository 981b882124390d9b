//! What the programs of `papers/` share: options, claims with the rule by which each is judged, and the files they leave.
//!
//! ```text
//! main.rs ── run(Options) ─► Study ─┬─ results.csv     a row for each claim and seed
//!                                   ├─ *.csv           tables: every point that is drawn
//!                                   ├─ *.svg           figures, made by draw(Study) from these tables alone
//!                                   └─ README.md       claims and excuses, between their markers, made from results.csv and excuses.csv
//! ```
//!
//! A claim's *holds?* is never stored apart from what it follows from: [`Claims::from_csv`] judges the numbers anew and refuses a
//! file that says otherwise. What does not hold stands with its reason in `excuses.csv`, which is written by hand and held to the
//! claims both ways ([`Excuses::check`]): an excuse ends with the claim's not holding. With `--verify` a program runs again, and says
//! whether its rows have the same bits as those in the file, or lie within their tolerance of them (the function [`verify()`]).

mod options;
mod texts;
mod images;
mod rule;
mod claims;
mod excuses;
mod verify;
mod pieces;

pub use claims::{Claim, Claims};
pub use excuses::{Excuse, Excuses, Run};
pub use images::DigitImages;
pub use options::Options;
pub use pieces::{JudgeTexts, Pieces};
pub use rule::ClaimRule;
pub use texts::text_parts;
pub use verify::{Verification, VerifiedClaim, VerifiedNumber};

use crate::io::atomic;
use crate::kernels::check_environment;
use crate::report::{Table, replace_between};
use crate::{Error, Result};
use std::path::Path;
use std::process::ExitCode;

/// What a paper's program found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Study {
    /// What is claimed, and what was measured of it.
    pub claims: Claims,
    /// Further tables: name of the file without `.csv`, table.
    pub tables: Vec<(String, Table)>,
}

/// Figures: name of the file without `.svg`, document.
pub type Figures = Vec<(String, String)>;

impl Study {
    /// The table of this name.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest.
    pub fn table(&self, name: &str) -> Result<&Table> {
        let found = self.tables.iter().find(|(n, _)| n == name).map(|(_, table)| table);
        found.ok_or_else(|| Error::unknown_name("table", name, self.tables.iter().map(|(n, _)| n.as_str())))
    }

    /// Reads what [`Study::write`] wrote to `folder`: `results.csv`, and the other tables in the order of their names.
    ///
    /// # Errors
    /// If a file cannot be read or is not such a table; as [`Claims::from_csv`].
    pub fn read(folder: &Path) -> Result<Study> {
        let path = folder.join("results.csv");
        let claims = Claims::from_csv(&text(&path)?).map_err(|e| Error::malformed(&path, e.to_string()))?;
        let mut tables = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
            let path = entry.map_err(|e| Error::io(folder, e))?.path();
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            if path.extension().is_some_and(|e| e == "csv") && !["results", "excuses"].contains(&name.as_str()) {
                let table = Table::from_csv(&text(&path)?).map_err(|e| Error::malformed(&path, e.to_string()))?;
                tables.push((name, table));
            }
        }
        tables.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Study { claims, tables })
    }

    /// Writes everything to `folder`: `results.csv`, the tables, the figures, and the claims and excuses into `README.md` where there is
    /// one, otherwise the claims into `claims.md`. Each file appears whole or not at all.
    ///
    /// # Errors
    /// If a claim has no value or one that is not finite, a file cannot be written, or the README has no markers.
    pub fn write(&self, folder: &Path, figures: &Figures) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let results = self.claims.to_csv()?;
        let block = Claims::block(&results)?;
        let readme = folder.join("README.md");
        let (path, text) = if readme.exists() {
            let excuses = excuses(folder)?;
            let new = filled(&text(&readme)?, &block, &excuses).map_err(|e| Error::malformed(&readme, e.to_string()))?;
            (readme, new)
        } else {
            (folder.join("claims.md"), block)
        };
        let tables = self.tables.iter().map(|(name, table)| (folder.join(format!("{name}.csv")), table.to_csv()));
        let figures = figures.iter().map(|(name, svg)| (folder.join(format!("{name}.svg")), svg.clone()));
        let all = tables.chain(figures).chain([(folder.join("results.csv"), results), (path, text)]);
        for (path, text) in all {
            atomic::write_bytes(&path, text.as_bytes())?;
        }
        Ok(())
    }
}

/// A paper's README with what stands between its markers made anew: the claims from their block, and the list of a run's excuses
/// wherever it has some or the markers are there.
///
/// # Errors
/// If markers are missing, or do not stand once and in order.
pub fn filled(readme: &str, block: &str, excuses: &Excuses) -> Result<String> {
    let mut new = replace_between(readme, "claims", block)?;
    for run in [Run::Full, Run::Quick] {
        let (name, list) = (format!("excuses:{run}"), excuses.list(run));
        if !list.is_empty() || new.contains(&format!("<!-- {name}:begin -->")) {
            new = replace_between(&new, &name, &list)?;
        }
    }
    Ok(new)
}

/// The excuses that lie in `folder` as `excuses.csv`; none where there is no such file.
///
/// # Errors
/// If the file cannot be read; as [`Excuses::from_csv`].
pub fn excuses(folder: &Path) -> Result<Excuses> {
    let path = folder.join("excuses.csv");
    if !path.exists() {
        return Ok(Excuses::default());
    }
    Excuses::from_csv(&text(&path)?).map_err(|e| Error::malformed(&path, e.to_string()))
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io(path, e))
}

/// A paper's whole `main`: reads the options, runs, prints the claims, draws, writes the files. Bad input is one line and exit code 2.
///
/// Files go to `--out`; without it to `papers/<slug>`, or for a quick run to `lacuna-papers/<slug>`, so that a quick run does
/// not replace the full one's numbers. With `--redraw` nothing is run: the tables in that folder are drawn anew. With `--verify` nothing is
/// written: see [`verify()`].
pub fn main(slug: &str, run: impl FnOnce(&Options) -> Result<Study>, draw: impl FnOnce(&Study) -> Result<Figures>) -> ExitCode {
    main_of(std::env::args().skip(1), slug, run, draw)
}

/// [`main`] with these words behind the program's name.
pub fn main_of(
    words: impl IntoIterator<Item = String>,
    slug: &str,
    run: impl FnOnce(&Options) -> Result<Study>,
    draw: impl FnOnce(&Study) -> Result<Figures>,
) -> ExitCode {
    let done = || -> Result<ExitCode> {
        let Some(options) = Options::parse(words)? else {
            println!("{}", Options::help(slug));
            return Ok(ExitCode::SUCCESS);
        };
        check_environment()?;
        if options.model.is_some() && !Options::OF_MODELS.contains(&slug) {
            return Err(Error::invalid_option("--model", format!("is for {}", Options::OF_MODELS.join(", "))));
        }
        if options.verify.is_some() {
            let found = verify(slug, &options, run)?;
            print!("{found}");
            return Ok(if found.within() { ExitCode::SUCCESS } else { ExitCode::from(1) });
        }
        let folder = options.folder(slug);
        let study = if options.redraw { Study::read(&folder)? } else { run(&options)? };
        study.write(&folder, &draw(&study)?)?;
        println!("{}", study.claims.table()?.to_text());
        println!("Written to {}.", folder.display());
        if folder.join("README.md").exists()
            && let Err(e) = excuses(&folder)?.check(Run::Full, &study.claims)
        {
            eprintln!("{}: {e}", folder.join("excuses.csv").display());
        }
        Ok(ExitCode::SUCCESS)
    };
    done().unwrap_or_else(|e| {
        eprintln!("{slug}: {e}");
        ExitCode::from(2)
    })
}

/// Runs a paper's program again and compares the rows that [`Options::verify`] names with those that lie in its folder.
///
/// A full run is compared with the committed `results.csv`, with the seeds of that file where none are chosen. A quick run, of which no
/// numbers are committed, is held to the claims' rules and `excuses.csv` alone; with `--out` it is compared with the `results.csv` there.
/// Nothing is written.
///
/// ```
/// use lacuna::paper::{Options, Study, verify};
/// let program = |options: &Options| -> lacuna::Result<Study> {
///     let mut study = Study::default();
///     let numbers = options.seeds().iter().map(|seed| (*seed, 95.0 + seed.0 as f64));
///     study.claims.setting("large", "small").add("accuracy, %", "99", "mean > 90", 1)?.extend(numbers);
///     Ok(study)
/// };
/// let folder = tempfile::tempdir().unwrap();
/// program(&Options::default())?.write(folder.path(), &Vec::new())?;
/// let options = Options { out: Some(folder.path().into()), verify: Some(vec!["1".into()]), ..Options::default() };
/// let found = verify("made_up", &options, program)?;
/// assert!(found.within() && found.claims[0].numbers.iter().all(|n| n.same_bits()));
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// If there is no such file or row, a chosen seed is not in the file, or the run fails.
pub fn verify(slug: &str, options: &Options, run: impl FnOnce(&Options) -> Result<Study>) -> Result<Verification> {
    let (folder, asked) = (options.folder(slug), options.verify.clone().unwrap_or_default());
    let which = if options.quick { Run::Quick } else { Run::Full };
    let file = if options.quick && options.out.is_none() { None } else { Some(Study::read(&folder)?.claims) };
    // The reasons of a quick run lie with those of the full one.
    let lying = if options.quick && options.out.is_none() { Path::new("papers").join(slug) } else { folder };
    let excused = excuses(&lying)?;
    let mut options = options.clone();
    if let Some(file) = &file {
        options.of_rows = Some(verify::seeds(file, &asked, &options)?);
    }
    let study = run(&options)?;
    Verification::new(file.as_ref(), &study.claims, &asked, options.seeds(), |claim| excused.excuses(which, claim))
}

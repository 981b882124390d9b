//! Claims that do not hold, each with the reason: data beside the results, judged with them.

use crate::io::quoted;
use crate::paper::{Claim, Claims};
use crate::report::Table;
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The columns of `excuses.csv`.
const COLUMNS: [&str; 4] = ["run", "claim", "our setting", "reason"];

/// Which run of a paper's program is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// That with `--quick`.
    Quick,
    /// That whose numbers are in the paper's folder.
    Full,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Run::Quick { "quick" } else { "full" })
    }
}

impl FromStr for Run {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Run::Quick, Run::Full]
            .into_iter()
            .find(|run| run.to_string() == text)
            .ok_or_else(|| Error::invalid_option("run", format!("{} is neither quick nor full", quoted(text))))
    }
}

/// One claim that does not hold in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excuse {
    /// The run.
    pub run: Run,
    /// The claim, as the table has it.
    pub claim: String,
    /// Our setting, as the table has it.
    pub setting: String,
    /// Why it does not hold.
    pub reason: String,
}

impl Excuse {
    fn is_of(&self, claim: &Claim) -> bool {
        (&self.claim, &self.setting) == (&claim.what, &claim.setting)
    }
}

/// The excuses of one paper, in the order of their file.
///
/// ```
/// use lacuna::paper::{Claims, Excuses, Run};
/// use lacuna::rng::Seed;
/// let mut claims = Claims::default();
/// claims.setting("LeNet", "a small net").add("weights left", "14", "every <= 14", 0)?.push((Seed(0), 15.));
/// let excuses = Excuses::from_csv("run,claim,our setting,reason\nfull,weights left,a small net,It is too small.\n")?;
/// assert!(excuses.check(Run::Full, &claims).is_ok());
/// // Nothing excuses the claim in the quick run; and what holds is not to be excused.
/// assert!(excuses.check(Run::Quick, &claims).is_err());
/// let mut claims = Claims::default();
/// claims.setting("LeNet", "a small net").add("weights left", "14", "every <= 14", 0)?.push((Seed(0), 14.));
/// assert!(excuses.check(Run::Full, &claims).unwrap_err().to_string().contains("holds: remove its excuse"));
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Excuses(Vec<Excuse>);

impl Excuses {
    /// Reads a CSV table with the columns `run` (`quick` or `full`), `claim`, `our setting` and `reason`.
    ///
    /// # Errors
    /// If it is no such table, names a claim twice in one run, or gives no reason.
    pub fn from_csv(text: &str) -> Result<Self> {
        let table = Table::from_csv(text)?;
        if table.columns() != COLUMNS {
            return Err(Error::invalid_option("excuses", format!("the columns are not {}", COLUMNS.join(", "))));
        }
        let mut all: Vec<Excuse> = Vec::new();
        for (i, row) in table.rows().iter().enumerate() {
            let [run, claim, setting, reason] = [0, 1, 2, 3].map(|c| row[c].exact());
            let wrong = |what: String| Error::invalid_option("excuses", format!("row {}: {what}", i + 1));
            let excuse = Excuse { run: run.parse().map_err(|e: Error| wrong(e.to_string()))?, claim, setting, reason };
            if excuse.reason.trim().is_empty() {
                return Err(wrong(format!("no reason why '{}' does not hold", excuse.claim)));
            }
            if all.iter().any(|e| (e.run, &e.claim, &e.setting) == (excuse.run, &excuse.claim, &excuse.setting)) {
                return Err(wrong(format!("'{}' on {} is excused before", excuse.claim, excuse.setting)));
            }
            all.push(excuse);
        }
        Ok(Excuses(all))
    }

    /// The excuses in order.
    pub fn all(&self) -> &[Excuse] {
        &self.0
    }

    /// Whether a claim is excused in a run.
    pub fn excuses(&self, run: Run, claim: &Claim) -> bool {
        self.0.iter().any(|e| e.run == run && e.is_of(claim))
    }

    /// Holds the excuses of a run to its claims, both ways: a claim that does not hold has an excuse, and an excuse is of a claim
    /// that is there and does not hold.
    ///
    /// # Errors
    /// Every claim and every excuse that is not so, in one line; a claim without a number or with one that is not finite.
    pub fn check(&self, run: Run, claims: &Claims) -> Result<()> {
        let mut wrong = Vec::new();
        for claim in claims.all() {
            let excused = self.excuses(run, claim);
            let (what, setting) = (&claim.what, &claim.setting);
            match (claim.holds()?, excused) {
                (true, true) => wrong.push(format!("'{what}' on {setting} holds: remove its excuse")),
                (false, false) => {
                    let values: Vec<f64> = claim.values.iter().map(|(_, v)| *v).collect();
                    wrong.push(format!("'{what}' on {setting} does not hold: {values:?} against '{}'", claim.rule));
                }
                _ => {}
            }
        }
        for excuse in self.0.iter().filter(|e| e.run == run && !claims.all().iter().any(|c| e.is_of(c))) {
            wrong.push(format!("'{}' on {} is excused and no claim", excuse.claim, excuse.setting));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::invalid_option(format!("claims of the {run} run"), wrong.join("; "))) }
    }

    /// What stands between the markers of a README: each claim of a run that does not hold, and why.
    pub fn list(&self, run: Run) -> String {
        let of = self.0.iter().filter(|e| e.run == run);
        of.map(|e| format!("- *{}* ({}): {}\n", e.claim, e.setting, e.reason)).collect()
    }
}

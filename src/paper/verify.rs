//! Rows of `results.csv` run again.

use crate::io::quoted;
use crate::paper::{Claim, Claims, Options};
use crate::report::{Cell, Summary, Table, student_t};
use crate::rng::Seed;
use crate::{Error, Result};
use std::fmt;

/// The part of the differences between two seeds that a tolerance holds. A paper has some thirty numbers: of 95 % one or two would be called wrong
/// on another machine where nothing is.
const LEVEL: f64 = 0.99;

/// One number of a claim: as it is in the file, and as it came out again.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedNumber {
    /// The seed.
    pub seed: Seed,
    /// In the file; nothing for a run of which no numbers are kept.
    pub before: Option<f64>,
    /// Of the run just made.
    pub again: f64,
    /// By how much the two may differ; see [`VerifiedClaim`].
    pub tolerance: Option<f64>,
}

impl VerifiedNumber {
    /// Whether both are the same to the last bit.
    pub fn same_bits(&self) -> bool {
        self.before.is_some_and(|before| before.to_bits() == self.again.to_bits())
    }

    /// Whether they differ by no more than the tolerance; so where there is nothing to differ from.
    pub fn within(&self) -> bool {
        match (self.before, self.tolerance) {
            (Some(before), Some(tolerance)) => (self.again - before).abs() <= tolerance,
            _ => true,
        }
    }
}

/// One claim run again.
///
/// A number may differ from that in the file as far as 99 % of the differences between two seeds go: by t · √2 · sd, with sd the standard
/// deviation of the seeds' numbers in the file and t Student's of n − 1 degrees of freedom. Where several seeds are run again, their own spread
/// counts if it is the smaller one, so that one number far off, in the file or in the run, does not make room for itself. Of a claim with several
/// numbers a seed, the first of each seed belong together, the second, and so on. The tolerance is at least one unit of the last digit that
/// the table shows. And the claim's rule must say of the new numbers, in the place of those in the file, what it says of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedClaim {
    /// Its number in the table, from 1.
    pub number: usize,
    /// The claim, as the run just made has it; as the file has it where that run has none.
    pub claim: Claim,
    /// Its numbers.
    pub numbers: Vec<VerifiedNumber>,
    /// Whether the rule holds in the file.
    pub held: Option<bool>,
    /// Whether it holds of the new numbers.
    pub holds: bool,
    /// Whether `excuses.csv` says that it does not.
    pub excused: bool,
    /// What keeps it from being compared.
    pub trouble: Option<String>,
}

impl VerifiedClaim {
    /// Whether every number is within its tolerance, and the rule says what it said, or of a run of which no numbers are kept: holds where it
    /// is not excused, and does not where it is.
    pub fn within(&self) -> bool {
        let rule = self.held.map_or(self.holds != self.excused, |held| held == self.holds);
        self.trouble.is_none() && rule && self.numbers.iter().all(VerifiedNumber::within)
    }

    /// The rule and what it says, in one line.
    fn verdict(&self) -> String {
        if let Some(trouble) = &self.trouble {
            return trouble.clone();
        }
        let says = |holds: bool| if holds { "holds" } else { "does not hold" };
        let (rule, now) = (self.claim.rule, says(self.holds));
        match (self.held, self.excused) {
            (Some(held), _) if held == self.holds => format!("'{rule}' {now}, as in the file"),
            (Some(held), _) => format!("'{rule}' {now}, and in the file it {}", says(held)),
            (None, true) => format!("'{rule}' {now}, and is excused"),
            (None, false) => format!("'{rule}' {now}"),
        }
    }
}

/// What came of running rows again; as text, what `--verify` prints.
#[derive(Debug, Clone, PartialEq)]
pub struct Verification {
    /// The claims that were asked for.
    pub claims: Vec<VerifiedClaim>,
    /// How many claims the run has.
    pub of: usize,
    /// The seeds that were run.
    pub seeds: Vec<Seed>,
}

impl Verification {
    /// Compares the asked claims of a run with those of a file, if there is one.
    ///
    /// # Errors
    /// If an asked row is in neither; a claim has no number or one that is not finite.
    pub(super) fn new(
        file: Option<&Claims>,
        again: &Claims,
        asked: &[String],
        seeds: &[Seed],
        excused: impl Fn(&Claim) -> bool,
    ) -> Result<Self> {
        let is = |a: &Claim, b: &Claim| (&a.what, &a.setting) == (&b.what, &b.setting);
        let numbered = file.unwrap_or(again);
        let mut claims = Vec::new();
        for at in rows(numbered, asked)? {
            let named = &numbered.all()[at];
            let before = file.map(|_| named);
            let mut found = match again.all().iter().find(|c| is(c, named)) {
                Some(claim) => compared(before, claim)?,
                None => {
                    let alike = again.all().iter().find(|c| c.what == named.what);
                    let trouble = match alike {
                        Some(c) => format!("the run has it in another setting, {}: other data, or another program", c.setting),
                        None => "the run has no such row".into(),
                    };
                    VerifiedClaim { held: Some(named.holds()?), trouble: Some(trouble), ..VerifiedClaim::blank(named) }
                }
            };
            (found.number, found.excused) = (at + 1, excused(named));
            claims.push(found);
        }
        // All rows are asked for: then the file must have all that the program has.
        if let (Some(file), true) = (file, asked.is_empty()) {
            for claim in again.all().iter().filter(|c| !file.all().iter().any(|f| is(c, f))) {
                let number = claims.len() + 1;
                let trouble = Some("not in the file".into());
                claims.push(VerifiedClaim { number, trouble, holds: claim.holds()?, ..VerifiedClaim::blank(claim) });
            }
        }
        Ok(Verification { claims, of: again.all().len(), seeds: seeds.to_vec() })
    }

    /// Whether everything that was asked for lies within its tolerance.
    pub fn within(&self) -> bool {
        self.claims.iter().all(VerifiedClaim::within)
    }

    /// A row for each number.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            "row",
            "claim",
            "our setting",
            "seed",
            "in the file",
            "again",
            "difference",
            "tolerance",
            "number",
            "rule",
        ]);
        for c in &self.claims {
            let digits = c.claim.digits;
            if c.numbers.is_empty() {
                let row: [Cell; 4] = [c.number.into(), (&c.claim.what).into(), (&c.claim.setting).into(), Cell::Missing];
                let rest = [Cell::Missing, Cell::Missing, Cell::Missing, Cell::Missing, Cell::Missing, c.verdict().into()];
                table.row(row.into_iter().chain(rest).collect::<Vec<_>>());
            }
            for (i, n) in c.numbers.iter().enumerate() {
                let says = match n.before {
                    None => Cell::Missing,
                    Some(_) if n.same_bits() => "same bits".into(),
                    Some(_) if n.within() => "within".into(),
                    Some(_) => "OUTSIDE".into(),
                };
                table.row([
                    c.number.into(),
                    (&c.claim.what).into(),
                    (&c.claim.setting).into(),
                    n.seed.0.into(),
                    n.before.map(|v| Cell::float(v, digits + 2)).into(),
                    Cell::float(n.again, digits + 2),
                    n.before.map(|v| Cell::float(n.again - v, digits + 2)).into(),
                    n.tolerance.map(|v| Cell::float(v, digits + 2)).into(),
                    says,
                    if i == 0 { c.verdict().into() } else { Cell::Missing },
                ]);
            }
        }
        table
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds = self.seeds.iter().map(|s| s.0.to_string()).collect::<Vec<_>>().join(", ");
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        writeln!(
            f,
            "The program makes all of its {} in one run: it was run whole, with the seeds {seeds}; compared: {}. Nothing is written.\n",
            count(self.of, "row"),
            self.claims.len()
        )?;
        writeln!(f, "{}", self.table().to_text())?;
        let numbers: Vec<&VerifiedNumber> = self.claims.iter().flat_map(|c| &c.numbers).collect();
        let (same, outside) = (numbers.iter().filter(|n| n.same_bits()).count(), numbers.iter().filter(|n| !n.within()).count());
        let wrong: Vec<String> = self.claims.iter().filter(|c| !c.within()).map(|c| c.number.to_string()).collect();
        if numbers.iter().any(|n| n.before.is_some()) {
            writeln!(
                f,
                "Of {} {same} have the same bits, {outside} lie outside their tolerance.",
                count(numbers.len(), "number")
            )?;
        }
        match wrong[..] {
            [] => writeln!(f, "Verified: every row that was asked for."),
            _ => writeln!(f, "Not verified: row{} {}.", if wrong.len() == 1 { "" } else { "s" }, wrong.join(", ")),
        }
    }
}

impl VerifiedClaim {
    fn blank(claim: &Claim) -> Self {
        let (claim, numbers) = (claim.clone(), Vec::new());
        VerifiedClaim { number: 0, claim, numbers, held: None, holds: false, excused: false, trouble: None }
    }
}

/// The seeds to run: those chosen, if the asked rows have them, or else all of the file in its order.
pub(super) fn seeds(file: &Claims, asked: &[String], options: &Options) -> Result<Vec<Seed>> {
    let of = |claims: &mut dyn Iterator<Item = &Claim>| {
        let mut found: Vec<Seed> = Vec::new();
        claims.flat_map(|c| &c.values).for_each(|(seed, _)| found.extend((!found.contains(seed)).then_some(*seed)));
        found
    };
    let rows = rows(file, asked)?;
    if !options.seeds_chosen {
        return Ok(of(&mut file.all().iter()));
    }
    let known = of(&mut rows.iter().map(|&at| &file.all()[at]));
    if let Some(unknown) = options.seeds.iter().find(|s| !known.contains(s)) {
        let known = known.iter().map(|s| s.0.to_string()).collect::<Vec<_>>().join(", ");
        return Err(Error::invalid_option(
            "--seeds",
            format!("the file has no number of seed {}; it has those of {known}", unknown.0),
        ));
    }
    Ok(options.seeds.clone())
}

/// The places of the asked claims, in the order of the table: by number from 1, or by name, which claims of several settings may share.
fn rows(claims: &Claims, asked: &[String]) -> Result<Vec<usize>> {
    let n = claims.all().len();
    if asked.is_empty() {
        return Ok((0..n).collect());
    }
    let mut wanted = vec![false; n];
    for row in asked {
        let by_name: Vec<usize> = (0..n).filter(|&at| claims.all()[at].what == *row).collect();
        let found = match row.parse::<usize>() {
            _ if !by_name.is_empty() => by_name,
            Ok(number) if (1..=n).contains(&number) => vec![number - 1],
            _ => {
                let names: Vec<String> = claims.all().iter().enumerate().map(|(i, c)| format!("{} {}", i + 1, c.what)).collect();
                return Err(Error::invalid_option("--verify", format!("no row is {} among {}", quoted(row), names.join("; "))));
            }
        };
        found.into_iter().for_each(|at| wanted[at] = true);
    }
    Ok((0..n).filter(|&at| wanted[at]).collect())
}

/// A claim as it came out again against the same in the file.
fn compared(before: Option<&Claim>, again: &Claim) -> Result<VerifiedClaim> {
    let mut found = VerifiedClaim { holds: again.holds()?, ..VerifiedClaim::blank(again) };
    let Some(before) = before else {
        let number = |&(seed, again): &(Seed, f64)| VerifiedNumber { seed, before: None, again, tolerance: None };
        found.numbers = again.values.iter().map(number).collect();
        return Ok(found);
    };
    found.held = Some(before.holds()?);
    if (before.rule, before.digits, &before.paper) != (again.rule, again.digits, &again.paper) {
        found.trouble = Some(format!(
            "the file has the rule '{}' and the paper's number {}, the program '{}' and {}",
            before.rule, before.paper, again.rule, again.paper
        ));
        return Ok(found);
    }
    let (old, new) = (placed(&before.values), placed(&again.values));
    let mut mixed = before.clone();
    for &(seed, k, value) in &new {
        let Some(at) = old.iter().position(|(s, j, _)| (*s, *j) == (seed, k)) else {
            found.trouble = Some(format!("the program has more numbers of seed {} than the file", seed.0));
            return Ok(found);
        };
        mixed.values[at].1 = value;
        let spread = |numbers: &[(Seed, usize, f64)]| spread(numbers.iter().filter(|(_, j, _)| *j == k).map(|(.., v)| *v));
        let spread = [spread(&old)?, spread(&new)?].into_iter().flatten().reduce(f64::min);
        let unit = 10f64.powi(-(again.digits as i32));
        let tolerance = Some(spread.unwrap_or(0.0).max(unit));
        found.numbers.push(VerifiedNumber { seed, before: Some(old[at].2), again: value, tolerance });
    }
    let ran = |seed: Seed| new.iter().any(|(s, ..)| *s == seed);
    if let Some((seed, ..)) = old.iter().find(|(s, k, _)| ran(*s) && !new.iter().any(|(t, j, _)| (t, j) == (s, k))) {
        found.trouble = Some(format!("the program has fewer numbers of seed {} than the file", seed.0));
    }
    found.holds = mixed.holds()?;
    Ok(found)
}

/// How far two of such numbers may lie apart; nothing where there is but one.
fn spread(numbers: impl Iterator<Item = f64>) -> Result<Option<f64>> {
    let all = Summary::of(&numbers.collect::<Vec<_>>())?;
    if all.n < 2 { Ok(None) } else { Ok(Some(student_t(LEVEL, all.n - 1)? * 2f64.sqrt() * all.sd)) }
}

/// Each number with its seed and which of the seed's numbers it is.
fn placed(values: &[(Seed, f64)]) -> Vec<(Seed, usize, f64)> {
    let before = |i: usize| values[..i].iter().filter(|(s, _)| *s == values[i].0).count();
    (0..values.len()).map(|i| (values[i].0, before(i), values[i].1)).collect()
}

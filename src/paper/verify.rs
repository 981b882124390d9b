//! Rows of `results.csv` run again.

use crate::paper::{Claim, Claims, Options};
use crate::report::{Cell, Summary, Table, student_t};
use crate::rng::Seed;
use crate::{Error, Result};
use std::fmt;

/// The part of the differences between two seeds that a tolerance holds.
const LEVEL: f64 = 0.95;

/// One number of a claim: as it is in the file, and as it came out again.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedNumber {
    /// The seed.
    pub seed: Seed,
    /// In the file; nothing for a run of which no numbers are kept.
    pub before: Option<f64>,
    /// Of the run just made; nothing where that run has no number of this seed.
    pub again: Option<f64>,
    /// By how much the two may differ; see [`VerifiedClaim`].
    pub tolerance: Option<f64>,
}

impl VerifiedNumber {
    /// Whether both are the same to the last bit.
    pub fn same_bits(&self) -> bool {
        matches!((self.before, self.again), (Some(before), Some(again)) if before.to_bits() == again.to_bits())
    }

    /// Whether the run gave the number at all.
    pub fn reproduced(&self) -> bool {
        self.again.is_some()
    }

    /// Whether the run gave the number, and it differs by no more than the tolerance; so where there is nothing to differ from.
    pub fn within(&self) -> bool {
        match (self.difference(), self.tolerance) {
            (Some(difference), Some(tolerance)) => difference.abs() <= tolerance,
            _ => self.reproduced(),
        }
    }

    /// Again less before.
    fn difference(&self) -> Option<f64> {
        Some(self.again? - self.before?)
    }

    /// What the column of the table says.
    fn says(&self) -> Cell {
        match self.before {
            _ if !self.reproduced() => "NOT REPRODUCED".into(),
            None => Cell::Missing,
            Some(_) if self.same_bits() => "same bits".into(),
            Some(_) if self.within() => "within".into(),
            Some(_) => "OUTSIDE".into(),
        }
    }
}

/// One claim run again.
///
/// The same seed and the same build give the same bits. On another machine, whose instructions round otherwise, training takes another way, at worst
/// as far off as that of another seed. So a number may differ from that in the file as far as 95 % of the differences between two seeds go: by
/// t · √2 · sd, with sd the standard deviation of the file's numbers of this claim, one a seed, and t Student's of n − 1 degrees of freedom. That is
/// 6.1 sd of three seeds, 3.9 of five, 3.2 of ten: three seeds say little of how far seeds go, and the factor says so. Of twenty numbers of another
/// machine one may be outside where nothing is wrong.
///
/// The deviation is that of the file's numbers as they are, or with the new number in the place of the old one, whichever is the smaller, so that
/// one number far off, in the file or in the run, does not make room for itself. Of a claim with several numbers a seed, the first of each seed belong
/// together, the second, and so on. The tolerance is at least one unit of the last digit that the table shows, which is all of it where the seeds' numbers
/// are one and the same or there is but one. And the claim's rule must say of the new numbers, in the place of those in the file, what it says of
/// the file. A number of the file that the run does not give for a seed that was run is not reproduced, whatever the others are.
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
        let lost: Vec<Seed> = self.numbers.iter().filter(|n| !n.reproduced()).map(|n| n.seed).collect();
        if !lost.is_empty() {
            return format!("not reproduced: the run gives no finite number for seed {}", listed(&lost));
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
    /// Rows, by their numbers in the table, that were not compared: neither file nor run has a number of these seeds for them.
    pub left_out: Vec<usize>,
}

impl Verification {
    /// Compares the asked claims of a run with those of a file, if there is one.
    ///
    /// # Errors
    /// If an asked row is in neither; a claim of the file has no number or one that is not finite.
    pub(super) fn new(
        file: Option<&Claims>,
        again: &Claims,
        asked: &[String],
        seeds: &[Seed],
        excused: impl Fn(&Claim) -> bool,
    ) -> Result<Self> {
        let is = |a: &Claim, b: &Claim| (&a.what, &a.setting) == (&b.what, &b.setting);
        let has = |claim: Option<&Claim>| claim.is_some_and(|c| c.values.iter().any(|(seed, _)| seeds.contains(seed)));
        let numbered = file.unwrap_or(again);
        let (mut claims, mut left_out) = (Vec::new(), Vec::new());
        for at in rows(numbered, asked)? {
            let named = &numbered.all()[at];
            let before = file.map(|_| named);
            let now = again.all().iter().find(|c| is(c, named));
            let mut found = match now {
                _ if before.is_some() && !has(before) && !has(now) => {
                    if asked.is_empty() {
                        left_out.push(at + 1);
                        continue;
                    }
                    VerifiedClaim { trouble: Some("no number of the seeds that were run".into()), ..VerifiedClaim::blank(named) }
                }
                Some(claim) => compared(before, claim, seeds)?,
                None => {
                    let alike = again.all().iter().find(|c| c.what == named.what);
                    let trouble = match alike {
                        Some(c) => format!(
                            "not reproduced: the run has it in another setting, {}: other data, or another program",
                            c.setting
                        ),
                        None => "not reproduced: the run has no such row".into(),
                    };
                    VerifiedClaim { held: Some(named.holds()?), trouble: Some(trouble), ..VerifiedClaim::blank(named) }
                }
            };
            (found.number, found.excused) = (at + 1, excused(named));
            claims.push(found);
        }
        // All rows are asked for: then the file must have all that the program has.
        if let (Some(file), true) = (file, asked.is_empty()) {
            let new = again.all().iter().filter(|c| !file.all().iter().any(|f| is(c, f)));
            for (i, claim) in new.enumerate() {
                let (number, trouble) = (file.all().len() + i + 1, Some("not in the file".into()));
                claims.push(VerifiedClaim { number, trouble, ..VerifiedClaim::blank(claim) });
            }
        }
        Ok(Verification { claims, of: again.all().len(), seeds: seeds.to_vec(), left_out })
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
            let number = |v: Option<f64>| -> Cell { v.map(|v| Cell::float(v, digits + 2)).into() };
            for (i, n) in c.numbers.iter().enumerate() {
                table.row([
                    c.number.into(),
                    (&c.claim.what).into(),
                    (&c.claim.setting).into(),
                    n.seed.0.into(),
                    number(n.before),
                    number(n.again),
                    number(n.difference()),
                    number(n.tolerance),
                    n.says(),
                    if i == 0 { c.verdict().into() } else { Cell::Missing },
                ]);
            }
        }
        table
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let rows = |rows: &[usize]| {
            let numbers = rows.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            format!("row{} {numbers}", if rows.len() == 1 { "" } else { "s" })
        };
        writeln!(
            f,
            "The program makes all of its {} in one run: it was run whole, with the seeds {}; compared: {}. Nothing is written.\n",
            count(self.of, "row"),
            listed(&self.seeds),
            self.claims.len()
        )?;
        writeln!(f, "{}", self.table().to_text())?;
        let numbers: Vec<&VerifiedNumber> = self.claims.iter().flat_map(|c| &c.numbers).filter(|n| n.before.is_some()).collect();
        if !numbers.is_empty() {
            let of = |which: &dyn Fn(&VerifiedNumber) -> bool| numbers.iter().filter(|n| which(n)).count();
            let (same, within, lost) = (of(&|n| n.same_bits()), of(&|n| n.within()), of(&|n| !n.reproduced()));
            writeln!(
                f,
                "Of {} {same} have the same bits, {} others lie within their tolerance, {} outside it, {lost} were not reproduced.",
                count(numbers.len(), "number"),
                within - same,
                numbers.len() - within - lost
            )?;
            if same < numbers.len() {
                writeln!(
                    f,
                    "The same seed and the same build give the same bits: program, build, data or machine is another than the file's."
                )?;
            }
        }
        if !self.left_out.is_empty() {
            writeln!(f, "Not compared: {}, of which there is no number of these seeds.", rows(&self.left_out))?;
        }
        let wrong: Vec<usize> = self.claims.iter().filter(|c| !c.within()).map(|c| c.number).collect();
        match wrong[..] {
            [] => writeln!(f, "Verified: every row that was compared."),
            _ => writeln!(f, "Not verified: {}.", rows(&wrong)),
        }
    }
}

/// Seeds one after another.
fn listed(seeds: &[Seed]) -> String {
    seeds.iter().map(|s| s.0.to_string()).collect::<Vec<_>>().join(", ")
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
    let Some(chosen) = &options.seeds else { return Ok(of(&mut file.all().iter())) };
    let known = of(&mut rows.iter().map(|&at| &file.all()[at]));
    if let Some(unknown) = chosen.iter().find(|s| !known.contains(s)) {
        let reason = format!("the file has no number of seed {}; it has those of {}", unknown.0, listed(&known));
        return Err(Error::invalid_option("--seeds", reason));
    }
    Ok(chosen.clone())
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
            Ok(number) => {
                let reason = format!("there is no row {number}; they are numbered 1 to {n}");
                return Err(Error::invalid_option("--verify", reason));
            }
            Err(_) => return Err(Error::unknown_name("row", row, claims.all().iter().map(|c| c.what.as_str()))),
        };
        found.into_iter().for_each(|at| wanted[at] = true);
    }
    Ok((0..n).filter(|&at| wanted[at]).collect())
}

/// A claim as it came out again with these seeds against the same in the file.
fn compared(before: Option<&Claim>, again: &Claim, seeds: &[Seed]) -> Result<VerifiedClaim> {
    let mut found = VerifiedClaim::blank(again);
    let Some(before) = before else {
        let number = |&(seed, v): &(Seed, f64)| {
            let again = Some(v).filter(|v| v.is_finite());
            VerifiedNumber { seed, before: None, again, tolerance: None }
        };
        found.numbers = again.values.iter().map(number).collect();
        match again.holds() {
            Ok(holds) => found.holds = holds,
            Err(e) => found.trouble = Some(format!("not reproduced: {e}")),
        }
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
    if let Some((seed, ..)) = new.iter().find(|(s, k, _)| !old.iter().any(|(t, j, _)| (t, j) == (s, k))) {
        found.trouble = Some(format!("the program has more numbers of seed {} than the file", seed.0));
        return Ok(found);
    }
    let mut mixed = before.clone();
    for (at, &(seed, k, value)) in old.iter().enumerate().filter(|(_, (seed, ..))| seeds.contains(seed)) {
        let again = new.iter().find(|(s, j, v)| (*s, *j) == (seed, k) && v.is_finite()).map(|(.., v)| *v);
        let tolerance = again.map(|again| tolerance(&old, at, again, before.digits)).transpose()?;
        mixed.values[at].1 = again.unwrap_or(value);
        found.numbers.push(VerifiedNumber { seed, before: Some(value), again, tolerance });
    }
    found.holds = mixed.holds()?;
    Ok(found)
}

/// By how much the number at a place of the file may differ from what came out again; see [`VerifiedClaim`].
fn tolerance(old: &[(Seed, usize, f64)], at: usize, again: f64, digits: usize) -> Result<f64> {
    let spread = |own: f64| -> Result<f64> {
        let alike = old.iter().enumerate().filter(|(_, (_, k, _))| *k == old[at].1);
        let numbers: Vec<f64> = alike.map(|(i, (.., v))| if i == at { own } else { *v }).collect();
        let all = Summary::of(&numbers)?;
        if all.n < 2 { Ok(0.0) } else { Ok(student_t(LEVEL, all.n - 1)? * 2f64.sqrt() * all.sd) }
    };
    let unit = 10f64.powi(-(digits as i32));
    Ok(spread(old[at].2)?.min(spread(again)?).max(unit))
}

/// Each number with its seed and which of the seed's numbers it is.
fn placed(values: &[(Seed, f64)]) -> Vec<(Seed, usize, f64)> {
    let before = |i: usize| values[..i].iter().filter(|(s, _)| *s == values[i].0).count();
    (0..values.len()).map(|i| (values[i].0, before(i), values[i].1)).collect()
}

//! Claims, what was measured of each, and the table of both.

use crate::paper::ClaimRule;
use crate::report::{Cell, Summary, Table};
use crate::rng::Seed;
use crate::{Error, Result};

/// The columns of `results.csv`.
const COLUMNS: [&str; 9] = ["claim", "paper's setting", "paper", "our setting", "rule", "digits", "seed", "value", "holds"];

/// The most digits after the point that a file may ask for: more than a number has.
const MOST_DIGITS: usize = 20;

/// One thing that a paper says or that is measured beside it, and our numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// What is measured, with its unit.
    pub what: String,
    /// On what the paper measured it.
    pub paper_setting: String,
    /// The paper's number.
    pub paper: String,
    /// On what it was measured here.
    pub setting: String,
    /// When it holds.
    pub rule: ClaimRule,
    /// Digits after the point in the table.
    pub digits: usize,
    /// Ours, one a seed.
    pub values: Vec<(Seed, f64)>,
}

impl Claim {
    /// Whether the numbers meet the rule.
    ///
    /// # Errors
    /// If there is no number, or one is not finite.
    pub fn holds(&self) -> Result<bool> {
        self.rule.holds(&self.numbers()).map_err(|e| Error::invalid_option(format!("claim '{}'", self.what), e.to_string()))
    }

    fn numbers(&self) -> Vec<f64> {
        self.values.iter().map(|(_, v)| *v).collect()
    }
}

/// The claims of one paper, in the order of its table.
///
/// ```
/// use lacuna::paper::Claims;
/// use lacuna::rng::Seed;
/// let mut claims = Claims::default();
/// claims.setting("MONK 1", "MONK 1, drawn from its rule");
/// claims.add("weights left by OBS", "14", "every <= 14", 0)?.extend([(Seed(0), 12.), (Seed(1), 14.)]);
/// let csv = claims.to_csv()?;
/// assert_eq!(Claims::from_csv(&csv)?, claims.clone());
/// // Whoever changes a number by hand has to change what follows from it, and then the table is another.
/// assert!(Claims::from_csv(&csv.replace("12.0", "15.0")).is_err());
/// assert!(Claims::from_csv(csv.lines().next().unwrap()).is_err()); // no claim at all
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Claims {
    all: Vec<Claim>,
    settings: (String, String),
}

impl PartialEq for Claims {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl Claims {
    /// The settings, the paper's and ours, of the claims that are added from now on.
    pub fn setting(&mut self, paper: impl Into<String>, ours: impl Into<String>) -> &mut Self {
        self.settings = (paper.into(), ours.into());
        self
    }

    /// A further claim, to whose numbers the caller adds: what, the paper's number, the rule, and the digits shown.
    ///
    /// # Errors
    /// If the rule cannot be read, or the claim was added before in these settings.
    pub fn add(
        &mut self,
        what: impl Into<String>,
        paper: impl Into<String>,
        rule: &str,
        digits: usize,
    ) -> Result<&mut Vec<(Seed, f64)>> {
        let (paper_setting, setting) = self.settings.clone();
        let what = what.into();
        if self.all.iter().any(|c| (&c.what, &c.setting) == (&what, &setting)) {
            return Err(Error::invalid_option(format!("claim '{what}'"), "added before"));
        }
        let claim = Claim { what, paper_setting, paper: paper.into(), setting, rule: rule.parse()?, digits, values: Vec::new() };
        self.all.push(claim);
        let last = self.all.len() - 1;
        Ok(&mut self.all[last].values)
    }

    /// The claims in order.
    pub fn all(&self) -> &[Claim] {
        &self.all
    }

    /// A row for each claim and seed.
    ///
    /// # Errors
    /// If a claim has no number, or one that is not finite.
    pub fn to_csv(&self) -> Result<String> {
        let mut table = Table::new(COLUMNS);
        for c in &self.all {
            let holds = c.holds()?;
            for (seed, value) in &c.values {
                let row: [Cell; 9] = [
                    (&c.what).into(),
                    (&c.paper_setting).into(),
                    (&c.paper).into(),
                    (&c.setting).into(),
                    c.rule.to_string().into(),
                    c.digits.into(),
                    seed.0.into(),
                    (*value).into(),
                    holds.into(),
                ];
                table.row(row);
            }
        }
        Ok(table.to_csv())
    }

    /// Reads what [`Claims::to_csv`] writes, and judges every claim anew.
    ///
    /// # Errors
    /// If it is not such a table, it has no rows, a cell is not what it should be, or a claim does not hold as the file says it does.
    pub fn from_csv(text: &str) -> Result<Self> {
        let table = Table::from_csv(text)?;
        if table.columns() != COLUMNS {
            return Err(Error::invalid_option("results", format!("the columns are not {}", COLUMNS.join(", "))));
        }
        if table.rows().is_empty() {
            return Err(Error::invalid_option("results", "no rows: a table without claims says nothing"));
        }
        let mut claims = Claims::default();
        let mut said: Vec<String> = Vec::new();
        for (i, row) in table.rows().iter().enumerate() {
            let cells: Vec<String> = row.iter().map(Cell::exact).collect();
            let wrong = |what: &str| Error::invalid_option("results", format!("row {}: {what}", i + 1));
            let digits = cells[5].parse().ok().filter(|digits| *digits <= MOST_DIGITS);
            let digits: usize = digits.ok_or_else(|| wrong(&format!("the digits are no whole number up to {MOST_DIGITS}")))?;
            let seed = cells[6].parse().map(Seed).map_err(|_| wrong("the seed is no whole number"))?;
            let value: f64 = cells[7].parse().map_err(|_| wrong("the value is no number"))?;
            let rule: ClaimRule = cells[4].parse()?;
            let same = |c: &Claim| c.what == cells[0] && c.setting == cells[3];
            if !claims.all.last().is_some_and(same) {
                claims.setting(&cells[1], &cells[3]).add(&cells[0], &cells[2], &cells[4], digits)?;
                said.push(cells[8].clone());
            }
            let last = claims.all.len() - 1;
            let claim = &mut claims.all[last];
            if (claim.rule, claim.digits, &said[last]) != (rule, digits, &cells[8]) || claim.paper != cells[2] {
                return Err(wrong("differs from the row before in what all rows of a claim share"));
            }
            claim.values.push((seed, value));
        }
        for (claim, said) in claims.all.iter().zip(&said) {
            let holds = Cell::from(claim.holds()?).exact();
            if holds != *said {
                let reason = format!("by its numbers and its rule it is '{holds}', the file says '{said}'");
                return Err(Error::invalid_option(format!("claim '{}'", claim.what), reason));
            }
        }
        Ok(claims)
    }

    /// The table of claims as people read it.
    ///
    /// # Errors
    /// If a claim has no number, or one that is not finite.
    pub fn table(&self) -> Result<Table> {
        let mut table = Table::new(["claim", "paper's setting", "paper", "our setting", "ours", "holds if", "holds?"]);
        for c in &self.all {
            let summary = Summary::of(&c.numbers())?;
            let ours = if summary.n > 1 {
                format!(
                    "{} ({} … {}, n = {})",
                    summary.plus_minus(c.digits),
                    show(summary.min, c.digits),
                    show(summary.max, c.digits),
                    summary.n
                )
            } else {
                summary.plus_minus(c.digits)
            };
            let rule = c.rule.to_string().replace("<=", "≤").replace(">=", "≥").replace("..", "…");
            let row: [Cell; 7] = [
                (&c.what).into(),
                (&c.paper_setting).into(),
                (&c.paper).into(),
                (&c.setting).into(),
                ours.into(),
                rule.into(),
                c.holds()?.into(),
            ];
            table.row(row);
        }
        Ok(table)
    }

    /// What stands between the markers of a README: the table made from the text of `results.csv`, and a digest of that text, so
    /// that a change too small for the table's digits shows too.
    ///
    /// # Errors
    /// As [`Claims::from_csv`].
    pub fn block(results: &str) -> Result<String> {
        let claims = Claims::from_csv(results)?;
        let digest = results.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let rows: usize = claims.all.iter().map(|c| c.values.len()).sum();
        Ok(format!("{}\n`results.csv`: {rows} rows, FNV-1a {digest:016x}.\n", claims.table()?.to_markdown()))
    }
}

fn show(value: f64, digits: usize) -> String {
    Cell::float(value, digits).show()
}

//! What a comparison found: tables, figures, ranks and differences, all from the numbers of single runs.

use super::differences::{Differences, PairedDifference};
use super::subject::Metric;
use crate::report::{Cell, Figure, Point, Summary, Table};
use crate::rng::Seed;
use crate::{Error, Result};

/// The name of the row of dense models.
pub(super) const DENSE: &str = "dense";

/// How layers were pruned, in every run alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The shape survivors took.
    pub pattern: String,
    /// Who competed with whom in a layer: `layer`, `row`, or `the method's`.
    pub scope: String,
    /// How budgets were shared out over layers.
    pub allocate: String,
}

/// What one run gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// The metrics, in their order.
    pub values: Vec<f64>,
    /// Weights that stayed in the layers that were pruned.
    pub kept: usize,
    /// Of how many.
    pub of: usize,
    /// The increase of the loss that the criterion predicted, if it does.
    pub predicted: Option<f64>,
}

/// One method at one sparsity with one seed: what it gave, or the reason why it gave nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// The method's name.
    pub method: String,
    /// The share of the weights that was to go.
    pub sparsity: f64,
    /// The seed.
    pub seed: Seed,
    /// What was measured, or the reason in one line.
    pub outcome: std::result::Result<Measurement, String>,
}

/// Every method at every sparsity with every seed, made by [`Compare::run`](super::Compare::run) or read by [`Comparison::from_csv`].
///
/// Tables, figures and differences are of the first metric, or of that which [`Comparison::by`] chose.
///
/// # Invariants
/// - One trial for each seed, method and sparsity, in this order; of each seed the dense model's metrics.
/// - Every number is finite, and there is one for each metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    pub(super) setting: Setting,
    pub(super) metrics: Vec<Metric>,
    pub(super) methods: Vec<String>,
    pub(super) sparsities: Vec<f64>,
    pub(super) seeds: Vec<Seed>,
    pub(super) dense: Vec<Vec<f64>>,
    pub(super) trials: Vec<Trial>,
    /// The metric that is shown.
    pub(super) shown: usize,
}

impl Comparison {
    /// The same comparison, whose tables, figures and differences are of this metric.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest.
    pub fn by(&self, metric: &str) -> Result<Comparison> {
        let found = self.metrics.iter().position(|m| m.name == metric);
        let shown = found.ok_or_else(|| Error::unknown_name("metric", metric, self.metrics.iter().map(|m| m.name.as_str())))?;
        Ok(Comparison { shown, ..self.clone() })
    }

    /// The same comparison, if every run gave its numbers.
    ///
    /// # Errors
    /// The reason of the first that did not.
    pub fn complete(self) -> Result<Comparison> {
        for trial in &self.trials {
            if let Err(reason) = &trial.outcome {
                return Err(Error::invalid_option(
                    format!("{} at {:?} with seed {}", trial.method, trial.sparsity, trial.seed.0),
                    reason,
                ));
            }
        }
        Ok(self)
    }

    /// How layers were pruned.
    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    /// The metrics, in the order of their numbers.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// The names of the methods, the caller's own first.
    pub fn methods(&self) -> &[String] {
        &self.methods
    }

    /// The shares of the weights that were to go.
    pub fn sparsities(&self) -> &[f64] {
        &self.sparsities
    }

    /// The seeds.
    pub fn seeds(&self) -> &[Seed] {
        &self.seeds
    }

    /// Every run, by seed, method and sparsity.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// The run of a method at a sparsity with a seed.
    ///
    /// # Errors
    /// If there is none.
    pub fn trial(&self, method: &str, sparsity: f64, seed: Seed) -> Result<&Trial> {
        let (m, s) = (self.method(method)?, self.place(sparsity)?);
        let k = self.seeds.iter().position(|k| *k == seed);
        let k = k.ok_or_else(|| Error::invalid_option(format!("seed {}", seed.0), "was not run"))?;
        Ok(self.at(k, m, s))
    }

    /// The numbers of a method, or of `dense`, at a sparsity: of every seed in which there is one.
    ///
    /// # Errors
    /// If the method or the sparsity was not run.
    pub fn values(&self, method: &str, sparsity: f64) -> Result<Vec<(Seed, f64)>> {
        let s = self.place(sparsity)?;
        let m = if method == DENSE { None } else { Some(self.method(method)?) };
        Ok(self.numbers(m, s))
    }

    /// A row for the dense models and for each method, the caller's own first: mean ± standard deviation over the seeds at each sparsity, the
    /// mean rank, and why something was not measured, where that is so.
    ///
    /// With fewer seeds than asked for the cell says how many. A rank is among the methods that have a number in that seed, 1 the best, ties
    /// sharing their mean; the mean rank is over all seeds and sparsities, of methods with a number in each.
    pub fn table(&self) -> Table {
        let failed = self.trials.iter().any(|t| t.outcome.is_err());
        let mut columns = vec![format!("method ({})", self.metric().name)];
        columns.extend(self.sparsities.iter().map(|s| percent(*s)));
        columns.push("mean rank".into());
        columns.extend(failed.then(|| "not measured".to_string()));
        let digits = self.digits();
        let mut table = Table::new(columns);
        let ranks = self.mean_ranks();
        for m in std::iter::once(None).chain((0..self.methods.len()).map(Some)) {
            let mut row: Vec<Cell> = vec![m.map_or(DENSE, |m| &self.methods[m]).into()];
            for s in 0..self.sparsities.len() {
                let values: Vec<f64> = self.numbers(m, s).into_iter().map(|(_, v)| v).collect();
                let fewer = if values.len() < self.seeds.len() { format!(" (n = {})", values.len()) } else { String::new() };
                row.push(Summary::of(&values).ok().map(|s| s.plus_minus(digits) + &fewer).into());
            }
            row.push(m.and_then(|m| ranks[m]).map(|rank| Cell::float(rank, 1)).into());
            if failed {
                row.push(m.map(|m| self.reasons(m)).filter(|r| !r.is_empty()).into());
            }
            table.row(row);
        }
        table
    }

    /// A row for each method: its mean rank over the seeds at each sparsity, and over all of them; as in [`Comparison::table`].
    pub fn ranks(&self) -> Table {
        let mut columns = vec![format!("mean rank ({})", self.metric().name)];
        columns.extend(self.sparsities.iter().map(|s| percent(*s)));
        columns.push("all".into());
        let mut table = Table::new(columns);
        let overall = self.mean_ranks();
        for (m, name) in self.methods.iter().enumerate() {
            let mut row: Vec<Cell> = vec![name.into()];
            for s in 0..self.sparsities.len() {
                let ranks: Vec<f64> = (0..self.seeds.len()).filter_map(|k| self.rank(k, m, s)).collect();
                row.push(Summary::of(&ranks).ok().map(|r| Cell::float(r.mean, 2)).into());
            }
            row.push(overall[m].map(|rank| Cell::float(rank, 2)).into());
            table.row(row);
        }
        table
    }

    /// A line for each method over the sparsity, with bars of one standard deviation over the seeds up and down, and a level one for the dense
    /// models. What was not measured is left out.
    pub fn figure(&self) -> Figure {
        let title = format!("{}, {}, {}", self.setting.pattern, self.setting.allocate, count(self.seeds.len(), "seed"));
        let mut figure = Figure::new(title, "sparsity", &self.metric().name).percent_x().error_bars();
        for m in (0..self.methods.len()).map(Some).chain([None]) {
            let point = |s: usize| -> Option<Point> {
                let values: Vec<f64> = self.numbers(m, s).into_iter().map(|(_, v)| v).collect();
                let summary = Summary::of(&values).ok()?;
                let sd = if summary.sd.is_nan() { 0.0 } else { summary.sd };
                Some(Point::with_band(self.sparsities[s], summary.mean, summary.mean - sd, summary.mean + sd))
            };
            let points: Vec<Point> = (0..self.sparsities.len()).filter_map(point).collect();
            if !points.is_empty() {
                figure = figure.series(m.map_or(DENSE, |m| &self.methods[m]), points);
            }
        }
        figure
    }

    /// `first` less `second` at every sparsity, paired over the seeds; either may be `dense`.
    ///
    /// # Errors
    /// If a method was not run.
    pub fn differences(&self, first: &str, second: &str) -> Result<Differences> {
        let mut all = Vec::new();
        for sparsity in &self.sparsities {
            let (a, b) = (self.values(first, *sparsity)?, self.values(second, *sparsity)?);
            let of = |seed: Seed| b.iter().find(|(other, _)| *other == seed).map(|(_, v)| *v);
            let values = a.iter().filter_map(|(seed, v)| of(*seed).map(|other| (*seed, v - other))).collect();
            all.push(PairedDifference::new(*sparsity, values, self.metric())?);
        }
        Ok(Differences { metric: self.metric().clone(), first: first.into(), second: second.into(), all })
    }

    /// A row for each other method: `method` less it at every sparsity, as mean, 95 % interval by Student's t, and in how many of the seeds
    /// `method` is better: `+1.20 [+0.70, +1.70], 3/3`.
    ///
    /// # Errors
    /// If the method was not run.
    pub fn against(&self, method: &str) -> Result<Table> {
        let mut columns = vec![format!("{}: {method} less", self.metric().name)];
        columns.extend(self.sparsities.iter().map(|s| percent(*s)));
        let mut table = Table::new(columns);
        self.values(method, self.sparsities[0])?;
        for other in self.methods.iter().map(String::as_str).chain([DENSE]).filter(|other| *other != method) {
            let mut row: Vec<Cell> = vec![other.into()];
            row.extend(self.differences(method, other)?.all.iter().map(|d| d.in_short(self.digits())));
            table.row(row);
        }
        Ok(table)
    }

    fn metric(&self) -> &Metric {
        &self.metrics[self.shown]
    }

    fn method(&self, name: &str) -> Result<usize> {
        let found = self.methods.iter().position(|m| m == name);
        found.ok_or_else(|| Error::unknown_name("method", name, self.methods.iter().map(String::as_str)))
    }

    fn place(&self, sparsity: f64) -> Result<usize> {
        let found = self.sparsities.iter().position(|s| *s == sparsity);
        found.ok_or_else(|| Error::invalid_option(format!("sparsity {sparsity:?}"), format!("not among {:?}", self.sparsities)))
    }

    fn at(&self, seed: usize, method: usize, sparsity: usize) -> &Trial {
        &self.trials[(seed * self.methods.len() + method) * self.sparsities.len() + sparsity]
    }

    /// The shown number of one run.
    fn number(&self, seed: usize, method: usize, sparsity: usize) -> Option<f64> {
        self.at(seed, method, sparsity).outcome.as_ref().ok().map(|m| m.values[self.shown])
    }

    /// The shown numbers of a method, or of the dense models, over the seeds.
    fn numbers(&self, method: Option<usize>, sparsity: usize) -> Vec<(Seed, f64)> {
        let of = |k: usize| match method {
            Some(m) => self.number(k, m, sparsity),
            None => Some(self.dense[k][self.shown]),
        };
        (0..self.seeds.len()).filter_map(|k| of(k).map(|v| (self.seeds[k], v))).collect()
    }

    /// The rank among the methods that have a number there: 1 the best, the mean of their places for equals.
    fn rank(&self, seed: usize, method: usize, sparsity: usize) -> Option<f64> {
        let own = self.number(seed, method, sparsity)?;
        let all: Vec<f64> = (0..self.methods.len()).filter_map(|m| self.number(seed, m, sparsity)).collect();
        let larger = self.metric().larger_is_better;
        let before = all.iter().filter(|v| if larger { **v > own } else { **v < own }).count();
        let equal = all.iter().filter(|v| **v == own).count();
        Some(before as f64 + (equal as f64 + 1.0) / 2.0)
    }

    /// The mean of all ranks of each method that has a number everywhere.
    fn mean_ranks(&self) -> Vec<Option<f64>> {
        let mean = |m: usize| -> Option<f64> {
            let all = (0..self.seeds.len()).flat_map(|k| (0..self.sparsities.len()).map(move |s| (k, s)));
            let ranks = all.map(|(k, s)| self.rank(k, m, s)).collect::<Option<Vec<f64>>>()?;
            Summary::of(&ranks).ok().map(|s| s.mean)
        };
        (0..self.methods.len()).map(mean).collect()
    }

    /// Why a method has no number somewhere: each reason once, with the sparsities and the number of seeds.
    fn reasons(&self, method: usize) -> String {
        let mut found: Vec<(&str, Vec<usize>, usize)> = Vec::new();
        for s in 0..self.sparsities.len() {
            for k in 0..self.seeds.len() {
                let Err(reason) = &self.at(k, method, s).outcome else { continue };
                match found.iter_mut().find(|(known, ..)| known == reason) {
                    Some((_, at, n)) => {
                        at.extend((!at.contains(&s)).then_some(s));
                        *n += 1;
                    }
                    None => found.push((reason, vec![s], 1)),
                }
            }
        }
        let part = |(reason, at, n): (&str, Vec<usize>, usize)| {
            let of = at.len() * self.seeds.len();
            let runs = if n < of { format!(", {n} of {of} runs") } else { String::new() };
            let at = if at.len() == self.sparsities.len() {
                String::new()
            } else {
                at.iter().map(|s| percent(self.sparsities[*s])).collect::<Vec<_>>().join(", ") + ": "
            };
            format!("{at}{reason}{runs}")
        };
        found.into_iter().map(part).collect::<Vec<_>>().join("; ")
    }

    /// Digits after the point: so many that numbers of the metric's size show four figures or so.
    fn digits(&self) -> usize {
        let ok = self.trials.iter().filter_map(|t| t.outcome.as_ref().ok()).map(|m| m.values[self.shown]);
        let largest = ok.chain(self.dense.iter().map(|d| d[self.shown])).map(f64::abs).fold(0.0, f64::max);
        match largest {
            v if v >= 10.0 => 2,
            v if v >= 1.0 => 3,
            _ => 4,
        }
    }
}

/// A share as a percentage, with the digits that it has.
fn percent(share: f64) -> String {
    let text = format!("{:.4}", 100.0 * share);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

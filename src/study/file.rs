//! A comparison as CSV: every number of every run, to the last bit.

use super::comparison::{Comparison, DENSE, Measurement, Setting, Trial};
use super::subject::Metric;
use crate::report::{Cell, Table};
use crate::rng::Seed;
use crate::{Error, Result};

/// A row for each run and metric; one row, without metric and value, for a run that gave nothing.
const COLUMNS: [&str; 13] = [
    "pattern",
    "scope",
    "allocate",
    "method",
    "sparsity",
    "seed",
    "metric",
    "better",
    "value",
    "kept",
    "of",
    "predicted increase",
    "not measured",
];

impl Comparison {
    /// Every number of every run, and every reason: what [`Comparison::from_csv`] reads.
    pub fn to_csv(&self) -> String {
        let mut table = Table::new(COLUMNS);
        let mut row = |run: [Cell; 3], metric: Option<(&Metric, f64)>, rest: [Cell; 4]| {
            let setting = [&self.setting.pattern, &self.setting.scope, &self.setting.allocate].map(Cell::from);
            let better = |m: &Metric| if m.larger_is_better { "larger" } else { "smaller" };
            let metric = [
                metric.map(|(m, _)| m.name.as_str()).into(),
                metric.map(|(m, _)| better(m)).into(),
                metric.map(|(_, v)| v).into(),
            ];
            table.row(setting.into_iter().chain(run).chain(metric).chain(rest).collect::<Vec<Cell>>());
        };
        let runs = self.methods.len() * self.sparsities.len();
        for (k, seed) in self.seeds.iter().enumerate() {
            for (metric, value) in self.metrics.iter().zip(&self.dense[k]) {
                row([DENSE.into(), 0.0.into(), seed.0.into()], Some((metric, *value)), [const { Cell::Missing }; 4]);
            }
            for trial in &self.trials[k * runs..(k + 1) * runs] {
                let run = || [Cell::from(&trial.method), trial.sparsity.into(), seed.0.into()];
                match &trial.outcome {
                    Err(reason) => row(run(), None, [Cell::Missing, Cell::Missing, Cell::Missing, reason.into()]),
                    Ok(m) => {
                        for (metric, value) in self.metrics.iter().zip(&m.values) {
                            row(run(), Some((metric, *value)), [m.kept.into(), m.of.into(), m.predicted.into(), Cell::Missing]);
                        }
                    }
                }
            }
        }
        table.to_csv()
    }

    /// Reads what [`Comparison::to_csv`] writes.
    ///
    /// # Errors
    /// If it is no such table, a cell is not what it should be, or a run is missing or there twice.
    pub fn from_csv(text: &str) -> Result<Comparison> {
        let table = Table::from_csv(text)?;
        if table.columns() != COLUMNS {
            return Err(Error::invalid_option("comparison", format!("the columns are not {}", COLUMNS.join(", "))));
        }
        let mut rows = Vec::new();
        for (i, cells) in table.rows().iter().enumerate() {
            let row = Row::of(cells).map_err(|what| Error::invalid_option("comparison", format!("row {}: {what}", i + 1)))?;
            rows.push(row);
        }
        let Some(first) = rows.first() else { return Err(Error::invalid_option("comparison", "no rows")) };
        let setting = first.setting.clone();
        if let Some(i) = rows.iter().position(|r| r.setting != setting) {
            return Err(Error::invalid_option("comparison", format!("row {}: another setting than in the rows before", i + 1)));
        }
        let pruned = || rows.iter().filter(|r| r.method != DENSE);
        let (metrics, methods) =
            (distinct(rows.iter().filter_map(|r| r.metric.clone())), distinct(pruned().map(|r| r.method.clone())));
        let (sparsities, seeds) = (distinct(pruned().map(|r| r.sparsity)), distinct(rows.iter().map(|r| r.seed)));
        let mut taken = 0;
        let mut run = |method: &str, sparsity: f64, seed: Seed| -> Result<std::result::Result<Measurement, String>> {
            let of: Vec<&Row> = rows.iter().filter(|r| r.method == method && r.sparsity == sparsity && r.seed == seed).collect();
            let wrong = |what: &str| {
                Error::invalid_option("comparison", format!("{method} at {sparsity:?} with seed {}: {what}", seed.0))
            };
            taken += of.len();
            match of[..] {
                [] => Err(wrong("no row")),
                [Row { reason: Some(reason), .. }] => Ok(Err(reason.clone())),
                [head, ..] => {
                    if !of.iter().map(|r| r.metric.as_ref()).eq(metrics.iter().map(Some)) {
                        return Err(wrong("not one row for each metric, in their order"));
                    }
                    if of.iter().any(|r| (r.kept, r.of, r.predicted) != (head.kept, head.of, head.predicted)) {
                        return Err(wrong("what was kept or predicted differs between the rows of one run"));
                    }
                    let values = of.iter().map(|r| r.value).collect();
                    Ok(Ok(Measurement { values, kept: head.kept, of: head.of, predicted: head.predicted }))
                }
            }
        };
        let (mut dense, mut trials) = (Vec::new(), Vec::new());
        for &seed in &seeds {
            let of = run(DENSE, 0.0, seed)?;
            dense.push(
                of.map_err(|_| Error::invalid_option("comparison", format!("no number of the dense model of seed {}", seed.0)))?
                    .values,
            );
            for method in &methods {
                for &sparsity in &sparsities {
                    trials.push(Trial { method: method.clone(), sparsity, seed, outcome: run(method, sparsity, seed)? });
                }
            }
        }
        if taken != rows.len() {
            return Err(Error::invalid_option("comparison", format!("{} rows belong to no run", rows.len() - taken)));
        }
        if methods.is_empty() {
            return Err(Error::invalid_option("comparison", "no method beside the dense model"));
        }
        Ok(Comparison { setting, metrics, methods, sparsities, seeds, dense, trials, shown: 0 })
    }
}

/// One row as it is read.
struct Row {
    setting: Setting,
    method: String,
    sparsity: f64,
    seed: Seed,
    metric: Option<Metric>,
    value: f64,
    kept: usize,
    of: usize,
    predicted: Option<f64>,
    reason: Option<String>,
}

impl Row {
    fn of(cells: &[Cell]) -> std::result::Result<Row, String> {
        let text = |column: usize| cells[column].exact();
        let number = |column: usize| -> std::result::Result<f64, String> {
            let read = cells[column].number().filter(|v| v.is_finite());
            read.ok_or_else(|| format!("{} is no finite number", COLUMNS[column]))
        };
        let whole = |column: usize| -> std::result::Result<u64, String> {
            text(column).parse().map_err(|_| format!("{} is no whole number", COLUMNS[column]))
        };
        let dense = text(3) == DENSE;
        let reason = (cells[12] != Cell::Missing).then(|| text(12));
        let metric = match (text(7).as_str(), &reason) {
            ("", Some(_)) => None,
            ("larger", None) => Some(Metric::larger(text(6))),
            ("smaller", None) => Some(Metric::smaller(text(6))),
            (other, None) => return Err(format!("better is '{other}', neither larger nor smaller")),
            (_, Some(_)) => return Err("a metric and a reason why there is none".into()),
        };
        let counted = metric.is_some() && !dense;
        Ok(Row {
            setting: Setting { pattern: text(0), scope: text(1), allocate: text(2) },
            method: text(3),
            sparsity: number(4)?,
            seed: Seed(whole(5)?),
            value: if metric.is_some() { number(8)? } else { 0.0 },
            metric,
            kept: if counted { whole(9)? as usize } else { 0 },
            of: if counted { whole(10)? as usize } else { 0 },
            predicted: if cells[11] == Cell::Missing { None } else { Some(number(11)?) },
            reason,
        })
    }
}

/// Each item once, in the order in which they appear.
fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    found
}

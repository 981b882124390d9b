//! Two methods against one another, paired over the seeds.

use super::subject::Metric;
use crate::Result;
use crate::report::{Cell, Summary, Table};
use crate::rng::Seed;

/// The level of the intervals.
const LEVEL: f64 = 0.95;

/// What one method has more than another at one sparsity, seed by seed.
#[derive(Debug, Clone, PartialEq)]
pub struct PairedDifference {
    /// The share of the weights that goes.
    pub sparsity: f64,
    /// First less second, of each seed in which both have a number.
    pub values: Vec<(Seed, f64)>,
    /// Mean and spread of these; nothing where there is no seed.
    pub summary: Option<Summary>,
    /// The 95 % interval of the mean by Student's t; nothing for fewer than two seeds.
    pub interval: Option<(f64, f64)>,
    larger_is_better: bool,
}

impl PairedDifference {
    /// The difference of these values.
    ///
    /// # Errors
    /// If one is not finite.
    pub(super) fn new(sparsity: f64, values: Vec<(Seed, f64)>, metric: &Metric) -> Result<Self> {
        let numbers: Vec<f64> = values.iter().map(|(_, v)| *v).collect();
        let summary = if numbers.is_empty() { None } else { Some(Summary::of(&numbers)?) };
        let interval = summary.filter(|s| s.n > 1).map(|s| s.interval(LEVEL)).transpose()?;
        Ok(PairedDifference { sparsity, values, summary, interval, larger_is_better: metric.larger_is_better })
    }

    /// In how many seeds the first is better, as good, and worse.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |wanted: i32| self.values.iter().filter(|(_, v)| self.gain(*v) == wanted).count();
        (count(1), count(0), count(-1))
    }

    /// Whether the first is better (`Some(true)`) or worse (`Some(false)`) on average, as far as the 95 % interval says: nothing where it
    /// holds 0, or there is none.
    pub fn better(&self) -> Option<bool> {
        let (low, high) = self.interval?;
        if low > 0.0 {
            return Some(self.larger_is_better);
        }
        (high < 0.0).then_some(!self.larger_is_better)
    }

    /// 1 where such a difference is for the better, −1 for the worse, 0 for neither.
    fn gain(&self, value: f64) -> i32 {
        let sign = i32::from(value > 0.0) - i32::from(value < 0.0);
        if self.larger_is_better { sign } else { -sign }
    }

    /// The signs in the order of the seeds.
    fn signs(&self) -> String {
        let sign = |(_, v): &(Seed, f64)| match *v {
            v if v > 0.0 => "+",
            v if v < 0.0 => "−",
            _ => "0",
        };
        self.values.iter().map(sign).collect::<Vec<_>>().join(" ")
    }

    /// `mean [low, high], better/seeds`, in so many digits.
    pub(super) fn in_short(&self, digits: usize) -> Cell {
        let Some(summary) = self.summary else { return Cell::Missing };
        let interval = self.interval.map_or(String::new(), |(low, high)| format!(" [{low:+.digits$}, {high:+.digits$}]"));
        format!("{:+.digits$}{interval}, {}/{}", summary.mean, self.counts().0, summary.n).into()
    }
}

/// The paired differences of two methods at every sparsity.
#[derive(Debug, Clone, PartialEq)]
pub struct Differences {
    /// Of what.
    pub metric: Metric,
    /// The method of which the other is taken.
    pub first: String,
    /// The other.
    pub second: String,
    /// One for each sparsity, in their order.
    pub all: Vec<PairedDifference>,
}

impl Differences {
    /// A row for each sparsity: the mean of first less second, its 95 % interval by Student's t over the seeds, the sign in each seed, in how
    /// many the first is better, and what the interval says.
    ///
    /// Every interval is for itself: of twenty that are looked at one is expected not to hold its mean.
    pub fn table(&self) -> Table {
        let mean = format!("{}: {} less {}", self.metric.name, self.first, self.second);
        let mut table = Table::new([
            "sparsity",
            &mean,
            "95 % low",
            "95 % high",
            "sign of each seed",
            "seeds in which it is better",
            "on average",
        ]);
        for d in &self.all {
            let (better, ..) = d.counts();
            let says = match (d.better(), d.values.len()) {
                (Some(true), _) => "better",
                (Some(false), _) => "worse",
                (None, 0) => "not measured",
                (None, 1) => "one seed",
                (None, _) => "undecided",
            };
            table.row([
                Cell::float(d.sparsity, 2),
                d.summary.map(|s| s.mean).into(),
                d.interval.map(|(low, _)| low).into(),
                d.interval.map(|(_, high)| high).into(),
                d.signs().into(),
                format!("{better} of {}", d.values.len()).into(),
                says.into(),
            ]);
        }
        table
    }
}

//! Lines over a numeric axis, with the spread of the seeds behind them.

use super::canvas::{self, Canvas, Look, Place};
use super::cell::Cell;
use super::frame::{Along, Frame, Sample, Words};
use super::scale::{AxisKind, Scale, drawable};
use super::stats::Summary;
use super::table::Table;
use crate::{Error, Result};

const PLOT_WIDTH: f64 = 560.0;
/// A series of more points gets a marker only on some of them.
const MARKED: usize = 24;
/// Half the width of the ends of an error bar.
const BAR_END: f64 = 3.0;

/// One place of a series: the mean of the seeds at `x`, and the band they spread over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Where along the x axis.
    pub x: f64,
    /// The height of the line.
    pub mean: f64,
    /// The lower edge of the band.
    pub low: f64,
    /// The upper edge of the band; equal to `low` where there is none.
    pub high: f64,
}

impl Point {
    /// A point without a band.
    pub fn new(x: f64, y: f64) -> Self {
        Point { x, mean: y, low: y, high: y }
    }

    /// A point with a band from `low` to `high`.
    pub fn with_band(x: f64, mean: f64, low: f64, high: f64) -> Self {
        Point { x, mean, low, high }
    }

    /// The mean of the seeds, with a band from the smallest to the largest.
    pub fn of(x: f64, seeds: &Summary) -> Self {
        Point::with_band(x, seeds.mean, seeds.min, seeds.max)
    }

    /// [`Point::of`] at every x, from the values of all seeds there.
    ///
    /// # Errors
    ///
    /// When there is no value somewhere, or one is not finite.
    pub fn line(values: impl IntoIterator<Item = (f64, Vec<f64>)>) -> Result<Vec<Self>> {
        values.into_iter().map(|(x, v)| Ok(Point::of(x, &Summary::of(&v)?))).collect()
    }
}

/// A figure of lines.
///
/// Each series has a colour that the colour-blind can tell apart, and a marker; from the eighth on also dashes. Lines join
/// the points in the order given. A point that has no place on the axes (not finite, beyond ±10²⁰⁰, or less than 10⁻²⁰⁰
/// on a logarithmic axis) is left out and the line is broken there; a band whose edge is not finite is left out at that point.
///
/// ```
/// use lacuna::report::{Figure, Point};
///
/// # fn main() -> lacuna::Result<()> {
/// let wanda = vec![Point::new(0.5, 7.26), Point::with_band(0.6, 10.7, 10.5, 10.9)];
/// let svg = Figure::new("LLaMA-7B", "sparsity", "perplexity").percent_x().log_y().series("wanda", wanda).to_svg()?;
/// assert!(svg.starts_with("<svg ") && svg.contains("wanda"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Figure {
    words: Words,
    x: AxisKind,
    y: AxisKind,
    series: Vec<(String, Vec<Point>)>,
    error_bars: bool,
}

impl Figure {
    /// A figure without series.
    pub fn new(title: impl Into<String>, x_label: impl Into<String>, y_label: impl Into<String>) -> Self {
        let words = Words { title: title.into(), x_label: x_label.into(), y_label: y_label.into() };
        Figure { words, x: AxisKind::default(), y: AxisKind::default(), series: Vec::new(), error_bars: false }
    }

    /// A logarithmic x axis.
    pub fn log_x(mut self) -> Self {
        self.x.log = true;
        self
    }

    /// A logarithmic y axis.
    pub fn log_y(mut self) -> Self {
        self.y.log = true;
        self
    }

    /// Labels the fractions along the x axis as percentages: 0.5 as 50%.
    pub fn percent_x(mut self) -> Self {
        self.x.percent = true;
        self
    }

    /// Labels the fractions along the y axis as percentages: 0.5 as 50%.
    pub fn percent_y(mut self) -> Self {
        self.y.percent = true;
        self
    }

    /// The ends of the x axis, instead of those of the data; what lies outside is cut off.
    pub fn x_range(mut self, low: f64, high: f64) -> Self {
        self.x.range = Some((low, high));
        self
    }

    /// The ends of the y axis, instead of those of the data; what lies outside is cut off.
    pub fn y_range(mut self, low: f64, high: f64) -> Self {
        self.y.range = Some((low, high));
        self
    }

    /// Shows the spread at each point as a bar with ends, instead of as a band behind the line: where many lines cross, bands hide one
    /// another.
    pub fn error_bars(mut self) -> Self {
        self.error_bars = true;
        self
    }

    /// Adds a line. Its name stands in the legend, beside the plot.
    pub fn series(mut self, name: impl Into<String>, points: Vec<Point>) -> Self {
        self.series.push((name.into(), points));
        self
    }

    /// Adds a line of the rows of a table: at every number in column `x` the mean and the range of what column `y` has there. A row
    /// without a number in one of them is left out.
    ///
    /// ```
    /// use lacuna::report::{Figure, Table};
    ///
    /// # fn main() -> lacuna::Result<()> {
    /// let runs = Table::from_csv("seed,method,sparsity,loss\n0,obd,0.5,0.2\n0,obd,0.9,0.8\n1,obd,0.5,0.4\n1,obd,0.9,0.6\n")?;
    /// let svg = Figure::new("Loss", "sparsity", "loss").line("OBD", &runs.only("method", "obd")?, "sparsity", "loss")?.to_svg()?;
    /// assert!(svg.contains("OBD"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When a column does not exist, no row has numbers in both, or one of `y` is not finite.
    pub fn line(self, name: impl Into<String>, table: &Table, x: &str, y: &str) -> Result<Self> {
        let name = name.into();
        let mut line: Vec<(f64, Vec<f64>)> = Vec::new();
        for pair in table.column(x)?.zip(table.column(y)?) {
            let (Some(x), Some(y)) = (pair.0.number(), pair.1.number()) else { continue };
            match line.iter().position(|(at, _)| *at == x) {
                Some(at) => line[at].1.push(y),
                None => line.push((x, vec![y])),
            }
        }
        if line.is_empty() {
            return Err(Error::invalid_option(format!("line '{name}'"), format!("no row has numbers in '{x}' and '{y}'")));
        }
        Ok(self.series(name, Point::line(line)?))
    }

    /// Adds a level line, from end to end of the lines that were added before it: the mean and the range of column `y` of a table,
    /// whose rows have nothing to do with the x axis.
    ///
    /// # Errors
    ///
    /// When there is no such column, no line before it, no number in the column, or one is not finite.
    pub fn level(self, name: impl Into<String>, table: &Table, y: &str) -> Result<Self> {
        let name = name.into();
        let values: Vec<f64> = table.column(y)?.filter_map(Cell::number).collect();
        let all = Summary::of(&values).map_err(|e| Error::invalid_option(format!("line '{name}'"), e.to_string()))?;
        let (least, most) = self.shown().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), p| (a.min(p.x), b.max(p.x)));
        if least > most {
            return Err(Error::invalid_option(format!("line '{name}'"), "a level runs along other lines, and there is none"));
        }
        Ok(self.series(name, vec![Point::of(least, &all), Point::of(most, &all)]))
    }

    /// The figure as a standalone SVG document on white paper.
    ///
    /// # Errors
    ///
    /// When no series has a point that can be drawn, or a range is empty or does not fit its axis.
    pub fn to_svg(&self) -> Result<String> {
        if self.shown().next().is_none() {
            let given: usize = self.series.iter().map(|(_, points)| points.len()).sum();
            let reason = format!("nothing to draw: {} series, {given} points, none with a place on the axes", self.series.len());
            return Err(Error::invalid_option(format!("figure '{}'", self.words.title), reason));
        }
        let x_scale = Scale::fit(self.x, "x", self.shown().map(|point| point.x))?;
        let y_scale = Scale::fit(self.y, "y", self.shown().flat_map(|p| [p.mean, p.low, p.high]).filter(|v| self.y.holds(*v)))?;
        let (x_ticks, y_ticks) = (x_scale.ticks(7), y_scale.ticks(6));
        let names: Vec<&str> = self.series.iter().map(|(name, _)| name.as_str()).collect();
        let along = Along::Ticks(&x_ticks, x_scale);
        let frame = Frame::measure(&self.words, PLOT_WIDTH, &along, &y_ticks, &names);
        let at = |x: f64, y: f64| (frame.x(x_scale.place(x)), frame.y(y_scale.place(y)));

        let below = canvas::layer(|canvas| frame.draw(canvas, &self.words, &along, (&y_ticks, y_scale)));
        let data = canvas::layer(|canvas| {
            for (index, (_, series)) in self.series.iter().enumerate() {
                let look = Look::of(index);
                for run in self.runs(series) {
                    if self.error_bars { self.draw_bars(canvas, run, look, at) } else { draw_band(canvas, run, look, at) }
                }
            }
            for (index, (_, series)) in self.series.iter().enumerate() {
                self.runs(series).into_iter().for_each(|run| draw_line(canvas, run, Look::of(index), at));
            }
        });
        let above = canvas::layer(|canvas| {
            for (index, (_, series)) in self.series.iter().enumerate() {
                let inside = |p: &&Point| [x_scale.place(p.x), y_scale.place(p.mean)].iter().all(|v| (0.0..=1.0).contains(v));
                for point in self.marked(series).into_iter().filter(inside) {
                    canvas.marker(at(point.x, point.mean), Look::of(index));
                }
            }
            frame.draw_legend(canvas, &names, Sample::Line)
        });
        Ok(frame.document(&self.words, below, &data, above))
    }

    fn has_place(&self, point: &Point) -> bool {
        self.x.holds(point.x) && self.y.holds(point.mean)
    }

    fn shown(&self) -> impl Iterator<Item = &Point> {
        self.series.iter().flat_map(|(_, points)| points).filter(|point| self.has_place(point))
    }

    /// The stretches of a series between points that are left out.
    fn runs<'a>(&self, series: &'a [Point]) -> Vec<&'a [Point]> {
        series.split(|point| !self.has_place(point)).filter(|run| !run.is_empty()).collect()
    }

    /// A bar with ends through each point of a run that has a spread.
    fn draw_bars(&self, canvas: &mut Canvas, run: &[Point], look: Look, at: impl Fn(f64, f64) -> Place) {
        let shown = |p: &&Point| p.low < p.high && self.y.holds(p.low) && self.y.holds(p.high);
        for p in run.iter().filter(shown) {
            let (low, high) = (at(p.x, p.low), at(p.x, p.high));
            canvas.line(&[low, high], look.colour, 1.0);
            for (x, y) in [low, high] {
                canvas.line(&[(x - BAR_END, y), (x + BAR_END, y)], look.colour, 1.0);
            }
        }
    }

    /// The points that get a marker: all of a short series, some of a long one, always those that stand alone.
    fn marked<'a>(&self, series: &'a [Point]) -> Vec<&'a Point> {
        let every = series.len() / MARKED + 1;
        let marks = |run: &'a [Point]| run.iter().step_by(every);
        self.runs(series).into_iter().flat_map(marks).collect()
    }
}

/// The band behind a line, wherever two neighbouring points have a spread to show.
fn draw_band(canvas: &mut Canvas, run: &[Point], look: Look, at: impl Fn(f64, f64) -> Place) {
    let spread = |p: &Point| drawable(p.low) && drawable(p.high);
    for stretch in run.split(|p| !spread(p)) {
        if stretch.iter().all(|p| p.low == p.high) {
            continue;
        }
        if let [alone] = stretch {
            canvas.line(&[at(alone.x, alone.low), at(alone.x, alone.high)], look.colour, 1.5);
            continue;
        }
        let upper = stretch.iter().map(|p| at(p.x, p.high));
        let lower = stretch.iter().rev().map(|p| at(p.x, p.low));
        canvas.polygon(&upper.chain(lower).collect::<Vec<_>>(), look.colour, 0.18);
    }
}

fn draw_line(canvas: &mut Canvas, run: &[Point], look: Look, at: impl Fn(f64, f64) -> Place) {
    let places: Vec<Place> = run.iter().map(|p| at(p.x, p.mean)).collect();
    if places.len() > 1 {
        canvas.dashed(&places, look.colour, 2.0, look.dashes);
    }
}

//! Bars grouped by category: one group a layer, one bar a method.

use super::canvas;
use super::frame::{Along, Frame, Sample, Words};
use super::scale::{AxisKind, Scale, drawable};
use crate::{Error, Result};

const PLOT_WIDTH: f64 = 560.0;
/// A group is never narrower than this for each bar, and for its name.
const NARROWEST_BAR: f64 = 5.0;
const NARROWEST_GROUP: f64 = 16.0;

/// A figure of bars, one group for each category and in it one bar for each series.
///
/// The plot grows with the categories, and names that do not fit side by side stand upright. A value that is not finite has
/// no bar.
///
/// ```
/// use lacuna::report::Bars;
///
/// # fn main() -> lacuna::Result<()> {
/// let svg = Bars::new("Where the weights went", "layer", "sparsity", ["conv1", "conv2", "fc"])
///     .percent_y()
///     .series("ERK", vec![0.31, 0.86, 0.97])
///     .series("uniform", vec![0.9, 0.9, 0.9])
///     .to_svg()?;
/// assert!(svg.contains("ERK") && svg.contains("conv2"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Bars {
    words: Words,
    y: AxisKind,
    categories: Vec<String>,
    series: Vec<(String, Vec<f64>)>,
}

impl Bars {
    /// A figure without bars, with its categories from left to right.
    pub fn new<S: Into<String>>(
        title: impl Into<String>,
        x_label: impl Into<String>,
        y_label: impl Into<String>,
        categories: impl IntoIterator<Item = S>,
    ) -> Self {
        let words = Words { title: title.into(), x_label: x_label.into(), y_label: y_label.into() };
        let categories = categories.into_iter().map(Into::into).collect();
        Bars { words, y: AxisKind::default(), categories, series: Vec::new() }
    }

    /// Labels the fractions along the y axis as percentages: 0.5 as 50%.
    pub fn percent_y(mut self) -> Self {
        self.y.percent = true;
        self
    }

    /// The ends of the y axis, instead of those of the data and 0; what lies outside is cut off.
    pub fn y_range(mut self, low: f64, high: f64) -> Self {
        self.y.range = Some((low, high));
        self
    }

    /// Adds one bar to each category, in their order. The name stands in the legend, beside the plot.
    pub fn series(mut self, name: impl Into<String>, values: Vec<f64>) -> Self {
        self.series.push((name.into(), values));
        self
    }

    /// The figure as a standalone SVG document on white paper.
    ///
    /// # Errors
    ///
    /// When no bar can be drawn, a series has not one value for each category, or the range is empty.
    pub fn to_svg(&self) -> Result<String> {
        let (groups, bars) = (self.categories.len(), self.series.len());
        for (name, values) in &self.series {
            if values.len() != groups {
                return Err(Error::shape(format!("bars of '{name}' against the categories"), &[groups], &[values.len()]));
            }
        }
        let values = || self.series.iter().flat_map(|(_, values)| values).copied().filter(|v| drawable(*v));
        if values().next().is_none() {
            let reason = format!("nothing to draw: {bars} series, {groups} categories, no finite value");
            return Err(Error::invalid_option(format!("figure '{}'", self.words.title), reason));
        }
        let scale = Scale::fit(self.y, "y", values().chain([0.0]))?;
        let ticks = scale.ticks(6);
        let names: Vec<&str> = self.series.iter().map(|(name, _)| name.as_str()).collect();
        let along = Along::Names(&self.categories);
        let group = NARROWEST_GROUP.max(bars as f64 * NARROWEST_BAR / 0.8);
        let frame = Frame::measure(&self.words, PLOT_WIDTH.max(group * groups as f64), &along, &ticks, &names);
        let group = frame.plot.0 / groups as f64;
        let bar = (group * 0.8 / bars as f64).min(60.0);
        let base = frame.y(scale.place(0.0).clamp(0.0, 1.0));

        let below = canvas::layer(|canvas| frame.draw(canvas, &self.words, &along, (&ticks, scale)));
        let data = canvas::layer(|canvas| {
            for (index, (_, values)) in self.series.iter().enumerate() {
                for (category, value) in values.iter().enumerate().filter(|(_, value)| drawable(**value)) {
                    let centre = frame.corner.0 + group * (category as f64 + 0.5);
                    let left = centre + bar * (index as f64 - bars as f64 / 2.0);
                    let end = frame.y(scale.place(*value));
                    let gap = (bar * 0.08).min(1.0);
                    let corner = (left + gap, base.min(end));
                    canvas.rectangle(corner, (bar - 2.0 * gap, (base - end).abs()), canvas::fill(index));
                }
            }
        });
        let above = canvas::layer(|canvas| {
            frame.draw_base(canvas, base);
            frame.draw_legend(canvas, &names, Sample::Swatch)
        });
        Ok(frame.document(&self.words, below, &data, above))
    }
}

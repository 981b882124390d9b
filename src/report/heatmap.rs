//! Matrices as pictures: masks, weights, scores and curvature, a cell a number.

use super::canvas::{self, AXIS, Anchor, Canvas, INK, Lettering, PAPER, Place, Rgb, text_width};
use super::escape;
use super::scale::{AxisKind, Scale};
use crate::mask::Mask;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis};

/// Widest row of panels, and highest panel.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
/// More cells than this along an axis are drawn as means of neighbours: a page has no room for more.
const CELLS: usize = 192;
/// Colours of a scale; neighbours of one colour are one shape.
const LEVELS: usize = 24;
/// Height of a colour in the scale beside the panels.
const STEP: f64 = 4.0;
const MARGIN: f64 = 14.0;
const GAP: f64 = 22.0;
const TITLE: f64 = 16.0;
const LABEL: f64 = 12.0;

/// How numbers become colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    /// From white to dark blue.
    Sequential,
    /// From blue over white, which is 0, to red.
    Diverging,
    /// Kept and dropped.
    Mask,
}

/// Matrices side by side, each with its name, a cell a number, in one scale of colours whose ends stand beside them.
///
/// Rows go from the top to the bottom. A matrix of more than 192 rows or columns is drawn as means over rectangles of its numbers, and its name says so.
/// Numbers that are not finite, and on a logarithmic scale those that are not above 0, stay white.
///
/// ```
/// use lacuna::report::Heatmap;
/// use ndarray::array;
///
/// # fn main() -> lacuna::Result<()> {
/// let weight = array![[0.5, -1.0, 0.25], [0.0, 2.0, -0.5]];
/// let svg = Heatmap::new("A weight").diverging().panel("fc1", &weight).to_svg()?;
/// assert!(svg.contains("fc1") && svg.contains(">2<") && svg.contains(">-2<"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Heatmap {
    title: String,
    colours: Colours,
    log: bool,
    range: Option<(f64, f64)>,
    panels: Vec<(String, Array2<f64>)>,
}

impl Heatmap {
    /// A figure without panels; colours from white, the least, to dark blue, the largest.
    pub fn new(title: impl Into<String>) -> Self {
        Heatmap { title: title.into(), colours: Colours::Sequential, log: false, range: None, panels: Vec::new() }
    }

    /// Masks side by side: what is kept is dark.
    pub fn masks(title: impl Into<String>) -> Self {
        Heatmap { colours: Colours::Mask, range: Some((0.0, 1.0)), ..Heatmap::new(title) }
    }

    /// Colours from blue over white to red, with 0 in the middle.
    pub fn diverging(mut self) -> Self {
        (self.colours, self.log) = (Colours::Diverging, false);
        self
    }

    /// A logarithmic scale of colours, from white to dark blue.
    pub fn log(mut self) -> Self {
        (self.colours, self.log) = (Colours::Sequential, true);
        self
    }

    /// The ends of the scale of colours, instead of those of the data; what lies outside has the colour of the end.
    pub fn range(mut self, low: f64, high: f64) -> Self {
        self.range = Some((low, high));
        self
    }

    /// Adds a matrix, to the right of the others.
    pub fn panel<T: Copy + Into<f64>>(mut self, name: impl Into<String>, matrix: &ArrayRef2<T>) -> Self {
        self.panels.push((name.into(), matrix.mapv(Into::into)));
        self
    }

    /// Adds a mask, to the right of the others: 1 where a weight is kept, 0 where it is dropped.
    pub fn mask(mut self, name: impl Into<String>, mask: &Mask) -> Self {
        self.panels.push((name.into(), mask.to_array().mapv(|kept| f64::from(u8::from(kept)))));
        self
    }

    /// The figure as a standalone SVG document on white paper.
    ///
    /// # Errors
    ///
    /// When no panel has a number that can be drawn, or the range is empty or does not fit its scale.
    pub fn to_svg(&self) -> Result<String> {
        let kind = AxisKind { log: self.log, ..AxisKind::default() };
        let panels: Vec<(String, Array2<f64>)> = self.panels.iter().map(|(name, matrix)| reduced(name, matrix)).collect();
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in panels.iter().flat_map(|(_, m)| m).copied().filter(|v| kind.holds(*v)) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            let cells: usize = self.panels.iter().map(|(_, m)| m.len()).sum();
            let reason = format!("nothing to draw: {} panels, {cells} cells, none with a place on the scale", self.panels.len());
            return Err(Error::invalid_option(format!("figure '{}'", self.title), reason));
        }
        let ends = self.range.unwrap_or_else(|| self.ends(low, high));
        let scale = Scale::fit(AxisKind { range: Some(ends), ..kind }, "colour", std::iter::empty())?;
        Ok(self.draw(&panels, scale, ends))
    }

    /// Ends that hold all numbers and are apart from one another.
    fn ends(&self, low: f64, high: f64) -> (f64, f64) {
        if self.colours == Colours::Diverging {
            let far = low.abs().max(high.abs());
            return if far > 0.0 { (-far, far) } else { (-1.0, 1.0) };
        }
        match (low < high, self.log) {
            (true, _) => (low, high),
            (false, true) => (low / 2.0, low * 2.0),
            (false, false) => (low - low.abs().max(1.0) * 0.5, low + low.abs().max(1.0) * 0.5),
        }
    }

    fn draw(&self, panels: &[(String, Array2<f64>)], scale: Scale, ends: (f64, f64)) -> String {
        let places = self.places(panels);
        let right = places.iter().map(|(corner, cell, m)| corner.0 + cell * m.ncols() as f64).fold(0.0, f64::max);
        let labels = [ends.1, ends.0].map(number);
        let beside = match self.colours {
            Colours::Mask => 24.0 + text_width("dropped", LABEL),
            _ => 24.0 + labels.iter().map(|l| text_width(l, LABEL)).fold(0.0, f64::max),
        };
        let bottom = places.iter().map(|(corner, cell, m)| corner.1 + cell * m.nrows() as f64).fold(0.0, f64::max);
        let top = places.first().map_or(0.0, |(corner, ..)| corner.1);
        let key = if self.colours == Colours::Mask { 40.0 } else { STEP * LEVELS as f64 };
        let size =
            ((right + GAP + beside + MARGIN).max(2.0 * MARGIN + text_width(&self.title, TITLE)), bottom.max(top + key) + MARGIN);
        let drawn = canvas::layer(|canvas| {
            canvas.rectangle((0.0, 0.0), (size.0.ceil(), size.1.ceil()), PAPER);
            let bold = Lettering { bold: true, ..Lettering::new(TITLE, Anchor::Start) };
            canvas.text(&self.title, (MARGIN, MARGIN + TITLE * 0.6), bold);
            for ((name, _), (corner, cell, matrix)) in panels.iter().zip(&places) {
                canvas.text(name, (corner.0, corner.1 - LABEL), Lettering::new(LABEL, Anchor::Start));
                self.cells(canvas, *corner, *cell, matrix, scale);
            }
            self.key(canvas, (right + GAP, top), &labels);
        });
        canvas::document(size, &self.title, &[drawn])
    }

    /// Where each panel stands, and how large its cells are: all of them equally high where that leaves room for every one.
    fn places<'a>(&self, panels: &'a [(String, Array2<f64>)]) -> Vec<(Place, f64, &'a Array2<f64>)> {
        let room = WIDTH - GAP * panels.len().saturating_sub(1) as f64;
        let columns: usize = panels.iter().map(|(_, m)| m.ncols()).sum();
        let rows = panels.iter().map(|(_, m)| m.nrows()).max().unwrap_or(1).max(1);
        let cell = (room / columns.max(1) as f64).min(HEIGHT / rows as f64).min(24.0);
        // Quarters of a pixel are the drawing's unit: rows and columns are as wide as one another.
        let cell = ((cell * 4.0).floor() / 4.0).max(0.25);
        let mut left = MARGIN;
        let top = MARGIN + TITLE * 1.3 + 8.0 + 1.8 * LABEL;
        let mut places = Vec::new();
        for (name, matrix) in panels {
            places.push(((left, top), cell, matrix));
            left += (cell * matrix.ncols() as f64).max(text_width(name, LABEL)) + GAP;
        }
        places
    }

    fn level(&self, value: f64, scale: Scale) -> Option<usize> {
        let drawn = if self.log { value > 0.0 && value.is_finite() } else { value.is_finite() };
        drawn.then(|| (scale.place(value).clamp(0.0, 1.0) * (LEVELS - 1) as f64).round() as usize)
    }

    fn colour(&self, level: usize) -> Rgb {
        let at = level as f64 / (LEVELS - 1) as f64;
        match self.colours {
            Colours::Sequential => Rgb::between(PAPER, Rgb::SHADES, at),
            Colours::Mask => Rgb::between(Rgb::PALE, Rgb::BLUE, at),
            Colours::Diverging if at < 0.5 => Rgb::between(PAPER, Rgb::BLUE_SHADES, 1.0 - 2.0 * at),
            Colours::Diverging => Rgb::between(PAPER, Rgb::RED_SHADES, 2.0 * at - 1.0),
        }
    }

    /// One shape a colour, of runs along the rows, and a thin line around all.
    fn cells(&self, canvas: &mut Canvas, corner: Place, cell: f64, matrix: &Array2<f64>, scale: Scale) {
        let mut runs: Vec<Vec<(Place, f64)>> = vec![Vec::new(); LEVELS];
        for (r, row) in matrix.axis_iter(Axis(0)).enumerate() {
            let levels: Vec<Option<usize>> = row.iter().map(|v| self.level(*v, scale)).collect();
            let mut begin = 0;
            for run in levels.chunk_by(|a, b| a == b) {
                if let Some(level) = run[0] {
                    let at = (corner.0 + cell * begin as f64, corner.1 + cell * r as f64);
                    runs[level].push((at, cell * run.len() as f64));
                }
                begin += run.len();
            }
        }
        for (level, runs) in runs.iter().enumerate().filter(|(_, runs)| !runs.is_empty()) {
            canvas.strips(runs, cell, self.colour(level));
        }
        let (right, bottom) = (corner.0 + cell * matrix.ncols() as f64, corner.1 + cell * matrix.nrows() as f64);
        canvas.line(&[corner, (right, corner.1), (right, bottom), (corner.0, bottom), corner], AXIS, 1.0);
    }

    /// The scale of colours with its ends, or what the two colours of a mask mean.
    fn key(&self, canvas: &mut Canvas, (left, top): Place, ends: &[String; 2]) {
        let start = Lettering::new(LABEL, Anchor::Start);
        if self.colours == Colours::Mask {
            for (row, (name, level)) in [("kept", LEVELS - 1), ("dropped", 0)].into_iter().enumerate() {
                let height = top + 8.0 + 20.0 * row as f64;
                canvas.rectangle((left, height - 6.0), (12.0, 12.0), self.colour(level));
                canvas.text(name, (left + 20.0, height), start);
            }
            return;
        }
        for level in 0..LEVELS {
            canvas.rectangle((left, top + STEP * (LEVELS - 1 - level) as f64), (12.0, STEP), self.colour(level));
        }
        let bottom = top + STEP * LEVELS as f64;
        canvas.line(&[(left, top), (left + 12.0, top), (left + 12.0, bottom), (left, bottom), (left, top)], INK, 0.5);
        canvas.text(&ends[0], (left + 20.0, top + LABEL * 0.4), start);
        canvas.text(&ends[1], (left + 20.0, bottom - LABEL * 0.4), start);
    }
}

/// A matrix with as many cells as there is room for, and its name, which says of how many numbers a cell is the mean.
fn reduced(name: &str, matrix: &Array2<f64>) -> (String, Array2<f64>) {
    let name = escape::one_line(name);
    let by = [matrix.nrows(), matrix.ncols()].map(|n| n.div_ceil(CELLS).max(1));
    if by == [1, 1] {
        return (name, matrix.clone());
    }
    let size = (matrix.nrows().div_ceil(by[0]), matrix.ncols().div_ceil(by[1]));
    let small = Array2::from_shape_fn(size, |(r, c)| {
        let rows = r * by[0]..((r + 1) * by[0]).min(matrix.nrows());
        let cols = c * by[1]..((c + 1) * by[1]).min(matrix.ncols());
        let part = matrix.slice(ndarray::s![rows, cols]);
        part.sum() / part.len() as f64
    });
    (format!("{name} (means of {}\u{a0}×\u{a0}{})", by[0], by[1]), small)
}

/// At most three digits.
fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e5).contains(&size) {
        return format!("{value:.1e}");
    }
    let digits = [100.0, 10.0, 0.1].iter().position(|least| size >= *least).unwrap_or(4);
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

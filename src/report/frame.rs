//! What line figures and bars share: title, axes, grid, labels and the legend beside the plot.
//!
//! The plot keeps its size; what stands around it makes the figure larger, so that no label is cut and the legend lies on
//! no line.

use super::canvas::{self, AXIS, Anchor, Canvas, GRID, INK, Lettering, Look, PAPER, Place, text_width};
use super::escape;
use super::scale::{Scale, Tick};

const PLOT_HEIGHT: f64 = 340.0;
const TITLE: f64 = 16.0;
const LABEL: f64 = 13.0;
const TICK: f64 = 12.0;
const ROW: f64 = 21.0;
const MARGIN: f64 = 14.0;

/// The words of a figure.
#[derive(Debug, Clone)]
pub(super) struct Words {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
}

/// What stands along the x axis.
pub(super) enum Along<'a> {
    /// Numbers.
    Ticks(&'a [Tick], Scale),
    /// Names in equal steps.
    Names(&'a [String]),
}

/// How the legend shows a series.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sample {
    Line,
    Swatch,
}

/// The measured layout of one figure.
pub(super) struct Frame {
    title: Vec<String>,
    /// Upper left corner of the plot.
    pub corner: Place,
    /// Width and height of the plot.
    pub plot: Place,
    size: Place,
    /// Whether names along the x axis must stand upright.
    upward: bool,
}

impl Frame {
    /// Finds room for everything around a plot of this width.
    pub fn measure(words: &Words, width: f64, along: &Along<'_>, y_ticks: &[Tick], series: &[&str]) -> Self {
        let widest = |texts: &mut dyn Iterator<Item = &str>| texts.map(|t| text_width(t, TICK)).fold(0.0, f64::max);
        let legend_width = widest(&mut series.iter().copied()) + 48.0;
        let legend_height = series.len() as f64 * ROW;
        let plot = (width, PLOT_HEIGHT.max(legend_height));
        let title = wrap(&escape::one_line(&words.title), plot.0 + legend_width * 0.8, TITLE);
        let left = MARGIN + LABEL + 14.0 + widest(&mut y_ticks.iter().filter_map(|tick| tick.label.as_deref()));
        let top = MARGIN + title.len() as f64 * TITLE * 1.3 + 8.0;
        let (upward, names) = match along {
            Along::Ticks(..) => (false, TICK),
            Along::Names(names) => {
                let longest = widest(&mut names.iter().map(String::as_str));
                let upward = longest + 6.0 > plot.0 / names.len().max(1) as f64;
                (upward, if upward { longest } else { TICK })
            }
        };
        let below = 10.0 + names + 12.0 + LABEL + MARGIN;
        let size = (left + plot.0 + legend_width + MARGIN, top + plot.1 + below);
        Frame { title, corner: (left, top), plot, size, upward }
    }

    /// The height at which a place of the y scale is drawn.
    pub fn y(&self, place: f64) -> f64 {
        self.corner.1 + self.plot.1 * (1.0 - place)
    }

    /// The distance from the left at which a place of the x scale is drawn.
    pub fn x(&self, place: f64) -> f64 {
        self.corner.0 + self.plot.0 * place
    }

    /// Paper, title, grid, axes and their labels.
    pub fn draw(&self, canvas: &mut Canvas, words: &Words, along: &Along<'_>, y: (&[Tick], Scale)) {
        canvas.rectangle((0.0, 0.0), (self.size.0.ceil(), self.size.1.ceil()), PAPER);
        let (left, right, bottom) = (self.x(0.0), self.x(1.0), self.y(0.0));
        let bold = Lettering { bold: true, ..Lettering::new(TITLE, Anchor::Start) };
        for (row, line) in self.title.iter().enumerate() {
            canvas.text(line, (left, MARGIN + TITLE * (0.6 + 1.3 * row as f64)), bold);
        }
        for tick in y.0 {
            let height = self.y(y.1.place(tick.value));
            match &tick.label {
                Some(label) => {
                    canvas.line(&[(left, height), (right, height)], GRID, 1.0);
                    canvas.text(label, (left - 7.0, height), Lettering::new(TICK, Anchor::End));
                }
                None => canvas.line(&[(left - 3.0, height), (left, height)], AXIS, 1.0),
            }
        }
        match along {
            Along::Ticks(ticks, scale) => self.draw_ticks(canvas, ticks, *scale),
            Along::Names(names) => self.draw_names(canvas, names),
        }
        canvas.line(&[(left, self.corner.1), (left, bottom), (right, bottom)], AXIS, 1.25);
        let middle = (self.x(0.5), self.size.1 - MARGIN - LABEL * 0.3);
        let room = 2.0 * (middle.0.min(self.size.0 - middle.0) - MARGIN);
        canvas.text(&words.x_label, middle, Lettering::new(fitting(&words.x_label, room), Anchor::Middle));
        let upward = Lettering { upward: true, ..Lettering::new(fitting(&words.y_label, self.plot.1), Anchor::Middle) };
        canvas.text(&words.y_label, (MARGIN + LABEL * 0.4, self.y(0.5)), upward);
    }

    fn draw_ticks(&self, canvas: &mut Canvas, ticks: &[Tick], scale: Scale) {
        let bottom = self.y(0.0);
        // A label that would run into the one before it is left out: round numbers crowd at the end of a short logarithmic axis.
        let mut free = f64::NEG_INFINITY;
        for tick in ticks {
            let across = self.x(scale.place(tick.value));
            let half = tick.label.as_deref().map_or(0.0, |label| text_width(label, TICK) / 2.0);
            match &tick.label {
                Some(label) if across - half >= free => {
                    free = across + half + TICK * 0.6;
                    canvas.line(&[(across, self.corner.1), (across, bottom)], GRID, 1.0);
                    canvas.line(&[(across, bottom), (across, bottom + 5.0)], AXIS, 1.0);
                    canvas.text(label, (across, bottom + 8.0 + TICK * 0.6), Lettering::new(TICK, Anchor::Middle));
                }
                _ => canvas.line(&[(across, bottom), (across, bottom + 3.0)], AXIS, 1.0),
            }
        }
    }

    fn draw_names(&self, canvas: &mut Canvas, names: &[String]) {
        for (index, name) in names.iter().enumerate() {
            let across = self.x((index as f64 + 0.5) / names.len() as f64);
            if self.upward {
                let lettering = Lettering { upward: true, ..Lettering::new(TICK, Anchor::End) };
                canvas.text(name, (across, self.y(0.0) + 7.0), lettering);
            } else {
                canvas.text(name, (across, self.y(0.0) + 8.0 + TICK * 0.6), Lettering::new(TICK, Anchor::Middle));
            }
        }
    }

    /// The names of the series, beside the plot.
    pub fn draw_legend(&self, canvas: &mut Canvas, series: &[&str], sample: Sample) {
        for (index, name) in series.iter().enumerate() {
            let look = Look::of(index);
            let (left, height) = (self.x(1.0) + 14.0, self.corner.1 + ROW * (index as f64 + 0.5));
            match sample {
                Sample::Line => {
                    canvas.dashed(&[(left, height), (left + 26.0, height)], look.colour, 2.0, look.dashes);
                    canvas.marker((left + 13.0, height), look);
                }
                Sample::Swatch => canvas.rectangle((left + 8.0, height - 6.0), (12.0, 12.0), canvas::fill(index)),
            }
            canvas.text(name, (left + 32.0, height), Lettering::new(TICK, Anchor::Start));
        }
    }

    /// The document: frame below, data cut off at the edge of the plot, and what may reach across that edge above.
    pub fn document(&self, words: &Words, below: String, data: &str, above: String) -> String {
        canvas::document(self.size, &words.title, &[below, canvas::clipped(self.corner, self.plot, data), above])
    }

    /// The line of zero, or wherever bars stand, in front of the bars.
    pub fn draw_base(&self, canvas: &mut Canvas, height: f64) {
        canvas.line(&[(self.x(0.0), height), (self.x(1.0), height)], INK, 1.0);
    }
}

/// The size at which a label is no longer than this.
fn fitting(label: &str, room: f64) -> f64 {
    (LABEL * room / text_width(label, LABEL).max(1.0)).clamp(6.0, LABEL)
}

/// Breaks a text between words into lines no wider than this, unless one word is.
fn wrap(text: &str, room: f64, size: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    // Not at a space that holds its neighbours together.
    for word in text.split(|c: char| c.is_whitespace() && c != '\u{a0}').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if text_width(line, size) + text_width(word, size) + 0.34 * size <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

//! Lines, shapes and words on plotters' SVG backend, and the looks that all figures share.
//!
//! The backend counts in whole pixels, which shows in gentle slopes: everything is drawn [`FINE`] times as large and the
//! view box brings it back.

use super::escape;
use crate::{Error, Result};
use plotters::backend::DrawingBackend;
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, FontTransform, RGBColor, ShapeStyle, TextStyle};

/// Drawn pixels for one pixel of the figure.
const FINE: f64 = 4.0;

/// The palette of Okabe and Ito (2008), which the colour-blind tell apart, without its yellow, which white swallows.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
const DASHES: [&[f64]; 4] = [&[], &[7.0, 4.0], &[2.0, 3.0], &[9.0, 3.0, 2.0, 3.0]];

pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
pub(super) const AXIS: RGBColor = RGBColor(120, 120, 120);
pub(super) const GRID: RGBColor = RGBColor(228, 228, 228);
pub(super) const PAPER: RGBColor = RGBColor(255, 255, 255);

/// A place in the figure, in pixels from its upper left corner.
pub(super) type Place = (f64, f64);

/// How the series of this index looks: colour, dashes and marker, never all three alike before 84 series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub colour: RGBColor,
    pub dashes: &'static [f64],
    marker: usize,
}

impl Look {
    pub fn of(index: usize) -> Self {
        let round = index / PALETTE.len();
        Look { colour: PALETTE[index % PALETTE.len()], dashes: DASHES[round % DASHES.len()], marker: index % 6 }
    }
}

/// The colour of the bars of this series: the palette, then its tints.
pub(super) fn fill(index: usize) -> RGBColor {
    let white = [0.0, 0.5, 0.75][index / PALETTE.len() % 3];
    let RGBColor(r, g, b) = PALETTE[index % PALETTE.len()];
    let [r, g, b] = [r, g, b].map(|c| (f64::from(c) * (1.0 - white) + 255.0 * white).round() as u8);
    RGBColor(r, g, b)
}

/// Where the given place of a text lies in it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lettering {
    pub size: f64,
    pub anchor: Anchor,
    pub bold: bool,
    /// Read from the bottom to the top.
    pub upward: bool,
}

impl Lettering {
    pub const fn new(size: f64, anchor: Anchor) -> Self {
        Lettering { size, anchor, bold: false, upward: false }
    }
}

/// An open drawing.
pub(super) struct Canvas<'a> {
    backend: SVGBackend<'a>,
}

/// Draws on a fresh canvas and gives the elements without the `<svg>` around them.
pub(super) fn layer(draw: impl FnOnce(&mut Canvas<'_>) -> Result<()>) -> Result<String> {
    let mut document = String::new();
    let mut canvas = Canvas { backend: SVGBackend::with_string(&mut document, (1, 1)) };
    draw(&mut canvas)?;
    let presented = canvas.backend.present();
    drop(canvas);
    drawn(presented)?;
    let body = document.split_once(">\n").map_or("", |(_, body)| body);
    Ok(body.strip_suffix("</svg>\n").unwrap_or(body).to_string())
}

/// The standalone document around layers, with its title for those who do not see it.
pub(super) fn document(size: Place, title: &str, layers: &[String]) -> String {
    let (width, height) = (size.0.ceil(), size.1.ceil());
    let title = escape::html(&escape::one_line(title));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {} {}\" role=\"img\">\n\
         <title>{title}</title>\n{}</svg>\n",
        width * FINE,
        height * FINE,
        layers.concat()
    )
}

/// The same elements, cut off outside a rectangle: an inner `<svg>` clips.
pub(super) fn clipped(corner: Place, size: Place, layer: &str) -> String {
    let [x, y, width, height] = [corner.0, corner.1, size.0, size.1].map(|v| (v * FINE).round());
    format!(
        "<svg x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" viewBox=\"{x} {y} {width} {height}\">\n{layer}</svg>\n"
    )
}

fn drawn<E: std::error::Error + Send + Sync>(result: std::result::Result<(), E>) -> Result<()> {
    result.map_err(|e| Error::Numerical { what: "figure".to_string(), reason: e.to_string() })
}

fn fine((x, y): Place) -> (i32, i32) {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}

impl Canvas<'_> {
    pub fn line(&mut self, points: &[Place], colour: RGBColor, width: f64) -> Result<()> {
        let style = ShapeStyle { color: colour.to_rgba(), filled: false, stroke_width: (width * FINE).round() as u32 };
        drawn(self.backend.draw_path(points.iter().copied().map(fine), &style))
    }

    /// A line of dashes and gaps by turns; without dashes it is whole.
    pub fn dashed(&mut self, points: &[Place], colour: RGBColor, width: f64, dashes: &[f64]) -> Result<()> {
        if dashes.is_empty() {
            return self.line(points, colour, width);
        }
        dash(points, dashes).iter().try_for_each(|stretch| self.line(stretch, colour, width))
    }

    pub fn polygon(&mut self, points: &[Place], colour: RGBColor, alpha: f64) -> Result<()> {
        drawn(self.backend.fill_polygon(points.iter().copied().map(fine), &colour.mix(alpha)))
    }

    pub fn rectangle(&mut self, corner: Place, size: Place, colour: RGBColor) -> Result<()> {
        let opposite = (corner.0 + size.0, corner.1 + size.1);
        drawn(self.backend.draw_rect(fine(corner), fine(opposite), &colour.filled(), true))
    }

    /// The mark of a series: disc, square, triangle, diamond, turned triangle or ring, on a thin white rim.
    pub fn marker(&mut self, (x, y): Place, look: Look) -> Result<()> {
        let shape = |scale: f64| -> Vec<Place> {
            let corners: &[Place] = match look.marker {
                1 => &[(-3.4, -3.4), (3.4, -3.4), (3.4, 3.4), (-3.4, 3.4)],
                2 => &[(0.0, -4.8), (4.6, 3.4), (-4.6, 3.4)],
                3 => &[(0.0, -5.0), (5.0, 0.0), (0.0, 5.0), (-5.0, 0.0)],
                _ => &[(0.0, 4.8), (4.6, -3.4), (-4.6, -3.4)],
            };
            corners.iter().map(|(dx, dy)| (x + dx * scale, y + dy * scale)).collect()
        };
        if matches!(look.marker, 0 | 5) {
            self.disc((x, y), 4.9, PAPER)?;
            self.disc((x, y), 4.0, look.colour)?;
            return if look.marker == 5 { self.disc((x, y), 2.2, PAPER) } else { Ok(()) };
        }
        self.polygon(&shape(1.3), PAPER, 1.0)?;
        self.polygon(&shape(1.0), look.colour, 1.0)
    }

    fn disc(&mut self, centre: Place, radius: f64, colour: RGBColor) -> Result<()> {
        drawn(self.backend.draw_circle(fine(centre), (radius * FINE).round() as u32, &colour.filled(), true))
    }

    /// One line of text, at half its height.
    pub fn text(&mut self, text: &str, at: Place, lettering: Lettering) -> Result<()> {
        let font_style = if lettering.bold { FontStyle::Bold } else { FontStyle::Normal };
        let turn = if lettering.upward { FontTransform::Rotate270 } else { FontTransform::None };
        let size = lettering.size * FINE * 1.24; // the backend divides by 1.24
        let font = FontDesc::new(FontFamily::SansSerif, size, font_style).transform(turn);
        let anchor = match lettering.anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let style = TextStyle::from(font).color(&INK).pos(Pos::new(anchor, VPos::Center));
        drawn(self.backend.draw_text(&escape::one_line(text), &style, fine(at)))
    }
}

/// The drawn stretches of a dashed line.
fn dash(points: &[Place], dashes: &[f64]) -> Vec<Vec<Place>> {
    let mut stretches = Vec::new();
    let mut turn = 0; // even: a dash, odd: a gap
    let mut left = dashes[0];
    let mut stretch: Vec<Place> = points.first().copied().into_iter().collect();
    for pair in points.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let mut gone = 0.0;
        while length - gone > left {
            gone += left;
            let at = (from.0 + (to.0 - from.0) * gone / length, from.1 + (to.1 - from.1) * gone / length);
            if turn % 2 == 0 {
                stretch.push(at);
                stretches.push(std::mem::take(&mut stretch));
            }
            turn += 1;
            left = dashes[turn % dashes.len()];
            stretch = if turn % 2 == 0 { vec![at] } else { Vec::new() };
        }
        left -= length - gone;
        if turn % 2 == 0 {
            stretch.push(to);
        }
    }
    stretches.extend((stretch.len() > 1).then_some(stretch));
    stretches
}

/// About how wide a text is, in the widest of the usual sans-serif fonts.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let ems = |c: char| match c {
        ' ' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | 'i' | 'j' | 'l' | 'I' => 0.34,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '/' | '-' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.98,
        'A'..='Z' => 0.72,
        c if c >= '\u{1100}' => 1.05,
        _ => 0.64,
    };
    text.chars().map(ems).sum::<f64>() * size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_turn_corners_and_keep_their_length() {
        let stretches = dash(&[(0.0, 0.0), (3.0, 0.0), (3.0, 5.0)], &[4.0, 2.0]);
        assert_eq!(stretches, [vec![(0.0, 0.0), (3.0, 0.0), (3.0, 1.0)], vec![(3.0, 3.0), (3.0, 5.0)]]);
    }
}

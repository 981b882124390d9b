//! Lines, shapes and words as SVG elements, and the looks that all figures share.

use super::escape;
use std::fmt;
use std::fmt::Write;

/// Units of a drawing for one pixel of the figure: places are whole numbers of quarters, which keeps files short and the same everywhere.
const FINE: f64 = 4.0;

/// A colour: red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rgb(u8, u8, u8);

impl Rgb {
    /// The dark ends of scales of colours, and the two colours of a mask.
    pub(super) const SHADES: Rgb = Rgb(8, 48, 107);
    pub(super) const BLUE_SHADES: Rgb = Rgb(0, 84, 148);
    pub(super) const RED_SHADES: Rgb = Rgb(178, 40, 0);
    pub(super) const BLUE: Rgb = PALETTE[0];
    pub(super) const PALE: Rgb = Rgb(240, 236, 228);

    /// The colour at this fraction of the way from one to another.
    pub(super) fn between(from: Rgb, to: Rgb, at: f64) -> Rgb {
        let part = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * at).round() as u8;
        Rgb(part(from.0, to.0), part(from.1, to.1), part(from.2, to.2))
    }
}

impl fmt::Display for Rgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02X}{:02X}{:02X}", self.0, self.1, self.2)
    }
}

/// The palette of Okabe and Ito (2008), which the colour-blind tell apart, without its yellow, which white swallows.
const PALETTE: [Rgb; 7] =
    [Rgb(0, 114, 178), Rgb(213, 94, 0), Rgb(0, 158, 115), Rgb(204, 121, 167), Rgb(230, 159, 0), Rgb(86, 180, 233), Rgb(0, 0, 0)];
const DASHES: [&[f64]; 4] = [&[], &[7.0, 4.0], &[2.0, 3.0], &[9.0, 3.0, 2.0, 3.0]];

pub(super) const INK: Rgb = Rgb(34, 34, 34);
pub(super) const AXIS: Rgb = Rgb(120, 120, 120);
pub(super) const GRID: Rgb = Rgb(228, 228, 228);
pub(super) const PAPER: Rgb = Rgb(255, 255, 255);

/// A place in the figure, in pixels from its upper left corner.
pub(super) type Place = (f64, f64);

/// How the series of this index looks: colour, dashes and marker, never all three alike before 84 series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub colour: Rgb,
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
pub(super) fn fill(index: usize) -> Rgb {
    let white = [0.0, 0.5, 0.75][index / PALETTE.len() % 3];
    let Rgb(r, g, b) = PALETTE[index % PALETTE.len()];
    let [r, g, b] = [r, g, b].map(|c| (f64::from(c) * (1.0 - white) + 255.0 * white).round() as u8);
    Rgb(r, g, b)
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
#[derive(Debug, Default)]
pub(super) struct Canvas {
    elements: String,
}

/// Draws on a fresh canvas and gives the elements without the `<svg>` around them.
pub(super) fn layer(draw: impl FnOnce(&mut Canvas)) -> String {
    let mut canvas = Canvas::default();
    draw(&mut canvas);
    canvas.elements
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

fn fine((x, y): Place) -> (i32, i32) {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}

/// Places as an attribute has them.
fn points(places: &[Place]) -> String {
    let places = places.iter().copied().map(fine);
    places.map(|(x, y)| format!("{x},{y}")).collect::<Vec<_>>().join(" ")
}

impl Canvas {
    fn element(&mut self, element: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.elements.write_fmt(element);
        self.elements.push('\n');
    }

    pub fn line(&mut self, places: &[Place], colour: Rgb, width: f64) {
        let (width, points) = ((width * FINE).round(), points(places));
        self.element(format_args!("<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" points=\"{points}\"/>"));
    }

    /// A line of dashes and gaps by turns; without dashes it is whole.
    pub fn dashed(&mut self, places: &[Place], colour: Rgb, width: f64, dashes: &[f64]) {
        if dashes.is_empty() {
            return self.line(places, colour, width);
        }
        dash(places, dashes).iter().for_each(|stretch| self.line(stretch, colour, width));
    }

    pub fn polygon(&mut self, places: &[Place], colour: Rgb, alpha: f64) {
        let opacity = if alpha < 1.0 { format!(" opacity=\"{alpha}\"") } else { String::new() };
        self.element(format_args!("<polygon fill=\"{colour}\"{opacity} points=\"{}\"/>", points(places)));
    }

    pub fn rectangle(&mut self, corner: Place, size: Place, colour: Rgb) {
        let ((x, y), (right, bottom)) = (fine(corner), fine((corner.0 + size.0, corner.1 + size.1)));
        let (width, height) = (right - x, bottom - y);
        self.element(format_args!("<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{colour}\"/>"));
    }

    /// Rectangles of one height and colour as one shape: corner and width of each.
    pub fn strips(&mut self, strips: &[(Place, f64)], height: f64, colour: Rgb) {
        let mut path = String::new();
        for ((x, y), width) in strips {
            let ((left, top), (right, bottom)) = (fine((*x, *y)), fine((x + width, y + height)));
            // Writing to a string does not fail.
            let _ = write!(path, "M{left} {top}h{}v{}h{}z", right - left, bottom - top, left - right);
        }
        self.element(format_args!("<path fill=\"{colour}\" shape-rendering=\"crispEdges\" d=\"{path}\"/>"));
    }

    /// The mark of a series: disc, square, triangle, diamond, turned triangle or ring, on a thin white rim.
    pub fn marker(&mut self, (x, y): Place, look: Look) {
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
            self.disc((x, y), 4.9, PAPER);
            self.disc((x, y), 4.0, look.colour);
            if look.marker == 5 {
                self.disc((x, y), 2.2, PAPER);
            }
            return;
        }
        self.polygon(&shape(1.3), PAPER, 1.0);
        self.polygon(&shape(1.0), look.colour, 1.0);
    }

    fn disc(&mut self, centre: Place, radius: f64, colour: Rgb) {
        let ((x, y), radius) = (fine(centre), (radius * FINE).round());
        self.element(format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\" fill=\"{colour}\"/>"));
    }

    /// One line of text, at half its height.
    pub fn text(&mut self, text: &str, at: Place, lettering: Lettering) {
        let ((x, y), size) = (fine(at), lettering.size * FINE);
        let anchor = match lettering.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if lettering.bold { " font-weight=\"bold\"" } else { "" };
        let turn = if lettering.upward { format!(" transform=\"rotate(270, {x}, {y})\"") } else { String::new() };
        let text = escape::html(&escape::one_line(text));
        self.element(format_args!(
            "<text x=\"{x}\" y=\"{y}\" dy=\"0.5ex\" text-anchor=\"{anchor}\" font-family=\"sans-serif\" font-size=\"{size}\" \
             fill=\"{INK}\"{weight}{turn}>{text}</text>"
        ));
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

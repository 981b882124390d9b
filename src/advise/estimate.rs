//! Times of any product, from those that were measured.
//!
//! ```text
//! log t(W, tokens, s) ≈ log(out · in · tokens) + f(log(out · in), log tokens, s) + g(log(out / in))
//! ```
//!
//! `f` is the logarithm of the time of a weight and token in square weights, by straight lines between the measured points, first along the
//! sparsity, then along the tokens of each shape, then along the shapes. `g` is what the measured weights of another ratio took more than square
//! ones of their size, by a straight line that is 0 for square ones. A shape that was measured itself is read without both.

use super::line::{Read, Triple, bends, read, steps};
use super::profile::{Median, Profile, ShapeTimings};
use crate::mask::Pattern;

/// What a time is asked of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What {
    /// The fastest dense product.
    Dense,
    /// The fastest sparse storage of a mask.
    Sparse(Pattern, f64),
}

/// A product whose time is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub shape: (usize, usize),
    pub tokens: usize,
    pub from_memory: bool,
}

/// A time, and how it came about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub time: Median,
    /// Along which axes it lies between measured points: shape, tokens, sparsity.
    pub between: [bool; 3],
    /// Along which it lies beyond them.
    pub outside: [bool; 3],
}

/// By how much the logarithm of a speed-up may be off along an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Doubt {
    pub between: f64,
    pub beyond: f64,
}

pub(super) fn log2(n: usize) -> f64 {
    (n as f64).log2()
}

fn triple(time: &Median) -> Triple {
    [time.us.ln(), time.low.ln(), time.high.ln()]
}

fn weights(cell: &ShapeTimings) -> usize {
    cell.shape.0 * cell.shape.1
}

/// The logarithms of the time of one cell at one sparsity, for each weight and token; none if it has no such pattern.
fn of_cell(cell: &ShapeTimings, what: What) -> Option<Read> {
    let each = ((weights(cell) * cell.tokens) as f64).ln();
    let found = match what {
        What::Dense => Read { y: triple(&cell.dense), on_point: true, outside: false },
        What::Sparse(pattern, sparsity) => {
            let mut points: Vec<(f64, Triple)> =
                cell.sparse.iter().filter(|s| s.pattern == pattern).map(|s| (s.sparsity, triple(&s.time))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut found = read(&points, sparsity)?;
            let first = points[0].0;
            if found.outside && sparsity < first {
                // Below the first point the time grows as the number of kept weights does.
                let more = ((1.0 - sparsity) / (1.0 - first)).ln();
                found.y = found.y.map(|y| y + more);
            }
            found
        }
    };
    Some(Read { y: found.y.map(|y| y - each), ..found })
}

/// The logarithm of a square shape's weights, its time at the tokens asked for, and whether the sparsity is on a point, or outside.
type Square = (f64, Read, [bool; 2]);

/// The line of a shape along its tokens, and whether the sparsity is on a point, or outside.
fn along_tokens(cells: &[&ShapeTimings], what: What) -> (Vec<(f64, Triple)>, [bool; 2]) {
    let mut sparsity = [true, false];
    let mut points = Vec::new();
    for cell in cells {
        if let Some(found) = of_cell(cell, what) {
            points.push((log2(cell.tokens), found.y));
            sparsity = [sparsity[0] && found.on_point, sparsity[1] || found.outside];
        }
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    (points, sparsity)
}

impl Profile {
    /// The shapes that were measured with weights from the caches or from memory.
    fn shapes(&self, from_memory: bool) -> Vec<(usize, usize)> {
        let mut shapes: Vec<_> = self.cells.iter().filter(|c| c.from_memory == from_memory).map(|c| c.shape).collect();
        shapes.sort_by_key(|&(out, inputs)| (out * inputs, out));
        shapes.dedup();
        shapes
    }

    fn of_shape(&self, shape: (usize, usize), from_memory: bool) -> Vec<&ShapeTimings> {
        self.cells.iter().filter(|c| c.from_memory == from_memory && c.shape == shape).collect()
    }

    /// The time of a product; none if nothing of the kind was measured.
    pub(super) fn estimate(&self, place: Place, what: What) -> Option<Estimate> {
        let Place { shape, tokens, from_memory } = place;
        let (n, t, ratio) = (log2(shape.0 * shape.1), log2(tokens), log2(shape.0) - log2(shape.1));
        let shapes = self.shapes(from_memory);
        let at_tokens = |shape: (usize, usize)| {
            let (points, sparsity) = along_tokens(&self.of_shape(shape, from_memory), what);
            read(&points, t).map(|read| (read, sparsity))
        };
        // A shape of which fewer tokens were measured says nothing of more, where others do.
        let inside = |shape: &(usize, usize)| at_tokens(*shape).is_some_and(|(read, _)| !read.outside);
        let any_inside = shapes.iter().any(inside);
        let telling: Vec<_> = shapes.into_iter().filter(|shape| !any_inside || inside(shape)).collect();
        let mut squares: Vec<Square> = Vec::new();
        for &square in telling.iter().filter(|s| s.0 == s.1) {
            let Some((read, sparsity)) = at_tokens(square) else { continue };
            squares.push((log2(square.0 * square.1), read, sparsity));
        }
        let line: Vec<(f64, Triple)> = squares.iter().map(|(at, read, _)| (*at, read.y)).collect();
        // Each ratio that was measured beside square weights, against those at the same size.
        let corrections = telling.iter().filter(|s| s.0 != s.1).filter_map(|&other| {
            let (found, _) = at_tokens(other)?;
            let square = read(&line, log2(other.0 * other.1))?;
            Some((log2(other.0) - log2(other.1), found.y[0] - square.y[0]))
        });
        let mut ratios: Vec<(f64, Triple)> = corrections.map(|(at, more)| (at, [more; 3])).chain([(0.0, [0.0; 3])]).collect();
        ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
        let own = at_tokens(shape).filter(|_| telling.contains(&shape));
        let (y, [on_shape, off_shape], of_tokens, of_sparsity) = match own {
            Some((read, sparsity)) => (read.y, [true, false], [read.on_point, read.outside], sparsity),
            None => {
                let (size, correction) = (read(&line, n)?, read(&ratios, ratio)?);
                let y = std::array::from_fn(|i| size.y[i] + correction.y[i]);
                // What is said of the squares on both sides.
                let after = line.partition_point(|(at, _)| *at < n);
                let beside = &squares[after.saturating_sub(1)..squares.len().min(after + 1)];
                let both = |of: fn(&Square) -> [bool; 2]| {
                    let said = || beside.iter().map(of);
                    [said().all(|[on, _]| on), said().any(|[_, outside]| outside)]
                };
                let off = size.outside || correction.outside;
                (y, [false, off], both(|(_, read, _)| [read.on_point, read.outside]), both(|(_, _, sparsity)| *sparsity))
            }
        };
        let all = ((shape.0 * shape.1 * tokens) as f64).ln();
        let [us, low, high] = y.map(|y| (y + all).exp());
        let outside = [off_shape, of_tokens[1], of_sparsity[1]];
        let between = [!on_shape && !off_shape, !of_tokens[0] && !of_tokens[1], !of_sparsity[0] && !of_sparsity[1]];
        Some(Estimate { time: Median { us, low: low.min(us), high: high.max(us) }, between, outside })
    }

    /// By how much the logarithm of a speed-up may be off, along shapes, tokens and sparsities.
    ///
    /// Between measured points: half of the mean bend there over all other measured points, as a bend is measured over gaps twice as wide; where
    /// there are no three in a row, half of what neighbours differ by. Beyond them: what neighbours differ by, over one more step; where there are
    /// no two, a factor of 2.
    pub(super) fn doubts(&self, pattern: Pattern) -> [Doubt; 3] {
        let speedup = |cell: &ShapeTimings, sparsity: f64| {
            let sparse = cell.sparse.iter().find(|s| s.pattern == pattern && (s.sparsity - sparsity).abs() < 1e-3)?;
            Some([(cell.dense.us / sparse.time.us).ln(); 3])
        };
        let mut found: [[Vec<f64>; 2]; 3] = Default::default();
        let mut add = |axis: usize, along: &[(f64, Triple)]| {
            found[axis][0].extend(bends(along));
            found[axis][1].extend(steps(along));
        };
        let sparsities =
            |cell: &ShapeTimings| cell.sparse.iter().filter(|s| s.pattern == pattern).map(|s| s.sparsity).collect::<Vec<_>>();
        for from_memory in [false, true] {
            let shapes = self.shapes(from_memory);
            let squares: Vec<&ShapeTimings> =
                self.cells.iter().filter(|c| c.from_memory == from_memory && c.shape.0 == c.shape.1).collect();
            for cell in &squares {
                let mut along: Vec<_> = sparsities(cell).into_iter().filter_map(|s| Some((s, speedup(cell, s)?))).collect();
                along.sort_by(|a, b| a.0.total_cmp(&b.0));
                add(2, &along);
            }
            for sparsity in squares.first().map(|c| sparsities(c)).unwrap_or_default() {
                for &shape in shapes.iter().filter(|s| s.0 == s.1) {
                    let of = squares.iter().filter(|c| c.shape == shape);
                    let mut along: Vec<_> = of.filter_map(|c| Some((log2(c.tokens), speedup(c, sparsity)?))).collect();
                    along.sort_by(|a, b| a.0.total_cmp(&b.0));
                    add(1, &along);
                }
                let mut tokens: Vec<usize> = squares.iter().map(|c| c.tokens).collect();
                tokens.sort_unstable();
                tokens.dedup();
                for t in tokens {
                    let of = squares.iter().filter(|c| c.tokens == t);
                    let mut along: Vec<_> = of.filter_map(|c| Some((log2(weights(c)), speedup(c, sparsity)?))).collect();
                    along.sort_by(|a, b| a.0.total_cmp(&b.0));
                    add(0, &along);
                }
            }
        }
        let mean = |of: &[f64]| (!of.is_empty()).then(|| of.iter().sum::<f64>() / of.len() as f64);
        found.map(|[bends, steps]| {
            let beyond = mean(&steps).unwrap_or(std::f64::consts::LN_2);
            Doubt { between: mean(&bends).unwrap_or(beyond) / 2.0, beyond }
        })
    }
}

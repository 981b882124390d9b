//! Questions, and what a profile answers.

use super::estimate::{Estimate, Place, What, log2};
use super::profile::{Median, Profile};
use crate::mask::Pattern;
use crate::{Error, Result};
use serde::Serialize;

/// What two measurements of one product differ by on one machine, beside what their quartiles say.
const AGAIN: f64 = 0.05;

/// A weight, a mask and a number of tokens.
///
/// | field | default | range | meaning |
/// |---|---|---|---|
/// | `shape` | | 1 and more | `(out, in)` |
/// | `tokens` | | 1 and more | rows of x |
/// | `sparsity` | | [0, 1) | fraction of the weights that is pruned; 2:4 fixes it |
/// | `pattern` | unstructured | those of the profile | shape that survivors take |
/// | `from_memory` | false | | weights come from memory at each product, as those of a model do that is larger than the caches; of more tokens than were measured so, the times are those from the caches |
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Query {
    /// `(out, in)`.
    pub shape: (usize, usize),
    /// Rows of x.
    pub tokens: usize,
    /// Fraction of the weights that is pruned.
    pub sparsity: f64,
    /// Shape that survivors take.
    pub pattern: Pattern,
    /// Whether weights come from memory at each product.
    pub from_memory: bool,
}

impl Query {
    /// An unstructured mask of a weight from the caches.
    pub fn new(shape: (usize, usize), tokens: usize, sparsity: f64) -> Query {
        Query { shape, tokens, sparsity, pattern: Pattern::Unstructured, from_memory: false }
    }

    /// The same with another pattern; one of N:M says the sparsity.
    pub fn with_pattern(self, pattern: Pattern) -> Query {
        let sparsity = if let Pattern::Nm { n, m } = pattern { 1.0 - n as f64 / m as f64 } else { self.sparsity };
        Query { pattern, sparsity, ..self }
    }

    /// The same of weights that come from memory.
    pub fn from_memory(self) -> Query {
        Query { from_memory: true, ..self }
    }
}

/// Dense time over sparse time, and between which bounds it lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speedup {
    /// Of the medians.
    pub median: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

/// What to do with a weight.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// The query.
    pub query: Query,
    /// The faster: `dense`, or a storage as [`Format`](crate::sparse::Format) is written.
    pub storage: String,
    /// The fastest sparse storage, whether or not dense is faster.
    pub sparse: String,
    /// The fastest dense product.
    pub dense_kernel: String,
    /// Of the fastest sparse storage over the fastest dense product. The bounds are those of the quartiles of single products and at least 5 % wide;
    /// between measured points they are wider by what the points lie off straight lines themselves, beyond them by what neighbours differ by.
    pub speedup: Speedup,
    /// Microseconds of a dense product, and its quartiles.
    pub dense: Median,
    /// The same of the sparse storage.
    pub sparse_time: Median,
    /// The sparsity from which on sparse is faster, up to the largest that was measured; none if it is not faster there either.
    pub wins_from: Option<f64>,
    /// Whether that is the lowest sparsity that was measured, so that it may be lower still.
    pub wins_at_all: bool,
    /// Whether shape, tokens and sparsity were measured just so.
    pub measured: bool,
    /// Whether the times are those of weights from memory: of more tokens than were measured so, they are not, whatever was asked.
    pub from_memory: bool,
    /// Of what the answer is extrapolated: `shape`, `tokens`, `sparsity`.
    pub extrapolated: Vec<&'static str>,
}

const AXES: [&str; 3] = ["shape", "tokens", "sparsity"];

impl Profile {
    /// Answers a query from what was measured.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if the shape, the tokens or the sparsity are out of range, the pattern does not divide the shape or was not measured, or no
    /// weights from memory were where they are asked for.
    pub fn advise(&self, query: &Query) -> Result<Advice> {
        let &Query { shape, tokens, sparsity, pattern, from_memory } = query;
        let (out, inputs) = shape;
        if out.checked_mul(inputs).and_then(|n| n.checked_mul(tokens.max(1))).is_none_or(|n| n == 0) {
            return Err(Error::invalid_option("shape", format!("{out}x{inputs}, where 1x1 and more are possible")));
        }
        if tokens == 0 {
            return Err(Error::invalid_option("tokens", "0, where 1 or more are possible"));
        }
        if !(0.0..1.0).contains(&sparsity) {
            return Err(Error::invalid_option("sparsity", format!("{sparsity:?} is not in [0, 1)")));
        }
        pattern.check_shape(out, inputs)?;
        if !self.cells.iter().any(|c| c.from_memory == from_memory) {
            let which = if from_memory { "weights from memory" } else { "weights from the caches" };
            return Err(Error::invalid_option("cold", format!("no {which} were measured; measure this machine in full")));
        }
        // Of more tokens than were measured from memory, arithmetic takes the time, and bringing the weight hides behind it.
        let cold = self.cells.iter().filter(|c| c.from_memory).map(|c| c.tokens).max();
        let warm_too = self.cells.iter().any(|c| !c.from_memory);
        let place = Place { shape, tokens, from_memory: from_memory && (!warm_too || cold.is_some_and(|most| tokens <= most)) };
        let unknown = || {
            let mut known: Vec<String> = self.cells.iter().flat_map(|c| &c.sparse).map(|s| s.pattern.to_string()).collect();
            known.sort();
            known.dedup();
            Error::invalid_option("pattern", format!("{pattern} was not measured; {} were", known.join(", ")))
        };
        let dense = self.estimate(place, What::Dense).ok_or_else(unknown)?;
        let sparse = self.estimate(place, What::Sparse(pattern, sparsity)).ok_or_else(unknown)?;
        let (format, dense_kernel) = self.nearest(place, pattern, sparsity).ok_or_else(unknown)?;
        let speedup = self.speedup(pattern, &dense, &sparse);
        let (wins_from, wins_at_all) = self.break_even(place, pattern, &dense);
        let any = |axis: usize| dense.outside[axis] || sparse.outside[axis];
        Ok(Advice {
            query: *query,
            storage: if speedup.median > 1.0 { format.clone() } else { "dense".to_string() },
            sparse: format,
            dense_kernel,
            speedup,
            dense: dense.time,
            sparse_time: sparse.time,
            wins_from,
            wins_at_all,
            measured: (0..3).all(|axis| !any(axis) && !sparse.between[axis]),
            from_memory: place.from_memory,
            extrapolated: (0..3).filter(|&axis| any(axis)).map(|axis| AXES[axis]).collect(),
        })
    }

    fn speedup(&self, pattern: Pattern, dense: &Estimate, sparse: &Estimate) -> Speedup {
        let (d, s) = (&dense.time, &sparse.time);
        let median = d.us / s.us;
        let doubts = self.doubts(pattern).into_iter().enumerate().map(|(axis, doubt)| match axis {
            _ if sparse.outside[axis] || dense.outside[axis] => doubt.beyond,
            _ if sparse.between[axis] => doubt.between,
            _ => 0.0,
        });
        let off = doubts.sum::<f64>().exp();
        let low = (d.low / s.high).min(median / (1.0 + AGAIN)) / off;
        let high = (d.high / s.low).max(median * (1.0 + AGAIN)) * off;
        Speedup { median, low, high }
    }

    /// The storage and the dense kernel that were the fastest at the nearest measured point.
    fn nearest(&self, place: Place, pattern: Pattern, sparsity: f64) -> Option<(String, String)> {
        let (n, t) = (log2(place.shape.0 * place.shape.1), log2(place.tokens));
        let ratio = |(out, inputs): (usize, usize)| log2(out) - log2(inputs);
        let of_pattern =
            self.cells.iter().filter(|c| c.from_memory == place.from_memory && c.sparse.iter().any(|s| s.pattern == pattern));
        let far = |shape: (usize, usize), tokens: usize| {
            let size = (log2(shape.0 * shape.1) - n).abs() + (ratio(shape) - ratio(place.shape)).abs() / 2.0;
            size + (log2(tokens) - t).abs()
        };
        let cell = of_pattern.min_by(|a, b| far(a.shape, a.tokens).total_cmp(&far(b.shape, b.tokens)))?;
        let masks = cell.sparse.iter().filter(|s| s.pattern == pattern);
        let mask = masks.min_by(|a, b| (a.sparsity - sparsity).abs().total_cmp(&(b.sparsity - sparsity).abs()))?;
        Some((mask.format.clone(), cell.dense_kernel.clone()))
    }

    /// The sparsity from which on the median speed-up is above 1 up to the largest that was measured, and whether that is the lowest that was.
    fn break_even(&self, place: Place, pattern: Pattern, dense: &Estimate) -> (Option<f64>, bool) {
        let mut measured: Vec<f64> = self
            .cells
            .iter()
            .filter(|c| c.from_memory == place.from_memory)
            .flat_map(|c| &c.sparse)
            .filter(|s| s.pattern == pattern)
            .map(|s| s.sparsity)
            .collect();
        measured.sort_by(f64::total_cmp);
        measured.dedup_by(|a, b| (*a - *b).abs() < 1e-3);
        let gain = |sparsity: f64| {
            let sparse = self.estimate(place, What::Sparse(pattern, sparsity))?;
            Some((dense.time.us / sparse.time.us).ln())
        };
        let mut after: Option<(f64, f64)> = None;
        for &sparsity in measured.iter().rev() {
            let Some(gain) = gain(sparsity) else { continue };
            if gain <= 0.0 {
                let between = |(at, next): (f64, f64)| sparsity + (at - sparsity) * -gain / (next - gain);
                return (after.map(between), false);
            }
            after = Some((sparsity, gain));
        }
        (after.map(|(sparsity, _)| sparsity), after.is_some())
    }
}

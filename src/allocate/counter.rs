//! How many scores of each layer are among the largest of all, from layers that are shown one at a time.
//!
//! ```text
//! key(score) = 32 bits that order as the scores do
//! a pass     of each layer: how often every upper half of a key occurs, and every lower half under a few upper ones (the window)
//! the cut    the upper half under which the keep-th largest of all lies, then its lower half
//! ```
//!
//! The counts are exact if the upper half of the cut lies in the window; if it does not, all layers are shown once more with a window that
//! holds it. A [`RankSample`] predicts the window from a small part of the scores. Memory is that of the counts: 8 bytes for each
//! half of a key that occurs in a layer, a few tens of kilobytes a layer.

use crate::mask::order_key;
use crate::{Error, Result};
use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Upper halves of keys.
const BINS: usize = 1 << 16;
/// Upper halves of a window at most.
const WINDOW: usize = 12;
/// Scores of a task at least.
const TASK: usize = 1 << 18;
/// Scores of a layer at most that are sorted rather than counted in tables.
const FEW: usize = 1 << 12;
/// Tasks of a layer at most: each has counts of its own.
const TASKS: usize = 16;

/// Counts how many scores of each layer are among the `keep` largest of all; of equal scores the first layer's.
///
/// ```
/// use lacuna::allocate::RankCounter;
/// use ndarray::array;
/// let layers = [array![[3., 1.], [2., 2.]], array![[2., 5., 0.]]];
/// let mut counter = RankCounter::new(3);
/// let counts = loop {
///     for scores in &layers {
///         counter.add(scores.view())?;
///     }
///     if let Some(counts) = counter.finish_pass() {
///         break counts; // at the latest after the second pass
///     }
/// };
/// assert_eq!(counts, [2, 1]); // 5, 3 and the first layer's first 2
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RankCounter {
    keep: usize,
    /// Upper halves under which lower ones are counted.
    window: Range<usize>,
    layers: Vec<LayerCounts>,
    /// Layers that were added in this pass.
    added: usize,
    passes: usize,
}

/// The counts of one layer, keys from the largest down.
#[derive(Debug, Clone)]
struct LayerCounts {
    /// Upper halves.
    upper: Vec<(u32, u32)>,
    /// Whole keys in the window.
    keys: Vec<(u32, u32)>,
}

impl RankCounter {
    /// A counter for the `keep` largest, without a prediction: it takes two passes.
    pub fn new(keep: usize) -> Self {
        RankCounter { keep, window: 0..0, layers: Vec::new(), added: 0, passes: 0 }
    }

    /// A counter for the `keep` largest that takes one pass, unless the sample misleads.
    pub fn predicted(keep: usize, sample: &RankSample) -> Self {
        RankCounter { window: sample.window(keep), ..RankCounter::new(keep) }
    }

    /// Adds the scores of the next layer, of any strides.
    ///
    /// # Errors
    /// If a score is not finite, naming the first; in a further pass, if the scores are not those of the first.
    ///
    /// # Panics
    /// In a further pass, if there were fewer layers in the first. If a layer has 2³² scores or more.
    pub fn add(&mut self, scores: ArrayView2<'_, f32>) -> Result<()> {
        assert!(u32::try_from(scores.len()).is_ok(), "{} scores in one layer", scores.len());
        let counts = if scores.len() <= FEW {
            LayerCounts::few(scores.iter().map(|&s| order_key(s)).collect(), &self.window)
        } else {
            in_tasks(scores, || Histogram::new(self.window.clone()), |h, s| h.add(s, 1), Histogram::merge).counts()
        };
        if counts.is_finite() {
            return self.push(counts);
        }
        let (row, col, value) = match scores.indexed_iter().find(|(_, s)| !s.is_finite()) {
            Some(((row, col), &value)) => (row, col, f64::from(value)),
            None => (0, 0, f64::NAN),
        };
        Err(Error::NotFinite { what: "scores".into(), row, col, value })
    }

    /// As [`RankCounter::add`], from finite scores and how often each occurs.
    pub(super) fn add_counted(&mut self, mut counted: impl FnMut(&mut dyn FnMut(f32, u64))) -> Result<()> {
        let mut counts = Histogram::new(self.window.clone());
        counted(&mut |score, count| {
            counts.add(score, count.try_into().unwrap_or_else(|_| panic!("{count} scores in one layer")))
        });
        self.push(counts.counts())
    }

    fn push(&mut self, counts: LayerCounts) -> Result<()> {
        if self.passes == 0 {
            self.layers.push(counts);
        } else {
            assert!(self.added < self.layers.len(), "the first pass had {} layers", self.layers.len());
            if self.layers[self.added].upper != counts.upper {
                return Err(Error::invalid_option(
                    "scores",
                    "are not those of the pass before: did the weights change meanwhile?",
                ));
            }
            self.layers[self.added] = counts;
        }
        self.added += 1;
        Ok(())
    }

    /// Ends a pass: how many scores of each layer are among the largest, or `None` if all layers must be added once more, in the same
    /// order, because the prediction missed or there was none.
    ///
    /// # Panics
    /// If more scores are to be kept than there are, or the pass had fewer layers than the first.
    pub fn finish_pass(&mut self) -> Option<Vec<usize>> {
        assert!(self.added == self.layers.len(), "{} layers after {} in the first pass", self.added, self.layers.len());
        let all: u64 = self.layers.iter().map(LayerCounts::len).sum();
        assert!(self.keep as u64 <= all, "rank {} of {all} scores", self.keep);
        (self.added, self.passes) = (0, self.passes + 1);
        if self.keep == 0 {
            return Some(vec![0; self.layers.len()]);
        }
        if self.keep as u64 == all {
            return Some(self.layers.iter().map(|l| l.len() as usize).collect());
        }
        let mut bins = vec![0u64; BINS];
        self.layers.iter().flat_map(|l| &l.upper).for_each(|&(bin, count)| bins[bin as usize] += u64::from(count));
        let (high, above) = bin_of_rank(&bins, self.keep as u64);
        if !self.window.contains(&high) {
            self.window = high..high + 1;
            return None;
        }
        bins.fill(0);
        let in_bin = |&&(key, _): &&(u32, u32)| key as usize >> 16 == high;
        let lower = self.layers.iter().flat_map(|l| l.keys.iter().filter(in_bin));
        lower.for_each(|&(key, count)| bins[key as usize & 0xffff] += u64::from(count));
        let (low, above_low) = bin_of_rank(&bins, self.keep as u64 - above);
        let (cut, mut ties) = ((high << 16 | low) as u32, self.keep as u64 - above - above_low);
        let count = |layer: &LayerCounts| {
            let larger =
                sum_where(&layer.upper, |bin| bin as usize > high) + sum_where(layer.keys.iter().filter(in_bin), |key| key > cut);
            let taken = ties.min(sum_where(&layer.keys, |key| key == cut));
            ties -= taken;
            (larger + taken) as usize
        };
        Some(self.layers.iter().map(count).collect())
    }
}

impl LayerCounts {
    /// From all keys of a layer.
    fn few(mut keys: Vec<u32>, window: &Range<usize>) -> Self {
        keys.sort_unstable_by(|a, b| b.cmp(a));
        let upper = keys.chunk_by(|a, b| a >> 16 == b >> 16).map(|equal| (equal[0] >> 16, equal.len() as u32)).collect();
        let inside = keys.chunk_by(|a, b| a == b).filter(|equal| window.contains(&(equal[0] as usize >> 16)));
        LayerCounts { upper, keys: inside.map(|equal| (equal[0], equal.len() as u32)).collect() }
    }

    /// Whether no key of an infinity or a NaN occurs: these are the lowest and the highest.
    fn is_finite(&self) -> bool {
        let (lowest, highest) = (order_key(f32::NEG_INFINITY) >> 16, order_key(f32::INFINITY) >> 16);
        self.upper.iter().all(|(bin, _)| (lowest + 1..highest).contains(bin))
    }

    fn len(&self) -> u64 {
        sum_where(&self.upper, |_| true)
    }
}

/// The sum of the counts of these keys.
fn sum_where<'a>(counts: impl IntoIterator<Item = &'a (u32, u32)>, which: impl Fn(u32) -> bool) -> u64 {
    counts.into_iter().filter(|(key, _)| which(*key)).map(|(_, count)| u64::from(*count)).sum()
}

/// From the highest bin down: the bin in which the `rank`-th largest lies, and how many lie above that bin.
fn bin_of_rank(bins: &[u64], rank: u64) -> (usize, u64) {
    let mut above = 0;
    for (bin, &count) in bins.iter().enumerate().rev() {
        if above + count >= rank {
            return (bin, above);
        }
        above += count;
    }
    unreachable!("rank {rank} lies among the {above} scores counted")
}

/// Counts of the upper halves of keys, and of the keys in a window. Each thread has one, so they are of 32 bits: a layer has fewer numbers.
struct Histogram {
    upper: Vec<u32>,
    window: Range<usize>,
    lower: Vec<u32>,
}

impl Histogram {
    fn new(window: Range<usize>) -> Self {
        Histogram { upper: vec![0; BINS], lower: vec![0; window.len() << 16], window }
    }

    #[inline]
    fn add(&mut self, score: f32, count: u32) {
        let key = order_key(score) as usize;
        let bin = key >> 16;
        self.upper[bin] += count;
        // Below the window the difference wraps, and is beyond it.
        let place = bin.wrapping_sub(self.window.start);
        if place < self.window.len() {
            self.lower[place << 16 | key & 0xffff] += count;
        }
    }

    fn merge(mut self, other: Histogram) -> Histogram {
        let add = |all: &mut [u32], more: &[u32]| all.iter_mut().zip(more).for_each(|(a, b)| *a += b);
        add(&mut self.upper, &other.upper);
        add(&mut self.lower, &other.lower);
        self
    }

    fn counts(&self) -> LayerCounts {
        LayerCounts { upper: occurring(&self.upper, 0), keys: occurring(&self.lower, (self.window.start << 16) as u32) }
    }
}

/// The counts that are not 0, from the last down, numbered from `first` on.
fn occurring(counts: &[u32], first: u32) -> Vec<(u32, u32)> {
    let mut found = Vec::with_capacity(counts.iter().filter(|&&count| count > 0).count());
    found.extend(counts.iter().enumerate().rev().filter(|(_, count)| **count > 0).map(|(i, &count)| (first + i as u32, count)));
    found
}

/// One count of all numbers of a matrix, in tasks of whole rows. There are as many counts at once as threads work on them; `merge` must give
/// the same in any order.
pub(super) fn in_tasks<T: Send>(
    matrix: ArrayView2<'_, f32>,
    zero: impl Fn() -> T + Sync,
    add: impl Fn(&mut T, f32) + Sync,
    merge: impl Fn(T, T) -> T + Sync,
) -> T {
    let add_rows = |counts: &mut T, rows: ArrayView2<'_, f32>| {
        for row in rows.rows() {
            match row.as_slice() {
                Some(row) => row.iter().for_each(|&s| add(counts, s)),
                None => row.iter().for_each(|&s| add(counts, s)),
            }
        }
    };
    let (rows, cols) = matrix.dim();
    let step = TASK.div_ceil(cols.max(1)).max(rows.div_ceil(TASKS)).max(1);
    if step >= rows {
        let mut counts = zero();
        add_rows(&mut counts, matrix);
        return counts;
    }
    // All of them at once, so that what memory it takes does not hang on which thread is faster.
    let threads = rayon::current_num_threads().min(rows.div_ceil(step));
    let idle = Mutex::new((0..threads).map(|_| zero()).collect::<Vec<T>>());
    matrix.axis_chunks_iter(Axis(0), step).into_par_iter().for_each(|rows| {
        let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut counts = taken.unwrap_or_else(&zero);
        add_rows(&mut counts, rows);
        idle.lock().unwrap_or_else(PoisonError::into_inner).push(counts);
    });
    let all = idle.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.into_iter().reduce(&merge).unwrap_or_else(&zero)
}

/// Scores of some rows of each layer, from which a [`RankCounter`] predicts where the budget falls.
///
/// A prediction that misses costs a further pass and changes no count.
#[derive(Debug, Clone)]
pub struct RankSample {
    /// How many scores have each upper half, by the sample.
    upper: Vec<f64>,
    /// Scores of the sample.
    seen: usize,
    /// Scores that it stands for.
    of: usize,
}

impl Default for RankSample {
    fn default() -> Self {
        RankSample { upper: vec![0.0; BINS], seen: 0, of: 0 }
    }
}

impl RankSample {
    /// Adds some scores of a layer of `of` weights.
    pub fn add(&mut self, scores: ArrayView2<'_, f32>, of: usize) {
        self.add_counted(scores.len(), of, |see| scores.iter().for_each(|&s| see(s, 1)));
    }

    /// As [`RankSample::add`], from `seen` scores and how often each occurs.
    pub(super) fn add_counted(&mut self, seen: usize, of: usize, mut counted: impl FnMut(&mut dyn FnMut(f32, u64))) {
        let weight = of as f64 / seen.max(1) as f64;
        counted(&mut |score, count| self.upper[(order_key(score) >> 16) as usize] += weight * count as f64);
        self.seen += seen;
        self.of += if seen > 0 { of } else { 0 };
    }

    /// The upper halves of keys under which the `keep`-th largest of all scores probably lies.
    fn window(&self, keep: usize) -> Range<usize> {
        if self.seen == 0 || keep == 0 {
            return 0..0;
        }
        let all = self.of as f64;
        let (rank, missing) = ((keep as f64).min(all), 1.0 - (self.seen as f64 / all).min(1.0));
        // Three standard deviations of the rank of a quantile, and something for rows that are not alike; nothing where all is seen.
        let spread = (rank / all * (1.0 - rank / all) / self.seen as f64).sqrt();
        let margin = all * missing * (3.0 * spread + 0.0005);
        let bin = |rank: f64| {
            let mut above = 0.0;
            let reached = self.upper.iter().enumerate().rev().find(|(_, count)| {
                above += **count;
                **count > 0.0 && above >= rank
            });
            reached.or_else(|| self.upper.iter().enumerate().find(|(_, count)| **count > 0.0)).map_or(0, |(bin, _)| bin)
        };
        // Half a score less: sums of weights are rounded.
        let (first, middle, last) = (bin(rank + margin - 0.5), bin(rank - 0.5), bin(rank - margin - 0.5));
        if last - first < WINDOW {
            return first..last + 1;
        }
        let first = middle.saturating_sub(WINDOW / 2).clamp(first, last + 1 - WINDOW);
        first..first + WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::{RankCounter, RankSample, WINDOW};
    use ndarray::{Array2, array};

    #[test]
    fn a_count_beyond_32_bits_is_counted_whole() {
        let mut counter = RankCounter::predicted(5_000_000_001, &RankSample::default());
        let many = 5_000_000_000;
        for _ in 0..2 {
            counter.add(array![[2.0, 1.0]].view()).unwrap();
            counter.add_counted(|see| [(2.0, many), (0.5, 7)].iter().for_each(|&(s, n)| see(s, n))).unwrap();
            counter.add_counted(|see| see(2.0, many)).unwrap();
            if let Some(counts) = counter.finish_pass() {
                assert_eq!(counts, [1, many as usize, 0]);
                return;
            }
        }
        panic!("two passes are enough");
    }

    #[test]
    fn a_window_holds_the_sample_s_own_quantile_and_is_never_wider_than_it_may_be() {
        let scores = Array2::from_shape_fn((64, 64), |(r, c)| ((r * 64 + c) as f32 * 0.37).sin().abs());
        let mut sorted: Vec<f32> = scores.iter().copied().collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        for of in [scores.len(), 10 * scores.len()] {
            let mut sample = RankSample::default();
            sample.add(scores.view(), of);
            for rank in [1, 2, 100, 2048, 4000, 4096] {
                let window = sample.window(rank * of / scores.len());
                let bin = (super::order_key(sorted[rank - 1]) >> 16) as usize;
                assert!(window.contains(&bin) && window.len() <= WINDOW, "rank {rank} of {of}: {bin} in {window:?}");
                // What is seen whole is known.
                assert!(of > scores.len() || window.len() == 1, "{window:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "rank 3 of 2 scores")]
    fn more_than_there_is_cannot_be_kept() {
        let mut counter = RankCounter::new(3);
        counter.add(array![[2.0, 1.0]].view()).unwrap();
        counter.finish_pass();
    }
}

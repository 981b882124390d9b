//! Allocation by rank of layers that are read one at a time.

use super::counter::{RankCounter, RankSample};
use super::{Allocate, LayerView, budgets, check};
use crate::mask::Budget;
use crate::rng::Seed;
use crate::{Error, Result};
use ndarray::Axis;

/// What an allocation by rank ranks: gives the scores of one layer to a [`RankCounter`].
pub trait Ranking: Send + Sync + std::fmt::Debug {
    /// Adds the scores of a layer.
    ///
    /// # Errors
    /// If what they are made of is missing or not finite, naming the layer.
    fn count(&self, layer: &LayerView<'_>, counter: &mut RankCounter) -> Result<()>;

    /// Adds the scores that some rows of a layer of `of` weights probably have.
    ///
    /// # Errors
    /// As [`Ranking::count`].
    fn sample(&self, rows: &LayerView<'_>, of: usize, sample: &mut RankSample) -> Result<()>;
}

/// Layers that are read one at a time, as often as is asked for.
pub trait ReadLayers {
    /// Shows some rows of each of these layers, by their numbers; [`sampled_rows`] says which.
    ///
    /// # Errors
    /// What reading and `see` return.
    fn sample(&mut self, layers: &[usize], see: &mut dyn FnMut(usize, &LayerView<'_>) -> Result<()>) -> Result<()>;

    /// Shows these layers whole, in order. `pass` is 1 at first, and 2 if the sample misled.
    ///
    /// # Errors
    /// What reading and `see` return.
    fn pass(&mut self, layers: &[usize], pass: usize, see: &mut dyn FnMut(&LayerView<'_>) -> Result<()>) -> Result<()>;
}

/// Weights in memory up to which a second pass is made sooner than a sample.
const FEW: usize = 1 << 18;

/// The rows of a layer that make a sample, in order: one of every 256, at least 16, each by chance from its part of the matrix.
pub fn sampled_rows(name: &str, rows: usize) -> Vec<usize> {
    let count = rows.div_ceil(256).max(16).min(rows);
    let mut stream = Seed(0).stream(name);
    let row = |i: usize| {
        let (from, to) = (i * rows / count, (i + 1) * rows / count);
        from + stream.below(to - from)
    };
    (0..count).map(row).collect()
}

/// One budget a layer, in weights, that sum to `total`, by an allocation that ranks ([`Allocate::ranking`]): each layer is read once, beside a
/// small sample of all, and a second time only if the sample misled. Of `layers` only names and shapes are looked at.
///
/// ```
/// use lacuna::allocate::{Lamp, LayerView, ReadLayers, by_rank, sampled_rows};
/// use lacuna::mask::Budget;
/// use ndarray::{Array2, Axis};
/// struct Files; // one layer each; here they are made as they are asked for
/// impl Files {
///     fn read(&self, i: usize) -> Array2<f32> {
///         Array2::from_shape_fn((4, 3), |(r, c)| (i + r * 3 + c) as f32)
///     }
/// }
/// impl ReadLayers for Files {
///     fn sample(&mut self, layers: &[usize], see: &mut dyn FnMut(usize, &LayerView<'_>) -> lacuna::Result<()>) -> lacuna::Result<()> {
///         layers.iter().try_for_each(|&i| {
///             let rows = self.read(i).select(Axis(0), &sampled_rows("name", 4));
///             see(i, &LayerView::linear("name", &rows))
///         })
///     }
///     fn pass(&mut self, layers: &[usize], _: usize, see: &mut dyn FnMut(&LayerView<'_>) -> lacuna::Result<()>) -> lacuna::Result<()> {
///         layers.iter().try_for_each(|&i| see(&LayerView::linear("name", &self.read(i))))
///     }
/// }
/// let zero = Array2::zeros((1, 1));
/// let shape = LayerView { weight: zero.broadcast((4, 3)).unwrap(), ..LayerView::linear("name", &zero) }; // no weights
/// let parts = by_rank(&Lamp, &[shape, shape], Budget::new(6, 24)?, &mut Files)?;
/// assert_eq!(parts.iter().map(|p| p.keep()).collect::<Vec<_>>(), [3, 3]);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// As [`Allocate::allocate`]; what reading returns.
///
/// # Panics
/// If the allocation does not rank.
pub fn by_rank(
    allocation: &dyn Allocate,
    layers: &[LayerView<'_>],
    total: Budget,
    read: &mut dyn ReadLayers,
) -> Result<Vec<Budget>> {
    check(layers, total)?;
    let Some(ranking) = allocation.ranking() else { panic!("{} does not rank", allocation.name()) };
    let (given, keep) = allocation.given(layers, total)?;
    let rest: Vec<usize> = (0..layers.len()).filter(|&i| given[i].is_none()).collect();
    let mut sample = RankSample::default();
    // A sample only predicts: what is wrong with the layers shows when they are counted.
    let seen = read.sample(&rest, &mut |i, rows| ranking.sample(rows, layers[i].len(), &mut sample));
    let mut counter = match seen {
        Ok(()) => RankCounter::predicted(keep, &sample),
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(_) => RankCounter::new(keep),
    };
    let mut pass = 0;
    let counts = loop {
        pass += 1;
        read.pass(&rest, pass, &mut |layer| ranking.count(layer, &mut counter))?;
        if let Some(counts) = counter.finish_pass() {
            break counts;
        }
    };
    let ranked: Vec<LayerView<'_>> = rest.iter().map(|&i| layers[i]).collect();
    let mut ranked = budgets(&ranked, counts)?.into_iter();
    Ok(given.into_iter().filter_map(|part| part.or_else(|| ranked.next())).collect())
}

/// Layers in memory, whose scores are ranked.
pub(super) struct InMemory<'s, 'a>(pub &'s [LayerView<'a>]);

impl ReadLayers for InMemory<'_, '_> {
    fn sample(&mut self, layers: &[usize], see: &mut dyn FnMut(usize, &LayerView<'_>) -> Result<()>) -> Result<()> {
        if layers.iter().map(|&i| self.0[i].len()).sum::<usize>() <= FEW {
            return Ok(());
        }
        for &i in layers {
            let layer = &self.0[i];
            let rows = sampled_rows(layer.name, layer.weight.nrows());
            // Scores of another shape are refused when they are counted.
            let scores = layer.scores.filter(|s| s.dim() == layer.weight.dim()).map(|s| s.select(Axis(0), &rows));
            let weight = layer.weight.select(Axis(0), &rows);
            see(i, &LayerView { weight: weight.view(), scores: scores.as_ref().map(|s| s.view()), ..*layer })?;
        }
        Ok(())
    }

    fn pass(&mut self, layers: &[usize], _pass: usize, see: &mut dyn FnMut(&LayerView<'_>) -> Result<()>) -> Result<()> {
        layers.iter().try_for_each(|&i| see(&self.0[i]))
    }
}

//! Advice for every linear layer of a model's folder.

use super::advice::{Advice, Query, Speedup};
use super::profile::Profile;
use crate::io::Folder;
use crate::lm::{Config, Outline};
use crate::mask::{Mask, Pattern};
use crate::{Error, Result};
use serde::Serialize;

/// A linear layer: what is asked of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerShape {
    /// Its tensor.
    pub name: String,
    /// `(out, in)`.
    pub shape: (usize, usize),
    /// The pattern and the sparsity of its mask; none if it has no mask.
    pub mask: Option<(Pattern, f64)>,
}

impl LayerShape {
    /// The pattern and the sparsity that are asked about: those of its mask; without one, unstructured at `sparsity`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if it has no mask and no sparsity is given.
    pub fn asked(&self, sparsity: Option<f64>) -> Result<(Pattern, f64)> {
        let missing = || Error::invalid_option("sparsity", format!("{} has no mask; give a sparsity", self.name));
        self.mask.or(sparsity.map(|sparsity| (Pattern::Unstructured, sparsity))).ok_or_else(missing)
    }
}

/// The linear layers of a model, with what their masks keep: those of the outline if the model is of a known family, its head among them, else all matrices that
/// have a mask. Of each mask the pattern is looked for among those that a profile knows.
///
/// # Errors
/// As [`Folder::mask`]; [`Error::Malformed`] if the folder has neither.
pub fn layers_of(folder: &Folder, patterns: &[Pattern]) -> Result<Vec<LayerShape>> {
    let outline = Config::of(folder).and_then(|config| Outline::of(folder, &config)).ok();
    let named: Vec<(String, bool)> = match &outline {
        Some(outline) => outline.layers.iter().map(|l| (l.tensor(), l.transposed)).collect(),
        None => folder.names().filter(|n| folder.has_mask(n)).map(|n| (n.to_string(), false)).collect(),
    };
    let mut layers = Vec::new();
    for (name, transposed) in named {
        let &[rows, cols] = folder.shape(&name)? else { continue };
        let mask = match folder.mask(&name)? {
            Some(mask) => Some(mask),
            None => folder.storage(&name)?.map(|op| op.mask()),
        };
        let mask = match (mask, transposed) {
            (Some(mask), true) => Some(mask.transpose()),
            (mask, _) => mask,
        };
        let shape = if transposed { (cols, rows) } else { (rows, cols) };
        layers.push(LayerShape { name, shape, mask: mask.map(|mask| (pattern_of(&mask, patterns), mask.sparsity())) });
    }
    if layers.is_empty() {
        return Err(Error::malformed(folder.path(), "is no model of a known family and has no masks"));
    }
    Ok(layers)
}

/// The pattern that a mask has.
fn pattern_of(mask: &Mask, patterns: &[Pattern]) -> Pattern {
    let pruned = mask.kept() < mask.len();
    let own = patterns.iter().copied().filter(|p| *p != Pattern::Unstructured);
    own.into_iter().find(|p| pruned && p.check(mask).is_ok()).unwrap_or(Pattern::Unstructured)
}

/// The layers of one shape and pattern.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// `(out, in)`.
    pub shape: (usize, usize),
    /// What survivors look like.
    pub pattern: Pattern,
    /// How many layers.
    pub layers: usize,
    /// Fraction of their weights that is pruned.
    pub sparsity: f64,
    /// The storage of most of them.
    pub storage: String,
    /// Of their fastest sparse storages over the dense products.
    pub speedup: Speedup,
    /// The sparsity from which on sparse wins, and whether it may be lower still.
    pub wins_from: Option<f64>,
    /// Whether `wins_from` is the lowest sparsity that was measured.
    pub wins_at_all: bool,
    /// Microseconds of all their dense products.
    pub dense_us: f64,
    /// Microseconds of all their products, each in the faster storage.
    pub best_us: f64,
    /// Of what the answers are extrapolated.
    pub extrapolated: Vec<&'static str>,
}

/// Advice for a whole model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelAdvice {
    /// One for each shape and pattern, in the order of the layers.
    pub rows: Vec<Row>,
    /// Microseconds of all dense products of one pass.
    pub dense_us: f64,
    /// The same, each layer in the faster of dense and sparse.
    pub best_us: f64,
    /// The one over the other: of the linear layers alone, not of a whole pass.
    pub speedup: Speedup,
    /// Whether the times are those of weights from memory; see [`Advice::from_memory`].
    pub from_memory: bool,
}

impl Profile {
    /// The patterns that were measured.
    pub fn patterns(&self) -> Vec<Pattern> {
        let mut patterns: Vec<Pattern> = Vec::new();
        for sparse in self.cells.iter().flat_map(|c| &c.sparse) {
            if !patterns.contains(&sparse.pattern) {
                patterns.push(sparse.pattern);
            }
        }
        patterns
    }

    /// Advice for the layers of a model with so many tokens. A layer without a mask is asked about as if pruned to `sparsity`, unstructured.
    ///
    /// # Errors
    /// As [`Profile::advise`], naming the layer; [`Error::InvalidOption`] if a layer has no mask and no sparsity is given.
    pub fn advise_model(
        &self,
        layers: &[LayerShape],
        tokens: usize,
        sparsity: Option<f64>,
        from_memory: bool,
    ) -> Result<ModelAdvice> {
        let mut groups: Vec<(Vec<Advice>, f64, Pattern)> = Vec::new();
        for layer in layers {
            let (pattern, sparsity) = layer.asked(sparsity)?;
            // All of a weight may be pruned; the nearest query is that of one weight left.
            let most = 1.0 - 1.0 / (layer.shape.0 * layer.shape.1).max(1) as f64;
            let plain = Query::new(layer.shape, tokens, sparsity.min(most));
            let query = Query { pattern, from_memory, ..plain };
            let advice = self.advise(&query).map_err(|e| e.in_layer(&layer.name))?;
            let same = |(advice, _, of): &(Vec<Advice>, f64, Pattern)| advice[0].query.shape == layer.shape && *of == pattern;
            match groups.iter_mut().find(|group| same(group)) {
                Some((group, sum, _)) => {
                    group.push(advice);
                    *sum += sparsity;
                }
                None => groups.push((vec![advice], sparsity, pattern)),
            }
        }
        let rows: Vec<Row> = groups.iter().map(|(advice, sum, pattern)| row(advice, *sum, *pattern)).collect();
        let all: Vec<&Advice> = groups.iter().flat_map(|(advice, ..)| advice).collect();
        let (dense_us, best_us) = (rows.iter().map(|r| r.dense_us).sum(), rows.iter().map(|r| r.best_us).sum());
        let from_memory = all.iter().any(|advice| advice.from_memory);
        Ok(ModelAdvice { rows, dense_us, best_us, speedup: together(&all, best), from_memory })
    }
}

/// Microseconds in the faster storage.
fn best(advice: &Advice) -> f64 {
    advice.sparse_time.us.min(advice.dense.us)
}

/// The speed-up of products one after the other; its bounds are those of all of them at once.
fn together(all: &[&Advice], time: impl Fn(&Advice) -> f64) -> Speedup {
    let dense: f64 = all.iter().map(|a| a.dense.us).sum();
    let bound = |of: fn(&Speedup) -> f64| {
        // A layer that stays dense takes what dense takes, whatever its sparse storage would.
        let of = |a: &Advice| if time(a) < a.sparse_time.us { 1.0 } else { of(&a.speedup) };
        dense / all.iter().map(|a| a.dense.us / of(a)).sum::<f64>()
    };
    Speedup { median: dense / all.iter().map(|a| time(a)).sum::<f64>(), low: bound(|s| s.low), high: bound(|s| s.high) }
}

fn row(advice: &[Advice], sparsities: f64, pattern: Pattern) -> Row {
    let first = &advice[0];
    let all: Vec<&Advice> = advice.iter().collect();
    let times = |storage: &str| advice.iter().filter(|a| a.storage == storage).count();
    let storage = advice.iter().map(|a| a.storage.as_str()).max_by_key(|s| (times(s), *s == first.storage)).unwrap_or("dense");
    let mut extrapolated: Vec<&'static str> = advice.iter().flat_map(|a| a.extrapolated.iter().copied()).collect();
    extrapolated.sort_unstable();
    extrapolated.dedup();
    Row {
        shape: first.query.shape,
        pattern,
        layers: advice.len(),
        sparsity: sparsities / advice.len() as f64,
        storage: storage.to_string(),
        speedup: together(&all, |a| a.sparse_time.us),
        wins_from: first.wins_from,
        wins_at_all: first.wins_at_all,
        dense_us: advice.iter().map(|a| a.dense.us).sum(),
        best_us: advice.iter().map(best).sum(),
        extrapolated,
    }
}

//! LAMP: layer-adaptive magnitude.
//!
//! Lee, Park, Mo, Ahn, Shin. *Layer-adaptive sparsity for the magnitude-based pruning.* ICLR 2021, arXiv:2010.07611,
//! equation 4.
//!
//! ```text
//! score(u) = w_u² / Σ_{v : w_v² ≥ w_u²} w_v²
//! ```
//!
//! within a layer, then ranked over all layers. A layer's one largest weight scores 1, so no layer is emptied before all
//! others are down to one weight (where k weights tie for the largest, each scores 1/k).
//!
//! Departure: ties of a layer share one score, where the authors' sorted sums give each its place; the counts are the same
//! up to ties.
//!
//! Cost: a sort of each layer's magnitudes, or, for the weights of 16-bit files, a count of them by value. Layers that are read one at a time
//! ([`by_rank`](super::by_rank)) take at most 4 bytes a weight of one layer beside its weights; those in memory 8 bytes a weight of one layer and scores as large as
//! the weights.

use super::counter::{RankCounter, RankSample, in_tasks};
use super::global::Global;
use super::ranking::{InMemory, Ranking, by_rank};
use super::{Allocate, LayerView, check};
use crate::Result;
use crate::mask::{Budget, check_finite};
use ndarray::{Array2, ArrayRef2, ArrayView2};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Weights below which magnitudes are sorted in any case.
const FEW: usize = 1 << 16;
/// Lower bits of a magnitude that are 0 in all numbers of 16 bits, whose values can be counted.
const UNUSED: u32 = 13;
/// Bits of a place in a layer, below those of a magnitude.
const INDEX: u32 = 33;
/// The bits of a number without its sign, which order as magnitudes do.
const MAGNITUDE: u32 = !(1 << 31);

/// Counts by rank of the LAMP scores; see the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Lamp;

impl Lamp {
    /// The LAMP scores of one layer's weights, `(out, in)`. Weights that are 0 score 0; if one is NaN, all the scores are.
    ///
    /// ```
    /// use ndarray::array;
    /// assert_eq!(lacuna::allocate::Lamp::scores(&array![[1., -2., 0.]]), array![[0.2, 1., 0.]]);
    /// ```
    ///
    /// # Panics
    /// If there are 2³³ weights or more.
    pub fn scores(weight: &ArrayRef2<f32>) -> Array2<f32> {
        let weight = weight.view();
        if in_tasks(weight, || false, |any, w| *any |= w.is_nan(), |a, b| a | b) {
            return Array2::from_elem(weight.dim(), f32::NAN);
        }
        assert!(weight.len() < 1 << INDEX, "{} weights in one layer", weight.len());
        // The magnitude above, the place below: one sort of numbers.
        let place = |(i, w): (usize, &f32)| u64::from(w.to_bits() & MAGNITUDE) << INDEX | i as u64;
        let mut order: Vec<u64> = weight.iter().enumerate().map(place).collect();
        order.par_sort_unstable();
        let (mut sum, mut scores) = (Sum(0.0), vec![0.0; order.len()]);
        for equal in order.chunk_by(|a, b| a >> INDEX == b >> INDEX).rev() {
            let score = sum.score((equal[0] >> INDEX) as u32, equal.len() as f64);
            equal.iter().for_each(|at| scores[(at & ((1 << INDEX) - 1)) as usize] = score);
        }
        Array2::from_shape_fn(weight.dim(), |(r, c)| scores[r * weight.ncols() + c])
    }
}

/// The sum of the squares so far, the largest first.
struct Sum(f64);

impl Sum {
    /// Adds the squares of so many equal magnitudes, by their bits; their score.
    fn score(&mut self, magnitude: u32, count: f64) -> f32 {
        let magnitude = f64::from(f32::from_bits(magnitude));
        let value = magnitude * magnitude;
        self.0 += value * count;
        if value > 0.0 { (value / self.0) as f32 } else { 0.0 }
    }
}

/// How often each magnitude occurs among the weights of a layer.
enum Magnitudes {
    /// By the upper bits of the magnitude, where the other `.0` bits are 0 throughout.
    Counted(u32, Vec<u64>),
    /// All magnitudes, the smallest first.
    Sorted(Vec<u32>),
}

impl Magnitudes {
    fn of(weight: ArrayView2<'_, f32>) -> Self {
        let used = in_tasks(weight, || 0, |bits, w| *bits |= w.to_bits() & MAGNITUDE, |a, b| a | b);
        let unused = used.trailing_zeros().min(16);
        if weight.len() >= FEW && unused >= UNUSED {
            let zero = || vec![0u64; 1 << (31 - unused)];
            let merge = |mut all: Vec<u64>, more: Vec<u64>| {
                all.iter_mut().zip(more).for_each(|(a, b)| *a += b);
                all
            };
            let count = |counts: &mut Vec<u64>, w: f32| counts[((w.to_bits() & MAGNITUDE) >> unused) as usize] += 1;
            return Magnitudes::Counted(unused, in_tasks(weight, zero, count, merge));
        }
        let magnitude = |w: &f32| w.to_bits() & MAGNITUDE;
        let mut all: Vec<u32> = match weight.as_slice() {
            Some(weight) => weight.par_iter().map(magnitude).collect(),
            None => weight.iter().map(magnitude).collect(),
        };
        all.par_sort_unstable();
        Magnitudes::Sorted(all)
    }

    /// Shows every magnitude that occurs, the largest first, and how often it does.
    fn descending(&self, mut see: impl FnMut(u32, u64)) {
        match self {
            Magnitudes::Counted(unused, counts) => {
                let occurring = counts.iter().enumerate().rev().filter(|(_, count)| **count > 0);
                occurring.for_each(|(upper, &count)| see((upper as u32) << unused, count));
            }
            Magnitudes::Sorted(all) => all.chunk_by(|a, b| a == b).rev().for_each(|equal| see(equal[0], equal.len() as u64)),
        }
    }

    /// Shows the LAMP score of every magnitude that occurs, the largest first, and how often it does. Each stands for `weight` weights.
    fn scores(&self, weight: f64, see: &mut dyn FnMut(f32, u64)) {
        let mut sum = Sum(0.0);
        self.descending(|magnitude, count| see(sum.score(magnitude, weight * count as f64), count));
    }
}

impl Allocate for Lamp {
    fn name(&self) -> &str {
        "lamp"
    }

    fn ranking(&self) -> Option<&dyn Ranking> {
        Some(self)
    }

    fn allocate(&self, layers: &[LayerView<'_>], total: Budget) -> Result<Vec<Budget>> {
        check(layers, total)?;
        layers.iter().try_for_each(|l| check_finite(&l.weight, "weights").map_err(|e| e.in_layer(l.name)))?;
        let scores: Vec<Array2<f32>> = layers.iter().map(|l| Lamp::scores(&l.weight)).collect();
        let scored: Vec<LayerView<'_>> =
            layers.iter().zip(&scores).map(|(l, s)| LayerView { scores: Some(s.view()), ..*l }).collect();
        by_rank(&Global, &scored, total, &mut InMemory(&scored))
    }
}

impl Ranking for Lamp {
    fn count(&self, layer: &LayerView<'_>, counter: &mut RankCounter) -> Result<()> {
        check_finite(&layer.weight, "weights").map_err(|e| e.in_layer(layer.name))?;
        let magnitudes = Magnitudes::of(layer.weight);
        counter.add_counted(|see| magnitudes.scores(1.0, see)).map_err(|e| e.in_layer(layer.name))
    }

    fn sample(&self, rows: &LayerView<'_>, of: usize, sample: &mut RankSample) -> Result<()> {
        let (seen, magnitudes) = (rows.len(), Magnitudes::of(rows.weight));
        let weight = of as f64 / seen.max(1) as f64;
        sample.add_counted(seen, of, |see| magnitudes.scores(weight, see));
        Ok(())
    }
}

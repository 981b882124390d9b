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
//! Cost: a sort of each layer's weights; scores as large as the weights.

use super::{Allocate, Layer, budgets, check, global::counts};
use crate::mask::Budget;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};

/// Counts by rank of the LAMP scores; see the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lamp;

impl Lamp {
    /// The LAMP scores of one layer's weights, `(out, in)`. Weights that are 0 score 0; if one is NaN, all the scores are.
    ///
    /// ```
    /// use ndarray::array;
    /// assert_eq!(lacuna::allocate::Lamp::scores(&array![[1., -2., 0.]]), array![[0.2, 1., 0.]]);
    /// ```
    pub fn scores(weight: &ArrayRef2<f32>) -> Array2<f32> {
        let squares: Vec<f64> = weight.iter().map(|&w| f64::from(w) * f64::from(w)).collect();
        if squares.iter().any(|s| s.is_nan()) {
            return Array2::from_elem(weight.dim(), f32::NAN);
        }
        let mut order: Vec<usize> = (0..squares.len()).collect();
        order.sort_unstable_by(|&a, &b| squares[b].total_cmp(&squares[a]).then(a.cmp(&b)));
        let (mut sum, mut at) = (0.0, 0);
        let mut scores = vec![0.0f32; squares.len()];
        while at < order.len() {
            let value = squares[order[at]];
            let ties = order[at..].iter().take_while(|&&i| squares[i] == value).count();
            sum += value * ties as f64;
            if value > 0.0 {
                order[at..at + ties].iter().for_each(|&i| scores[i] = (value / sum) as f32);
            }
            at += ties;
        }
        Array2::from_shape_fn(weight.dim(), |(r, c)| scores[r * weight.ncols() + c])
    }
}

impl Allocate for Lamp {
    fn name(&self) -> &str {
        "lamp"
    }

    fn allocate(&self, layers: &[Layer<'_>], total: Budget) -> Result<Vec<Budget>> {
        check(layers, total)?;
        for l in layers {
            if let Some(((row, col), &value)) = l.weight.indexed_iter().find(|(_, w)| !w.is_finite()) {
                return Err(Error::NonFinite { what: "weights".into(), row, col, value: f64::from(value) }.in_layer(l.name));
            }
        }
        let scores: Vec<Array2<f32>> = layers.iter().map(|l| Lamp::scores(&l.weight)).collect();
        let scores: Vec<&ArrayRef2<f32>> = scores.iter().map(|s| &**s).collect();
        budgets(layers, counts(layers, &scores, total.keep())?)
    }
}

//! What the budget is of: weights or FLOPs.

use super::{Allocate, LayerView};
use crate::mask::Budget;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How much of the layers together may stay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Target {
    /// This fraction of the weights goes; in [0, 1).
    Sparsity(f64),
    /// At most this many weights stay.
    Parameters(usize),
    /// At most this many FLOPs a sample stay: two for each use of a kept weight.
    Flops(usize),
}

impl Target {
    /// One budget for each layer by `allocation`.
    ///
    /// For FLOPs bisection finds a number of weights whose allocation does not pass the target and would with one weight more.
    /// Where rounding gives a costly layer fewer weights of a larger whole, a larger number still can fit.
    ///
    /// # Errors
    /// Those of the allocation; a sparsity outside [0, 1); more parameters or FLOPs than the layers have;
    /// fewer FLOPs than those of the weights that the allocation must keep.
    ///
    /// ```
    /// use lacuna::allocate::{LayerView, Target, Uniform};
    /// use ndarray::Array2;
    /// let w = Array2::zeros((4, 5));
    /// let conv = LayerView { positions: 9, ..LayerView::linear("conv1", &w) };
    /// let part = Target::Flops(100).allocate(&Uniform, &[conv]).unwrap()[0];
    /// assert_eq!(part.keep(), 5); // 5 weights x 9 positions x 2 = 90
    /// ```
    pub fn allocate(self, allocation: &dyn Allocate, layers: &[LayerView<'_>]) -> Result<Vec<Budget>> {
        let of: usize = layers.iter().map(LayerView::len).sum();
        match self {
            Target::Sparsity(s) => allocation.allocate(layers, Budget::from_sparsity(of, s)?),
            Target::Parameters(keep) => allocation.allocate(layers, Budget::new(keep, of)?),
            Target::Flops(limit) => {
                let flops =
                    |parts: &[Budget]| -> usize { parts.iter().zip(layers).map(|(p, l)| 2 * p.keep() * l.positions).sum() };
                let dense: usize = layers.iter().map(|l| 2 * l.len() * l.positions).sum();
                if limit > dense {
                    return Err(Error::invalid_option("flops", format!("{limit} is more than the {dense} of the dense layers")));
                }
                let (mut low, mut high) = allocation.range(layers)?;
                let mut best = allocation.allocate(layers, Budget::new(low, of)?)?;
                let least = flops(&best);
                if limit < least {
                    return Err(Error::invalid_option("flops", format!("{limit} is less than the {least} of what must stay")));
                }
                while low < high {
                    let keep = low + (high - low).div_ceil(2);
                    let parts = allocation.allocate(layers, Budget::new(keep, of)?)?;
                    if flops(&parts) <= limit {
                        (low, best) = (keep, parts);
                    } else {
                        high = keep - 1;
                    }
                }
                Ok(best)
            }
        }
    }
}

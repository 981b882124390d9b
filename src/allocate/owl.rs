//! OWL: blocks with more outliers keep more.
//!
//! Yin, Wu, Zhang, Hsieh, Wang, Jia, Li, Liang, Pechenizkiy, Wang, Liu. *Outlier weighed layerwise sparsity (OWL): a missing secret
//! sauce for pruning LLMs to high sparsity.* ICML 2024, arXiv:2310.05175, equations 2 and 3.
//!
//! ```text
//! D_l = 100 · fraction of the Wanda scores A of block l that are above M · mean A
//! density_l = 2 λ (D_l − min D) / (max D − min D) + c,    c such that the weights that stay are as many as asked for
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | M | [`Outliers::new`]'s threshold, 5 in the paper |
//! | λ | [`Owl::lambda`], 0.08 in the paper |
//!
//! Departures. The authors centre the densities by their plain mean, which meets the target only if blocks are of one size and no
//! density leaves [0, 1]; here c is found for the sizes there are, with densities held to [0, 1]. Where all blocks have as many outliers
//! the authors divide by 0; here all get the same.
//!
//! Cost: two passes over the scores of a block, which are kept for it.

use super::apportion::apportion;
use crate::mask::Budget;
use crate::{Error, Result};
use ndarray::ArrayRef2;
use serde::{Deserialize, Serialize};

/// Counts the outliers among the scores of one block, matrix by matrix.
#[derive(Debug, Clone)]
pub struct Outliers {
    threshold: f64,
    /// The mean is known only at the end.
    scores: Vec<Vec<f32>>,
}

impl Outliers {
    /// Scores above `threshold` times the mean of the block are outliers.
    pub fn new(threshold: f64) -> Self {
        Outliers { threshold, scores: Vec::new() }
    }

    /// Adds the scores `(out, in)` of one layer of the block.
    pub fn add(&mut self, scores: &ArrayRef2<f32>) {
        self.scores.push(scores.iter().copied().collect());
    }

    /// The share of outliers, in percent; 0 of no scores, NaN if a score or the threshold is not finite.
    ///
    /// ```
    /// use lacuna::allocate::Outliers;
    /// use ndarray::array;
    /// let mut outliers = Outliers::new(2.0);
    /// outliers.add(&array![[1., 1., 1., 1., 6.]]); // mean 2: one score above 4
    /// assert_eq!(outliers.percent(), 20.);
    /// ```
    pub fn percent(&self) -> f64 {
        let count: usize = self.scores.iter().map(Vec::len).sum();
        if count == 0 {
            return 0.0;
        }
        let mean = self.scores.iter().flatten().map(|&s| f64::from(s)).sum::<f64>() / count as f64;
        if !(self.threshold * mean).is_finite() {
            return f64::NAN;
        }
        let above = self.scores.iter().flatten().filter(|&&s| f64::from(s) > self.threshold * mean).count();
        100.0 * above as f64 / count as f64
    }
}

/// Densities from shares of outliers; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Owl {
    /// λ: densities spread over 2 λ.
    pub lambda: f64,
}

impl Default for Owl {
    /// λ = 0.08.
    fn default() -> Self {
        Owl { lambda: 0.08 }
    }
}

impl Owl {
    /// One budget a block, in weights, that sum to `total`: `outliers` are the shares of [`Outliers::percent`], `weights` the sizes of
    /// the blocks.
    ///
    /// ```
    /// use lacuna::allocate::Owl;
    /// use lacuna::mask::Budget;
    /// let parts = Owl { lambda: 0.1 }.shares(&[1., 3.], &[100, 100], Budget::new(100, 200)?)?;
    /// assert_eq!(parts.iter().map(|p| p.keep()).collect::<Vec<_>>(), [40, 60]);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no blocks, as many shares as sizes are not given, one is not finite, λ is not in [0, 0.5], or the total is not of
    /// these blocks.
    pub fn shares(&self, outliers: &[f64], weights: &[usize], total: Budget) -> Result<Vec<Budget>> {
        let of: usize = weights.iter().sum();
        if outliers.len() != weights.len() || of == 0 {
            return Err(Error::invalid_option(
                "owl",
                format!("{} shares of outliers for {} blocks", outliers.len(), weights.len()),
            ));
        }
        if total.of() != of {
            let reason = format!("the {} blocks have {of} weights together", weights.len());
            return Err(Error::Budget { keep: total.keep(), of: total.of(), reason });
        }
        if !(0.0..=0.5).contains(&self.lambda) {
            return Err(Error::invalid_option("lambda", format!("{} is not in [0, 0.5]; 0.08 is usual", self.lambda)));
        }
        if let Some(bad) = outliers.iter().find(|d| !d.is_finite()) {
            return Err(Error::invalid_option("owl", format!("a share of outliers is {bad}")));
        }
        let low = outliers.iter().copied().fold(f64::INFINITY, f64::min);
        let high = outliers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let spread = |d: f64| if high > low { 2.0 * self.lambda * (d - low) / (high - low) } else { 0.0 };
        let ideal = |c: f64| -> Vec<f64> {
            outliers.iter().zip(weights).map(|(&d, &n)| (spread(d) + c).clamp(0.0, 1.0) * n as f64).collect()
        };
        // The sum grows with c: bisection to the last bit that matters.
        let (mut below, mut above) = (-1.0, 1.0);
        for _ in 0..100 {
            let c = 0.5 * (below + above);
            if ideal(c).iter().sum::<f64>() < total.keep() as f64 { below = c } else { above = c }
        }
        let keep = apportion(total.keep(), &ideal(above), weights);
        keep.into_iter().zip(weights).map(|(k, &n)| Budget::new(k, n)).collect()
    }
}

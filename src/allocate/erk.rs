//! Erdős-Rényi shares: large layers are pruned more.
//!
//! ER: Mocanu et al. *Scalable training of artificial neural networks with adaptive sparse connectivity inspired by network
//! science.* Nature Communications 2018. ERK: Evci, Gale, Menick, Castro, Elsen. *Rigging the lottery.* ICML 2020,
//! arXiv:1911.11134, section 3.
//!
//! ```text
//! ER    density_l ∝ (in + out) / (in · out)
//! ERK   density_l ∝ (in + out + height + width) / (in · out · height · width)
//! ```
//!
//! with `in` and `out` in channels. One factor ε makes the densities sum to the budget; a layer whose density would pass 1 is
//! kept whole and ε is solved anew for the rest, until none passes. Cost: nothing to speak of.

use super::{Allocate, LayerView, apportion::apportion, budgets, check};
use crate::Result;
use crate::mask::Budget;
use serde::{Deserialize, Serialize};

/// Erdős-Rényi, kernels not counted; see the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Er;

/// Erdős-Rényi with kernels; see the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Erk;

impl Allocate for Er {
    fn name(&self) -> &str {
        "er"
    }

    fn needs_weights(&self) -> bool {
        false
    }

    fn allocate(&self, layers: &[LayerView<'_>], total: Budget) -> Result<Vec<Budget>> {
        by_density(layers, total, |out, inputs, _| (inputs + out) / (inputs * out))
    }
}

impl Allocate for Erk {
    fn name(&self) -> &str {
        "erk"
    }

    fn needs_weights(&self) -> bool {
        false
    }

    fn allocate(&self, layers: &[LayerView<'_>], total: Budget) -> Result<Vec<Budget>> {
        // A linear layer has no kernel: its term is that of ER.
        by_density(layers, total, |out, inputs, kernel| match kernel {
            None => (inputs + out) / (inputs * out),
            Some((h, w)) => (inputs + out + h + w) / (inputs * out * h * w),
        })
    }
}

/// Budgets with densities proportional to `raw(out, in, kernel)`, none above 1.
fn by_density(layers: &[LayerView<'_>], total: Budget, raw: impl Fn(f64, f64, Option<(f64, f64)>) -> f64) -> Result<Vec<Budget>> {
    check(layers, total)?;
    let raw: Vec<f64> = layers
        .iter()
        .map(|l| {
            let (h, w) = l.kernel.unwrap_or((1, 1));
            let channels = l.weight.ncols() as f64 / (h * w).max(1) as f64;
            // The formula divides by the size.
            if l.is_empty() { 0.0 } else { raw(l.weight.nrows() as f64, channels, l.kernel.map(|(h, w)| (h as f64, w as f64))) }
        })
        .collect();
    let sizes: Vec<usize> = layers.iter().map(LayerView::len).collect();
    let mut dense = vec![false; layers.len()];
    loop {
        let whole: usize = sizes.iter().zip(&dense).filter(|(_, d)| **d).map(|(n, _)| n).sum();
        let weight: f64 = (0..raw.len()).filter(|&i| !dense[i]).map(|i| raw[i] * sizes[i] as f64).sum();
        let epsilon = if weight > 0.0 { (total.keep() as f64 - whole as f64) / weight } else { 0.0 };
        let saturated: Vec<usize> = (0..raw.len()).filter(|&i| !dense[i] && epsilon * raw[i] > 1.0).collect();
        if saturated.is_empty() {
            let ideal = |i: usize| if dense[i] { sizes[i] as f64 } else { epsilon * raw[i] * sizes[i] as f64 };
            let ideal: Vec<f64> = (0..raw.len()).map(ideal).collect();
            return budgets(layers, apportion(total.keep(), &ideal, &sizes));
        }
        saturated.into_iter().for_each(|i| dense[i] = true);
    }
}

//! The same share of every layer.

use super::{Allocate, LayerView, apportion::apportion, budgets, check};
use crate::Result;
use crate::mask::Budget;
use serde::{Deserialize, Serialize};

/// The same share of every layer, as nearly as whole weights allow: shares are rounded by largest remainder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Uniform;

impl Allocate for Uniform {
    fn name(&self) -> &str {
        "uniform"
    }

    fn needs_weights(&self) -> bool {
        false
    }

    fn allocate(&self, layers: &[LayerView<'_>], total: Budget) -> Result<Vec<Budget>> {
        check(layers, total)?;
        let share = total.keep() as f64 / total.of() as f64;
        let sizes: Vec<usize> = layers.iter().map(LayerView::len).collect();
        let ideal: Vec<f64> = sizes.iter().map(|&n| n as f64 * share).collect();
        budgets(layers, apportion(total.keep(), &ideal, &sizes))
    }
}

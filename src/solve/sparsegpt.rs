//! SparseGPT: column by column, what is pruned is made up for by the columns to its right.
//!
//! Frantar, Alistarh. *SparseGPT: massive language models can be accurately pruned in one-shot.* ICML 2023, arXiv:2301.00774,
//! algorithm 1; the joint rounding of section 3.5; the order of columns by activations of the authors' GPTQ code.
//!
//! ```text
//! H = XᵀX + λ·mean(diag XᵀX)·I,   H⁻¹ = UᵀU,   U upper triangular
//! for each block B of columns, with F all later columns:
//!     drop the least  w_ij² / U_jj²,  i any row, j ∈ B          (N:M: within each group, as it is reached)
//!     for each column j of B:
//!         e_i = (w_ij − q_ij) / U_jj,   q = 0 if dropped, else w (or its value on the grid)
//!         w_i,j.. −= e_i · U_j,j..                              (within B now, for F once B is done: one product)
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | λ | [`SparseGpt::damping`] |
//! | \|B\| | [`SparseGpt::block`]; the last one is short where it does not divide the inputs |
//! | U_jj² | the entry j of the inverse of H restricted to the columns from j on: not the inverse of all H, which would be wrong |
//!
//! Departures from the authors' code. They compare with the score of rank `int(n · sparsity)` of a block, and so drop one too many
//! and all ties; here each block drops its exact share of the budget. Their dead inputs count as 1 in the mean of the diagonal,
//! which depends on the scale of the inputs; here they count as 0. H is factored in f64 and used in f32.
//!
//! Cost: `in³` multiplications for U, `out · in²` for the updates; `8 in²` bytes for H, `8 in²` for its
//! factor, `4 in²` for U; twice the first with columns by activation.

use super::Order;
use super::layer::{checked_weight, damped_diagonal, explain, finish};
use super::sweep::{Choice, Rounding, Sweep, by_activation};
use super::{Pruned, Pruner};
use crate::criteria::{Evidence, Need, Needs};
use crate::linalg::cholesky_of_inverse_f32;
use crate::mask::{Budget, Mask, Pattern, Scope};
use crate::quantize::AffineGrid;
use crate::{Error, Result};
use ndarray::{Array2, Axis};
use serde::{Deserialize, Serialize};

/// SparseGPT; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SparseGpt {
    /// λ: the fraction of the mean diagonal that is added to the diagonal.
    pub damping: f64,
    /// Columns whose mask is chosen together. Raised to a multiple of what a group or block of the pattern spans.
    pub block: usize,
    /// The order of the columns.
    pub order: Order,
    /// Round what stays to the values of a grid, found on the dense weight, and make up for the rounding too.
    pub grid: Option<AffineGrid>,
}

impl Default for SparseGpt {
    /// The authors' settings: 1 % damping, blocks of 128 columns as they stand, no grid.
    fn default() -> Self {
        SparseGpt { damping: 0.01, block: 128, order: Order::Natural, grid: None }
    }
}

impl Pruner for SparseGpt {
    fn name(&self) -> &str {
        "sparsegpt"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::Gram)
    }

    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned> {
        self.prune_with(self.name(), layer, Choice { pattern, scope, budget, activations: None })
    }
}

impl SparseGpt {
    /// The sweep under the name of `method`, with what is added to the scores; its inputs come in the weight's order.
    pub(super) fn prune_with(&self, method: &str, layer: &Evidence<'_>, mut choice: Choice) -> Result<Pruned> {
        let mut weight = checked_weight(layer, choice.pattern, choice.scope, choice.budget)?;
        let (rows, cols) = weight.dim();
        let span = self.span(choice.pattern, cols)?;
        let grids = self.grid.map(|g| g.fit(&weight)).transpose()?;
        let gram = layer.gram(method)?;
        let (diagonal, dead) = damped_diagonal(layer, gram, self.damping)?;
        for (mut column, _) in weight.columns_mut().into_iter().zip(&dead).filter(|(_, dead)| **dead) {
            column.fill(0.0);
        }
        let order = match self.order {
            Order::Natural => None,
            Order::Activation => Some(by_activation(&diagonal)),
            Order::GroupAware => {
                return Err(Error::invalid_option(
                    "order",
                    "group-aware is an order of columns whose grids have groups, as GPTQ's",
                ));
            }
        };
        let rounding = grids.map_or(Rounding::None, Rounding::Rows);
        if let (Some(activations), Some(order)) = (&mut choice.activations, &order) {
            activations.inputs = order.iter().map(|&c| activations.inputs[c]).collect();
        }
        let mut run = Sweep { span, choice: Some(choice), rounding };
        let (weight, mask) = match order {
            None => {
                let u = cholesky_of_inverse_f32(gram, &diagonal).map_err(|e| explain(e, layer, self.damping))?;
                run.run(weight, layer.mask, &u)?
            }
            Some(order) => {
                let matrix = gram.select(Axis(0), &order).select(Axis(1), &order);
                let diagonal: Vec<f64> = order.iter().map(|&c| diagonal[c]).collect();
                let u = cholesky_of_inverse_f32(&matrix, &diagonal).map_err(|e| explain(e, layer, self.damping))?;
                drop(matrix);
                let old = layer.mask.map(|m| Mask::from_fn(rows, cols, |r, c| m.get(r, order[c])));
                let weight = Array2::from_shape_fn((rows, cols), |(r, c)| weight[[r, order[c]]]);
                let (moved, kept) = run.run(weight, old.as_ref(), &u)?;
                let mut back = vec![0; cols];
                order.iter().enumerate().for_each(|(at, &c)| back[c] = at);
                (
                    Array2::from_shape_fn((rows, cols), |(r, c)| moved[[r, back[c]]]),
                    Mask::from_fn(rows, cols, |r, c| kept.get(r, back[c])),
                )
            }
        };
        finish(layer, mask, weight)
    }

    /// Columns of a block, whole groups of the pattern.
    fn span(&self, pattern: Pattern, cols: usize) -> Result<usize> {
        if self.block == 0 {
            return Err(Error::invalid_option("block", "0 columns have no mask to choose; 128 is usual"));
        }
        let group = match pattern {
            Pattern::Unstructured | Pattern::Cols => 1,
            Pattern::Nm { m, .. } => m,
            Pattern::Block { cols, .. } => cols,
            Pattern::Rows => {
                let reason = "sparsegpt moves weights along a row, and a row that goes whole leaves none; use columns or blocks";
                return Err(Error::invalid_option("pattern", reason));
            }
        };
        if self.order == Order::Activation && group > 1 {
            let reason = format!("by activation it would tear apart the groups of {group} columns of pattern {pattern}");
            return Err(Error::invalid_option("order", reason));
        }
        Ok((self.block / group).max(1).saturating_mul(group).min(cols))
    }
}

//! GPTQ: column by column, what rounding loses is made up for by the columns behind.
//!
//! Frantar, Ashkboos, Hoefler, Alistarh. *GPTQ: accurate post-training quantization for generative pre-trained transformers.* ICLR 2023,
//! arXiv:2210.17323, algorithm 1, and the authors' code. With pruning in the same loop: Frantar, Alistarh, *SparseGPT*, ICML 2023,
//! arXiv:2301.00774, section 3.5.
//!
//! ```text
//! H = XᵀX + λ·mean(diag XᵀX)·I,   H⁻¹ = UᵀU,   U upper triangular
//! for each column j:   e_i = (w_ij − q(w_ij)) / U_jj,   w_i,j.. −= e_i · U_j,j..
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | λ | [`Gptq::damping`] |
//! | q | the grid of w_ij's group, fitted as the sweep comes to the group's first column, to the weights as they were before its block; with [`Gptq::prune`] to the weights as they are by then, which pruning moves further than rounding; with [`Gptq::static_groups`] to the weights as they were given |
//!
//! A mask that is held: a dropped weight is 0, has the code of 0, and takes no part in a group's range; what was pushed into its place on the way is an error
//! like any other, which the columns behind it make up for. With [`Gptq::prune`] each block of columns is pruned as it is reached, by
//! w² / U_jj², and what stays is rounded.
//!
//! Departures from the authors' code: dead inputs count as 0 in the mean of the diagonal, not as 1 ([`SparseGpt`](crate::solve::SparseGpt)), and take part in no
//! range, where the authors have them in that of a whole row (not in that of a group); H is factored in f64; a symmetric grid spans −max |w| to max |w| of a
//! group whatever its signs; and with columns by activation, groups are those of the columns as they stand, so that steps must be found before (`static_groups`).
//!
//! Cost: as [`SparseGpt`](crate::solve::SparseGpt), and a byte a weight for the codes.

use super::super::Order;
use super::super::layer::{damped_diagonal, explain};
use super::super::sweep::{Choice, GroupRounding, Rounding, Sweep, by_activation, by_group};
use super::quantizer::{Quantizer, Rounded, checked, finish};
use crate::criteria::{Evidence, Need, Needs};
use crate::linalg::cholesky_of_inverse_f32;
use crate::mask::{Mask, Pattern, Scope};
use crate::quantize::{CodeGrid, Granularity, Step};
use crate::{Error, Result};
use ndarray::{Array2, Axis};

/// How much is pruned in the loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JointPruning {
    /// The shape that survivors take: single weights, N:M, blocks or columns.
    pub pattern: Pattern,
    /// Who competes with whom in a block of columns.
    pub scope: Scope,
    /// The fraction that goes.
    pub sparsity: f64,
}

/// GPTQ; see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gptq {
    /// λ: the fraction of the mean diagonal that is added to the diagonal.
    pub damping: f64,
    /// Columns that are visited before the others learn of it: the results differ in rounding, and where groups of a grid begin within a block.
    pub block: usize,
    /// The order of the columns.
    pub order: Order,
    /// Whether steps are those of the weights as they were given.
    pub static_groups: bool,
    /// Whether weights are pruned in the same loop.
    pub prune: Option<JointPruning>,
}

impl Default for Gptq {
    /// The authors' settings: 1 % damping, blocks of 128 columns as they stand, steps of the moved weights.
    fn default() -> Self {
        Gptq { damping: 0.01, block: 128, order: Order::Natural, static_groups: false, prune: None }
    }
}

impl Quantizer for Gptq {
    fn name(&self) -> &str {
        if self.prune.is_some() { "sparsegpt" } else { "gptq" }
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::Gram)
    }

    fn quantize(&self, layer: &Evidence<'_>, grid: CodeGrid) -> Result<Rounded> {
        let (mut weight, group) = checked(layer, grid)?;
        let (rows, cols) = weight.dim();
        let (span, choice) = self.choice(rows, cols).map_err(|e| e.in_layer(layer.layer))?;
        let gram = layer.gram(self.name())?;
        let (diagonal, dead) = damped_diagonal(layer, gram, self.damping)?;
        // A tensor's step, and one that is static, are of the weights as they were given; dead inputs take part in no range.
        for (mut column, _) in weight.columns_mut().into_iter().zip(&dead).filter(|(_, dead)| **dead) {
            column.fill(0.0);
        }
        let grouped = matches!(grid.granularity, Granularity::Group(_));
        let order = match self.order {
            Order::Natural => None,
            Order::GroupAware => Some(by_group(&diagonal, group)),
            Order::Activation if grouped && !self.static_groups => {
                let reason =
                    "by activation it scatters the columns of a group: give static groups with it, or the order group-aware";
                return Err(Error::invalid_option("order", reason));
            }
            Order::Activation => Some(by_activation(&diagonal)),
        };
        let fixed = self.static_groups || grid.granularity == Granularity::Tensor;
        let steps = if fixed {
            grid.fit_all(&weight)?
        } else {
            Array2::from_elem((rows, cols / group.max(1)), Step { scale: 1.0, zero: 0.0 })
        };
        let group_of = |c: usize| c / group.max(1);
        let group_of =
            order.as_ref().map_or_else(|| (0..cols).map(group_of).collect(), |o| o.iter().map(|&c| group_of(c)).collect());
        let rounding = GroupRounding { grid, group, group_of, fixed, steps, codes: Array2::zeros((rows, cols)) };
        let mut sweep = Sweep { span, choice, rounding: Rounding::Groups(Box::new(rounding)) };
        let u = |gram: &Array2<f64>, diagonal: &[f64]| {
            cholesky_of_inverse_f32(gram, diagonal).map_err(|e| explain(e, layer, self.damping))
        };
        let kept = match &order {
            None => sweep.run(weight, layer.mask, &u(gram, &diagonal)?)?.1,
            Some(order) => {
                let turned = gram.select(Axis(0), order).select(Axis(1), order);
                let diagonal: Vec<f64> = order.iter().map(|&c| diagonal[c]).collect();
                let u = u(&turned, &diagonal)?;
                drop(turned);
                let old = layer.mask.map(|m| Mask::from_fn(rows, cols, |r, c| m.get(r, order[c])));
                let weight = Array2::from_shape_fn((rows, cols), |(r, c)| weight[[r, order[c]]]);
                sweep.run(weight, old.as_ref(), &u)?.1
            }
        };
        let Rounding::Groups(found) = sweep.rounding else { unreachable!("these are grids of groups") };
        let GroupRounding { steps, codes, .. } = *found;
        let (codes, kept) = match &order {
            None => (codes, kept),
            Some(order) => {
                let mut back = vec![0; cols];
                order.iter().enumerate().for_each(|(at, &c)| back[c] = at);
                (
                    Array2::from_shape_fn((rows, cols), |(r, c)| codes[[r, back[c]]]),
                    Mask::from_fn(rows, cols, |r, c| kept.get(r, back[c])),
                )
            }
        };
        let mask = (layer.mask.is_some() || self.prune.is_some()).then_some(kept);
        finish(layer, grid, codes, &steps, mask)
    }
}

impl Gptq {
    /// Columns of a block, whole groups of the pattern, and how a block is pruned.
    fn choice(&self, rows: usize, cols: usize) -> Result<(usize, Option<Choice>)> {
        if self.block == 0 {
            return Err(Error::invalid_option("block-size", "0 is not at least 1; 128 is usual"));
        }
        let Some(JointPruning { pattern, scope, sparsity }) = self.prune else { return Ok((self.block.min(cols.max(1)), None)) };
        let group = match pattern {
            Pattern::Unstructured | Pattern::Cols => 1,
            Pattern::Nm { m, .. } => m,
            Pattern::Block { cols, .. } => cols,
            Pattern::Rows => {
                return Err(Error::invalid_option("pattern", "rows that go whole leave nothing to make up for them"));
            }
        };
        if self.order != Order::Natural && group > 1 {
            let reason = format!("another than the natural one tears apart the groups of {group} columns of pattern {pattern}");
            return Err(Error::invalid_option("order", reason));
        }
        pattern.check_scope(scope)?;
        let budget = pattern.budget(rows, cols, sparsity)?;
        let span = (self.block / group).max(1).saturating_mul(group).min(cols.max(1));
        Ok((span, Some(Choice { pattern, scope, budget, activations: None })))
    }
}

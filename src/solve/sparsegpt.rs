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

use super::layer::{checked_weight, damped_diagonal, explain, finish};
use super::scored::lower;
use super::{Pruned, Pruner};
use crate::criteria::{Evidence, Need, Needs};
use crate::linalg::{Threads, cholesky_of_inverse_f32, gemm};
use crate::mask::{Budget, Mask, Pattern, Scope, select};
use crate::quantize::{AffineGrid, Grids};
use crate::{Error, Result};
use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// In which order columns are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Order {
    /// As they stand.
    #[default]
    Natural,
    /// By falling diagonal of the Gram matrix (`actorder`), of equals the first: the inputs that matter most are visited first,
    /// while there are many left to make up for them. Only for patterns whose units are single weights without groups.
    Activation,
}

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
        let mut weight = checked_weight(layer, pattern, scope, budget)?;
        let (rows, cols) = weight.dim();
        let span = self.span(pattern, cols)?;
        let grids = self.grid.map(|g| g.fit(&weight)).transpose()?;
        let gram = layer.gram(self.name())?;
        let (diagonal, dead) = damped_diagonal(layer, gram, self.damping)?;
        for (mut column, _) in weight.columns_mut().into_iter().zip(&dead).filter(|(_, dead)| **dead) {
            column.fill(0.0);
        }
        let order = match self.order {
            Order::Natural => None,
            Order::Activation => Some(by_activation(&diagonal)),
        };
        let (weight, mask) = match order {
            None => {
                let u = cholesky_of_inverse_f32(gram, &diagonal).map_err(|e| explain(e, layer, self.damping))?;
                sweep(weight, layer.mask, &u, &Sweep { span, pattern, scope, budget, grids })?
            }
            Some(order) => {
                let matrix = gram.select(Axis(0), &order).select(Axis(1), &order);
                let diagonal: Vec<f64> = order.iter().map(|&c| diagonal[c]).collect();
                let u = cholesky_of_inverse_f32(&matrix, &diagonal).map_err(|e| explain(e, layer, self.damping))?;
                drop(matrix);
                let old = layer.mask.map(|m| Mask::from_fn(rows, cols, |r, c| m.get(r, order[c])));
                let weight = Array2::from_shape_fn((rows, cols), |(r, c)| weight[[r, order[c]]]);
                let (moved, kept) = sweep(weight, old.as_ref(), &u, &Sweep { span, pattern, scope, budget, grids })?;
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
}

impl SparseGpt {
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

/// The columns by falling diagonal, of equals the first.
fn by_activation(diagonal: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..diagonal.len()).collect();
    order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
    order
}

/// What does not change from block to block.
struct Sweep {
    span: usize,
    pattern: Pattern,
    scope: Scope,
    budget: Budget,
    grids: Option<Grids>,
}

impl Sweep {
    /// The budget of the columns `from..to` of a matrix: its exact share, so that the shares of all blocks sum to the whole.
    fn share(&self, (rows, cols): (usize, usize), from: usize, to: usize) -> Result<Budget> {
        let (_, all) = self.pattern.grid(rows, cols);
        let unit = self.pattern.unit(rows, cols).1;
        let kept =
            |until: usize| (self.budget.keep() as u128 * until.div_ceil(unit) as u128 * 2 + all as u128) / (2 * all as u128);
        Budget::new((kept(to) - kept(from)) as usize, self.pattern.units(rows, to - from)?)
    }
}

/// The moved weights, and what stays of them.
fn sweep(mut weight: Array2<f32>, old: Option<&Mask>, u: &Array2<f32>, sweep: &Sweep) -> Result<(Array2<f32>, Mask)> {
    let (rows, cols) = weight.dim();
    let mut mask = Mask::empty(rows, cols);
    let mut errors = Array2::<f32>::zeros((rows, sweep.span));
    for from in (0..cols).step_by(sweep.span) {
        let to = (from + sweep.span).min(cols);
        let triangle = u.slice(s![from..to, from..to]).as_standard_layout().into_owned();
        let before = old.map(|m| Mask::from_fn(rows, to - from, |r, c| m.get(r, from + c)));
        let group = if let Pattern::Nm { n, m } = sweep.pattern { Some((n, m)) } else { None };
        let mut kept = match group {
            Some(_) => Array2::from_elem((rows, to - from), false),
            None => {
                let mut scores = scores(weight.slice(s![.., from..to]), &triangle);
                if let Some(before) = &before {
                    lower(&mut scores, before, sweep.pattern);
                }
                select(&scores, sweep.pattern, sweep.scope, sweep.share((rows, cols), from, to)?)?.to_array()
            }
        };
        let mut errors = errors.slice_mut(s![.., ..to - from]);
        let work =
            weight.axis_iter_mut(Axis(0)).into_par_iter().zip(errors.axis_iter_mut(Axis(0))).zip(kept.axis_iter_mut(Axis(0)));
        work.enumerate().with_min_len(8).for_each(|(r, ((mut w, mut e), mut kept))| {
            let row = Row { from, group, before: before.as_ref().map(|b| (b, r)), grids: sweep.grids.as_ref().map(|g| (g, r)) };
            match (w.as_slice_mut(), kept.as_slice_mut()) {
                (Some(w), Some(kept)) => row.walk(&mut w[from..to], &mut e, kept, &triangle),
                _ => unreachable!("both were made row by row"),
            }
        });
        for ((r, c), _) in kept.indexed_iter().filter(|(_, k)| **k) {
            mask.set(r, from + c, true);
        }
        if to < cols {
            let mut rest = weight.slice_mut(s![.., to..]);
            gemm(-1.0, &errors, &u.slice(s![from..to, to..]), 1.0, &mut rest, Threads::Pool);
        }
    }
    Ok((weight, mask))
}

/// w² / U_jj² of one block of columns.
fn scores(weight: ArrayView2<'_, f32>, triangle: &Array2<f32>) -> Array2<f32> {
    let diagonal = triangle.diag();
    Array2::from_shape_fn(weight.dim(), |(r, c)| {
        let own = weight[[r, c]] / diagonal[c];
        own * own
    })
}

/// One row of one block.
struct Row<'a> {
    from: usize,
    group: Option<(usize, usize)>,
    before: Option<(&'a Mask, usize)>,
    grids: Option<(&'a Grids, usize)>,
}

impl Row<'_> {
    /// Visits the columns of `w`, the block's part of a row: decides the groups of an N:M pattern as they are reached, writes what
    /// was lost of each column to `errors`, and makes up for it in the columns that follow.
    fn walk(&self, w: &mut [f32], errors: &mut ndarray::ArrayRef1<f32>, kept: &mut [bool], triangle: &Array2<f32>) {
        let dropped_before = |c: usize| self.before.is_some_and(|(mask, r)| !mask.get(r, c));
        for c in 0..w.len() {
            if let Some((n, m)) = self.group
                && (self.from + c) % m == 0
            {
                let score = |j: usize| if dropped_before(j) { -1.0 } else { (w[j] / triangle[[j, j]]).powi(2) };
                let scores: Vec<f32> = (c..c + m).map(score).collect();
                for (i, &a) in scores.iter().enumerate() {
                    let ahead = scores.iter().enumerate().filter(|&(j, &b)| b > a || (b == a && j < i)).count();
                    kept[c + i] = ahead < n;
                }
            }
            kept[c] &= !dropped_before(c);
            let value = match (kept[c], self.grids) {
                (false, _) => 0.0,
                (true, None) => w[c],
                (true, Some((grids, r))) => grids.round(r, w[c]),
            };
            let error = (w[c] - value) / triangle[[c, c]];
            errors[c] = error;
            w[c] = value;
            if error != 0.0 {
                let later = triangle.row(c);
                let later = &later.as_slice().expect("the triangle is made row by row")[c + 1..];
                w[c + 1..].iter_mut().zip(later).for_each(|(w, u)| *w -= error * u);
            }
        }
    }
}

//! The sweep over columns that SparseGPT and GPTQ share: what a column loses, the columns behind it make up for.

use super::scored::lower;
use crate::Result;
use crate::linalg::{Threads, gemm};
use crate::mask::{Budget, Mask, Pattern, Scope, select};
use crate::quantize::{CodeGrid, Grids, Step};
use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// In which order columns are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// As they stand.
    #[default]
    #[serde(alias = "Natural")]
    Natural,
    /// By falling diagonal of the Gram matrix (`actorder`), of equals the first: the inputs that matter most are visited first,
    /// while there are many left to make up for them. Only for patterns whose units are single weights without groups.
    #[serde(alias = "Activation")]
    Activation,
    /// The same within each group of a grid, and groups by their largest entry: groups stay whole (GAR: Gafni, Karnieli, Hanani, *Dual
    /// precision quantization*, arXiv:2505.14638). Only for GPTQ.
    GroupAware,
}

/// The columns by falling diagonal, of equals the first.
pub(super) fn by_activation(diagonal: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..diagonal.len()).collect();
    order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
    order
}

/// [`Order::GroupAware`] of groups of so many columns.
pub(super) fn by_group(diagonal: &[f64], group: usize) -> Vec<usize> {
    let groups: Vec<Vec<usize>> = diagonal
        .chunks(group.max(1))
        .enumerate()
        .map(|(g, part)| by_activation(part).into_iter().map(|c| g * group + c).collect())
        .collect();
    let largest: Vec<f64> = groups.iter().map(|g: &Vec<usize>| diagonal[g[0]]).collect();
    by_activation(&largest).into_iter().flat_map(|g| groups[g].iter().copied()).collect()
}

/// How masks of blocks of columns are chosen.
pub(super) struct Choice {
    pub pattern: Pattern,
    pub scope: Scope,
    pub budget: Budget,
    /// What is added to the scores, if something is.
    pub activations: Option<Activations>,
}

/// λ₁ ‖y_i‖ |w_ij| ‖x_j‖ − λ₂ w_ij² ‖x_j‖²: what deviating activations add to the score of a weight.
pub(super) struct Activations {
    /// λ₁ ‖y_i‖ of each row.
    pub outputs: Vec<f32>,
    /// ‖x_j‖ of each column, in the order of the sweep.
    pub inputs: Vec<f32>,
    /// λ₂.
    pub second: f32,
}

impl Activations {
    fn of(&self, row: usize, column: usize, weight: f32) -> f32 {
        let moved = weight.abs() * self.inputs[column];
        self.outputs[row] * moved - self.second * moved * moved
    }
}

/// What stays is rounded to.
pub(super) enum Rounding {
    /// Nothing.
    None,
    /// One grid a row.
    Rows(Grids),
    /// Grids of groups, whose codes are kept.
    Groups(Box<GroupRounding>),
}

/// Codes of groups, as they come about.
pub(super) struct GroupRounding {
    pub grid: CodeGrid,
    /// Columns of a group.
    pub group: usize,
    /// Of each column, in the order of the sweep, the number of its group.
    pub group_of: Vec<usize>,
    /// Whether steps were found before; else they are found as their group is reached, on the weights as they were before its block, or, where weights are chosen
    /// on the way, as they are by then: what is made up for a dropped weight may lie far beyond the range that its group had.
    pub fixed: bool,
    /// `(out, groups)`, by the numbers of groups.
    pub steps: Array2<Step>,
    /// `(out, in)`, in the order of the sweep.
    pub codes: Array2<u8>,
}

/// What does not change from block to block, and what codes come about.
pub(super) struct Sweep {
    /// Columns of a block.
    pub span: usize,
    /// Who goes; what an older mask has left stays where nothing is chosen.
    pub choice: Option<Choice>,
    pub rounding: Rounding,
}

impl Choice {
    /// The budget of the columns `from..to` of a matrix: its exact share, so that the shares of all blocks sum to the whole.
    fn share(&self, (rows, cols): (usize, usize), from: usize, to: usize) -> Result<Budget> {
        let (_, all) = self.pattern.grid(rows, cols);
        let unit = self.pattern.unit(rows, cols).1;
        let kept =
            |until: usize| (self.budget.keep() as u128 * until.div_ceil(unit) as u128 * 2 + all as u128) / (2 * all as u128);
        Budget::new((kept(to) - kept(from)) as usize, self.pattern.units(rows, to - from)?)
    }
}

impl Sweep {
    /// The moved weights, and what stays of them; `u` is the upper factor of the inverse.
    pub fn run(&mut self, mut weight: Array2<f32>, old: Option<&Mask>, u: &Array2<f32>) -> Result<(Array2<f32>, Mask)> {
        let (rows, cols) = weight.dim();
        let mut mask = Mask::empty(rows, cols);
        let mut errors = Array2::<f32>::zeros((rows, self.span));
        for from in (0..cols).step_by(self.span.max(1)) {
            let to = (from + self.span).min(cols);
            let triangle = u.slice(s![from..to, from..to]).as_standard_layout().into_owned();
            let before = old.map(|m| Mask::from_fn(rows, to - from, |r, c| m.get(r, from + c)));
            let mut group = None;
            let mut kept = match &self.choice {
                None => Array2::from_elem((rows, to - from), true),
                Some(Choice { pattern: Pattern::Nm { n, m }, .. }) => {
                    group = Some((*n, *m));
                    Array2::from_elem((rows, to - from), false)
                }
                Some(choice) => {
                    let mut scores = scores(weight.slice(s![.., from..to]), &triangle);
                    if let Some(activations) = &choice.activations {
                        let part = weight.slice(s![.., from..to]);
                        scores.indexed_iter_mut().for_each(|((r, c), score)| *score += activations.of(r, from + c, part[[r, c]]));
                    }
                    if let Some(before) = &before {
                        lower(&mut scores, before, choice.pattern);
                    }
                    select(&scores, choice.pattern, choice.scope, choice.share((rows, cols), from, to)?)?.to_array()
                }
            };
            let mut errors = errors.slice_mut(s![.., ..to - from]);
            let activations = self.choice.as_ref().and_then(|choice| choice.activations.as_ref());
            let parts = Parts { from, to, group, before: before.as_ref(), triangle: &triangle, activations };
            let work = weight.axis_iter_mut(Axis(0)).into_par_iter().zip(errors.axis_iter_mut(Axis(0)));
            let work = work.zip(kept.axis_iter_mut(Axis(0))).enumerate();
            let chooses = self.choice.is_some();
            match &mut self.rounding {
                Rounding::Groups(groups) => {
                    let GroupRounding { grid, group, group_of, fixed, steps, codes } = groups.as_mut();
                    let (grid, group, fixed, group_of) = (*grid, *group, *fixed, &group_of[..]);
                    let coded = steps.axis_iter_mut(Axis(0)).into_par_iter().zip(codes.axis_iter_mut(Axis(0)));
                    work.zip(coded).with_min_len(8).for_each(|((r, ((mut w, mut e), mut kept)), (mut steps, mut codes))| {
                        let (Some(w), Some(kept)) = (w.as_slice_mut(), kept.as_slice_mut()) else {
                            unreachable!("made row by row")
                        };
                        if !fixed && !chooses {
                            let first = from.next_multiple_of(group.max(1));
                            for start in (first..to).step_by(group.max(1)) {
                                let stays = |c: &usize| old.is_none_or(|m| m.get(r, *c));
                                let of = (start..start + group).filter(stays).map(|c| w[c]);
                                steps[group_of[start]] = grid.fit(of);
                            }
                        }
                        let (w, behind) = w.split_at_mut(to);
                        parts.walk(r, &mut w[from..], &mut e, kept, &mut |c, ahead, stays| {
                            let at = from + c;
                            if !fixed && chooses && at.is_multiple_of(group.max(1)) {
                                let of = (at..at + group).filter(|c| old.is_none_or(|m| m.get(r, *c)));
                                steps[group_of[at]] = grid.fit(of.map(|c| if c < to { ahead[c - at] } else { behind[c - to] }));
                            }
                            if !stays {
                                return 0.0;
                            }
                            let step = steps[group_of[at]];
                            codes[at] = grid.code(step, ahead[0]);
                            step.value(codes[at])
                        });
                    });
                }
                rounding => {
                    let grids = if let Rounding::Rows(grids) = rounding { Some(&*grids) } else { None };
                    work.with_min_len(8).for_each(|(r, ((mut w, mut e), mut kept))| {
                        let (Some(w), Some(kept)) = (w.as_slice_mut(), kept.as_slice_mut()) else {
                            unreachable!("made row by row")
                        };
                        parts.walk(r, &mut w[from..to], &mut e, kept, &mut |_, ahead, stays| match (stays, grids) {
                            (false, _) => 0.0,
                            (true, None) => ahead[0],
                            (true, Some(grids)) => grids.round(r, ahead[0]),
                        });
                    });
                }
            }
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
}

/// w² / U_jj² of one block of columns.
fn scores(weight: ArrayView2<'_, f32>, triangle: &Array2<f32>) -> Array2<f32> {
    let diagonal = triangle.diag();
    Array2::from_shape_fn(weight.dim(), |(r, c)| {
        let own = weight[[r, c]] / diagonal[c];
        own * own
    })
}

/// What all rows of one block share.
struct Parts<'a> {
    from: usize,
    to: usize,
    group: Option<(usize, usize)>,
    /// The older mask's part of the block.
    before: Option<&'a Mask>,
    triangle: &'a Array2<f32>,
    activations: Option<&'a Activations>,
}

impl Parts<'_> {
    /// Visits the columns of `w`, the block's part of row `r`: decides the groups of an N:M pattern as they are reached, asks `meet` what each column becomes, given
    /// the row from it on and whether it stays, writes what was lost of each column to `errors`, and makes up for it in the columns that follow.
    fn walk(
        &self,
        r: usize,
        w: &mut [f32],
        errors: &mut ndarray::ArrayRef1<f32>,
        kept: &mut [bool],
        meet: &mut impl FnMut(usize, &[f32], bool) -> f32,
    ) {
        let triangle = self.triangle;
        debug_assert_eq!(w.len(), self.to - self.from);
        let dropped_before = |c: usize| self.before.is_some_and(|mask| !mask.get(r, c));
        for c in 0..w.len() {
            if let Some((n, m)) = self.group
                && (self.from + c) % m == 0
            {
                let added = |j: usize| self.activations.map_or(0.0, |a| a.of(r, self.from + j, w[j]));
                let score = |j: usize| match dropped_before(j) {
                    true => f32::NEG_INFINITY,
                    false => (w[j] / triangle[[j, j]]).powi(2) + added(j),
                };
                let scores: Vec<f32> = (c..c + m).map(score).collect();
                for (i, &a) in scores.iter().enumerate() {
                    let ahead = scores.iter().enumerate().filter(|&(j, &b)| b > a || (b == a && j < i)).count();
                    kept[c + i] = ahead < n;
                }
            }
            kept[c] &= !dropped_before(c);
            let value = meet(c, &w[c..], kept[c]);
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

//! Optimal Brain Surgeon for groups of inputs: whole heads, or single features, leave a layer, and the rest takes over what they did.
//!
//! Meng, Ibrahim, Behdin, Hazimeh, Ponomareva, Mazumder. *OSSCAR: one-shot structured pruning in vision and language models with combinatorial
//! optimization.* ICML 2024, arXiv:2403.12983. The same step in Kurtic, Frantar, Alistarh, *ZipLM*, NeurIPS 2023, arXiv:2302.04089, and Ling et al.,
//! *SlimGPT*, NeurIPS 2024, arXiv:2412.18110.
//!
//! ```text
//! H = XᵀX + λ·mean(diag XᵀX)·I,  W (out, in),  S the columns that stay, g a group of columns
//!     loss(S) = min over V with columns in S of tr((V − W) H (V − W)ᵀ)
//!     leaving   loss(S \ g) − loss(S) = tr(V_g [(H_SS)⁻¹_gg]⁻¹ V_gᵀ)
//!     entering  loss(S) − loss(S ∪ g) = tr(R_g [H_gg − H_gS (H_SS)⁻¹ H_Sg]⁻¹ R_gᵀ),  R = (W − V) H
//! ```
//!
//! Groups leave in rounds, the cheapest first, each round on what the one before left. Then groups that stay are exchanged for groups that went as long
//! as the loss falls, first many at a time. At the end V is the exact least squares solution on S.
//!
//! Both cases are one: a table T `(in, in)` holds (H_SS)⁻¹ where both its row and its column are in S and the Schur complement where both are not,
//! beside it a table of V and R; a step of Gauss and Jordan on T_gg moves g from one side to the other, and the change of the loss is
//! tr(row_gᵀ T_gg⁻¹ row_g) either way.
//!
//! Departures. The authors' code takes a fixed number of columns a round (here: a fixed number of rounds) and exchanges by scores that are not those of
//! the sets after a step; here an exchange that does not lessen the loss is undone.
//!
//! Cost: `in³ / 3` for the inverse; `2 in · (in + out)` for a column that leaves or enters; `|S|³ / 3` at the end. Memory: `8 in · (2 in + out)` bytes.

use super::layer::{damped, explain, squared_error};
use crate::criteria::Evidence;
use crate::linalg::{solve_spd, spd_inverse};
use crate::mask::check_finite;
use crate::{Error, Result};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Group OBS with exchanges; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GroupObs {
    /// λ: the fraction of the mean diagonal that is added to the diagonal.
    pub damping: f64,
    /// Rounds in which groups leave; at least 1.
    pub rounds: usize,
    /// The most groups that are exchanged afterwards; 0 for none.
    pub swaps: usize,
}

impl Default for GroupObs {
    /// 1 % damping, 32 rounds, 256 exchanges.
    fn default() -> Self {
        GroupObs { damping: 0.01, rounds: 32, swaps: 256 }
    }
}

/// Groups that leave: of every run of `run` groups of `width` columns each, `keep` stay. Runs that lost all their columns before are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// Columns of a group.
    pub width: usize,
    /// Groups of a run.
    pub run: usize,
    /// Groups of a run that stay, at least 1.
    pub keep: usize,
}

/// What is left of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupsLeft {
    /// The columns that stay, ascending.
    pub columns: Vec<usize>,
    /// Their weights, `(out, columns)`.
    pub weight: Array2<f32>,
    /// ‖X (V − W)ᵀ‖², summed over tokens and outputs, without damping.
    pub loss: f64,
    /// The damped loss after each round and after the exchanges, as the steps give it; by the metric, where there is one.
    pub steps: Vec<f64>,
    /// Groups that were exchanged.
    pub swapped: usize,
    /// Of each removal the score of each group: of one that went the damped loss when it had gone alone from what the round before left, of one that stays
    /// that of leaving next, so that those that stay have the largest. 0 of runs that lost all their columns before.
    pub scores: Vec<Vec<f64>>,
}

impl GroupObs {
    /// Removes groups of inputs from a layer, one [`Removal`] after another.
    ///
    /// ```
    /// use lacuna::criteria::{Evidence, Measured};
    /// use lacuna::solve::{GroupObs, Removal};
    /// use ndarray::array;
    /// let measured = Measured { tokens: 9, gram: Some(array![[2., 1.], [1., 2.]]), ..Measured::default() };
    /// let w = array![[1., 4.]];
    /// let layer = Evidence { measured: &measured, ..Evidence::weight_only("down", &w) };
    /// let left = GroupObs { damping: 0., ..GroupObs::default() }.remove(&layer, &[Removal { width: 1, run: 2, keep: 1 }])?;
    /// // H⁻¹ = [[2, -1], [-1, 2]] / 3: without the first, 1 / (2/3), and the second becomes 4 + 1/2.
    /// assert_eq!((left.columns, left.weight), (vec![1], array![[4.5]]));
    /// assert!((left.loss - 1.5).abs() < 1e-12);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// If a removal's runs do not make up the layer's columns, or would keep none of a run or more than there are; if the Gram matrix was not measured,
    /// or is not positive definite with this damping; if a number is not finite.
    pub fn remove(&self, layer: &Evidence<'_>, removals: &[Removal]) -> Result<GroupsLeft> {
        self.remove_by(layer, removals, None)
    }

    /// As [`GroupObs::remove`], with the groups chosen by the loss tr(A (V − W) H (V − W)ᵀ), A = L Lᵀ with L `(out, any)`. The weights that are the
    /// least squares solution on what stays are the same for any A. With A the second moments of gradients of the model's loss at the layer's outputs
    /// this is the loss by the layer's Kronecker-factored Fisher matrix (Martens and Grosse, ICML 2015, arXiv:1503.05671), twice what it rises by.
    ///
    /// # Errors
    /// As [`GroupObs::remove`]; if L has not as many rows as the layer has outputs.
    pub fn remove_by(&self, layer: &Evidence<'_>, removals: &[Removal], metric: Option<&Array2<f64>>) -> Result<GroupsLeft> {
        let (out, cols) = layer.weight.dim();
        check_finite(&layer.weight, "weights")?;
        if let Some(metric) = metric.filter(|m| m.nrows() != out) {
            return Err(
                Error::shape("factor of the outputs' metric", &[out, metric.ncols()], metric.shape()).in_layer(layer.layer)
            );
        }
        if self.rounds == 0 {
            return Err(Error::invalid_option("rounds", "0: groups leave in at least one"));
        }
        for Removal { width, run, keep } in removals {
            if *width == 0 || *run == 0 || cols % (width * run) != 0 || *keep == 0 || keep > run {
                let reason = format!("{keep} of runs of {run} groups of {width} columns, of {cols} columns");
                return Err(Error::invalid_option("groups", reason).in_layer(layer.layer));
            }
        }
        let gram = damped("group OBS", layer, self.damping)?;
        let inverse = spd_inverse(&gram.matrix).map_err(|e| explain(e, layer, self.damping))?;
        let mut rows = layer.weight.t().mapv(f64::from).as_standard_layout().into_owned();
        gram.dead.iter().enumerate().filter(|(_, dead)| **dead).for_each(|(c, _)| rows.row_mut(c).fill(0.0));
        let right = gram.matrix.dot(&rows);
        let seen = metric.map_or_else(|| rows.clone(), |metric| rows.dot(metric));
        let mut table = Table { inside: vec![true; cols], t: inverse, rows: seen };
        let (mut loss, mut steps, mut swapped, mut scores) = (0.0, Vec::new(), 0, Vec::new());
        for removal in removals {
            let groups = Groups::of(removal, &table);
            let mut left = vec![0.0; cols / removal.width];
            groups.leave(self.rounds, &mut table, &mut loss, (&mut steps, &mut left))?;
            swapped += groups.exchange(self.swaps, &mut table, &mut loss)?;
            steps.push(loss);
            groups.settle(&table, loss, &mut left)?;
            scores.push(left);
        }
        let columns: Vec<usize> = (0..cols).filter(|&c| table.inside[c]).collect();
        drop(table);
        let weight = self.exact(layer, &gram.matrix, &right, &columns)?;
        let loss = loss_of(layer, &columns, weight.view())?;
        Ok(GroupsLeft { columns, weight, loss, steps, swapped, scores })
    }

    /// The weights `(out, columns)` of these columns, ascending, that make up best for the others: those that [`GroupObs::remove`] gives where it leaves
    /// the same.
    ///
    /// # Errors
    /// As [`GroupObs::remove`].
    pub fn refit(&self, layer: &Evidence<'_>, columns: &[usize]) -> Result<Array2<f32>> {
        check_finite(&layer.weight, "weights")?;
        let gram = damped("group OBS", layer, self.damping)?;
        let mut rows = layer.weight.t().mapv(f64::from).as_standard_layout().into_owned();
        gram.dead.iter().enumerate().filter(|(_, dead)| **dead).for_each(|(c, _)| rows.row_mut(c).fill(0.0));
        let right = gram.matrix.dot(&rows);
        self.exact(layer, &gram.matrix, &right, columns)
    }

    /// The least squares solution on some columns; `right` is H Wᵀ.
    fn exact(&self, layer: &Evidence<'_>, gram: &Array2<f64>, right: &Array2<f64>, columns: &[usize]) -> Result<Array2<f32>> {
        let part = gram.select(Axis(0), columns).select(Axis(1), columns);
        let exact = solve_spd(&part, &right.select(Axis(0), columns)).map_err(|e| explain(e, layer, self.damping))?;
        let weight = exact.t().mapv(|v| v as f32).as_standard_layout().into_owned();
        check_finite(&weight, "weights after pruning").map_err(|e| e.in_layer(layer.layer))?;
        Ok(weight)
    }
}

/// ‖X (V − W)ᵀ‖² for a layer of which these columns stay with the weights V `(out, columns)`.
///
/// # Errors
/// If the Gram matrix was not measured.
///
/// # Panics
/// If there is not one column of weights a column.
pub fn loss_of(layer: &Evidence<'_>, columns: &[usize], weight: ArrayView2<'_, f32>) -> Result<f64> {
    assert_eq!(weight.ncols(), columns.len(), "columns of weights");
    let mut whole = Array2::zeros(layer.weight.dim());
    columns.iter().zip(weight.columns()).for_each(|(&c, w)| whole.column_mut(c).assign(&w));
    Ok(squared_error(&whole, &layer.weight, layer.gram("the loss of what stays")?))
}

/// T, and V and R; see the module.
struct Table {
    inside: Vec<bool>,
    t: Array2<f64>,
    /// `(in, out)`
    rows: Array2<f64>,
}

/// Rows of a table of a parallel task.
const ROWS: usize = 64;

impl Table {
    /// By how much the loss changes if these columns, all of which are inside or all outside, change sides.
    fn value(&self, columns: &[usize]) -> Result<f64> {
        if let [c] = columns {
            return Ok(self.rows.row(*c).fold(0.0, |sum, v| sum + v * v) / self.t[[*c, *c]]);
        }
        let rows = self.rows.select(Axis(0), columns);
        let part = self.t.select(Axis(0), columns).select(Axis(1), columns);
        Ok((solve_spd(&part, &rows)? * &rows).sum())
    }

    /// Moves columns to the other side; by how much the loss changes.
    fn pivot(&mut self, columns: &[usize]) -> Result<f64> {
        let part = self.t.select(Axis(0), columns).select(Axis(1), columns);
        let k = spd_inverse(&part)?;
        let left = self.t.select(Axis(1), columns);
        let across = k.dot(&self.t.select(Axis(0), columns));
        let rows = self.rows.select(Axis(0), columns);
        let turned = k.dot(&rows);
        let value = (&rows * &turned).sum();
        let chunks = self.t.axis_chunks_iter_mut(Axis(0), ROWS).into_par_iter();
        let chunks = chunks.zip(self.rows.axis_chunks_iter_mut(Axis(0), ROWS)).zip(left.axis_chunks_iter(Axis(0), ROWS));
        chunks.for_each(|((mut t, mut rows), left)| {
            general_mat_mul(-1.0, &left, &across, 1.0, &mut t);
            general_mat_mul(-1.0, &left, &turned, 1.0, &mut rows);
        });
        let back = left.dot(&k);
        for (i, &c) in columns.iter().enumerate() {
            self.t.column_mut(c).assign(&back.column(i).mapv(|v| -v));
            self.inside[c] = !self.inside[c];
        }
        for (i, &c) in columns.iter().enumerate() {
            self.t.row_mut(c).assign(&across.row(i));
            self.rows.row_mut(c).assign(&turned.row(i));
        }
        for (i, &c) in columns.iter().enumerate() {
            columns.iter().enumerate().for_each(|(j, &d)| self.t[[c, d]] = k[[i, j]]);
        }
        Ok(value)
    }
}

/// The groups of a removal that may leave.
struct Groups {
    width: usize,
    run: usize,
    keep: usize,
    /// Numbers of groups, of the runs of which something was left.
    all: Vec<usize>,
}

impl Groups {
    fn of(removal: &Removal, table: &Table) -> Groups {
        let Removal { width, run, keep } = *removal;
        let whole = width * run;
        let runs = (0..table.inside.len() / whole).filter(|r| table.inside[r * whole..(r + 1) * whole].iter().any(|i| *i));
        Groups { width, run, keep, all: runs.flat_map(|r| r * run..(r + 1) * run).collect() }
    }

    fn columns(&self, groups: &[usize]) -> Vec<usize> {
        groups.iter().flat_map(|g| g * self.width..(g + 1) * self.width).collect()
    }

    fn is_inside(&self, group: usize, table: &Table) -> bool {
        table.inside[group * self.width]
    }

    /// The groups on one side with what a change of sides would do to the loss, the least first.
    fn ranked(&self, inside: bool, table: &Table) -> Result<Vec<(usize, f64)>> {
        let mine: Vec<usize> = self.all.iter().copied().filter(|&g| self.is_inside(g, table) == inside).collect();
        let value = |g: usize| Ok((g, table.value(&self.columns(&[g]))?));
        let mut ranked = mine.into_par_iter().map(value).collect::<Result<Vec<_>>>()?;
        ranked.sort_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        Ok(ranked)
    }

    /// The first `count` of ranked groups, at most so many of each run.
    fn first(&self, ranked: &[(usize, f64)], count: usize, most: impl Fn(usize) -> usize) -> Vec<usize> {
        let mut taken = std::collections::BTreeMap::new();
        let fits = |(group, _): &&(usize, f64)| {
            let run = group / self.run;
            let taken = taken.entry(run).or_insert(0);
            *taken += 1;
            *taken <= most(run)
        };
        ranked.iter().filter(fits).take(count).map(|(group, _)| *group).collect()
    }

    /// Groups leave in rounds, until `keep` of each run are left; each that leaves is given its score.
    fn leave(
        &self,
        rounds: usize,
        table: &mut Table,
        loss: &mut f64,
        (steps, scores): (&mut Vec<f64>, &mut [f64]),
    ) -> Result<()> {
        let goes = self.all.len() / self.run * (self.run - self.keep);
        let count = goes.div_ceil(rounds).max(1);
        let mut left = goes;
        while left > 0 {
            let ranked = self.ranked(true, table)?;
            let spare = |run: usize| ranked.iter().filter(|(g, _)| g / self.run == run).count().saturating_sub(self.keep);
            let out = self.first(&ranked, count.min(left), spare);
            assert!(!out.is_empty(), "a run has more than it keeps as long as some must go");
            left -= out.len();
            ranked.iter().filter(|(g, _)| out.contains(g)).for_each(|(g, value)| scores[*g] = *loss + value);
            *loss += table.pivot(&self.columns(&out))?;
            steps.push(*loss);
        }
        Ok(())
    }

    /// Gives those that stay their scores, and puts those that went below them.
    fn settle(&self, table: &Table, loss: f64, scores: &mut [f64]) -> Result<()> {
        for (group, value) in self.ranked(true, table)? {
            scores[group] = loss + value.max(0.0);
        }
        let below = loss.next_down();
        self.all.iter().filter(|&&g| !self.is_inside(g, table)).for_each(|&g| scores[g] = scores[g].min(below));
        Ok(())
    }

    /// Exchanges groups while the loss falls; how many.
    fn exchange(&self, most: usize, table: &mut Table, loss: &mut f64) -> Result<usize> {
        let outside = self.all.iter().filter(|&&g| !self.is_inside(g, table)).count();
        let (mut swapped, mut count) = (0, (outside / 16).clamp(1, 64));
        while outside > 0 && swapped < most {
            let mut candidates = self.ranked(false, table)?;
            candidates.reverse();
            let tries = if count == 1 { candidates.len().min(SINGLE) } else { 1 };
            let mut better = false;
            for first in 0..tries {
                let enters = self.first(&candidates[first..], count.min(most - swapped), |_| usize::MAX);
                let gain = table.pivot(&self.columns(&enters))?;
                let leaves = self.cheapest(&enters, table)?;
                let cost = table.pivot(&self.columns(&leaves))?;
                if gain - cost > 1e-9 * (*loss + gain) {
                    *loss += cost - gain;
                    swapped += enters.iter().filter(|g| !leaves.contains(g)).count();
                    better = true;
                    break;
                }
                // Those in both changed sides twice.
                let (back, out): (Vec<usize>, Vec<usize>) =
                    (leaves.iter().copied().filter(|g| !enters.contains(g)).collect(), enters);
                let out: Vec<usize> = out.into_iter().filter(|&g| self.is_inside(g, table)).collect();
                if !back.is_empty() {
                    table.pivot(&self.columns(&back))?;
                    table.pivot(&self.columns(&out))?;
                }
            }
            if !better && count == 1 {
                break;
            }
            if !better {
                count /= 2;
            }
        }
        Ok(swapped)
    }

    /// The cheapest groups inside, as many of each run as have entered it.
    fn cheapest(&self, entered: &[usize], table: &Table) -> Result<Vec<usize>> {
        let ranked = self.ranked(true, table)?;
        Ok(self.first(&ranked, entered.len(), |run| entered.iter().filter(|g| *g / self.run == run).count()))
    }
}

/// Groups that are tried one by one before the exchanges end.
const SINGLE: usize = 12;

#[cfg(test)]
mod tests {
    use super::Table;
    use ndarray::{Array2, array};

    #[test]
    fn what_changes_sides_twice_is_as_it_was() {
        let h = array![[4., 1., 0.5], [1., 3., 0.2], [0.5, 0.2, 2.]];
        let w = Array2::from_shape_fn((3, 2), |(r, c)| (r + 2 * c) as f64 - 1.5);
        let t = crate::linalg::spd_inverse(&h).unwrap();
        let mut table = Table { inside: vec![true; 3], t: t.clone(), rows: w.clone() };
        let cost = table.pivot(&[0, 2]).unwrap();
        assert!((table.value(&[0, 2]).unwrap() - cost).abs() < 1e-12);
        assert_eq!(table.inside, [false, true, false]);
        // The Schur complement of what is outside, by hand.
        assert!((table.t[[0, 2]] - (0.5 - 1. * 0.2 / 3.)).abs() < 1e-12);
        let gain = table.pivot(&[0, 2]).unwrap();
        assert!((gain - cost).abs() < 1e-12);
        assert!((&table.t - &t).iter().chain((&table.rows - &w).iter()).all(|d| d.abs() < 1e-12));
    }
}

//! ExactOBS: weights go one at a time, and after each the rest is the least squares solution.
//!
//! Frantar, Singh, Alistarh. *Optimal brain compression: a framework for accurate post-training quantization and pruning.*
//! NeurIPS 2022, arXiv:2208.11580, algorithm 1, section 4 and lemma 1; groups of weights by their section A.2 (block OBS).
//!
//! ```text
//! each row w for itself, H = XᵀX + λ·mean(diag XᵀX)·I:
//!     q = argmin  w_q² / [H⁻¹]_qq                     the increase of (ŵ − w) H (ŵ − w)ᵀ
//!     w ← w − w_q / [H⁻¹]_qq · H⁻¹_{:,q}              the least squares solution without q
//!     H⁻¹ ← H⁻¹ − H⁻¹_{:,q} H⁻¹_{q,:} / [H⁻¹]_qq      the inverse of H without row and column q
//! over the layer: all rows' steps, cheapest first
//! ```
//!
//! H⁻¹ is the same for all rows at the start and is not copied. What a row has taken from it is a pivoted Cholesky factor of H⁻¹: of
//! each step only a vector over the weights still there is kept, and a column of the current inverse is made when it is needed.
//! That is a sixth of the work of updating the inverse, and none of its memory traffic.
//!
//! A block of several rows is chosen for all of them: the sum of their increases. A block of several columns goes whole, by the
//! exact increase w_B [(H⁻¹)_BB]⁻¹ w_Bᵀ.
//!
//! Departures. Over the layer a step ranks by the largest increase up to it, so that steps stay in order where a later one is cheaper
//! (the authors sort the increases and take as many steps as come out). Where H is singular the authors add 1 to its diagonal; here
//! that is an error.
//!
//! Cost: `in³ / 6` multiplications for a whole row, `in³ / 12` for half of it; `4 in²` bytes a thread.

use super::greedy::{Greedy, Groups};
use super::layer::{checked_weight, damped, explain, finish};
use super::reconstruct::exact_row;
use super::{Pruned, Pruner};
use crate::criteria::{Evidence, Need, Needs};
use crate::linalg::spd_inverse;
use crate::mask::{Budget, Mask, Pattern, Scope};
use crate::{Error, Result};
use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// ExactOBS, or Optimal Brain Compression; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ExactObs {
    /// λ: the fraction of the mean diagonal that is added to the diagonal.
    pub damping: f64,
}

impl Default for ExactObs {
    /// 1 % damping.
    fn default() -> Self {
        ExactObs { damping: 0.01 }
    }
}

/// Units in the order in which they went, each with its increase of the loss.
type Steps = Vec<(usize, f64)>;

/// What removing weights from one row one after another cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The columns in the order in which they went.
    pub removed: Vec<usize>,
    /// By how much each step raised (ŵ − w) H (ŵ − w)ᵀ.
    pub losses: Vec<f64>,
    /// The row `(in)` after each step.
    pub weights: Vec<Vec<f64>>,
}

impl ExactObs {
    /// The first `steps` removals from one row of a layer, one weight each.
    ///
    /// ```
    /// use lacuna::criteria::{Evidence, Measured};
    /// use lacuna::solve::ExactObs;
    /// use ndarray::array;
    /// let measured = Measured { tokens: 9, gram: Some(array![[2., 1.], [1., 2.]]), ..Measured::default() };
    /// let w = array![[1., 4.]];
    /// let layer = Evidence { measured: &measured, ..Evidence::weight_only("fc1", &w) };
    /// let trace = ExactObs { damping: 0. }.trace(&layer, 0, 1)?;
    /// // H⁻¹ = [[2, -1], [-1, 2]] / 3: without the first, 1 / (2/3), and the second becomes 4 + 1/2.
    /// assert_eq!(trace.removed, [0]);
    /// assert!((trace.losses[0] - 1.5).abs() < 1e-12 && (trace.weights[0][1] - 4.5).abs() < 1e-12);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Pruner::prune`].
    ///
    /// # Panics
    /// If there is no such row or it has fewer weights.
    pub fn trace(&self, layer: &Evidence<'_>, row: usize, steps: usize) -> Result<Trace> {
        let (rows, cols) = layer.weight.dim();
        assert!(row < rows && steps <= cols, "row {row} and {steps} steps of {rows} x {cols}");
        let mut weight = checked_weight(layer, Pattern::Unstructured, Scope::Row, Budget::all(rows * cols))?;
        let (inverse, _) = self.inverse(layer, &mut weight)?;
        let mut greedy = Greedy::new(&weight.slice(s![row..=row, ..]), &inverse, Groups { unit: 1, nm: None });
        let mut trace = Trace { removed: vec![], losses: vec![], weights: vec![] };
        for _ in 0..steps {
            let (unit, loss) = greedy.step().ok_or_else(|| broken(layer))?;
            trace.removed.push(unit);
            trace.losses.push(loss);
            trace.weights.push(greedy.weights().row(0).to_vec());
        }
        Ok(trace)
    }

    /// H⁻¹ and H, and the weights of dead inputs set to 0.
    fn inverse(&self, layer: &Evidence<'_>, weight: &mut Array2<f32>) -> Result<(Array2<f64>, Array2<f64>)> {
        let gram = damped(self.name(), layer, self.damping)?;
        for (mut column, _) in weight.columns_mut().into_iter().zip(&gram.dead).filter(|(_, dead)| **dead) {
            column.fill(0.0);
        }
        Ok((spd_inverse(&gram.matrix).map_err(|e| explain(e, layer, self.damping))?, gram.matrix))
    }
}

fn broken(layer: &Evidence<'_>) -> Error {
    let reason = "rounding has made an entry of the inverse negative, or an increase of the loss is too large for a number; raise the damping";
    Error::Numerical { what: "obc".into(), reason: reason.into() }.in_layer(layer.layer)
}

impl Pruner for ExactObs {
    fn name(&self) -> &str {
        "obc"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::Gram)
    }

    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned> {
        let mut weight = checked_weight(layer, pattern, scope, budget)?;
        let (rows, cols) = weight.dim();
        let (height, width) = pattern.unit(rows, cols);
        if pattern == Pattern::Rows {
            let reason = "obc makes up for a weight within its row, and a row that goes whole leaves none; use columns or blocks";
            return Err(Error::invalid_option("pattern", reason));
        }
        if cols % width != 0 {
            let reason = format!("obc takes whole blocks only, and {width} does not divide the {cols} inputs");
            return Err(Error::Pattern { pattern: pattern.to_string(), rows, cols, reason });
        }
        let (inverse, gram) = self.inverse(layer, &mut weight)?;
        let groups = Groups { unit: width, nm: if let Pattern::Nm { n, m } = pattern { Some((n, m)) } else { None } };
        let bands: Vec<usize> = (0..rows).step_by(height).collect();
        let (units, of) = (cols / width, bands.len());
        let band = |r: usize| weight.slice(s![r..(r + height).min(rows), ..]);
        let gone: Vec<Vec<usize>> =
            bands.iter().map(|&r| gone(layer, r, (r + height).min(rows), units, width)).collect::<Result<_>>()?;

        // How many units of each band go, where that is known beforehand.
        let known: Option<Vec<usize>> = match (pattern, scope) {
            (Pattern::Nm { n, m }, _) => Some(vec![cols / m * (m - n); of]),
            (_, Scope::Row) => {
                let keep = |i: usize| budget.keep() / of + usize::from(i < budget.keep() % of);
                Some((0..of).map(|i| units - keep(i)).collect())
            }
            _ if of == 1 => Some(vec![budget.drop()]),
            _ => None,
        };
        let results: Vec<(Vec<usize>, Array2<f64>)> = match known {
            Some(drops) => {
                let work = bands.par_iter().zip(&gone).zip(&drops);
                work.map(|((&r, gone), &drop)| run(layer, band(r), &inverse, groups, gone, drop)).collect::<Result<_>>()?
            }
            None => {
                let traces: Vec<Steps> = bands
                    .par_iter()
                    .zip(&gone)
                    .map(|(&r, gone)| walk(layer, band(r), &inverse, groups, gone, units).map(|(steps, _)| steps))
                    .collect::<Result<_>>()?;
                let counts = counts(&traces, &gone, budget.drop());
                let solve = |((&r, trace), &count): ((&usize, &Steps), &usize)| {
                    let dropped: Vec<usize> = trace[..count].iter().map(|s| s.0).collect();
                    let support: Vec<usize> = (0..cols).filter(|c| !dropped.contains(&(c / width))).collect();
                    let band = band(r);
                    let mut solved = Array2::zeros(band.dim());
                    for (row, mut out) in band.rows().into_iter().zip(solved.rows_mut()) {
                        let values = exact_row(row, &support, &gram).map_err(|e| explain(e, layer, self.damping))?;
                        support.iter().zip(values).for_each(|(&c, v)| out[c] = v);
                    }
                    Ok((dropped, solved))
                };
                bands.par_iter().zip(&traces).zip(&counts).map(solve).collect::<Result<_>>()?
            }
        };
        let (mut mask, mut moved) = (Mask::full(rows, cols), Array2::zeros((rows, cols)));
        for (&r, (dropped, solved)) in bands.iter().zip(results) {
            moved.slice_mut(s![r..r + solved.nrows(), ..]).assign(&solved.mapv(|v| v as f32));
            for unit in dropped {
                (r..r + solved.nrows()).for_each(|r| (unit * width..(unit + 1) * width).for_each(|c| mask.set(r, c, false)));
            }
        }
        finish(layer, mask, moved)
    }
}

/// The units of the rows `from..to` that the layer's mask has dropped before.
fn gone(layer: &Evidence<'_>, from: usize, to: usize, units: usize, width: usize) -> Result<Vec<usize>> {
    let Some(mask) = layer.mask else { return Ok(vec![]) };
    let left = |unit: usize| (from..to).map(|r| (0..width).filter(|i| mask.get(r, unit * width + i)).count()).sum::<usize>();
    let whole = (to - from) * width;
    match (0..units).find(|&u| ![0, whole].contains(&left(u))) {
        None => Ok((0..units).filter(|&u| left(u) == 0).collect()),
        Some(unit) => {
            let place = format!("rows {from}..{to}, columns {}..{}", unit * width, (unit + 1) * width);
            Err(Error::Violation { pattern: "of whole blocks".into(), place, found: format!("keep {} of {whole}", left(unit)) })
        }
    }
}

/// Removes units until `drop` are gone, or all that may go: each with its increase of the loss.
fn walk<'a>(
    layer: &Evidence<'_>,
    band: ArrayView2<'a, f32>,
    inverse: &'a Array2<f64>,
    groups: Groups,
    gone: &[usize],
    drop: usize,
) -> Result<(Steps, Array2<f64>)> {
    let mut greedy = Greedy::new(&band, inverse, groups);
    let mut steps = Vec::with_capacity(drop);
    for &unit in gone {
        steps.push((unit, greedy.remove(unit).ok_or_else(|| broken(layer))?));
    }
    while steps.len() < drop && greedy.can_step() {
        steps.push(greedy.step().ok_or_else(|| broken(layer))?);
    }
    Ok((steps, greedy.weights()))
}

/// As [`walk`], without the increases.
fn run<'a>(
    layer: &Evidence<'_>,
    band: ArrayView2<'a, f32>,
    inverse: &'a Array2<f64>,
    groups: Groups,
    gone: &[usize],
    drop: usize,
) -> Result<(Vec<usize>, Array2<f64>)> {
    let (steps, weights) = walk(layer, band, inverse, groups, gone, drop)?;
    Ok((steps.into_iter().map(|s| s.0).collect(), weights))
}

/// How many steps of each trace are among the `drop` cheapest of all, steps that the mask has taken before coming first.
fn counts(traces: &[Steps], gone: &[Vec<usize>], drop: usize) -> Vec<usize> {
    let mut steps: Vec<(f64, usize)> = Vec::new();
    for (band, trace) in traces.iter().enumerate() {
        let mut most = f64::NEG_INFINITY;
        for (i, (_, loss)) in trace.iter().enumerate() {
            most = if i < gone[band].len() { f64::NEG_INFINITY } else { most.max(*loss) };
            steps.push((most, band));
        }
    }
    // Stable: of equals the first row's, and a row's own in order.
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut counts: Vec<usize> = gone.iter().map(Vec::len).collect();
    let before: usize = counts.iter().sum();
    steps.iter().take(drop).skip(before).for_each(|(_, band)| counts[*band] += 1);
    counts
}

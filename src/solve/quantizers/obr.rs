//! Optimal Brain Restoration: a pruned layer in codes, where only what stays makes up for what goes and for what rounding loses.
//!
//! Guo, Li, Benini. *Optimal Brain Restoration for joint quantization and sparsification of LLMs.* ICLR 2026, arXiv:2509.11177. The order of the columns and
//! the exact least squares behind each of them are those of Hassibi, Stork, *Optimal Brain Surgeon*, 1993, and of GPTQ ([`Gptq`](super::Gptq)).
//!
//! ```text
//! H = XᵀX + λ·mean(diag XᵀX)·I.   Of each row, S what stays, Z what goes:
//! w_S += H_SS⁻¹ H_SZ w_Z                                          restored
//! H_SS = R Rᵀ, R upper triangular;  for each j of S in turn:
//! q_j = q(w_j + Σ_{i<j} R_ij e_i / R_jj),   e_j = w_j − q_j       rounded; those behind, of S alone, make up for it
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | λ | [`Obr::damping`] |
//! | Z | what the layer's mask dropped; with [`Obr::prune`] the least of Wanda's \|w\| ‖x‖ too |
//! | q | the grid of w_j's group, fitted as its first column is reached, to the group's weights as the columns before would have them |
//!
//! GPTQ with a mask held lets dropped weights take their part of each error until their own column is reached; here none is ever given to them, so that
//! the rest knows what is left. A row's matrix is its own: H_SS is factored for each row.
//!
//! Departures: the authors round the first half of S at once and push its error to the second half, which GPTQ rounds; here errors are pushed behind each
//! weight. They rotate the stream before, which is not done here.
//!
//! Cost: k³/3 for each row of k weights that stay, where GPTQ factors one matrix a layer: a layer of 576 × 1536 at 50 % takes 0.1 TFLOP in f64, of 4096 × 4096
//! 12 TFLOP; with one step for a tensor twice as much; and 3 k² numbers in f64 a thread.

use super::super::layer::{damped_diagonal, explain};
use super::super::{Pruner, Scored};
use super::gptq::JointPruning;
use super::quantizer::{Quantizer, Rounded, checked, finish};
use crate::criteria::{Evidence, Need, Needs, Wanda};
use crate::linalg::cholesky;
use crate::mask::{Mask, Pattern};
use crate::quantize::{CodeGrid, Granularity, Step};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef1, Axis};
use rayon::prelude::*;

/// Optimal Brain Restoration; see the module.
///
/// ```
/// use lacuna::criteria::{Evidence, Measured};
/// use lacuna::mask::{Mask, Pattern};
/// use lacuna::quantize::{CodeGrid, Granularity};
/// use lacuna::solve::{Obr, Quantizer};
/// use ndarray::array;
/// // The second input is half of the first, nearly: the first makes up for it.
/// let gram = array![[4., 2., 0.], [2., 1.01, 0.], [0., 0., 1.]];
/// let measured = Measured { tokens: 4, gram: Some(gram), ..Measured::default() };
/// let (w, mask) = (array![[2., 2., -3.]], Mask::from_fn(1, 3, |_, c| c != 1));
/// let layer = Evidence { mask: Some(&mask), ..Evidence::new("fc1", &w, &measured) };
/// let found = Obr::default().quantize(&layer, CodeGrid::new(8, Granularity::Row))?;
/// assert!((found.weight[[0, 0]] - 3.).abs() < 0.05 && found.weight[[0, 1]] == 0.);
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Obr {
    /// λ: the fraction of the mean diagonal that is added to the diagonal.
    pub damping: f64,
    /// Whether weights are pruned before, by Wanda's score.
    pub prune: Option<JointPruning>,
}

impl Default for Obr {
    /// 1 % damping; what the layer's mask keeps.
    fn default() -> Self {
        Obr { damping: 0.01, prune: None }
    }
}

impl Quantizer for Obr {
    fn name(&self) -> &str {
        "obr"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::Gram)
    }

    fn quantize(&self, layer: &Evidence<'_>, grid: CodeGrid) -> Result<Rounded> {
        let (kept, group) = checked(layer, grid)?;
        let (rows, cols) = kept.dim();
        let gram = layer.gram(self.name())?;
        let (diagonal, dead) = damped_diagonal(layer, gram, self.damping)?;
        // What a mask drops is made up for where the layer still has it.
        let mut weight = layer.weight.to_owned();
        let mask = match self.prune {
            None => layer.mask.cloned(),
            Some(JointPruning { pattern: Pattern::Rows, .. }) => {
                return Err(Error::invalid_option("pattern", "rows that go whole leave nothing to make up for them"));
            }
            Some(JointPruning { pattern, scope, sparsity }) => {
                let budget = pattern.budget(rows, cols, sparsity).map_err(|e| e.in_layer(layer.layer))?;
                let evidence = Evidence { weight: kept.view(), ..*layer };
                Some(Scored(Wanda).prune(&evidence, pattern, scope, budget)?.mask)
            }
        };
        for (mut column, _) in weight.columns_mut().into_iter().zip(&dead).filter(|(_, dead)| **dead) {
            column.fill(0.0);
        }
        let rounds = Rows { gram, diagonal: &diagonal, mask: mask.as_ref(), grid, group };
        let explained = |error| explain(error, layer, self.damping);
        let tensor = match grid.granularity {
            Granularity::Tensor => {
                // One step for all: of the restored weights of all rows.
                let mut restored = Array2::zeros((rows, cols));
                let work = restored.axis_iter_mut(Axis(0)).into_par_iter().enumerate();
                work.try_for_each(|(r, mut into)| -> Result<()> {
                    let row = rounds.factored(r, &weight.row(r))?;
                    row.stays.iter().zip(&row.weight).for_each(|(&c, w)| into[c] = *w as f32);
                    Ok(())
                })
                .map_err(explained)?;
                Some(grid.fit(restored))
            }
            Granularity::Row | Granularity::Group(_) => None,
        };
        let mut codes = Array2::<u8>::zeros((rows, cols));
        let mut steps = Array2::from_elem((rows, cols / group.max(1)), grid.fit([]));
        let work = codes.axis_iter_mut(Axis(0)).into_par_iter().zip(steps.axis_iter_mut(Axis(0))).enumerate();
        work.try_for_each(|(r, (mut codes, mut steps))| -> Result<()> {
            let row = rounds.factored(r, &weight.row(r))?;
            rounds.round(row, tensor, &mut codes, &mut steps);
            Ok(())
        })
        .map_err(explained)?;
        finish(layer, grid, codes, &steps, mask)
    }
}

/// What all rows share.
struct Rows<'a> {
    gram: &'a Array2<f64>,
    /// Damped.
    diagonal: &'a [f64],
    mask: Option<&'a Mask>,
    grid: CodeGrid,
    group: usize,
}

/// A row before it is rounded.
struct Row {
    /// The columns that stay, ascending.
    stays: Vec<usize>,
    /// Their weights, which make up for what went.
    weight: Vec<f64>,
    /// L with L Lᵀ = H_SS, both counted from the last of them to the first: R backwards.
    lower: Array2<f64>,
}

impl Rows<'_> {
    /// Factors a row's matrix and restores what stays.
    fn factored(&self, r: usize, dense: &ArrayRef1<f32>) -> Result<Row> {
        let at = |a: usize, b: usize| if a == b { self.diagonal[a] } else { self.gram[[a, b]] };
        let (stays, goes): (Vec<usize>, Vec<usize>) = (0..dense.len()).partition(|&c| self.mask.is_none_or(|m| m.get(r, c)));
        let goes: Vec<(usize, f64)> = goes.into_iter().map(|c| (c, f64::from(dense[c]))).filter(|(_, w)| *w != 0.0).collect();
        let k = stays.len();
        let mut matrix = Array2::zeros((k, k));
        for (p, mut into) in matrix.rows_mut().into_iter().enumerate() {
            let a = stays[k - 1 - p];
            stays[k - 1 - p..].iter().rev().zip(into.iter_mut()).for_each(|(&b, into)| *into = at(a, b));
        }
        let lower = cholesky(&matrix).map_err(|e| match e {
            // By its place in the layer.
            Error::NotPositiveDefinite { what, column, hint, .. } => {
                Error::NotPositiveDefinite { what, order: dense.len(), column: stays[k - 1 - column], hint }
            }
            e => e,
        })?;
        let mut weight: Vec<f64> = stays.iter().map(|&c| f64::from(dense[c])).collect();
        if !goes.is_empty() {
            // H_SS δ = H_SZ w_Z, backwards as the factor is.
            let mut delta: Vec<f64> = stays.iter().rev().map(|&s| goes.iter().map(|&(z, w)| at(s, z) * w).sum()).collect();
            for p in 0..k {
                let before: f64 = lower.row(p).iter().zip(&delta[..p]).map(|(l, d)| l * d).sum();
                delta[p] = (delta[p] - before) / lower[[p, p]];
            }
            for p in (0..k).rev() {
                delta[p] /= lower[[p, p]];
                let own = delta[p];
                delta[..p].iter_mut().zip(lower.row(p)).for_each(|(d, l)| *d -= l * own);
            }
            weight.iter_mut().zip(delta.iter().rev()).for_each(|(w, d)| *w += d);
        }
        Ok(Row { stays, weight, lower })
    }

    /// The row's codes; where `fixed` is none, its groups' steps too.
    fn round(&self, row: Row, fixed: Option<Step>, codes: &mut ArrayRef1<u8>, steps: &mut ArrayRef1<Step>) {
        let Row { stays, weight, lower } = row;
        let k = stays.len();
        if let Some(step) = fixed {
            steps.fill(step);
        }
        // Σ_{i<j} R_ij e_i of each j, counted backwards: of L's row p, what comes to the columns behind.
        let mut behind = vec![0.0f64; k];
        let push = |behind: &mut [f64], p: usize, error: f64| {
            behind[..p].iter_mut().zip(lower.row(p)).for_each(|(b, l)| *b += l * error);
        };
        let mut first = 0;
        while first < k {
            let group = stays[first] / self.group.max(1);
            let last = first + stays[first..].iter().take_while(|&&c| c / self.group.max(1) == group).count();
            if fixed.is_none() {
                // The group's weights as the columns before would have them, none of its own being rounded yet.
                let (from, to) = (k - last, k - first);
                let mut own = behind[from..to].to_vec();
                let mut met = Vec::with_capacity(last - first);
                for (j, weight) in weight.iter().enumerate().take(last).skip(first) {
                    let p = k - 1 - j;
                    let moved = own[p - from] / lower[[p, p]];
                    met.push((weight + moved) as f32);
                    let part = lower.row(p);
                    own[..p - from].iter_mut().zip(part.iter().skip(from)).for_each(|(b, l)| *b -= l * moved);
                }
                steps[group] = self.grid.fit(met);
            }
            let step = steps[group];
            for j in first..last {
                let p = k - 1 - j;
                let aim = weight[j] + behind[p] / lower[[p, p]];
                let code = self.grid.code(step, aim as f32);
                codes[stays[j]] = code;
                push(&mut behind, p, weight[j] - f64::from(step.value(code)));
            }
            first = last;
        }
    }
}

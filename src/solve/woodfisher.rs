//! WoodFisher: the block inverse of the empirical Fisher matrix, for scores and for the survivors' answer.
//!
//! Singh, Alistarh. *WoodFisher: efficient second-order approximation for neural network compression.* NeurIPS 2020,
//! arXiv:2004.14340, equations 4 to 9.
//!
//! ```text
//! F = λ I + 1/N Σ_n g_n g_nᵀ                                  in blocks of c weights
//!
//! F⁻¹_{n+1} = F⁻¹_n − F⁻¹_n g gᵀ F⁻¹_n / (N + gᵀ F⁻¹_n g),    F⁻¹_0 = λ⁻¹ I
//!
//! score      w_q² / (2 [F⁻¹]_qq)
//! survivors  minimise ½ δwᵀ F δw  subject to  w_q + δw_q = 0 for all q that go together
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | g_n | gradient of the mean loss of mini-batch n over the layer, a row of [`Measured::sample_gradients`](crate::criteria::Measured) |
//! | λ | [`WoodFisher::damping`] |
//! | c | [`WoodFisher::block`]: so many consecutive weights, in row-major order, form a block; the last may be shorter |
//!
//! *Empirical*: the labels are the data's. The scores are shares of one loss, so they can be ranked over all layers.
//!
//! Departures. The paper sums the single updates δw of all q that go, which is not exact for more than one; here the weights
//! that go from one block go jointly (a solve with F over the survivors), so that the answer is the minimiser. Where a block is larger
//! than N, the inverse is never formed: by Woodbury's identity everything follows from an N × N matrix, so a block may be as
//! large as the layer.
//!
//! ```text
//! [F⁻¹]_qq = (1 − g_qᵀ S⁻¹ g_q) / λ,   S = N λ I + G Gᵀ           G (N, c), g_q its column
//! δw_K     = G_Kᵀ (N λ I + G_K G_Kᵀ)⁻¹ (G_Q w_Q)                    K stays, Q goes
//! ```
//!
//! Cost for d weights: N · c · d by the recursion, N² · d beyond c = N; memory N · d floats for the gradients.

use super::layer::finish;
use super::{Pruned, Pruner, Scored};
use crate::criteria::{Evidence, Need, Needs, Saliency};
use crate::linalg::{solve_spd, spd_inverse};
use crate::mask::{Budget, Mask, Pattern, Scope, check_finite};
use crate::solve::InverseHessian;
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef2, ArrayView2, Axis, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Columns that one task of Woodbury's identity works on.
const CHUNK: usize = 1024;

/// WoodFisher's two settings; see the module. As a [`Saliency`] it scores; [`WoodFisher::compensate`] gives the survivors' answer,
/// and [`prune::compensated`](crate::prune::compensated) does both on a network.
///
/// ```
/// use lacuna::criteria::{Evidence, Measured, Saliency};
/// use lacuna::solve::WoodFisher;
/// use ndarray::array;
/// let w = array![[2., -1.]];
/// let measured = Measured { sample_gradients: Some(array![[1., 0.], [0., 3.]]), ..Measured::default() };
/// let layer = Evidence { measured: &measured, ..Evidence::weight_only("fc1", &w) };
/// // F = λ I + ½ diag(1, 9), so the scores are ½ (½ + λ) 2² and ½ (9/2 + λ) 1².
/// let scores = WoodFisher { damping: 0.5, block: 2 }.score(&layer)?;
/// assert_eq!(scores, array![[2., 2.5]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WoodFisher {
    /// λ, added to the diagonal of the Fisher matrix.
    pub damping: f64,
    /// c, the weights of a block; more than a layer has means the whole layer.
    pub block: usize,
}

impl Default for WoodFisher {
    /// λ = 1e-5 as in the authors' scripts, blocks of 100.
    fn default() -> Self {
        WoodFisher { damping: 1e-5, block: 100 }
    }
}

impl WoodFisher {
    /// Refuses settings that are no numbers for what they set.
    ///
    /// # Errors
    /// If the damping is not positive, or a block has no weight.
    pub fn check(&self) -> Result<()> {
        if !(self.damping > 0.0 && self.damping.is_finite() && self.damping.recip().is_finite()) {
            let reason = format!("{}: the inverse begins at 1/damping, so it must be positive", self.damping);
            return Err(Error::invalid_option("damping", reason));
        }
        if self.block == 0 {
            return Err(Error::invalid_option("block", "a block has at least one weight"));
        }
        Ok(())
    }

    /// The diagonal of F⁻¹, block by block, from gradients `g (N, n)`: `n` numbers.
    ///
    /// # Errors
    /// If a setting is out of its range, there is no gradient, one is not finite, or rounding leaves an entry that is not a positive
    /// number.
    pub fn inverse_diagonal(&self, g: &ArrayRef2<f32>) -> Result<Array1<f64>> {
        self.check()?;
        check_gradients(g)?;
        let block = self.block.min(g.ncols()).max(1);
        let parts: Vec<Array1<f64>> = if block <= g.nrows() {
            let blocks: Vec<ArrayView2<'_, f32>> = g.axis_chunks_iter(Axis(1), block).collect();
            blocks.into_par_iter().map(|g| self.by_recursion(&g)).collect::<Result<_>>()?
        } else {
            g.axis_chunks_iter(Axis(1), block).map(|g| self.by_woodbury(&g)).collect::<Result<_>>()?
        };
        let diagonal: Array1<f64> = parts.into_iter().flatten().collect();
        match diagonal.iter().position(|d| !(*d > 0.0 && d.is_finite())) {
            None => Ok(diagonal),
            Some(at) => {
                let reason = format!(
                    "rounding has made entry {at} of the inverse's diagonal {}; a damping above {} would help",
                    diagonal[at], self.damping
                );
                Err(Error::Numerical { what: "inverse Fisher matrix".into(), reason })
            }
        }
    }

    fn by_recursion(&self, g: &ArrayRef2<f32>) -> Result<Array1<f64>> {
        let inverse = InverseHessian::of_rows(g, g.nrows() as f64, self.damping)?;
        Ok(inverse.matrix().diag().to_owned())
    }

    fn by_woodbury(&self, g: &ArrayRef2<f32>) -> Result<Array1<f64>> {
        let inverse = spd_inverse(&self.dual(g))?;
        let chunks: Vec<ArrayView2<'_, f32>> = g.axis_chunks_iter(Axis(1), CHUNK).collect();
        let parts: Vec<Array1<f64>> = chunks
            .into_par_iter()
            .map(|g| {
                let g = g.mapv(f64::from);
                let explained = (inverse.dot(&g) * &g).sum_axis(Axis(0));
                explained.mapv(|e| (1.0 - e) / self.damping)
            })
            .collect();
        Ok(parts.into_iter().flatten().collect())
    }

    /// S = N λ I + G Gᵀ, `(N, N)`.
    fn dual(&self, g: &ArrayRef2<f32>) -> Array2<f64> {
        let n = g.nrows();
        let mut s = outer_gram(g);
        s.diag_mut().mapv_inplace(|v| v + n as f64 * self.damping);
        s
    }

    /// The survivors' answer when everything goes that `mask` drops of what `held` kept: the new weight, 0 wherever the mask
    /// drops, and the predicted increase ½ δwᵀ F δw of the loss. `gradients` is `(N, out * in)`.
    ///
    /// # Errors
    /// If a setting is out of its range, shapes differ, a gradient or a weight is not finite, or a block cannot be solved.
    pub fn compensate(
        &self,
        weight: &ArrayRef2<f32>,
        gradients: &ArrayRef2<f32>,
        held: Option<&Mask>,
        mask: &Mask,
    ) -> Result<(Array2<f32>, f64)> {
        self.check()?;
        check_gradients(gradients)?;
        let (rows, cols) = weight.dim();
        if mask.dim() != weight.dim() || held.is_some_and(|h| h.dim() != weight.dim()) || gradients.ncols() != weight.len() {
            let found = [mask.rows(), mask.cols(), gradients.ncols()];
            return Err(Error::shape("mask, and gradients of a layer", &[rows, cols, rows * cols], &found));
        }
        check_finite(weight, "weights")?;
        let w: Vec<f64> = weight.iter().map(|&w| f64::from(w)).collect();
        let at = |i: usize| (i / cols, i % cols);
        let there = |i: usize| held.is_none_or(|h| h.get(at(i).0, at(i).1));
        let block = self.block.min(w.len()).max(1);
        let starts: Vec<usize> = (0..w.len()).step_by(block).collect();
        let solve = |&from: &usize| {
            let block = from..(from + block).min(w.len());
            let (stay, go): (Vec<usize>, Vec<usize>) = block.filter(|&i| there(i)).partition(|&i| mask.get(at(i).0, at(i).1));
            self.answer(&w, gradients, &stay, &go).map(|(delta, cost)| (stay, delta, cost))
        };
        // Small blocks are many: they go in parallel. A large one keeps the threads busy by itself.
        let answers: Vec<_> = if block <= CHUNK {
            starts.par_iter().map(solve).collect::<Result<_>>()?
        } else {
            starts.iter().map(solve).collect::<Result<_>>()?
        };
        let mut new = mask.applied(weight);
        let mut predicted = 0.0;
        for (stay, delta, cost) in answers {
            predicted += cost;
            for (i, d) in stay.into_iter().zip(delta) {
                new[at(i)] = (w[i] + d) as f32;
            }
        }
        Ok((new, predicted))
    }

    /// δw of those that `stay` when those that `go` become 0, and ½ δwᵀ F δw.
    fn answer(&self, w: &[f64], g: &ArrayRef2<f32>, stay: &[usize], go: &[usize]) -> Result<(Vec<f64>, f64)> {
        let n = g.nrows();
        if go.is_empty() {
            return Ok((vec![0.0; stay.len()], 0.0));
        }
        // G_Q w_Q: what the mini-batches see of those that go.
        let mut lost = Array1::<f64>::zeros(n);
        for &q in go {
            lost.zip_mut_with(&g.column(q), |l, &g| *l += w[q] * f64::from(g));
        }
        let kept = g.select(Axis(1), stay);
        let delta: Array1<f64> = if stay.is_empty() {
            Array1::zeros(0)
        } else if stay.len() <= n {
            let kept = kept.mapv(f64::from);
            let mut f = kept.t().dot(&kept) / n as f64;
            f.diag_mut().mapv_inplace(|v| v + self.damping);
            let right = kept.t().dot(&lost) / n as f64;
            solve_spd(&f, &right.insert_axis(Axis(1)))?.remove_axis(Axis(1))
        } else {
            let dual = solve_spd(&self.dual(&kept), &lost.clone().insert_axis(Axis(1)))?.remove_axis(Axis(1));
            let of = |column: ndarray::ArrayView1<'_, f32>| column.iter().zip(&dual).map(|(&g, d)| f64::from(g) * d).sum();
            kept.axis_iter(Axis(1)).map(of).collect()
        };
        // Gδ = G_K δ_K − G_Q w_Q.
        let mut moved = -lost;
        for (column, d) in kept.axis_iter(Axis(1)).zip(&delta) {
            moved.zip_mut_with(&column, |m, &g| *m += d * f64::from(g));
        }
        let squares = delta.iter().map(|d| d * d).sum::<f64>() + go.iter().map(|&q| w[q] * w[q]).sum::<f64>();
        let cost = 0.5 * (self.damping * squares + moved.dot(&moved) / n as f64);
        Ok((delta.to_vec(), cost))
    }
}

impl Saliency for WoodFisher {
    fn name(&self) -> &str {
        "woodfisher"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::SampleGradients)
    }

    /// A weight that a mask already dropped takes no part: its gradient counts as 0.
    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        let mut g = layer.sample_gradients("woodfisher")?.to_owned();
        if let Some(mask) = layer.mask {
            let cols = mask.cols();
            mask.not().iter_kept().for_each(|(r, c)| g.column_mut(r * cols + c).fill(0.0));
        }
        let diagonal = self.inverse_diagonal(&g)?;
        let score = |(&w, &inverse): (&f32, &f64)| (0.5 * f64::from(w) * f64::from(w) / inverse) as f32;
        let scores: Vec<f32> = layer.weight.iter().zip(&diagonal).map(score).collect();
        Array2::from_shape_vec(layer.weight.dim(), scores).map_err(|e| Error::invalid_option("woodfisher", e.to_string()))
    }

    fn predicts_loss(&self) -> bool {
        true
    }
}

/// The mask by the scores, and the survivors' answer to all that goes.
impl Pruner for WoodFisher {
    fn name(&self) -> &str {
        "woodfisher"
    }

    fn needs(&self) -> Needs {
        Saliency::needs(self)
    }

    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned> {
        let chosen = Scored(self).prune(layer, pattern, scope, budget)?;
        let gradients = layer.sample_gradients("woodfisher")?;
        let (weight, _) = self.compensate(&layer.weight, gradients, layer.mask, &chosen.mask)?;
        finish(layer, chosen.mask, weight)
    }
}

fn check_gradients(g: &ArrayRef2<f32>) -> Result<()> {
    if g.nrows() == 0 {
        return Err(Error::invalid_option("gradients", "there is none, so there is no Fisher matrix"));
    }
    match g.indexed_iter().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some(((row, col), &value)) => Err(Error::NotFinite { what: "gradients".into(), row, col, value: f64::from(value) }),
    }
}

/// G Gᵀ `(N, N)` in f64, summed over chunks of columns in their order.
fn outer_gram(g: &ArrayRef2<f32>) -> Array2<f64> {
    let chunks: Vec<ArrayView2<'_, f32>> = g.axis_chunks_iter(Axis(1), CHUNK).collect();
    let mut sum = Array2::zeros((g.nrows(), g.nrows()));
    for group in chunks.chunks(8) {
        let parts: Vec<Array2<f64>> = group
            .par_iter()
            .map(|g| {
                let g = g.mapv(f64::from);
                g.dot(&g.t())
            })
            .collect();
        parts.iter().for_each(|p| sum += p);
    }
    // The products of one chunk are not symmetric to the bit; the lower half counts.
    for i in 0..sum.nrows() {
        let row = sum.slice(s![i, ..i]).to_owned();
        sum.slice_mut(s![..i, i]).assign(&row);
    }
    sum
}

//! Least squares of the weights that stay, for any mask.
//!
//! ```text
//! min over ŵ with support S of  (ŵ − w) H (ŵ − w)ᵀ,   H = XᵀX + λ·mean(diag XᵀX)·I
//!     H_SS ŵ_S = (H w)_S                                                  one system a row
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | w, S | a row of the dense weight, and what the mask keeps of it |
//! | λ | [`Reconstruct::damping`]; it draws ŵ towards w, not towards 0 |
//!
//! [`Solver::Exact`] factors H_SS of each row in f64. [`Solver::Gradients`] runs conjugate gradients with a diagonal preconditioner on
//! all rows at once, in f32 and with one dense product a step, as ALPS does (Meng, Behdin, Wang, Mazumder, NeurIPS 2024,
//! arXiv:2406.07831, section 3.3); each row has its own step lengths, in f64. It starts from the weights it is given.
//!
//! Cost: exact `out · k³ / 3` multiplications for rows that keep k; gradients `out · in²` a step, at the speed of dense products.

use super::layer::{damped, explain, finish};
use super::{Pruned, Pruner};
use crate::criteria::{Evidence, Need, Needs};
use crate::linalg::{Threads, dot_f64, for_entries, gemm, solve_spd};
use crate::mask::{Budget, Mask, Pattern, Scope};
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef2, ArrayView1, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How the systems are solved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Solver {
    /// By one Cholesky factor a row, in f64.
    Exact,
    /// By conjugate gradients in f32, from the weights at hand.
    Gradients {
        /// Steps at most.
        steps: usize,
        /// A row is done when the norm of its residual has fallen to this share of that of its right-hand side.
        tolerance: f64,
    },
}

/// Least squares on a mask; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reconstruct {
    /// λ: the fraction of the mean diagonal that is added to the diagonal.
    pub damping: f64,
    /// How the systems are solved.
    pub solver: Solver,
}

impl Default for Reconstruct {
    /// 1 % damping, at most 40 steps of conjugate gradients to a residual of 10⁻⁵.
    fn default() -> Self {
        Reconstruct { damping: 0.01, solver: Solver::Gradients { steps: 40, tolerance: 1e-5 } }
    }
}

impl Reconstruct {
    /// The weights that stay under `mask`, moved so that outputs are nearest to those of the layer's weight `(out, in)`; 0 elsewhere.
    /// `start` `(out, in)` is where conjugate gradients begin; the exact solver does not read it. Rows that keep nothing stay 0.
    ///
    /// ```
    /// use lacuna::criteria::{Evidence, Measured};
    /// use lacuna::mask::Mask;
    /// use lacuna::solve::{Reconstruct, Solver};
    /// use ndarray::array;
    /// let measured = Measured { tokens: 4, gram: Some(array![[2., 1.], [1., 2.]]), ..Measured::default() };
    /// let w = array![[1., 4.]];
    /// let layer = Evidence { measured: &measured, ..Evidence::weight_only("fc1", &w) };
    /// let exact = Reconstruct { damping: 0., solver: Solver::Exact };
    /// // Without the second input: 2 ŵ = 2·1 + 1·4.
    /// assert_eq!(exact.run(&layer, &Mask::from_array(&array![[true, false]]), &w)?, array![[3., 0.]]);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the Gram matrix was not measured, is not finite, or a block of it is not positive definite; if a shape does not fit; if the
    /// tolerance is not a finite number of at least 0.
    pub fn run(&self, layer: &Evidence<'_>, mask: &Mask, start: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let (rows, cols) = layer.weight.dim();
        for found in [mask.dim(), start.dim()] {
            if found != (rows, cols) {
                let what = "mask and weights to reconstruct";
                return Err(Error::shape(what, &[rows, cols], &[found.0, found.1]).in_layer(layer.layer));
            }
        }
        if let Solver::Gradients { tolerance, .. } = self.solver
            && !(tolerance.is_finite() && tolerance >= 0.0)
        {
            return Err(Error::invalid_option(
                "tolerance",
                format!("{tolerance} is not a finite number of at least 0; 1e-5 is usual"),
            ));
        }
        let gram = damped("reconstruction", layer, self.damping)?;
        let mut weight = match self.solver {
            Solver::Exact => {
                let mut weight = Array2::zeros((rows, cols));
                let tasks: Vec<_> = weight.axis_iter_mut(Axis(0)).into_par_iter().collect();
                tasks.into_par_iter().enumerate().try_for_each(|(r, mut out)| {
                    let support: Vec<usize> = mask.row_indices(r).filter(|&c| !gram.dead[c]).collect();
                    let solved = exact_row(layer.weight.row(r), &support, &gram.matrix);
                    let solved = solved.map_err(|e| explain(e, layer, self.damping))?;
                    support.iter().zip(solved).for_each(|(&c, v)| out[c] = v as f32);
                    Ok(())
                })?;
                weight
            }
            Solver::Gradients { steps, tolerance } => gradients(&layer.weight, mask, start, &gram.matrix, steps, tolerance),
        };
        for (mut column, _) in weight.columns_mut().into_iter().zip(&gram.dead).filter(|(_, dead)| **dead) {
            column.fill(0.0);
        }
        mask.apply(&mut weight);
        Ok(weight)
    }
}

/// ŵ_S of one row, in f64.
pub(super) fn exact_row(w: ArrayView1<'_, f32>, support: &[usize], gram: &ArrayRef2<f64>) -> Result<Vec<f64>> {
    if support.is_empty() {
        return Ok(Vec::new());
    }
    let block = gram.select(Axis(0), support).select(Axis(1), support);
    let w = w.mapv(f64::from);
    let right = Array1::from_iter(support.iter().map(|&c| gram.row(c).dot(&w))).insert_axis(Axis(1));
    Ok(solve_spd(&block, &right)?.into_iter().collect())
}

/// Conjugate gradients on all rows at once, in the scale in which the Gram matrix has a diagonal of ones.
pub(super) fn gradients(
    target: &ArrayRef2<f32>,
    mask: &Mask,
    start: &ArrayRef2<f32>,
    gram: &Array2<f64>,
    steps: usize,
    tolerance: f64,
) -> Array2<f32> {
    let scale = gram.diag().mapv(f64::sqrt);
    let unit = Array2::from_shape_fn(gram.dim(), |(i, j)| (gram[[i, j]] / (scale[i] * scale[j])) as f32);
    let (up, down) = (scale.mapv(|s| s as f32), scale.mapv(|s| (1.0 / s) as f32));
    let mut x = mask.applied(start) * &up;
    gradients_unit(&(target.to_owned() * &up), mask, &mut x, &unit, steps, tolerance);
    x * &down
}

/// Moves x `(out, in)`, which is 0 outside the mask, towards the least squares solution for `target` `(out, in)`, where the matrix has
/// ones on its diagonal: the preconditioner is then the identity.
pub(super) fn gradients_unit(
    target: &Array2<f32>,
    mask: &Mask,
    x: &mut Array2<f32>,
    unit: &Array2<f32>,
    steps: usize,
    tolerance: f64,
) {
    let mut product = Array2::zeros(target.dim());
    let right_norms: Vec<f64> = {
        gemm(1.0, target, unit, 0.0, &mut product, Threads::Pool);
        mask.apply(&mut product);
        product.rows().into_iter().map(|r| dot_f64(&r, &r)).collect()
    };
    gemm(1.0, &(target - &*x), unit, 0.0, &mut product, Threads::Pool);
    mask.apply(&mut product);
    let (mut residual, mut direction) = (product.clone(), product.clone());
    let mut squares: Vec<f64> = residual.rows().into_iter().map(|r| dot_f64(&r, &r)).collect();
    let done = |square: f64, right: f64| square <= tolerance * tolerance * right || square == 0.0;
    for _ in 0..steps {
        if squares.iter().zip(&right_norms).all(|(&s, &r)| done(s, r)) {
            break;
        }
        gemm(1.0, &direction, unit, 0.0, &mut product, Threads::Pool);
        mask.apply(&mut product);
        let rows = x.axis_iter_mut(Axis(0)).into_par_iter().zip(residual.axis_iter_mut(Axis(0)));
        let rows = rows.zip(direction.axis_iter_mut(Axis(0))).zip(product.axis_iter(Axis(0)));
        rows.zip(squares.par_iter_mut()).zip(&right_norms).for_each(|(((((mut x, mut r), mut d), hd), square), &right)| {
            let curve = dot_f64(&d, &hd);
            if done(*square, right) || curve <= 0.0 {
                return;
            }
            let step = (*square / curve) as f32;
            for_entries(&mut x, [&d], |x, [d]| x + step * d);
            for_entries(&mut r, [&hd], |r, [h]| r - step * h);
            let next = dot_f64(&r, &r);
            let turn = (next / *square) as f32;
            for_entries(&mut d, [&r], |d, [r]| r + turn * d);
            *square = next;
        });
    }
}

/// Any pruner's mask, with the weights that stay moved to the least squares solution.
///
/// ```
/// use lacuna::criteria::Wanda;
/// use lacuna::solve::{Pruner, Reconstruct, Reconstructed, Scored};
/// let wanda = Scored(&Wanda);
/// assert_eq!(Reconstructed::new(&wanda, Reconstruct::default()).name(), "wanda + least squares");
/// ```
#[derive(Debug, Clone)]
pub struct Reconstructed<P> {
    pruner: P,
    reconstruct: Reconstruct,
    name: String,
}

impl<P: Pruner> Reconstructed<P> {
    /// `pruner`, owned, borrowed or boxed, chooses the mask, and its weights are where conjugate gradients begin.
    pub fn new(pruner: P, reconstruct: Reconstruct) -> Self {
        let name = format!("{} + least squares", pruner.name());
        Reconstructed { pruner, reconstruct, name }
    }
}

impl<P: Pruner> Pruner for Reconstructed<P> {
    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Needs {
        self.pruner.needs().and(Need::Gram)
    }

    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned> {
        let first = self.pruner.prune(layer, pattern, scope, budget)?;
        let weight = self.reconstruct.run(layer, &first.mask, &first.weight)?;
        finish(layer, first.mask, weight)
    }
}

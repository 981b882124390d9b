//! The weight that a layer should have had, given inputs that earlier layers have changed.
//!
//! Inputs of a layer in a pruned model, X, are not those of the dense one, X₀; nor are the hidden states S that its output joins the dense
//! one's, S₀. The layer can make up for a part of both: the weight nearest to W that does so best is
//!
//! ```text
//! min over W̃ of  ‖X W̃ᵀ − Y‖² + λ ‖W̃ − W‖²,   Y = X Wᵀ + α (X₀ − X) Wᵀ + β (S₀ − S)
//!     W̃ = W + [ α W (X₀ᵀX − H) + β (S₀ − S)ᵀX ] (H + λI)⁻¹,   H = XᵀX
//! ```
//!
//! Pruning W̃ with the same damped H then lessens the distance to Y, since the two differ by a constant. With α = 1 this is the
//! asymmetric calibration of GPTAQ (Li et al., ICML 2025, arXiv:2504.02692) as one solve instead of a term in each step; β is the
//! same for the hidden states (the residual stream).
//!
//! Cost: one Cholesky factor, `in³ / 3`, and `2 out · in²` multiplications.

use crate::criteria::Evidence;
use crate::linalg::solve_spd;
use crate::solve::layer::{damped, explain};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};

/// W̃ `(out, in)`; see the module.
#[derive(Debug, Clone, Copy)]
pub struct Retarget<'a> {
    /// λ as a fraction of the mean diagonal of H.
    pub damping: f64,
    /// α, and X₀ᵀX `(in, in)`.
    pub inputs: Option<(f64, &'a Array2<f64>)>,
    /// β, and (S₀ − S)ᵀX `(out, in)`.
    pub hidden_states: Option<(f64, &'a Array2<f64>)>,
}

/// The weight `(out, in)` that gives of fewer inputs x what a dense weight `(out, more)` gives of its own inputs x₀ at the same tokens:
///
/// ```text
/// min over V of  ‖X Vᵀ − Y‖² + λ ‖V − W‖²,   Y = X Wᵀ + α (X₀ W₀ᵀ − X Wᵀ)
///     V = W + α [ W₀ X₀ᵀX − W H ] (H + λI)⁻¹,   H = XᵀX
/// ```
///
/// `layer` has W and H, `crossed` is X₀ᵀX `(more, in)`, `share` α, and λ is the fraction `damping` of H's mean diagonal.
///
/// # Errors
/// As [`Retarget::run`].
pub fn refitted(
    layer: &Evidence<'_>,
    (dense, crossed): (&ArrayRef2<f32>, &Array2<f64>),
    (share, damping): (f64, f64),
) -> Result<Array2<f32>> {
    let (out, cols) = layer.weight.dim();
    let gram = damped("least squares", layer, damping)?;
    if dense.nrows() != out || crossed.dim() != (dense.ncols(), cols) {
        let (expected, found) = ([out, dense.ncols()], [dense.nrows(), crossed.nrows()]);
        return Err(Error::shape("dense weight and products of both inputs", &expected, &found).in_layer(layer.layer));
    }
    let weight = layer.weight.mapv(f64::from);
    let right = (dense.mapv(f64::from).dot(crossed) - weight.dot(layer.gram("least squares")?)) * share;
    let moved = solve_spd(&gram.matrix, &right.t()).map_err(|e| explain(e, layer, damping))?;
    Ok((weight + moved.t()).mapv(|v| v as f32))
}

impl Retarget<'_> {
    /// The weight to prune instead of the layer's own.
    ///
    /// ```
    /// use lacuna::criteria::{Evidence, Measured};
    /// use lacuna::solve::Retarget;
    /// use ndarray::array;
    /// // One input that earlier layers have halved: the weight doubles.
    /// let measured = Measured { tokens: 1, gram: Some(array![[4.]]), ..Measured::default() };
    /// let w = array![[3.]];
    /// let layer = Evidence { measured: &measured, ..Evidence::weight_only("fc1", &w) };
    /// let crossed = array![[8.]];
    /// let retarget = Retarget { damping: 0., inputs: Some((1., &crossed)), hidden_states: None };
    /// assert_eq!(retarget.run(&layer)?, array![[6.]]);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the Gram matrix was not measured or is not positive definite with this damping, a shape does not fit, or a share or a product
    /// is not finite.
    pub fn run(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        let (out, cols) = layer.weight.dim();
        let gram = damped("retargeting", layer, self.damping)?;
        let weight = layer.weight.mapv(f64::from);
        let mut right = Array2::<f64>::zeros((out, cols));
        let misfit = |what: &str, expected: [usize; 2], found: &Array2<f64>| {
            Error::shape(what, &expected, found.shape()).in_layer(layer.layer)
        };
        let finite = |what: &str, share: f64, products: &Array2<f64>| {
            if !share.is_finite() {
                return Err(Error::invalid_option(format!("fraction of the {what}"), format!("{share} is not finite")));
            }
            match products.indexed_iter().find(|(_, v)| !v.is_finite()) {
                None => Ok(()),
                Some(((row, col), &value)) => {
                    let what = format!("products of the {what}");
                    Err(Error::NotFinite { what, row, col, value }.in_layer(layer.layer))
                }
            }
        };
        if let Some((share, crossed)) = self.inputs {
            if crossed.dim() != (cols, cols) {
                return Err(misfit("products of dense and pruned inputs", [cols, cols], crossed));
            }
            finite("inputs", share, crossed)?;
            right += &(weight.dot(&(crossed - layer.gram("retargeting")?)) * share);
        }
        if let Some((share, drift)) = self.hidden_states {
            if drift.dim() != (out, cols) {
                return Err(misfit("products of the hidden states' drift and the inputs", [out, cols], drift));
            }
            finite("hidden states", share, drift)?;
            right.scaled_add(share, drift);
        }
        let moved = solve_spd(&gram.matrix, &right.t()).map_err(|e| explain(e, layer, self.damping))?;
        Ok((weight + moved.t()).mapv(|v| v as f32))
    }
}

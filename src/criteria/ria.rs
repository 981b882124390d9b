//! Relative importance and activations: a weight's share of its row and of its column, times the norm of the input.
//!
//! Zhang, Bai, Lin, Zhao, Hou, Cannistraci. *Plug-and-play: an efficient post-training pruning method for large language
//! models.* ICLR 2024, equations 3 and 4.
//!
//! ```text
//! s_ij = ( |w_ij| / Σ_i |w_ij|  +  |w_ij| / Σ_j |w_ij| ) · ‖x_j‖₂^a,   a = ½
//! ```
//!
//! A share keeps whole rows or columns of small weights from being emptied. A row or column of zeros has shares of 0. Scores of
//! different layers cannot be compared: they fall with the number of outputs and inputs.
//!
//! With N:M patterns the authors first permute the inputs: [`solve::channel_order`](crate::solve::channel_order).
//!
//! Departure: ‖x_j‖ over all tokens, where the authors take the mean over sequences; it changes no rank.
//!
//! Cost: two passes over the weights.

use crate::criteria::{Evidence, Need, Needs, Saliency};
use crate::{Error, Result};
use ndarray::{Array1, Array2, Axis};
use serde::{Deserialize, Serialize};

/// Relative importance times ‖x‖^a; see the module.
///
/// ```
/// use lacuna::criteria::{Evidence, Measured, Ria, Saliency};
/// use ndarray::array;
/// let w = array![[1., -3.], [1., 1.]];
/// let measured = Measured { input_squares: Some(array![16., 1.]), ..Measured::default() };
/// let layer = Evidence { measured: &measured, ..Evidence::weight_only("fc1", &w) };
/// // (1/2 + 1/4) · 2, 3/4 + 3/4, (1/2 + 1/2) · 2, 1/4 + 1/2
/// assert_eq!(Ria::default().score(&layer).unwrap(), array![[1.5, 1.5], [2., 0.75]]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ria {
    /// The exponent a of the input norm; at least 0.
    pub power: f64,
}

impl Default for Ria {
    /// The authors' exponent, ½.
    fn default() -> Self {
        Ria { power: 0.5 }
    }
}

impl Saliency for Ria {
    fn name(&self) -> &str {
        "ria"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::InputSquares)
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        if !(self.power.is_finite() && self.power >= 0.0) {
            return Err(Error::invalid_option(
                "power",
                format!("{} is not a finite number of at least 0; 0.5 is usual", self.power),
            ));
        }
        let norms: Array1<f64> = layer.input_squares("ria")?.mapv(|s| s.sqrt().powf(self.power));
        let magnitude = layer.weight.mapv(|w| f64::from(w.abs()));
        let share = |sum: f64| if sum > 0.0 { 1.0 / sum } else { 0.0 };
        let rows = magnitude.sum_axis(Axis(1)).mapv(share);
        let cols = magnitude.sum_axis(Axis(0)).mapv(share);
        Ok(Array2::from_shape_fn(magnitude.dim(), |(i, j)| (magnitude[[i, j]] * (cols[j] + rows[i]) * norms[j]) as f32))
    }
}

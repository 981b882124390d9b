//! Optimal Brain Damage: the increase of the loss that removing a weight causes to second order.
//!
//! LeCun, Denker, Solla. *Optimal Brain Damage.* NeurIPS 1989, equations 5 to 9.
//!
//! ```text
//! s_k = ½ h_kk u_k²,   h_kk = Σ_{(i,j) ∈ V_k} ∂²E/∂w_ij²
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | u_k | a weight, shared by the connections V_k (one kernel entry of a convolution, for instance) |
//! | h_kk | [`Measured::second_derivatives`](crate::criteria::Measured), from [`Network::curvature`](crate::nn::Network::curvature) |
//! | E | the mean loss over the calibration data |
//!
//! The sum of the scores of what was removed predicts the increase of the loss, under three assumptions: the network is at a
//! minimum (no first-order term), the Hessian is diagonal, and the loss is quadratic. Scores are comparable between layers.
//! With [`Curvature::Exact`](crate::nn::Curvature::Exact) they may be negative.
//!
//! Cost: two backward passes, one of them with squared weights.

use crate::Result;
use crate::criteria::{Evidence, Need, Needs, Saliency};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// ½ h w²; see the module.
///
/// ```
/// use lacuna::criteria::{Evidence, Measured, Obd, Saliency};
/// use ndarray::array;
/// let w = array![[2., -1.]];
/// let measured = Measured { second_derivatives: Some(array![[1., 8.]]), ..Measured::default() };
/// let layer = Evidence { measured: &measured, ..Evidence::weight_only("fc1", &w) };
/// assert_eq!(Obd.score(&layer).unwrap(), array![[2., 4.]]);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Obd;

impl Saliency for Obd {
    fn name(&self) -> &str {
        "obd"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::SecondDerivatives)
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok(layer.elementwise("obd", Need::SecondDerivatives)? * &layer.weight.mapv(|w| 0.5 * w * w))
    }

    fn predicts_loss(&self) -> bool {
        true
    }
}

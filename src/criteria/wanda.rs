//! Wanda: magnitude times the norm of the input.
//!
//! Sun, Liu, Bair, Kolter. *A simple and effective pruning approach for large language models.* ICLR 2024, arXiv:2306.11695,
//! equation 1.
//!
//! ```text
//! s_ij = |w_ij| · ‖x_j‖₂
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | x_j | input j over all tokens; ‖x_j‖² from [`Measured::input_squares`](crate::criteria::Measured), or from the diagonal of the Gram matrix |
//!
//! The paper lets the weights of each output compete apart: [`Scope::Row`](crate::mask::Scope::Row). Between layers scores can
//! be compared if all saw the same tokens.
//!
//! Departures: the authors divide ‖x_j‖² by the number of sequences, which changes no rank; and they drop `int(in · sparsity)` of
//! each row, where a [`Budget`](crate::mask::Budget) counts over the layer.
//!
//! Cost: one pass over the weights.

use crate::Result;
use crate::criteria::{Evidence, Need, Needs, Saliency};
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

/// |w| ‖x‖; see the module.
///
/// ```
/// use lacuna::criteria::{Evidence, Measured, Saliency, Wanda};
/// use ndarray::array;
/// let w = array![[2., -1.]];
/// let measured = Measured { input_squares: Some(array![4., 25.]), ..Measured::default() };
/// let layer = Evidence { measured: &measured, ..Evidence::weight_only("fc1", &w) };
/// assert_eq!(Wanda.score(&layer).unwrap(), array![[4., 5.]]);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Wanda;

impl Saliency for Wanda {
    fn name(&self) -> &str {
        "wanda"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::InputSquares)
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        let norms: Array1<f32> = layer.input_squares("wanda")?.mapv(|s| s.sqrt() as f32);
        Ok(layer.weight.mapv(f32::abs) * &norms)
    }
}

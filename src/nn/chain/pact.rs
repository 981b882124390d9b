//! PACT: a rectifier that is cut off at a height that is learnt, and of few levels below it.
//!
//! Choi, Wang, Venkataramani, Chuang, Srinivasan, Gopalakrishnan. *PACT: parameterized clipping activation for quantized neural networks.* 2018,
//! arXiv:1805.06085, equations 1 to 3.
//!
//! ```text
//! y = min(max(x, 0), α),   ŷ = round(y · (2^k − 1) / α) · α / (2^k − 1)
//! ∂ŷ/∂x = 1 where 0 < x < α, else 0,        ∂ŷ/∂α = 1 where x ≥ α, else 0
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | α | [`Pact::alpha`], one a layer; at least 1e-3 is used. Weight decay of the optimiser is the paper's regularisation of it |
//! | k | [`Pact::bits`]; without, nothing is rounded |
//!
//! Gradients pass straight through the rounding.

use super::Param;
use super::arrays::square;
use ndarray::Array2;

/// A clipped rectifier of few levels; see the module's text in the source: y = min(max(x, 0), α), rounded to 2^k − 1 steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Pact {
    /// α, `(1, 1)`.
    pub alpha: Param,
    /// k, 1 to 16; none rounds nothing.
    pub bits: Option<u32>,
}

/// The least α that is used.
const LEAST: f32 = 1e-3;

impl Pact {
    /// Cut off at `alpha` to begin with.
    ///
    /// # Panics
    /// If `bits` is not 1 to 16, or `alpha` no finite number above 0.
    pub fn new(alpha: f32, bits: Option<u32>) -> Self {
        assert!(bits.is_none_or(|bits| (1..=16).contains(&bits)), "{bits:?} bits of an activation: 1 to 16");
        assert!(alpha.is_finite() && alpha > 0.0, "an activation is cut off at {alpha}: a finite number above 0");
        Pact { alpha: Param::vector(1, alpha), bits }
    }

    /// α as it is used.
    pub fn height(&self) -> f32 {
        self.alpha.as_slice()[0].max(LEAST)
    }

    /// The value at x.
    pub fn value(&self, x: f32) -> f32 {
        let alpha = self.height();
        let y = x.clamp(0.0, alpha);
        match self.bits {
            None => y,
            Some(bits) => {
                let steps = ((1u32 << bits) - 1) as f32;
                (y * steps / alpha).round_ties_even() * alpha / steps
            }
        }
    }

    pub(crate) fn forward(&self, x: &Array2<f32>) -> Array2<f32> {
        x.mapv(|x| self.value(x))
    }

    /// `d · ∂y/∂x`.
    pub(super) fn times_slope(&self, x: &Array2<f32>, d: &Array2<f32>) -> Array2<f32> {
        let alpha = self.height();
        ndarray::Zip::from(x).and(d).map_collect(|&x, &d| if 0.0 < x && x < alpha { d } else { 0.0 })
    }

    /// `d · ∂y/∂α` of each entry.
    fn above(&self, x: &Array2<f32>, d: &Array2<f32>) -> Array2<f32> {
        let alpha = self.height();
        ndarray::Zip::from(x).and(d).map_collect(|&x, &d| if x >= alpha { d } else { 0.0 })
    }

    /// `∂/∂α` of each sample, `(batch, 1)`.
    pub(super) fn sample_gradients(&self, x: &Array2<f32>, d: &Array2<f32>) -> Array2<f32> {
        let sums = self.above(x, d).rows().into_iter().map(|row| row.iter().map(|d| f64::from(*d)).sum::<f64>() as f32).collect();
        Array2::from_shape_vec((x.nrows(), 1), sums).unwrap_or_else(|_| unreachable!("one sum a sample"))
    }

    /// `∂/∂α` over the batch, `(1, 1)`.
    pub(super) fn gradient(&self, x: &Array2<f32>, d: &Array2<f32>) -> Array2<f32> {
        Array2::from_elem((1, 1), self.above(x, d).iter().map(|d| f64::from(*d)).sum::<f64>() as f32)
    }

    /// The sum over the batch of the squares of each sample's.
    pub(super) fn gradient_squares(&self, x: &Array2<f32>, d: &Array2<f32>) -> Array2<f32> {
        let squares = square(&self.sample_gradients(x, d));
        Array2::from_elem((1, 1), squares.iter().map(|d| f64::from(*d)).sum::<f64>() as f32)
    }
}

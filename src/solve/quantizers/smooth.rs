//! SmoothQuant: inputs that reach far are divided, and the weights behind them multiplied, so that both fit into 8 bits.
//!
//! Xiao, Lin, Seznec, Wu, Demouth, Han. *SmoothQuant: accurate and efficient post-training quantization for large language models.* ICML 2023,
//! arXiv:2211.10438, equation 4, and the authors' code (`smooth_ln_fcs`).
//!
//! ```text
//! s_j = max |x_j|^α / max |w_j|^(1−α),   x_j ← x_j / s_j,   w_j ← w_j · s_j
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | x_j | input j of all layers that read the norm's output, over all tokens of the calibration |
//! | w_j | its weights in all of these layers |
//! | α | [`SmoothQuant::strength`] |
//!
//! The inputs' producer is divided by s, a norm as in the authors' code, so that the model computes the same before anything is rounded
//! ([`quantize_language`](crate::prune::quantize_language)). It chooses no codes: any [`Quantizer`](super::Quantizer) does afterwards.
//!
//! Departures: an input that is 0 throughout, or that no layer has a weight for, keeps its scale, where the authors bound maxima and s by 1e-5 from below.
//!
//! Cost: one pass over the weights.

use super::awq::Awq;
use crate::criteria::{Evidence, Need, Needs};
use crate::quantize::CodeGrid;
use crate::{Error, Result};
use ndarray::Array1;

/// SmoothQuant; see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SmoothQuant {
    /// α, in [0, 1]: how much of the inputs' range goes over to the weights.
    pub strength: f64,
}

impl Default for SmoothQuant {
    /// The paper's: a half.
    fn default() -> Self {
        SmoothQuant { strength: 0.5 }
    }
}

impl SmoothQuant {
    /// s `(in)`, above 0, of an input that all these layers read.
    ///
    /// ```
    /// use lacuna::criteria::{Evidence, Measured};
    /// use lacuna::solve::SmoothQuant;
    /// use ndarray::array;
    /// let measured = Measured { tokens: 2, input_maxima: Some(array![16., 1., 0.]), ..Measured::default() };
    /// let w = array![[1., -4., 2.]];
    /// let scales = SmoothQuant::default().input_scales(&[Evidence::new("fc1", &w, &measured)])?;
    /// assert_eq!(scales, array![4., 0.5, 1.]);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if the strength is not in [0, 1] or there are no layers; [`Error::Shape`] if they have different inputs;
    /// [`Error::MissingEvidence`] if the largest magnitudes were not measured.
    pub fn input_scales(&self, layers: &[Evidence<'_>]) -> Result<Array1<f32>> {
        if !(0.0..=1.0).contains(&self.strength) {
            return Err(Error::invalid_option("smooth", format!("{} is not in [0, 1]; 0.5 is usual", self.strength)));
        }
        let Some(first) = layers.first() else { return Err(Error::invalid_option("layers", "none has inputs to scale")) };
        let inputs = first.input_maxima("smoothquant")?;
        let mut weights = Array1::<f32>::zeros(inputs.len());
        for layer in layers {
            if layer.weight.ncols() != inputs.len() {
                let (cols, found) = (inputs.len(), layer.weight.ncols());
                return Err(Error::shape("layers of one input", &[cols], &[found]).in_layer(layer.layer));
            }
            layer.weight.rows().into_iter().for_each(|row| weights.zip_mut_with(&row, |most, w| *most = most.max(w.abs())));
        }
        let scale = |(&x, &w): (&f64, &f32)| {
            let s = x.powf(self.strength) / f64::from(w).powf(1.0 - self.strength);
            let kept = x == 0.0 || w == 0.0 || !(f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&s);
            if kept { 1.0 } else { s as f32 }
        };
        Ok(inputs.iter().zip(&weights).map(scale).collect())
    }
}

/// How inputs are scaled before layers are quantised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InputScaling {
    /// [`Awq`]: by what the layers lose. Through norms and rows of layers.
    Awq(Awq),
    /// [`SmoothQuant`]: by ranges. Through norms.
    Smooth(SmoothQuant),
}

impl InputScaling {
    /// What must be measured of the inputs.
    pub fn needs(&self) -> Needs {
        match self {
            InputScaling::Awq(_) => Needs::none().and(Need::Gram).and(Need::InputMagnitudes),
            InputScaling::Smooth(_) => Needs::none().and(Need::InputMaxima),
        }
    }

    /// Whether rows of a layer are divided where they make the inputs, and not norms alone.
    pub fn reaches_rows(&self) -> bool {
        matches!(self, InputScaling::Awq(_))
    }

    /// s `(in)` of an input that all these layers read, and the exponent that made it.
    ///
    /// # Errors
    /// As [`Awq::input_scales`] and [`SmoothQuant::input_scales`].
    pub fn scales(&self, layers: &[Evidence<'_>], grid: CodeGrid) -> Result<(Array1<f32>, f64)> {
        match self {
            InputScaling::Awq(awq) => awq.input_scales(layers, grid).map(|found| (found.scales, found.exponent)),
            InputScaling::Smooth(smooth) => Ok((smooth.input_scales(layers)?, smooth.strength)),
        }
    }
}

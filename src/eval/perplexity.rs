//! Perplexity of a text.
//!
//! ```text
//! exp( mean over all windows and all tokens t of a window but the first of  -log p(t | the tokens of the window before it) )
//! ```
//!
//! The text is cut into tokens once, as it is; windows follow one another without overlap; what is left at the end and does not
//! fill one is dropped. Numbers of different contexts, or with and without a first token of the model's own, are not comparable.

use crate::{Error, Result};
use serde::Serialize;

/// The perplexity of a text, and what it was measured on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Perplexity {
    /// `exp` of the mean; infinite where that is more than 709.
    pub perplexity: f64,
    /// Mean of -log p over the predicted tokens, natural logarithm, summed in f64.
    pub nll: f64,
    /// Windows.
    pub windows: usize,
    /// Predicted tokens: all but the first of each window.
    pub predicted: usize,
}

impl Perplexity {
    /// The perplexity of these losses, one list a window.
    ///
    /// # Errors
    /// [`Error::Numerical`] if a loss is NaN or infinite; [`Error::InvalidOption`] if there is none.
    pub fn of(losses: &[Vec<f64>]) -> Result<Perplexity> {
        let (mut sum, mut predicted) = (0.0, 0);
        for (w, window) in losses.iter().enumerate() {
            if let Some(at) = window.iter().position(|l| !l.is_finite()) {
                let (at, loss) = (at + 1, window[at]);
                let reason = format!("the loss of token {at} of window {w} is {loss}: the model's numbers are not finite");
                return Err(Error::Numerical { what: "perplexity".into(), reason });
            }
            sum += window.iter().sum::<f64>();
            predicted += window.len();
        }
        if predicted == 0 {
            return Err(Error::invalid_option("windows", "no token was predicted"));
        }
        let nll = sum / predicted as f64;
        Ok(Perplexity { perplexity: nll.exp(), nll, windows: losses.len(), predicted })
    }
}

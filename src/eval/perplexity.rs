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

/// The windows of a text: `context` tokens each, the first `most` of them. With `first` every window begins with that token
/// and has `context - 1` of the text.
///
/// ```
/// use lacuna::eval::windows;
/// let ids = [5, 6, 7, 8, 9, 10, 11];
/// assert_eq!(windows(&ids, 3, None, None)?, [[5, 6, 7], [8, 9, 10]]);
/// assert_eq!(windows(&ids, 3, Some(1), Some(1))?, [[1, 5, 6]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::Setting`] if a window has fewer than 2 tokens of the text in it, `most` is 0, or the text does not fill one window.
pub fn windows(ids: &[u32], context: usize, most: Option<usize>, first: Option<u32>) -> Result<Vec<Vec<u32>>> {
    let fill = context.saturating_sub(usize::from(first.is_some()));
    if context < 2 || fill < 1 {
        return Err(Error::setting("context", format!("{context} tokens leave none to predict; at least 2 are needed")));
    }
    if most == Some(0) {
        return Err(Error::setting("windows", "0 windows have no perplexity"));
    }
    if ids.len() < fill {
        return Err(Error::setting("context", format!("the text has {} tokens, fewer than one window of {fill}", ids.len())));
    }
    let window = |part: &[u32]| first.iter().chain(part).copied().collect();
    Ok(ids.chunks_exact(fill).take(most.unwrap_or(usize::MAX)).map(window).collect())
}

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
    /// [`Error::Numerical`] if a loss is NaN or infinite; [`Error::Setting`] if there is none.
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
            return Err(Error::setting("windows", "no token was predicted"));
        }
        let nll = sum / predicted as f64;
        Ok(Perplexity { perplexity: nll.exp(), nll, windows: losses.len(), predicted })
    }
}

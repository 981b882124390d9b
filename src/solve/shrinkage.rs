//! Shrinkage of Gram matrices: less of what is of one text alone.
//!
//! After Ledoit, Wolf. *A well-conditioned estimator for large-dimensional covariance matrices.* Journal of Multivariate Analysis 88, 2004: a
//! covariance of few samples is nearer to the truth once it is drawn towards a matrix with less of their noise.
//!
//! ```text
//! H_w  = Σ_g w_g (T / n_g) H_g         w_g = (1 − τ) n_g / T + τ / G
//! H(δ) = (1 − δ) H_w + δ diag(H_w) + ι mean(diag H_w) I
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | H_g, n_g | the Gram matrix of text g of G and its tokens, T of all; those held out are left out |
//! | τ | [`GramShrinkage::texts`]: at 0 texts weigh by their tokens, at 1 all alike |
//! | δ | [`GramShrinkage::diagonal`]: at 1 inputs are taken for uncorrelated, which is what Wanda looks at; the diagonal itself stays |
//! | ι | [`GramShrinkage::identity`], as damping; inputs that were always 0 stay so |
//!
//! Departure: the fractions are given, or chosen on other texts ([`Regularised::chosen`](super::Regularised::chosen)), where Ledoit and Wolf estimate one
//! from the samples' fourth moments: what is held against is text of another kind, not noise of the same.
//!
//! Cost: `G · in²`.

use crate::criteria::{Measured, TextGram};
use crate::{Error, Result};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// How Gram matrices are drawn towards simpler ones; see the module.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `diagonal` | 0 | [0, 1] | δ, towards the diagonal |
/// | `identity` | 0 | from 0 | ι, a fraction of the mean diagonal that is added to it |
/// | `texts` | 0 | [0, 1] | τ, towards the mean over texts |
///
/// ```
/// use lacuna::criteria::Measured;
/// use lacuna::solve::GramShrinkage;
/// use ndarray::array;
/// let measured = Measured { tokens: 4, gram: Some(array![[2., 1.], [1., 4.]]), ..Measured::default() };
/// let half = GramShrinkage { diagonal: 0.5, ..GramShrinkage::default() };
/// assert_eq!(half.gram(&measured, None)?, Some(array![[2., 0.5], [0.5, 4.]]));
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct GramShrinkage {
    /// δ: towards the diagonal.
    pub diagonal: f64,
    /// ι: a fraction of the mean diagonal that is added to it.
    pub identity: f64,
    /// τ: towards the mean over texts.
    pub texts: f64,
}

/// The texts that are fitted on.
pub(super) fn fitted(measured: &Measured) -> Vec<&TextGram> {
    measured.texts.iter().filter(|text| !text.held_out).collect()
}

impl GramShrinkage {
    /// Whether it changes nothing.
    pub fn is_none(&self) -> bool {
        *self == GramShrinkage::default()
    }

    /// Refuses fractions outside their ranges.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the number.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str, value: f64, range: &str| {
            Err(Error::invalid_option("shrinkage", format!("{value} {what} is not in {range}; 0.1 is usual")))
        };
        if !(0.0..=1.0).contains(&self.diagonal) {
            return refuse("towards the diagonal", self.diagonal, "[0, 1]");
        }
        if !(0.0..=1.0).contains(&self.texts) {
            return refuse("towards the mean over texts", self.texts, "[0, 1]");
        }
        match self.identity.is_finite() && self.identity >= 0.0 {
            true => Ok(()),
            false => refuse("of the mean diagonal", self.identity, "0 and above"),
        }
    }

    /// w `(texts)`, which sum to 1, for texts of so many tokens.
    pub(super) fn weights(&self, texts: &[&TextGram]) -> Vec<f64> {
        let (all, count) = (texts.iter().map(|text| text.tokens).sum::<usize>() as f64, texts.len() as f64);
        texts.iter().map(|text| (1.0 - self.texts) * text.tokens as f64 / all + self.texts / count).collect()
    }

    /// The Gram matrix `(in, in)` to solve by; `weights` are those of the texts that are fitted on, in their order, where they are others than τ
    /// says. `None` where the one that was measured is not changed, or none was measured.
    ///
    /// # Errors
    /// As [`GramShrinkage::check`]; [`Error::Shape`] if there are not as many weights as texts.
    pub fn gram(&self, measured: &Measured, weights: Option<&[f64]>) -> Result<Option<Array2<f64>>> {
        self.check()?;
        let Some(whole) = measured.gram.as_ref() else { return Ok(None) };
        let texts = fitted(measured);
        if let Some(given) = weights.filter(|given| given.len() != texts.len()) {
            return Err(Error::shape("weights of texts", &[texts.len()], &[given.len()]));
        }
        let by_texts = weights.is_some() || self.texts > 0.0;
        let mut gram = match by_texts && texts.len() > 1 {
            false if self.diagonal == 0.0 && self.identity == 0.0 => return Ok(None),
            false => whole.clone(),
            true => {
                let own;
                let weights = match weights {
                    Some(given) => given,
                    None => {
                        own = self.weights(&texts);
                        &own
                    }
                };
                let all = texts.iter().map(|text| text.tokens).sum::<usize>() as f64;
                let mut sum = Array2::zeros(whole.dim());
                for (text, weight) in texts.iter().zip(weights) {
                    sum.scaled_add(weight * all / text.tokens as f64, &text.gram);
                }
                sum
            }
        };
        let diagonal = gram.diag().to_owned();
        if self.diagonal > 0.0 {
            gram *= 1.0 - self.diagonal;
        }
        let damp = self.identity * diagonal.sum() / diagonal.len().max(1) as f64;
        // An input that was always 0 is known by its diagonal.
        gram.diag_mut().zip_mut_with(&diagonal, |to, &d| *to = if d == 0.0 { 0.0 } else { d + damp });
        Ok(Some(gram))
    }
}

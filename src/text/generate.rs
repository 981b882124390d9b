//! Token after token.

use super::Sampler;
use crate::{Error, Result};
use serde::Serialize;
use std::ops::ControlFlow;

/// Why a text came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// As many tokens as were asked for.
    Limit,
    /// The model gave a token that ends a text.
    Stop,
    /// Who looked on ended it: a text came that was to end it.
    StopText,
}

/// What was generated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Generation {
    /// The tokens behind the prompt, without the one that ended them.
    pub ids: Vec<u32>,
    /// Why there are no more.
    pub ended: Ended,
}

/// Continues `prompt` by at most `limit` tokens.
///
/// `step` takes the tokens that are new since the last call (first the whole prompt) and gives the logits of what follows them.
/// `see` is shown each token as soon as it is chosen.
///
/// ```
/// use lacuna::rng::Seed;
/// use lacuna::text::{Ended, Sampler, Sampling, generate};
/// // After n comes n + 1, of 5 tokens; 4 ends the text.
/// let step = |ids: &[u32]| Ok((0..5).map(|i| if i == (ids[ids.len() - 1] + 1) % 5 { 1.0 } else { 0.0 }).collect());
/// let mut greedy = Sampler::new(Sampling::default(), Seed(0))?;
/// let made = generate(step, &[0, 1], 10, &[4], &mut greedy, |_| Ok(()))?;
/// assert_eq!((made.ids, made.ended), (vec![2, 3], Ended::Stop));
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidOption`] if the prompt has no tokens; what `step`, `see` and [`Sampler::pick`] return.
pub fn generate(
    step: impl FnMut(&[u32]) -> Result<Vec<f32>>,
    prompt: &[u32],
    limit: usize,
    stops: &[u32],
    sampler: &mut Sampler,
    mut see: impl FnMut(u32) -> Result<()>,
) -> Result<Generation> {
    generate_until(step, prompt, limit, stops, sampler, |id| see(id).map(ControlFlow::Continue))
}

/// As [`generate`], until `see` says that it is enough. The token that it was shown then is the last.
///
/// # Errors
/// As [`generate`].
pub fn generate_until(
    mut step: impl FnMut(&[u32]) -> Result<Vec<f32>>,
    prompt: &[u32],
    limit: usize,
    stops: &[u32],
    sampler: &mut Sampler,
    mut see: impl FnMut(u32) -> Result<ControlFlow<()>>,
) -> Result<Generation> {
    if prompt.is_empty() {
        return Err(Error::invalid_option("prompt", "it has no tokens, so there is nothing to continue"));
    }
    let mut ids = Vec::new();
    let mut new = prompt.to_vec();
    while ids.len() < limit {
        let id = sampler.pick(&step(&new)?)?;
        if stops.contains(&id) {
            return Ok(Generation { ids, ended: Ended::Stop });
        }
        ids.push(id);
        if see(id)?.is_break() {
            return Ok(Generation { ids, ended: Ended::StopText });
        }
        new = vec![id];
    }
    Ok(Generation { ids, ended: Ended::Limit })
}

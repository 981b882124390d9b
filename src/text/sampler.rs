//! One token out of logits.

use crate::rng::{Seed, Stream};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How a token is chosen.
///
/// ```text
/// p = softmax(z / temperature); keep the top_k largest; of these the fewest whose sum reaches top_p; draw from what is left
/// ```
///
/// A temperature of 0 takes the largest logit, of equals the first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 for the largest; 1 draws from the model's own distribution.
    pub temperature: f64,
    /// Tokens that may be drawn at most; 0 for all.
    pub top_k: usize,
    /// Share of the probability that may be drawn from, in (0, 1].
    pub top_p: f64,
}

impl Default for Sampling {
    /// The largest.
    fn default() -> Self {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0 }
    }
}

/// Chooses tokens by a [`Sampling`] and a seed.
///
/// ```
/// use lacuna::rng::Seed;
/// use lacuna::text::{Sampler, Sampling};
/// let mut greedy = Sampler::new(Sampling::default(), Seed(0))?;
/// assert_eq!(greedy.pick(&[0.5, 2.0, 2.0])?, 1);
/// let mut two = Sampler::new(Sampling { temperature: 1.0, top_k: 2, top_p: 1.0 }, Seed(0))?;
/// assert!((0..100).all(|_| two.pick(&[0.5, 2.0, 1.0]).unwrap() != 0));
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    random: Stream,
}

impl Sampler {
    /// A sampler; the same seed draws the same tokens from the same logits.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if the temperature is not a number from 0 on, or `top_p` is not in (0, 1].
    pub fn new(sampling: Sampling, seed: Seed) -> Result<Sampler> {
        let Sampling { temperature, top_p, .. } = sampling;
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(Error::invalid_option("temperature", format!("{temperature} is no number from 0 on")));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::invalid_option("top-p", format!("{top_p} is not in (0, 1]")));
        }
        Ok(Sampler { sampling, random: seed.stream("sample") })
    }

    /// Chooses the tokens from now on by another sampling, with the same draws.
    pub(crate) fn set_sampling(&mut self, sampling: Sampling) {
        self.sampling = sampling;
    }

    /// The token of these logits.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if a logit is NaN or an infinity; [`Error::InvalidOption`] if there are none.
    pub fn pick(&mut self, logits: &[f32]) -> Result<u32> {
        if let Some((col, &value)) = logits.iter().enumerate().find(|(_, z)| !z.is_finite()) {
            return Err(Error::NotFinite { what: "logits".into(), row: 0, col, value: f64::from(value) });
        }
        let largest = logits.iter().enumerate().fold(None, |best: Option<(usize, f32)>, (i, &z)| match best {
            Some((_, b)) if z <= b => best,
            _ => Some((i, z)),
        });
        let Some((first, top)) = largest else { return Err(Error::invalid_option("logits", "there are none")) };
        if self.sampling.temperature == 0.0 {
            return Ok(first as u32);
        }
        // Weights relative to the largest, so that it is 1 and none overflows.
        let weight = |z: f32| (f64::from(z - top) / self.sampling.temperature).exp();
        let mut kept: Vec<(u32, f64)> = logits.iter().enumerate().map(|(i, &z)| (i as u32, weight(z))).collect();
        let (k, p) = (self.sampling.top_k, self.sampling.top_p);
        let order = |a: &(u32, f64), b: &(u32, f64)| logits[b.0 as usize].total_cmp(&logits[a.0 as usize]).then(a.0.cmp(&b.0));
        if k > 0 && k < kept.len() {
            kept.select_nth_unstable_by(k - 1, order);
            kept.truncate(k);
        }
        if p < 1.0 || k > 0 {
            kept.sort_unstable_by(order);
        }
        if p < 1.0 {
            let wanted = p * kept.iter().map(|(_, w)| w).sum::<f64>();
            let mut sum = 0.0;
            let enough = kept.iter().position(|(_, w)| {
                sum += w;
                sum >= wanted
            });
            kept.truncate(enough.map_or(kept.len(), |last| last + 1));
        }
        // 53 bits of chance: one f32 draw would not reach tokens of a probability below 2^-24.
        let chance = (f64::from(self.random.uniform()) + f64::from(self.random.uniform()) / f64::from(1u32 << 24)).min(1.0);
        let mut left = chance * kept.iter().map(|(_, w)| w).sum::<f64>();
        for (id, w) in &kept {
            left -= w;
            if left < 0.0 {
                return Ok(*id);
            }
        }
        // The sums were rounded apart: the last one that can be drawn.
        Ok(kept.iter().rev().find(|(_, w)| *w > 0.0).map_or(first as u32, |(id, _)| *id))
    }
}

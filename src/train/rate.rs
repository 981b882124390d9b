//! The learning rate over the steps of a run.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How the learning rate goes down after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cooldown {
    /// It does not.
    Constant,
    /// By a straight line.
    Linear,
    /// By half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts).
    #[default]
    Cosine,
    /// Warmup-stable-decay: it stays, and falls by a straight line over the last fifth of the steps (Hu et al. 2024, arXiv:2404.06395; the line
    /// is that of Hägele et al. 2024, arXiv:2405.18392).
    Wsd,
}

/// The part of a run in which [`Cooldown::Wsd`] falls.
const COOLING: f64 = 0.2;

impl Cooldown {
    /// All of them.
    pub const ALL: [Cooldown; 4] = [Cooldown::Constant, Cooldown::Linear, Cooldown::Cosine, Cooldown::Wsd];

    /// Its name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            Cooldown::Constant => "constant",
            Cooldown::Linear => "linear",
            Cooldown::Cosine => "cosine",
            Cooldown::Wsd => "wsd",
        }
    }
}

impl fmt::Display for Cooldown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Cooldown {
    type Err = Error;

    /// # Errors
    /// [`Error::UnknownName`] with the nearest.
    fn from_str(s: &str) -> Result<Cooldown> {
        let found = Cooldown::ALL.into_iter().find(|way| way.name() == s);
        found.ok_or_else(|| Error::unknown_name("schedule", s, Cooldown::ALL.into_iter().map(Cooldown::name)))
    }
}

/// The learning rate at each step: a warm-up by a straight line, and then down.
///
/// ```text
/// step < warmup      peak · (step + 1) / warmup
/// else               floor + (peak − floor) · f(p),   p = (step − warmup) / (steps − warmup)
/// f: constant 1 · linear 1 − p · cosine (1 + cos πp) / 2 · wsd min(1, (1 − p) / 0.2)
/// ```
///
/// Steps count from 0, so that the first has a rate above 0 and the last is not yet at the floor.
///
/// ```
/// use lacuna::train::{Cooldown, LearningRate};
/// let rate = LearningRate::new(1.0).warmup(2).cooldown(Cooldown::Linear);
/// assert_eq!((0..6).map(|step| rate.at(step, 6)).collect::<Vec<_>>(), [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]);
/// ```
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `peak` | | from 0 | the largest rate |
/// | `warmup` | 0 | from 0 | steps until it is reached |
/// | `cooldown` | `cosine` | [`Cooldown`] | how it goes down |
/// | `floor` | 0 | [0, 1] | where to, as a fraction of the peak |
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LearningRate {
    /// The largest rate.
    pub peak: f64,
    /// Steps until it is reached.
    pub warmup: usize,
    /// How it goes down then.
    pub cooldown: Cooldown,
    /// Where to, as a fraction of the peak.
    pub floor: f64,
}

impl LearningRate {
    /// By half a cosine from this to 0.
    pub fn new(peak: f64) -> LearningRate {
        LearningRate { peak, warmup: 0, cooldown: Cooldown::Cosine, floor: 0.0 }
    }

    /// The same with so many steps of warm-up.
    #[must_use]
    pub fn warmup(self, steps: usize) -> LearningRate {
        LearningRate { warmup: steps, ..self }
    }

    /// The same, going down in another way.
    #[must_use]
    pub fn cooldown(self, cooldown: Cooldown) -> LearningRate {
        LearningRate { cooldown, ..self }
    }

    /// The same, going down to this fraction of the peak.
    #[must_use]
    pub fn floor(self, fraction: f64) -> LearningRate {
        LearningRate { floor: fraction, ..self }
    }

    /// The rate at `step`, from 0, of `steps`.
    pub fn at(&self, step: usize, steps: usize) -> f32 {
        if step < self.warmup {
            return (self.peak * (step + 1) as f64 / self.warmup as f64) as f32;
        }
        let done = (step - self.warmup) as f64 / steps.saturating_sub(self.warmup).max(1) as f64;
        let left = match self.cooldown {
            Cooldown::Constant => 1.0,
            Cooldown::Linear => 1.0 - done,
            Cooldown::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Cooldown::Wsd => ((1.0 - done) / COOLING).min(1.0),
        };
        (self.peak * (self.floor + (1.0 - self.floor) * left.clamp(0.0, 1.0))) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_down_begins_at_the_peak_and_ends_at_the_floor() {
        for cooldown in Cooldown::ALL {
            assert_eq!(cooldown.name().parse::<Cooldown>().unwrap(), cooldown);
            let rate = LearningRate::new(2.0).warmup(4).cooldown(cooldown).floor(0.1);
            assert_eq!((0..5).map(|s| rate.at(s, 104)).collect::<Vec<_>>(), [0.5, 1.0, 1.5, 2.0, 2.0], "{cooldown}");
            let falls = (4..104).all(|s| rate.at(s + 1, 104) <= rate.at(s, 104));
            assert!(falls, "{cooldown}");
            let end = rate.at(104, 104);
            let right = if cooldown == Cooldown::Constant { 2.0 } else { 0.2 };
            assert!((end - right).abs() < 1e-6, "{cooldown}: {end}");
        }
        let wsd = LearningRate::new(1.0).cooldown(Cooldown::Wsd);
        assert_eq!([0, 79, 80].map(|s| wsd.at(s, 100)), [1.0, 1.0, 1.0]);
        assert!((wsd.at(90, 100) - 0.5).abs() < 1e-6);
        assert!((LearningRate::new(1.0).at(25, 100) - 0.853_553_4).abs() < 1e-6, "(1 + cos π/4) / 2");
        assert_eq!(
            "cosin".parse::<Cooldown>().unwrap_err().to_string(),
            "no schedule is named 'cosin' among 4; did you mean 'cosine'?"
        );
    }
}

//! Grids of a few levels, and the scale that fits one to a weight.
//!
//! | grid | levels, in units of the scale | |
//! |---|---|---|
//! | `Uniform { levels: 2 }` | −1, 1 | |
//! | `Uniform { levels: 5 }` | −1, −½, 0, ½, 1 | equal distances |
//! | `PowerOfTwo { levels: 5 }` | −1, −½, 0, ½, 1 | 0 and ±2⁻ᵏ: products are shifts |
//! | `PowerOfTwo { levels: 7 }` | −1, −½, −¼, 0, ¼, ½, 1 | |
//! | `Ternary` | −1, 0, 1 | as `Uniform { levels: 3 }` |
//!
//! An odd number of levels has a 0, an even number has none.
//!
//! ```text
//! minimise over s  Σ (w − s q(w / s))²,   q: the nearest level
//! ```
//!
//! by turns: the levels for a given s, then `s = Σ w q / Σ q²`. Each turn lowers the error; several beginnings are tried, and the
//! best is taken.

use crate::mask::check_finite;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use serde::{Deserialize, Serialize};

/// A grid of a few levels, symmetric about 0; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grid {
    /// Equal distances.
    Uniform {
        /// How many, at least 2.
        levels: usize,
    },
    /// 0 (if the number is odd) and ±2⁻ᵏ.
    PowerOfTwo {
        /// How many, at least 2.
        levels: usize,
    },
    /// −1, 0 and 1.
    Ternary,
}

impl Grid {
    /// The levels, ascending, the largest 1.
    ///
    /// ```
    /// use lacuna::quantize::Grid;
    /// assert_eq!(Grid::Uniform { levels: 4 }.levels()?, [-1., -1. / 3., 1. / 3., 1.]);
    /// assert_eq!(Grid::PowerOfTwo { levels: 7 }.levels()?, [-1., -0.5, -0.25, 0., 0.25, 0.5, 1.]);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are fewer than two levels, or more than 255.
    pub fn levels(self) -> Result<Vec<f32>> {
        let count = match self {
            Grid::Uniform { levels } | Grid::PowerOfTwo { levels } => levels,
            Grid::Ternary => 3,
        };
        if !(2..256).contains(&count) {
            return Err(Error::invalid_option("levels", format!("{count}: from 2 to 255")));
        }
        let half = count / 2;
        let positive: Vec<f32> = match self {
            Grid::PowerOfTwo { .. } => (0..half).rev().map(|k| 0.5f32.powi(k as i32)).collect(),
            _ => (0..half).map(|k| (2 * k + 1 + count % 2) as f32 / (count - 1) as f32).collect(),
        };
        let zero = (count % 2 == 1).then_some(0.0);
        Ok(positive.iter().rev().map(|v| -v).chain(zero).chain(positive.iter().copied()).collect())
    }

    /// The weight with every entry at its nearest level times `scale`; of two equally near the one nearer to 0.
    ///
    /// # Errors
    /// As [`Grid::levels`]; an entry or a scale that is not finite.
    pub fn round(self, weight: &ArrayRef2<f32>, scale: f32) -> Result<Array2<f32>> {
        let levels = self.levels()?;
        check_finite(weight, "weights")?;
        if !scale.is_finite() {
            return Err(Error::invalid_option("scale", format!("{scale} is not finite")));
        }
        Ok(weight.mapv(|w| scale * nearest(&levels, if scale > 0.0 { w / scale } else { 0.0 })))
    }

    /// The scale under which [`Grid::round`] changes these numbers least, in the sum of squares; 0 of nothing but zeros.
    ///
    /// ```
    /// use lacuna::quantize::Grid;
    /// // Two levels: the mean of the absolute values.
    /// assert_eq!(Grid::Uniform { levels: 2 }.scale([1., -3., 2.])?, 2.);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Grid::levels`]; a number that is not finite.
    pub fn scale(self, numbers: impl IntoIterator<Item = f32>) -> Result<f32> {
        let levels = self.levels()?;
        let numbers: Vec<f32> = numbers.into_iter().collect();
        if let Some((row, v)) = numbers.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(Error::NotFinite { what: "weights".into(), row, col: 0, value: f64::from(*v) });
        }
        let largest = numbers.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        if largest == 0.0 {
            return Ok(0.0);
        }
        let (mut best, mut least) = (largest, f64::INFINITY);
        for share in [1.0, 0.75, 0.5, 0.35, 0.25] {
            let mut s = share * largest;
            for _ in 0..12 {
                let (wq, qq) = numbers.iter().fold((0.0, 0.0), |(wq, qq), &w| {
                    let q = f64::from(nearest(&levels, w / s));
                    (wq + f64::from(w) * q, qq + q * q)
                });
                let next = if qq > 0.0 { (wq / qq) as f32 } else { break };
                if next == s || next <= 0.0 {
                    break;
                }
                s = next;
            }
            let error: f64 = numbers.iter().map(|&w| f64::from(w - s * nearest(&levels, w / s)).powi(2)).sum();
            if error < least {
                (best, least) = (s, error);
            }
        }
        Ok(best)
    }
}

/// The nearest of ascending levels; of two equally near the one nearer to 0.
fn nearest(levels: &[f32], w: f32) -> f32 {
    let closer = |best: f32, level: f32| {
        let (a, b) = ((w - best).abs(), (w - level).abs());
        b < a || b == a && level.abs() < best.abs()
    };
    levels[1..].iter().fold(levels[0], |best, &level| if closer(best, level) { level } else { best })
}

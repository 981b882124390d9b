//! Quantiles of Student's t distribution, for the interval of a mean over few seeds.
//!
//! Student. *The probable error of a mean.* Biometrika 6, 1908. The sums: Abramowitz, Stegun, *Handbook of mathematical functions*, 26.7.3
//! and 26.7.4, which end for whole degrees of freedom ν.
//!
//! ```text
//! A(t|ν) = P(|T| <= t),  θ = atan(t / √ν)
//!
//! ν odd    A = 2/π (θ + sin θ (cos θ + 2/3 cos³ θ + … + (2·4 ⋯ (ν−3)) / (3·5 ⋯ (ν−2)) cos^(ν−2) θ))
//! ν even   A = sin θ (1 + 1/2 cos² θ + … + (1·3 ⋯ (ν−3)) / (2·4 ⋯ (ν−2)) cos^(ν−2) θ)
//! ```
//!
//! The quantile is found by halving the interval of θ until no number lies between its ends. Cost: some 60 sums of ν/2 terms.

use crate::{Error, Result};
use std::f64::consts::FRAC_PI_2;

/// The t for which |T| <= t with probability `level`, of `degrees` degrees of freedom: 4.303 for 95 % and 2, as tables have it. A mean of n
/// values has n − 1.
///
/// ```
/// let t = lacuna::report::student_t(0.95, 2)?;
/// assert!((t - 4.302653).abs() < 1e-6, "{t}");
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
///
/// When the level is not between 0 and 1, or there are no degrees of freedom.
pub fn student_t(level: f64, degrees: usize) -> Result<f64> {
    if !(level > 0.0 && level < 1.0) {
        return Err(Error::invalid_option("level", format!("{level:?} is not between 0 and 1; 0.95 is usual")));
    }
    if degrees == 0 {
        return Err(Error::invalid_option("degrees of freedom", "there are none: one value alone has no spread"));
    }
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return Ok((degrees as f64).sqrt() * libm::tan(middle));
        }
        if within(middle, degrees) < level { low = middle } else { high = middle }
    }
}

/// P(|T| <= √ν tan θ).
fn within(theta: f64, degrees: usize) -> f64 {
    let (sin, cos) = (libm::sin(theta), libm::cos(theta));
    let odd = degrees % 2 == 1;
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = 0.0;
    for k in 1..=degrees / 2 {
        sum += term;
        let k = 2.0 * k as f64;
        term *= cos * cos * if odd { k / (k + 1.0) } else { (k - 1.0) / k };
    }
    if odd { (theta + sin * sum) / FRAC_PI_2 } else { sin * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two-sided, from printed tables.
    const TABLE: [(usize, [f64; 3]); 12] = [
        (1, [6.314, 12.706, 63.657]),
        (2, [2.920, 4.303, 9.925]),
        (3, [2.353, 3.182, 5.841]),
        (4, [2.132, 2.776, 4.604]),
        (5, [2.015, 2.571, 4.032]),
        (6, [1.943, 2.447, 3.707]),
        (9, [1.833, 2.262, 3.250]),
        (10, [1.812, 2.228, 3.169]),
        (20, [1.725, 2.086, 2.845]),
        (30, [1.697, 2.042, 2.750]),
        (60, [1.671, 2.000, 2.660]),
        (120, [1.658, 1.980, 2.617]),
    ];

    #[test]
    fn quantiles_are_those_of_printed_tables() -> Result<()> {
        for (degrees, row) in TABLE {
            for (level, expected) in [0.9, 0.95, 0.99].into_iter().zip(row) {
                let t = student_t(level, degrees)?;
                assert!((t - expected).abs() <= 5.0001e-4, "{degrees} degrees, {level}: {t} and not {expected}");
            }
        }
        Ok(())
    }

    #[test]
    fn quantiles_of_one_and_two_degrees_are_the_closed_formulas_and_of_many_the_normal_one() -> Result<()> {
        for level in [0.01, 0.5, 0.9, 0.95, 0.999] {
            let one = (FRAC_PI_2 * level).tan();
            let two = level * (2.0 / (1.0 - level * level)).sqrt();
            for (degrees, expected) in [(1, one), (2, two)] {
                let t = student_t(level, degrees)?;
                assert!((t / expected - 1.0).abs() < 1e-12, "{degrees}, {level}: {t} and not {expected}");
            }
        }
        assert!((student_t(0.95, 1_000_001)? - 1.959_966).abs() < 1e-5);
        Ok(())
    }

    #[test]
    fn levels_outside_their_range_and_no_degrees_are_refused() {
        for level in [0.0, 1.0, -0.5, f64::NAN] {
            assert!(student_t(level, 2).unwrap_err().to_string().contains("is not between 0 and 1"));
        }
        assert!(student_t(0.95, 0).is_err());
    }
}

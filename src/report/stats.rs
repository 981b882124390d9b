//! Mean and spread of one number over seeds.

use super::student::student_t;
use crate::{Error, Result};

/// Mean and spread of one number measured several times.
///
/// ```
/// use lacuna::report::Summary;
///
/// # fn main() -> lacuna::Result<()> {
/// let s = Summary::of(&[1.0, 2.0, 3.0])?;
/// assert_eq!((s.mean, s.sd, s.min, s.max, s.n), (2.0, 1.0, 1.0, 3.0, 3));
/// assert_eq!(s.plus_minus(1), "2.0\u{a0}±\u{a0}1.0");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The arithmetic mean.
    pub mean: f64,
    /// The standard deviation with `n − 1` below, an estimate from a sample; NaN for one value, of which it says nothing.
    pub sd: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// How many values.
    pub n: usize,
}

impl Summary {
    /// Summarises values, in two passes.
    ///
    /// # Errors
    ///
    /// When there is no value, or one is not finite: a run that diverged must be reported, not averaged.
    pub fn of(values: &[f64]) -> Result<Self> {
        check(values)?;
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = mean.clamp(min, max); // rounding must not put the mean of equal values beside them
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let sd = if n == 1 { f64::NAN } else { (squares / (n - 1) as f64).sqrt() };
        Ok(Summary { mean, sd, min, max, n })
    }

    /// The interval that holds the mean of all seeds there might be with probability `level`, by Student's t: mean ± t · sd / √n with n − 1
    /// degrees of freedom. It takes the values for independent draws of a normal distribution. NaN of one value.
    ///
    /// ```
    /// let (low, high) = lacuna::report::Summary::of(&[1.0, 2.0, 3.0])?.interval(0.95)?;
    /// assert!((high - 2.0 - 4.302653 / 3f64.sqrt()).abs() < 1e-6 && (low + high - 4.0).abs() < 1e-12);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the level is not between 0 and 1.
    pub fn interval(&self, level: f64) -> Result<(f64, f64)> {
        let half = student_t(level, (self.n - 1).max(1))? * self.sd / (self.n as f64).sqrt();
        Ok((self.mean - half, self.mean + half))
    }

    /// `mean ± sd` with so many digits after the point, by spaces at which no line is broken; of one value the mean alone.
    pub fn plus_minus(&self, digits: usize) -> String {
        if self.sd.is_nan() {
            format!("{:.digits$}", self.mean)
        } else {
            format!("{:.digits$}\u{a0}±\u{a0}{:.digits$}", self.mean, self.sd)
        }
    }
}

/// The number below which a share `q` of the values lies, between neighbours by a straight line: the quartiles for 0.25 and 0.75.
///
/// ```
/// # fn main() -> lacuna::Result<()> {
/// let values = [4.0, 1.0, 3.0, 2.0, 5.0];
/// assert_eq!([0.0, 0.25, 0.6, 1.0].map(|q| lacuna::report::quantile(&values, q).unwrap()), [1.0, 2.0, 3.4, 5.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// When there is no value, one is not finite, or q is not in [0, 1].
pub fn quantile(values: &[f64], q: f64) -> Result<f64> {
    check(values)?;
    if !(0.0..=1.0).contains(&q) {
        return Err(Error::invalid_option("quantile", format!("{q:?} is not in [0, 1]")));
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = q * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Ok(below + (above - below) * place.fract())
}

/// The middle value, or the mean of the two in the middle.
///
/// ```
/// # fn main() -> lacuna::Result<()> {
/// assert_eq!(lacuna::report::median(&[3.0, 1.0, 100.0])?, 3.0);
/// assert_eq!(lacuna::report::median(&[4.0, 1.0, 2.0, 3.0])?, 2.5);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// When there is no value, or one is not finite.
pub fn median(values: &[f64]) -> Result<f64> {
    check(values)?;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    Ok(if sorted.len() % 2 == 1 { sorted[middle] } else { sorted[middle - 1] / 2.0 + sorted[middle] / 2.0 })
}

fn check(values: &[f64]) -> Result<()> {
    if values.is_empty() {
        return Err(Error::invalid_option("values", "none given; a summary needs at least one"));
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(row) => Err(Error::NotFinite { what: "values".to_string(), row, col: 0, value: values[row] }),
    }
}

/// Kendall's τ of two lists, without a correction for ties: the pairs that both put in the same order less those that they put in opposite orders, over all
/// pairs. 1 where they agree on every pair, −1 where on none; NaN of fewer than two.
///
/// ```
/// use lacuna::report::kendall_tau;
/// assert_eq!(kendall_tau(&[1.0, 2.0, 3.0], &[10.0, 30.0, 20.0]), 1.0 / 3.0);
/// ```
///
/// # Panics
/// If the lists are of different lengths.
pub fn kendall_tau(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "two lists of one length");
    let order = |v: &[f64], i: usize, j: usize| v[i].partial_cmp(&v[j]).map_or(0, |o| o as i32);
    let pairs = (0..a.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let sum: i32 = pairs.map(|(i, j)| order(a, i, j) * order(b, i, j)).sum();
    f64::from(sum) / (a.len() * a.len().saturating_sub(1) / 2) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_a_mean_and_no_deviation() -> Result<()> {
        let s = Summary::of(&[0.7])?;
        assert!(s.mean == 0.7 && s.sd.is_nan());
        assert_eq!(s.plus_minus(2), "0.70");
        Ok(())
    }

    #[test]
    fn equal_values_have_deviation_zero_and_nothing_or_nan_is_refused() -> Result<()> {
        assert_eq!(Summary::of(&[0.1; 3])?.sd, 0.0);
        assert!(Summary::of(&[]).is_err());
        assert!(median(&[1.0, f64::NAN]).is_err());
        Ok(())
    }
}

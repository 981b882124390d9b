//! What a budget is of, and how much of it stays.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How much of something stays: a fraction of what there is, or an amount.
///
/// ```
/// use lacuna::prune::SizeAmount;
/// assert_eq!("0.75".parse::<SizeAmount>()?, SizeAmount::Fraction(0.75));
/// assert_eq!("100M".parse::<SizeAmount>()?, SizeAmount::Absolute(100e6));
/// assert_eq!("1.5B".parse::<SizeAmount>()?.to_string(), "1500000000");
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SizeAmount {
    /// A fraction of what there is, in (0, 1).
    Fraction(f64),
    /// An amount, at least 1.
    Absolute(f64),
}

/// A budget: what of a model is counted, and how much of it stays. What is unsaid is of the whole model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SizeTarget {
    /// Parameters, a tied head counted once; as a fraction weights of the blocks' linear layers.
    Parameters(SizeAmount),
    /// Multiplications and additions of the linear layers and the head for one token.
    Flops(SizeAmount),
    /// Bytes of all weights in the files.
    Bytes(SizeAmount),
    /// Milliseconds of one token that is written, on this machine.
    Milliseconds(SizeAmount),
}

impl FromStr for SizeAmount {
    type Err = Error;

    /// # Errors
    /// If the text is neither a fraction below 1 nor an amount of at least 1, with K, M or B behind it or not.
    fn from_str(text: &str) -> Result<SizeAmount> {
        let refuse = || {
            let reason = format!("'{text}' is neither a fraction in (0, 1), as 0.75, nor an amount of at least 1, as 100M");
            Error::invalid_option("parameters, flops, bytes or milliseconds", reason)
        };
        let text = text.trim();
        let (digits, unit) = match text.chars().last().map(|c| c.to_ascii_uppercase()) {
            Some('K') => (&text[..text.len() - 1], 1e3),
            Some('M') => (&text[..text.len() - 1], 1e6),
            Some('B' | 'G') => (&text[..text.len() - 1], 1e9),
            _ => (text, 1.0),
        };
        let number: f64 = digits.parse().map_err(|_| refuse())?;
        match number * unit {
            x if unit == 1.0 && x > 0.0 && x < 1.0 => Ok(SizeAmount::Fraction(x)),
            x if (1.0..1e15).contains(&x) => Ok(SizeAmount::Absolute(x)),
            _ => Err(refuse()),
        }
    }
}

impl fmt::Display for SizeAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SizeAmount::Fraction(x) | SizeAmount::Absolute(x) => write!(f, "{x}"),
        }
    }
}

impl TryFrom<String> for SizeAmount {
    type Error = Error;

    fn try_from(text: String) -> Result<SizeAmount> {
        text.parse()
    }
}

impl From<SizeAmount> for String {
    fn from(amount: SizeAmount) -> String {
        amount.to_string()
    }
}

impl SizeTarget {
    /// The option that asks for it.
    pub fn option(self) -> &'static str {
        match self {
            SizeTarget::Parameters(_) => "parameters",
            SizeTarget::Flops(_) => "flops",
            SizeTarget::Bytes(_) => "bytes",
            SizeTarget::Milliseconds(_) => "milliseconds",
        }
    }

    /// How much stays.
    pub fn amount(self) -> SizeAmount {
        match self {
            SizeTarget::Parameters(x) | SizeTarget::Flops(x) | SizeTarget::Bytes(x) | SizeTarget::Milliseconds(x) => x,
        }
    }

    /// What is counted, in words.
    pub fn what(self) -> &'static str {
        match self {
            SizeTarget::Parameters(SizeAmount::Fraction(_)) => "weights of the blocks",
            SizeTarget::Parameters(_) => "parameters",
            SizeTarget::Flops(_) => "FLOPs a token",
            SizeTarget::Bytes(_) => "bytes",
            SizeTarget::Milliseconds(_) => "milliseconds a token",
        }
    }

    /// How much may stay of a model that has `whole`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if that is all of it.
    pub fn allowed(self, whole: f64) -> Result<f64> {
        let allowed = match self.amount() {
            SizeAmount::Fraction(x) if self.counts() => (x * whole).round(),
            SizeAmount::Fraction(x) => x * whole,
            SizeAmount::Absolute(x) => x,
        };
        match allowed < whole {
            true => Ok(allowed),
            false => {
                let reason = format!("{} leaves all {} of them", self.amount(), self.shown(whole));
                Err(Error::invalid_option(self.option(), reason))
            }
        }
    }

    fn counts(self) -> bool {
        !matches!(self, SizeTarget::Milliseconds(_))
    }

    /// An amount as it is written.
    pub(super) fn shown(self, amount: f64) -> String {
        if self.counts() { format!("{amount:.0}") } else { format!("{amount:.3}") }
    }
}

impl fmt::Display for SizeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{} {}", self.option(), self.amount())
    }
}

/// What of a model, or of one of its parts, budgets count.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PartSize {
    /// Weights of linear layers.
    pub weights: usize,
    /// All its numbers.
    pub numbers: usize,
    /// Bytes in the files.
    pub bytes: u64,
}

impl PartSize {
    /// What of a part of a block a target counts; `milliseconds` is what it takes.
    pub(super) fn counted(self, target: SizeTarget, milliseconds: f64) -> f64 {
        match target {
            SizeTarget::Parameters(SizeAmount::Fraction(_)) => self.weights as f64,
            SizeTarget::Parameters(_) => self.numbers as f64,
            SizeTarget::Flops(_) => 2.0 * self.weights as f64,
            SizeTarget::Bytes(_) => self.bytes as f64,
            SizeTarget::Milliseconds(_) => milliseconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SizeAmount, SizeTarget};

    #[test]
    fn texts_that_are_no_amount_are_refused() {
        for text in ["0", "1.5.", "-3", "M", "", "half", "0M", "nan"] {
            assert!(text.parse::<SizeAmount>().is_err(), "{text}");
        }
        assert_eq!("0.5M".parse::<SizeAmount>().unwrap(), SizeAmount::Absolute(500_000.0));
        assert_eq!("30.5".parse::<SizeAmount>().unwrap().to_string(), "30.5");
    }

    #[test]
    fn a_fraction_is_of_the_whole_and_an_amount_is_itself() {
        let half = SizeAmount::Fraction(0.5);
        assert_eq!(SizeTarget::Bytes(half).allowed(7.0).unwrap(), 4.0);
        assert_eq!(SizeTarget::Milliseconds(half).allowed(7.0).unwrap(), 3.5);
        assert_eq!(SizeTarget::Flops(SizeAmount::Absolute(3.0)).allowed(7.0).unwrap(), 3.0);
        let line = SizeTarget::Flops(SizeAmount::Absolute(7.0)).allowed(7.0).unwrap_err().to_string();
        assert_eq!(line, "flops: 7 leaves all 7 of them");
    }
}

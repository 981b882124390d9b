//! The rule by which a claim is judged.

use crate::io::quoted;
use crate::report::Summary;
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// When a claim holds, written as `mean <= 14`, `every >= 0.9`, `every in 0.5 .. 1.5`, `mean < 1`.
///
/// ```
/// use lacuna::paper::ClaimRule;
/// let rule: ClaimRule = "every <= 14".parse()?;
/// assert!(rule.holds(&[12., 14.])? && !rule.holds(&[12., 15.])?);
/// assert_eq!(rule.to_string(), "every <= 14");
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClaimRule {
    every: bool,
    test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Test {
    Below(f64),
    AtMost(f64),
    Above(f64),
    AtLeast(f64),
    Within(f64, f64),
}

impl ClaimRule {
    /// Whether the values of all seeds meet it.
    ///
    /// # Errors
    /// If there is no value, or one is not finite.
    pub fn holds(&self, values: &[f64]) -> Result<bool> {
        let mean = Summary::of(values)?.mean;
        let meets = |v: f64| match self.test {
            Test::Below(bound) => v < bound,
            Test::AtMost(bound) => v <= bound,
            Test::Above(bound) => v > bound,
            Test::AtLeast(bound) => v >= bound,
            Test::Within(low, high) => (low..=high).contains(&v),
        };
        Ok(if self.every { values.iter().all(|&v| meets(v)) } else { meets(mean) })
    }
}

impl fmt::Display for ClaimRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", if self.every { "every" } else { "mean" })?;
        match self.test {
            Test::Below(b) => write!(f, "< {b}"),
            Test::AtMost(b) => write!(f, "<= {b}"),
            Test::Above(b) => write!(f, "> {b}"),
            Test::AtLeast(b) => write!(f, ">= {b}"),
            Test::Within(low, high) => write!(f, "in {low} .. {high}"),
        }
    }
}

impl FromStr for ClaimRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |word: &str| word.parse::<f64>().ok().filter(|v| v.is_finite());
        let every = match words.first() {
            Some(&"every") => Some(true),
            Some(&"mean") => Some(false),
            _ => None,
        };
        let test = match words.get(1..).unwrap_or_default() {
            ["in", low, "..", high] => number(low).zip(number(high)).filter(|(l, h)| l <= h).map(|(l, h)| Test::Within(l, h)),
            ["<", bound] => number(bound).map(Test::Below),
            ["<=", bound] => number(bound).map(Test::AtMost),
            [">", bound] => number(bound).map(Test::Above),
            [">=", bound] => number(bound).map(Test::AtLeast),
            _ => None,
        };
        match every.zip(test) {
            Some((every, test)) => Ok(ClaimRule { every, test }),
            None => {
                Err(Error::invalid_option("rule", format!("{} is not like 'mean <= 14' or 'every in 0.5 .. 1.5'", quoted(text))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_rule_is_shown_in_part_where_it_is_long() {
        let line = ("mean ".to_string() + &"\t9".repeat(5000)).parse::<ClaimRule>().unwrap_err().to_string();
        assert!(line.starts_with("rule: 'mean ") && line.contains('…') && line.chars().count() < 300, "{line}");
    }
}

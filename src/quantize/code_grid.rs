//! Evenly spaced values for groups of inputs: how many, how a group's are found, and how their steps are stored.
//!
//! ```text
//! q(w) = s · (c − z),   c = clamp(round(w / s) + z, 0, 2^b − 1)
//! asymmetric   s = (max − min) / (2^b − 1),       z = round(−min / s),   min at most 0, max at least 0
//! symmetric    s = 2 max |w| / (2^b − 1),         z = 2^(b−1)
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | b | [`CodeGrid::bits`] |
//! | s, z | [`Step`]: one for a whole weight, for each row, or for each group of consecutive inputs of a row ([`Granularity`]) |
//!
//! The rules of GPTQ (Frantar, Ashkboos, Hoefler, Alistarh, ICLR 2023, arXiv:2210.17323) and of compressed-tensors. Halves round to even, and 0 is
//! always one of the values. Steps are rounded to what a file holds of them ([`ScaleType`]) before a weight meets them, so that what was made up for
//! is what is written.

use crate::{Error, Result};
use half::{bf16, f16};
use ndarray::{Array2, ArrayRef2};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Weights that share a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Granularity {
    /// All of a matrix.
    Tensor,
    /// Those of a row, as of an output (per channel).
    #[default]
    Row,
    /// So many consecutive inputs of a row.
    Group(usize),
}

impl Granularity {
    /// Inputs of a row that share a step, of a row of so many.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if groups do not divide a row, with the sizes that do.
    pub fn inputs(self, cols: usize) -> Result<usize> {
        match self {
            Granularity::Tensor | Granularity::Row => Ok(cols),
            Granularity::Group(n) if n > 0 && cols % n == 0 => Ok(n),
            Granularity::Group(n) => {
                let fit: Vec<String> =
                    [16, 32, 64, 96, 128, 192, 256].iter().filter(|g| cols % **g == 0).map(usize::to_string).collect();
                let fit = if fit.is_empty() { "none of 16 to 256 does".to_string() } else { format!("{} do", fit.join(", ")) };
                Err(Error::invalid_option("group", format!("groups of {n} do not divide rows of {cols} inputs; {fit}")))
            }
        }
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Granularity::Tensor => f.write_str("tensor"),
            Granularity::Row => f.write_str("row"),
            Granularity::Group(n) => write!(f, "{n}"),
        }
    }
}

impl FromStr for Granularity {
    type Err = Error;

    /// # Errors
    /// If the text is neither `tensor`, `row` (or −1, as other tools say) nor a number of at least 1.
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "tensor" => Ok(Granularity::Tensor),
            "row" | "-1" => Ok(Granularity::Row),
            _ => match s.parse() {
                Ok(n) if n > 0 => Ok(Granularity::Group(n)),
                _ => Err(Error::invalid_option("group", format!("'{s}' is neither a number of inputs, row nor tensor"))),
            },
        }
    }
}

impl Serialize for Granularity {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Granularity::Group(n) => serializer.serialize_u64(*n as u64),
            other => serializer.serialize_str(&other.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for Granularity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Text(String),
        }
        let text = match Either::deserialize(deserializer)? {
            Either::Number(n) => n.to_string(),
            Either::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How a file holds the steps of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScaleType {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits: 11 of precision.
    F16,
    /// 16 bits: 8 of precision.
    BF16,
}

impl ScaleType {
    /// The nearest number above 0 that it holds; infinite where that is too large.
    pub fn round(self, step: f32) -> f32 {
        match self {
            ScaleType::F32 => step.max(f32::MIN_POSITIVE),
            ScaleType::F16 => f16::from_f32(step).max(f16::from_bits(1)).to_f32(),
            ScaleType::BF16 => bf16::from_f32(step).max(bf16::MIN_POSITIVE).to_f32(),
        }
    }
}

/// A step and a zero point: the values s · (c − z).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// s, above 0.
    pub scale: f32,
    /// z, a code.
    pub zero: f32,
}

impl Step {
    /// The value of a code.
    #[inline]
    pub fn value(self, code: u8) -> f32 {
        self.scale * (f32::from(code) - self.zero)
    }
}

/// How many values there are and how they are found; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeGrid {
    /// b: `2^bits` values, 1 to 8 bits.
    pub bits: u32,
    /// Whether half of the values lie below 0, whatever the signs of the weights.
    pub symmetric: bool,
    /// Weights that share a step.
    pub granularity: Granularity,
    /// How steps are stored.
    pub scales: ScaleType,
}

impl CodeGrid {
    /// Symmetric, with steps of 32 bits.
    pub fn new(bits: u32, granularity: Granularity) -> Self {
        CodeGrid { bits, symmetric: true, granularity, scales: ScaleType::F32 }
    }

    /// The same with zero points.
    #[must_use]
    pub fn asymmetric(self) -> Self {
        CodeGrid { symmetric: false, ..self }
    }

    /// The same with steps of this type.
    #[must_use]
    pub fn scales(self, scales: ScaleType) -> Self {
        CodeGrid { scales, ..self }
    }

    /// Refuses bits out of range and groups that do not divide rows of so many inputs; gives the inputs of a group.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the number and the range.
    pub fn check(self, cols: usize) -> Result<usize> {
        if !(1..=8).contains(&self.bits) {
            return Err(Error::invalid_option("bits", format!("{} is not 1 to 8", self.bits)));
        }
        self.granularity.inputs(cols)
    }

    /// The largest code.
    #[inline]
    pub fn top(self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }

    /// The step for weights, from the least to the largest of them.
    pub fn fit(self, weights: impl IntoIterator<Item = f32>) -> Step {
        let (low, high) = weights.into_iter().fold((0.0f32, 0.0f32), |(l, h), w| (l.min(w), h.max(w)));
        self.step(low, high)
    }

    /// The step for weights from `low`, at most 0, to `high`, at least 0.
    pub fn step(self, mut low: f32, mut high: f32) -> Step {
        if self.symmetric {
            high = high.max(-low);
            low = -high;
        }
        if low == 0.0 && high == 0.0 {
            (low, high) = (-1.0, 1.0);
        }
        let top = self.top();
        // Of weights near the largest number the difference is none.
        let exact = if (high - low).is_finite() { (high - low) / top } else { high / top - low / top };
        let scale = self.scales.round(exact);
        let zero = if self.symmetric { ((top + 1.0) / 2.0).floor() } else { (-low / scale).round_ties_even().clamp(0.0, top) };
        Step { scale, zero }
    }

    /// The code of the value that is nearest to w.
    #[inline]
    pub fn code(self, step: Step, w: f32) -> u8 {
        ((w / step.scale).round_ties_even() + step.zero).clamp(0.0, self.top()) as u8
    }

    /// The steps of a weight `(out, in)`, `(out, groups)`. Weights of a tensor share one, which is repeated for each row.
    ///
    /// # Errors
    /// As [`CodeGrid::check`].
    pub fn fit_all(self, weight: &ArrayRef2<f32>) -> Result<Array2<Step>> {
        let group = self.check(weight.ncols())?.max(1);
        let groups = weight.ncols() / group;
        if self.granularity == Granularity::Tensor {
            let step = self.fit(weight.iter().copied());
            return Ok(Array2::from_elem((weight.nrows(), groups), step));
        }
        Ok(Array2::from_shape_fn((weight.nrows(), groups), |(r, g)| {
            self.fit(weight.row(r).iter().skip(g * group).take(group).copied())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::{CodeGrid, Granularity, ScaleType};

    #[test]
    fn steps_span_the_weights_and_zero_is_a_value() {
        let grid = CodeGrid::new(2, Granularity::Row);
        let step = grid.fit([-1.5, 0.5]);
        assert_eq!((step.scale, step.zero), (1.0, 2.0));
        assert_eq!([-1.5, -1.0, 0.4, 9.0].map(|w| step.value(grid.code(step, w))), [-2.0, -1.0, 0.0, 1.0]);
        let step = grid.asymmetric().fit([-1.0, 2.0]);
        assert_eq!((step.scale, step.zero), (1.0, 1.0));
        assert_eq!([-7.0, -0.4, 0.6, 7.0].map(|w| step.value(grid.code(step, w))), [-1.0, 0.0, 1.0, 2.0]);
        let none = grid.fit([0.0]);
        assert_eq!(none.value(grid.code(none, 0.0)), 0.0);
        let positive = grid.asymmetric().fit([3.0, 6.0]);
        assert_eq!((positive.scale, positive.zero), (2.0, 0.0));
    }

    #[test]
    fn steps_are_what_a_file_holds_of_them() {
        let grid = CodeGrid::new(4, Granularity::Row);
        for (scales, exact) in [(ScaleType::F16, half::f16::from_f32(0.2 / 15.0).to_f32()), (ScaleType::F32, 0.2 / 15.0)] {
            assert_eq!(grid.scales(scales).fit([0.1, -0.02]).scale, exact);
        }
        assert!(grid.scales(ScaleType::F16).fit([1e-12]).scale > 0.0);
        assert!(grid.scales(ScaleType::F16).fit([1e8]).scale.is_infinite());
    }

    #[test]
    fn groups_are_written_as_they_are_read() {
        for (text, group) in
            [("row", Granularity::Row), ("-1", Granularity::Row), ("tensor", Granularity::Tensor), ("64", Granularity::Group(64))]
        {
            assert_eq!(text.parse::<Granularity>().unwrap(), group);
            let json = serde_json::to_string(&group).unwrap();
            assert_eq!(serde_json::from_str::<Granularity>(&json).unwrap(), group);
        }
        assert!("0".parse::<Granularity>().is_err() && "half".parse::<Granularity>().is_err());
        let line = Granularity::Group(128).inputs(576).unwrap_err().to_string();
        assert_eq!(line, "group: groups of 128 do not divide rows of 576 inputs; 16, 32, 64, 96, 192 do");
    }
}

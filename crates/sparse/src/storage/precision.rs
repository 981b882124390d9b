//! The numbers that a storage keeps, by name.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Numbers that a storage keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of 32.
    Bf16,
    /// 16 bits, IEEE.
    F16,
    /// 8 bits with a scale a row.
    I8,
    /// 8 bits with a scale for each so many inputs of a row: those of a tile, or what [`Nm::with_groups`](crate::storage::Nm::with_groups) and [`Bsr::with_groups`](crate::storage::Bsr::with_groups) allow.
    I8Grouped(usize),
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Precision::F32 => f.write_str("f32"),
            Precision::Bf16 => f.write_str("bf16"),
            Precision::F16 => f.write_str("f16"),
            Precision::I8 => f.write_str("i8"),
            Precision::I8Grouped(inputs) => write!(f, "i8:{inputs}"),
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// # Errors
    /// If the text is none of f32, bf16, f16, i8 and i8:INPUTS, of 1 to 65536 inputs.
    fn from_str(s: &str) -> Result<Self> {
        let grouped = s
            .strip_prefix("i8:")
            .and_then(|inputs| inputs.parse().ok())
            .filter(|i| (1..=1 << 16).contains(i))
            .map(Precision::I8Grouped);
        [Precision::F32, Precision::Bf16, Precision::F16, Precision::I8]
            .into_iter()
            .chain(grouped)
            .find(|p| p.to_string() == s)
            .ok_or_else(|| {
                Error::invalid_option(
                    "values",
                    format!("'{s}' is none of f32, bf16, f16, i8 and i8:INPUTS, of 1 to 65536 inputs"),
                )
            })
    }
}

impl Precision {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Precision::F32 => 4,
            Precision::Bf16 | Precision::F16 => 2,
            Precision::I8 | Precision::I8Grouped(_) => 1,
        }
    }
}

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
    /// 8 bits with a scale and a zero point for each so many inputs of a row: of [`Quantized`](crate::storage::Quantized) alone.
    U8Grouped(usize),
    /// 4 bits with a scale for each so many inputs of a row: of [`Quantized`](crate::storage::Quantized) alone.
    I4Grouped(usize),
    /// 4 bits with a scale and a zero point for each so many inputs of a row: of [`Quantized`](crate::storage::Quantized) alone.
    U4Grouped(usize),
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Precision::F32 => f.write_str("f32"),
            Precision::Bf16 => f.write_str("bf16"),
            Precision::F16 => f.write_str("f16"),
            Precision::I8 => f.write_str("i8"),
            Precision::I8Grouped(inputs) => write!(f, "i8:{inputs}"),
            Precision::U8Grouped(inputs) => write!(f, "u8:{inputs}"),
            Precision::I4Grouped(inputs) => write!(f, "i4:{inputs}"),
            Precision::U4Grouped(inputs) => write!(f, "u4:{inputs}"),
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// # Errors
    /// If the text is none of f32, bf16, f16, i8, and i8, u8, i4 and u4 with `:INPUTS`, of 1 to 65536 inputs.
    fn from_str(s: &str) -> Result<Self> {
        let plain = [Precision::F32, Precision::Bf16, Precision::F16, Precision::I8];
        let inputs = s.split_once(':').and_then(|(_, inputs)| inputs.parse().ok()).filter(|i| (1..=1 << 16).contains(i));
        let kinds = [Precision::I8Grouped, Precision::U8Grouped, Precision::I4Grouped, Precision::U4Grouped];
        let grouped = inputs.into_iter().flat_map(|inputs| kinds.map(|kind| kind(inputs)));
        plain.into_iter().chain(grouped).find(|p| p.to_string() == s).ok_or_else(|| {
            let reason = "is none of f32, bf16, f16, i8, i8:INPUTS, u8:INPUTS, i4:INPUTS and u4:INPUTS, of 1 to 65536 inputs";
            Error::invalid_option("values", format!("'{s}' {reason}"))
        })
    }
}

impl Precision {
    /// Inputs that share a scale, if not a row's all.
    pub fn group(self) -> Option<usize> {
        match self {
            Precision::F32 | Precision::Bf16 | Precision::F16 | Precision::I8 => None,
            Precision::I8Grouped(inputs)
            | Precision::U8Grouped(inputs)
            | Precision::I4Grouped(inputs)
            | Precision::U4Grouped(inputs) => Some(inputs),
        }
    }

    /// Whether sparse storages have such numbers.
    pub(super) fn is_sparse(self) -> bool {
        !matches!(self, Precision::U8Grouped(_) | Precision::I4Grouped(_) | Precision::U4Grouped(_))
    }

    /// Bytes of a number, without scales.
    pub fn bytes(self) -> f64 {
        match self {
            Precision::F32 => 4.0,
            Precision::Bf16 | Precision::F16 => 2.0,
            Precision::I8 | Precision::I8Grouped(_) | Precision::U8Grouped(_) => 1.0,
            Precision::I4Grouped(_) | Precision::U4Grouped(_) => 0.5,
        }
    }
}

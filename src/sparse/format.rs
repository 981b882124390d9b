//! Storages by name.

use super::{Bitmask, Compress, Csr, Dense, LinearOp, Scaling, TileCsr, TilePairs};
use crate::mask::Mask;
use crate::{Error, Result};
use half::{bf16, f16};
use ndarray::ArrayRef2;
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
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
            Precision::I8 => "i8",
        })
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// # Errors
    /// If the text is none of f32, bf16, f16 and i8.
    fn from_str(s: &str) -> Result<Self> {
        [Precision::F32, Precision::Bf16, Precision::F16, Precision::I8]
            .into_iter()
            .find(|p| p.to_string() == s)
            .ok_or_else(|| Error::setting("values", format!("'{s}' is none of f32, bf16, f16 and i8")))
    }
}

/// A storage with its tile, as `tile-csr:128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// [`Dense`].
    Dense,
    /// [`Csr`].
    Csr,
    /// [`TileCsr`] in tiles of so many columns.
    TileCsr(usize),
    /// [`TilePairs`] in tiles of so many columns, a multiple of 64.
    TilePairs(usize),
    /// [`Bitmask`] in tiles of so many columns, a multiple of 64.
    Bitmask(usize),
}

impl Format {
    /// What the mask keeps of a weight, in this storage.
    ///
    /// # Errors
    /// If the shapes differ, the storage cannot hold this mask or this size, or has no such numbers.
    pub fn build(self, weight: &ArrayRef2<f32>, mask: &Mask, values: Precision) -> Result<Box<dyn LinearOp>> {
        macro_rules! with_values {
            ($t:ident, $tile:expr) => {
                match values {
                    Precision::F32 => Box::new($t::<f32>::with_tile(weight, mask, $tile, Scaling::Row)?) as Box<dyn LinearOp>,
                    Precision::Bf16 => Box::new($t::<bf16>::with_tile(weight, mask, $tile, Scaling::Row)?),
                    Precision::F16 => Box::new($t::<f16>::with_tile(weight, mask, $tile, Scaling::Row)?),
                    Precision::I8 => Box::new($t::<i8>::with_tile(weight, mask, $tile, Scaling::Row)?),
                }
            };
        }
        Ok(match self {
            Format::Dense | Format::Csr if values != Precision::F32 => {
                return Err(Error::setting("values", format!("{self} keeps f32 only, not {values}")));
            }
            Format::Dense => Box::new(Dense::compress(weight, mask)?),
            Format::Csr => Box::new(Csr::compress(weight, mask)?),
            Format::TileCsr(columns) => with_values!(TileCsr, columns),
            Format::TilePairs(columns) => with_values!(TilePairs, columns),
            Format::Bitmask(columns) => with_values!(Bitmask, columns.div_ceil(64)),
        })
    }
}

impl Format {
    /// The kernel that multiplies so many tokens, for tables.
    pub fn kernel(self, tokens: usize) -> &'static str {
        match (self, tokens) {
            (Format::Dense, 1) => "gemv",
            (Format::Dense, ..=8) => "few",
            (Format::Dense, _) => "gemm",
            (Format::TilePairs(_), _) => "pairs",
            (_, 1) => "few",
            _ => "strip",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Dense => f.write_str("dense"),
            Format::Csr => f.write_str("csr"),
            Format::TileCsr(columns) => write!(f, "tile-csr:{columns}"),
            Format::TilePairs(columns) => write!(f, "tile-pairs:{columns}"),
            Format::Bitmask(columns) => write!(f, "bitmask:{columns}"),
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Reads what `Display` writes; a tile that is left out is 128 columns.
    ///
    /// # Errors
    /// If the text names no storage, or a tile that it cannot have.
    fn from_str(s: &str) -> Result<Self> {
        let (name, tile) = s.split_once(':').map_or((s, None), |(name, tile)| (name, Some(tile)));
        let refuse = |reason: String| Err(Error::setting("format", reason));
        let columns = match tile.map(str::parse::<usize>) {
            None => 128,
            Some(Ok(columns)) if (1..=1 << 16).contains(&columns) => columns,
            Some(_) => return refuse(format!("'{s}': a tile has 1 to 65536 columns")),
        };
        match name {
            "dense" | "csr" if tile.is_some() => refuse(format!("'{s}': {name} has no tiles")),
            "dense" => Ok(Format::Dense),
            "csr" => Ok(Format::Csr),
            "tile-csr" => Ok(Format::TileCsr(columns)),
            "tile-pairs" if columns % 64 != 0 => refuse(format!("'{s}': a tile of pairs is a multiple of 64 columns wide")),
            "tile-pairs" => Ok(Format::TilePairs(columns)),
            "bitmask" if columns % 64 != 0 => refuse(format!("'{s}': a tile of a bitmask is a multiple of 64 columns wide")),
            "bitmask" => Ok(Format::Bitmask(columns)),
            _ => {
                refuse(format!("'{s}' is none of auto, dense, csr, tile-csr[:COLUMNS], tile-pairs[:COLUMNS], bitmask[:COLUMNS]"))
            }
        }
    }
}

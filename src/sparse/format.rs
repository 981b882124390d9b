//! Storages by name.

use super::{Bitmask, Bsr, Compress, Csr, Dense, LinearOp, Nm, Scaling, Sell, Slots, TileCsr, TilePairs};
use crate::mask::{Mask, Pattern};
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
    /// [`Sell`] in slices as wide as this machine's vectors.
    Sell(Slots),
    /// [`Nm`] of so many of so many inputs.
    Nm(usize, usize),
    /// [`Bsr`] in blocks of so many rows and columns.
    Bsr(usize, usize),
}

impl Format {
    /// What the mask keeps of a weight, in this storage.
    ///
    /// # Errors
    /// If the shapes differ, the storage cannot hold this mask or this size, or has no such numbers.
    pub fn build(self, weight: &ArrayRef2<f32>, mask: &Mask, values: Precision) -> Result<Box<dyn LinearOp>> {
        macro_rules! with_values {
            ($t:ident, $tile:expr) => {
                with_values!($t, with_tile, $tile, Scaling::Row)
            };
            ($t:ident, $new:ident, $($of:expr),*) => {
                match values {
                    Precision::F32 => Box::new($t::<f32>::$new(weight, mask, $($of),*)?) as Box<dyn LinearOp>,
                    Precision::Bf16 => Box::new($t::<bf16>::$new(weight, mask, $($of),*)?),
                    Precision::F16 => Box::new($t::<f16>::$new(weight, mask, $($of),*)?),
                    Precision::I8 => Box::new($t::<i8>::$new(weight, mask, $($of),*)?),
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
            Format::Sell(slots) => with_values!(Sell, with_slots, slots),
            Format::Nm(n, m) => with_values!(Nm, with_pattern, n, m),
            Format::Bsr(r, c) => with_values!(Bsr, with_blocks, r, c),
        })
    }

    /// The storage that is made for a pattern, if there is one.
    pub fn of_pattern(pattern: Pattern) -> Option<Format> {
        match pattern {
            Pattern::Nm { n, m } if m <= 16 => Some(Format::Nm(n, m)),
            Pattern::Block { rows, cols } => Some(Format::Bsr(rows, cols)),
            _ => None,
        }
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
            (Format::Sell(_), _) => "slices",
            (Format::Nm(..), 2..) => "neighbours",
            (Format::Bsr(..), 2..) => "tiles",
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
            Format::Sell(slots) => write!(f, "sell:{slots}"),
            Format::Nm(n, m) => write!(f, "nm:{n}:{m}"),
            Format::Bsr(r, c) => write!(f, "bsr:{r}x{c}"),
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Reads what `Display` writes; a tile that is left out is 128 columns, slots are padded, N:M 2:4, and a block
    /// 16x1.
    ///
    /// # Errors
    /// If the text names no storage, or a tile that it cannot have.
    fn from_str(s: &str) -> Result<Self> {
        let (name, tile) = s.split_once(':').map_or((s, None), |(name, tile)| (name, Some(tile)));
        let refuse = |reason: String| Err(Error::setting("format", reason));
        if let ("nm" | "bsr", tile) = (name, tile) {
            let pattern = match (name, tile) {
                ("nm", tile) => tile.unwrap_or("2:4").to_string(),
                (_, tile) => format!("block{}", tile.unwrap_or("16x1")),
            };
            return match (name, pattern.parse().ok().and_then(Format::of_pattern)) {
                ("nm", Some(format @ Format::Nm(..))) | ("bsr", Some(format @ Format::Bsr(..))) => Ok(format),
                ("nm", _) => refuse(format!("'{s}': nm keeps N of every M with 1 <= N <= M <= 16, as nm:2:4")),
                _ => refuse(format!("'{s}': a block has rows and columns, as bsr:16x1")),
            };
        }
        if name == "sell" {
            return match tile {
                None | Some("padded") => Ok(Format::Sell(Slots::Padded)),
                Some("packed") => Ok(Format::Sell(Slots::Packed)),
                Some(_) => refuse(format!("'{s}': slots are padded or packed")),
            };
        }
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
            _ => refuse(format!(
                "'{s}' is none of auto, dense, csr, tile-csr[:COLUMNS], tile-pairs[:COLUMNS], bitmask[:COLUMNS], sell[:padded|packed], nm[:N:M], bsr[:RxC]"
            )),
        }
    }
}

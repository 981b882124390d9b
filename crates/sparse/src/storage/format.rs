//! Storages by name.

use super::kept::{Origin, Source};
use super::narrow::Narrowed;
use super::sell::lanes_here;
use super::{
    ActivationBits, Bitmask, Bsr, CodeLayout, Compress, Csr, LinearOp, Nm, PackedDense, Parts, Precision, Quantized, QuantizedNm,
    QuantizedSparse, Scaling, Sell, Slots, Stored, TileCsr, TilePairs,
};
use crate::mask::{Mask, Pattern};
use crate::{Error, Result};
use half::{bf16, f16};
use ndarray::ArrayRef2;
use std::fmt;
use std::str::FromStr;

impl Precision {
    /// Which values of a storage in tiles of so many columns share a scale.
    pub(crate) fn scaling(self, format: Format, tile: usize) -> Result<Scaling> {
        match self {
            Precision::I8Grouped(inputs) if inputs == tile => Ok(Scaling::Tile),
            Precision::I8Grouped(_) => Err(Error::invalid_option(
                "values",
                format!("{self}, where {format} has a scale a row, or one a tile as i8:{tile}"),
            )),
            _ => Ok(Scaling::Row),
        }
    }

    /// Whether numbers of this kind can be taken as `wanted` without a change: a scale serves parts of its group too.
    fn serves(self, wanted: Precision) -> bool {
        match (self, wanted) {
            (Precision::I8, Precision::I8Grouped(_)) => true,
            (Precision::I8Grouped(inputs), Precision::I8Grouped(part)) => part > 0 && inputs % part == 0,
            _ => self == wanted,
        }
    }

    /// The same numbers in a format: tiles have scales of their own.
    fn within(self, format: Format) -> Precision {
        match (self, format) {
            (_, Format::Csr | Format::Dense) => Precision::F32,
            (Precision::I8Grouped(inputs), Format::TileCsr(tile)) if tile > 0 && inputs % tile == 0 => Precision::I8Grouped(tile),
            (Precision::I8Grouped(inputs), Format::TilePairs(tile) | Format::Bitmask(tile))
                if tile > 0 && tile % 64 == 0 && inputs % tile == 0 =>
            {
                Precision::I8Grouped(tile)
            }
            _ => self,
        }
    }
}

/// What there is of a source, packed by a storage with values of any kind; then something is done with it.
macro_rules! with_values {
    ($values:expr, $source:expr, $t:ident::pack($($of:expr),*), |$op:ident| $do:expr) => {
        match $values {
            Precision::F32 => { let $op = $t::<f32>::pack(&$source.kept()?, $($of),*)?; $do }
            Precision::Bf16 => { let $op = $t::<bf16>::pack(&$source.kept()?, $($of),*)?; $do }
            Precision::F16 => { let $op = $t::<f16>::pack(&$source.kept()?, $($of),*)?; $do }
            // Those of four bits, and of eight with zero points, were refused before.
            _ => { let $op = $t::<i8>::pack(&$source.kept()?, $($of),*)?; $do }
        }
    };
}

/// Builds a storage that keeps values of any kind, and does something with it, whatever its type.
macro_rules! with_storage {
    ($format:expr, $values:expr, $source:expr, |$op:ident| $do:expr) => {
        match ($format, $values) {
            (Format::Csr, values) => {
                return Err(Error::invalid_option("values", format!("csr keeps f32 only, not {values}")));
            }
            (Format::Dense, values) => {
                let $op = Quantized::of_source($source, values)?.with_activation_bits($source.activations);
                $do
            }
            (Format::Nm(n, m), values) if !values.is_sparse() => {
                let $op = QuantizedNm::of_source($source, (n, m), values)?.with_activation_bits($source.activations);
                $do
            }
            (format, values) if let Some(layout) = format.layout(values) => {
                let blocks = if let Format::Bsr(rows, cols) = format { Some((rows, cols)) } else { None };
                let op = QuantizedSparse::of_source($source, layout, blocks, values)?;
                let $op = op.with_activation_bits($source.activations);
                $do
            }
            (format, values) if !values.is_sparse() => {
                let reason = format!("{format} keeps f32, bf16, f16 and i8, not {values}: dense, sell, bitmask, nm and bsr do");
                return Err(Error::invalid_option("values", reason));
            }
            (Format::TileCsr(tile), values) => {
                let scaling = values.scaling($format, tile)?;
                with_values!(values, $source, TileCsr::pack(tile, scaling), |$op| $do)
            }
            (Format::TilePairs(tile), values) => {
                let scaling = values.scaling($format, tile)?;
                with_values!(values, $source, TilePairs::pack(tile, scaling), |$op| $do)
            }
            (Format::Bitmask(tile), values) => {
                let scaling = values.scaling($format, tile)?;
                with_values!(values, $source, Bitmask::pack(tile.div_ceil(64), scaling), |$op| $do)
            }
            (Format::Sell(slots), values) => with_values!(values, $source, Sell::pack(lanes_here(), slots), |$op| $do),
            (Format::Nm(n, m), values) => with_values!(values, $source, Nm::pack((n, m), values.group()), |$op| $do),
            (Format::Bsr(r, c), values) => with_values!(values, $source, Bsr::pack((r, c), values.group()), |$op| $do),
        }
    };
}

/// A storage with its tile, as `tile-csr:128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The weight whole: [`PackedDense`], and [`Quantized`] in four and eight bits.
    Dense,
    /// [`Csr`].
    Csr,
    /// [`TileCsr`] in tiles of so many columns.
    TileCsr(usize),
    /// [`TilePairs`] in tiles of so many columns, a multiple of 64.
    TilePairs(usize),
    /// [`Bitmask`] in tiles of so many columns, a multiple of 64; [`QuantizedSparse`] behind bits in four bits and in eight with zero points.
    Bitmask(usize),
    /// [`Sell`] in slices as wide as this machine's vectors; [`QuantizedSparse`] in windows in four bits and in eight with groups.
    Sell(Slots),
    /// [`Nm`] of so many of so many inputs, and [`QuantizedNm`] in four bits and in eight with zero points.
    Nm(usize, usize),
    /// [`Bsr`] in blocks of so many rows and columns; [`QuantizedSparse`] in windows in four bits and in eight with zero points.
    Bsr(usize, usize),
}

impl Format {
    /// What the mask keeps of a weight, in this storage.
    ///
    /// # Errors
    /// If the shapes differ, the storage cannot hold this mask or this size, or has no such numbers.
    pub fn build(self, weight: &ArrayRef2<f32>, mask: &Mask, values: Precision) -> Result<Box<dyn LinearOp>> {
        self.build_with(weight, mask, values, ActivationBits::Full)
    }

    /// The same, to be multiplied with activations of so many bits where it has codes.
    ///
    /// # Errors
    /// As [`Format::build`].
    pub fn build_with(
        self,
        weight: &ArrayRef2<f32>,
        mask: &Mask,
        values: Precision,
        activations: ActivationBits,
    ) -> Result<Box<dyn LinearOp>> {
        self.build_from(&Source { activations, ..Source::new(mask, Origin::Dense(weight)) }, values)
    }

    /// The same of what there is.
    fn build_from(self, source: &Source<'_>, values: Precision) -> Result<Box<dyn LinearOp>> {
        match (self, source.from) {
            (Format::Dense, Origin::Dense(weight)) if values == Precision::F32 => {
                Ok(Box::new(PackedDense::compress(weight, source.mask)?))
            }
            _ => self.packed(source, values),
        }
    }

    /// The same as named lists, as files hold it.
    ///
    /// # Errors
    /// As there; [`Format::Dense`] has none.
    pub fn parts(self, weight: &ArrayRef2<f32>, mask: &Mask, values: Precision) -> Result<Parts> {
        self.packed_parts(&Source::new(mask, Origin::Dense(weight)), values)
    }

    /// What another storage keeps, in this one, by its kept weights row by row: no array of `(out, in)` is made, and a kept weight that is 0
    /// stays one. Numbers stay as they are to the bit, with their scales; [`Format::Csr`] and [`Format::Dense`] have them in f32, which holds
    /// them all. Of a dense weight, which knows no mask, all weights are kept.
    ///
    /// ```
    /// use lacuna_sparse::{mask::Mask, storage::{Bitmask, Compress, Csr, Format, LinearOp}};
    /// use ndarray::array;
    /// let (w, mask) = (array![[1., 2., 0., 4.], [5., 6., 7., 8.]], Mask::from_fn(2, 4, |r, c| (r + c) % 2 == 0));
    /// let bits = Bitmask::<f32>::compress(&w, &mask)?;
    /// let nm = Format::Nm(1, 2).convert(&bits)?;
    /// assert_eq!((nm.nnz(), nm.to_csr()), (4, Csr::compress(&w, &mask)?));
    /// let refused = Format::Bsr(2, 1).convert(&bits).err().map(|e| e.to_string());
    /// assert_eq!(refused.as_deref(), Some("mask is not block2x1: rows 0..2, columns 0..1 keep 1 of 2"));
    /// # Ok::<(), lacuna_sparse::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the storage cannot hold this mask (the place is named) or this size, or has no such scales.
    pub fn convert(self, op: &dyn LinearOp) -> Result<Box<dyn LinearOp>> {
        self.converted(op, None, |source, values| self.packed(source, values))
    }

    /// The same with numbers of a kind: they stay as they are if they are of it, else they are rounded as [`Format::build`] does.
    ///
    /// # Errors
    /// As there; also if a number is not finite that needs a scale.
    pub fn convert_to(self, op: &dyn LinearOp, values: Precision) -> Result<Box<dyn LinearOp>> {
        self.converted(op, Some(values), |source, values| self.packed(source, values))
    }

    /// The same as named lists, as files hold it.
    ///
    /// # Errors
    /// As there; [`Format::Dense`] has none.
    pub fn convert_parts(self, op: &dyn LinearOp, values: Precision) -> Result<Parts> {
        self.converted(op, Some(values), |source, values| self.packed_parts(source, values))
    }

    /// Packs what a storage keeps, with the numbers asked for or else its own.
    fn converted<R>(
        self,
        op: &dyn LinearOp,
        values: Option<Precision>,
        pack: impl FnOnce(&Source<'_>, Precision) -> Result<R>,
    ) -> Result<R> {
        let entries = op.entries();
        let (mask, own) = (entries.mask(), entries.precision());
        let wanted = values.unwrap_or_else(|| own.within(self));
        if wanted != Precision::F32 && own.serves(wanted) {
            return pack(&Source::new(&mask, Origin::Same(&entries)), wanted);
        }
        pack(&Source::new(&mask, Origin::Rows(&entries.into_csr())), wanted)
    }

    /// A source in this storage.
    fn packed(self, source: &Source<'_>, values: Precision) -> Result<Box<dyn LinearOp>> {
        Ok(match (self, source.from) {
            (Format::Dense, Origin::Rows(csr)) if values == Precision::F32 => Box::new(PackedDense::of_csr(csr)),
            (Format::Dense, from) if values == Precision::Bf16 => {
                Box::new(Narrowed::<bf16>::rounded(&from.dense(), source.mask)?)
            }
            (Format::Dense, from) if values == Precision::F16 => Box::new(Narrowed::<f16>::rounded(&from.dense(), source.mask)?),
            (Format::Csr, _) if values == Precision::F32 => Box::new(Csr::pack(&source.kept()?)?),
            _ => with_storage!(self, values, source, |op| Box::new(op) as Box<dyn LinearOp>),
        })
    }

    fn packed_parts(self, source: &Source<'_>, values: Precision) -> Result<Parts> {
        match self {
            Format::Csr if values == Precision::F32 => Ok(Csr::pack(&source.kept()?)?.to_parts()),
            Format::Dense if matches!(values, Precision::F32 | Precision::Bf16 | Precision::F16) => {
                Err(Error::invalid_option("format", format!("{self} of {values} is no storage that files hold")))
            }
            _ => Ok(with_storage!(self, values, source, |op| op.to_parts())),
        }
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
    /// The layout of codes in this storage, if it has codes of this kind at any mask.
    pub(super) fn layout(self, values: Precision) -> Option<CodeLayout> {
        match self {
            Format::Sell(_) if values.group().is_some() => Some(CodeLayout::Windows),
            Format::Bsr(..) if !values.is_sparse() => Some(CodeLayout::Windows),
            Format::Bitmask(_) if !values.is_sparse() => Some(CodeLayout::Masked),
            _ => None,
        }
    }

    /// The kernel of this library that multiplies so many tokens, for tables.
    pub fn kernel(self, tokens: usize) -> &'static str {
        match (self, tokens) {
            (Format::Dense, _) => "panels",
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
        let refuse = |reason: String| Err(Error::invalid_option("format", reason));
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

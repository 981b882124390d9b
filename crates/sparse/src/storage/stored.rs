//! What each storage is made of: its lists, as they are named in memory.

use super::codes::in_few_bits;
use super::parts::{Part, Parts, Sizes};
use super::{
    Bitmask, BitmaskParts, BlockColumns, Bsr, BsrParts, Columns, Csr, LinearOp, Nm, NmParts, Offsets, Quantized, QuantizedNm,
    QuantizedNmParts, QuantizedParts, QuantizedSparse, QuantizedSparseParts, Sell, SellParts, TileCsr, TileCsrParts, TilePairs,
    TilePairsParts,
};
use crate::kernels::{Expand, Pair, Value, Values};
use crate::{Error, Result};
use half::{bf16, f16};

/// A storage that files can hold: all but [`Dense`](crate::storage::Dense), which is a plain weight with its mask beside it.
pub trait Stored: LinearOp + Sized {
    /// Name of the format, and of the numbers; of [`Quantized`] the most general.
    fn kind() -> (&'static str, &'static str);

    /// Sizes and lists.
    fn to_parts(&self) -> Parts;

    /// The storage, checked.
    ///
    /// # Errors
    /// If the parts are of another kind, a list is missing or has numbers of another type (the option is the list's name), or they break an
    /// invariant of the storage (the option is the format's name).
    fn from_parts(parts: Parts) -> Result<Self> {
        let (format, values) = Self::kind();
        if (parts.sizes.format.as_str(), parts.sizes.values.as_str()) != (format, values) {
            let (f, v) = (&parts.sizes.format, &parts.sizes.values);
            return Err(Error::invalid_option("storage", format!("is '{f}' of '{v}', not {format} of {values}")));
        }
        Self::checked(parts)
    }

    /// The storage of parts that are of its kind.
    #[doc(hidden)]
    fn checked(parts: Parts) -> Result<Self>;
}

impl Parts {
    /// The storage that these are the parts of.
    ///
    /// # Errors
    /// As [`Stored::from_parts`]; also if no storage has that format, or keeps such numbers.
    pub fn into_storage(self) -> Result<Box<dyn LinearOp>> {
        macro_rules! of {
            ($t:ident) => {
                match self.sizes.values.as_str() {
                    "f32" => $t::<f32>::checked(self).map(|s| Box::new(s) as Box<dyn LinearOp>),
                    "bf16" => $t::<bf16>::checked(self).map(|s| Box::new(s) as Box<dyn LinearOp>),
                    "f16" => $t::<f16>::checked(self).map(|s| Box::new(s) as Box<dyn LinearOp>),
                    "i8" => $t::<i8>::checked(self).map(|s| Box::new(s) as Box<dyn LinearOp>),
                    other => Err(Error::invalid_option("storage", format!("'{other}' is none of f32, bf16, f16, i8"))),
                }
            };
        }
        match self.sizes.format.as_str() {
            "csr" => Csr::from_parts(self).map(|s| Box::new(s) as Box<dyn LinearOp>),
            "quantized" => Quantized::from_parts(self).map(|s| Box::new(s) as Box<dyn LinearOp>),
            "quantized-nm" => QuantizedNm::from_parts(self).map(|s| Box::new(s) as Box<dyn LinearOp>),
            "quantized-sparse" => QuantizedSparse::from_parts(self).map(|s| Box::new(s) as Box<dyn LinearOp>),
            "tile-csr" => of!(TileCsr),
            "tile-pairs" => of!(TilePairs),
            "bitmask" => of!(Bitmask),
            "sell" => of!(Sell),
            "nm" => of!(Nm),
            "bsr" => of!(Bsr),
            other => Err(Error::invalid_option(
                "storage",
                format!(
                    "'{other}' is none of csr, tile-csr, tile-pairs, bitmask, sell, nm, bsr, quantized, quantized-nm, quantized-sparse"
                ),
            )),
        }
    }

    fn columns(&mut self) -> Result<Columns> {
        match self.any("columns")? {
            Part::U8(c) => Ok(Columns::Narrow(c)),
            Part::U16(c) => Ok(Columns::Wide(c)),
            other => Err(Error::invalid_option("columns", format!("is {}, not U16", other.element()))),
        }
    }
}

/// Parts, with scales at the end where values have them.
fn with_scales<T: Value>(sizes: Sizes, mut lists: Vec<(&'static str, Part)>, scales: &[f32]) -> Parts {
    if T::SCALED {
        lists.push(("scales", Part::Values(Values::F32(scales.to_vec()))));
    }
    Parts { sizes, lists }
}

fn columns(columns: &Columns) -> Part {
    match columns {
        Columns::Narrow(c) => Part::U8(c.clone()),
        Columns::Wide(c) => Part::U16(c.clone()),
    }
}

impl Stored for Csr {
    fn kind() -> (&'static str, &'static str) {
        ("csr", "f32")
    }

    fn to_parts(&self) -> Parts {
        let ((rows, cols), view) = (self.shape(), self.view());
        let parts = vec![
            ("offsets", Part::U32(view.offsets().to_vec())),
            ("indices", Part::U32(view.indices().to_vec())),
            ("values", Part::Values(Values::F32(view.values().to_vec()))),
        ];
        Parts { sizes: Sizes::new::<f32>("csr", rows, cols), lists: parts }
    }

    fn checked(mut from: Parts) -> Result<Self> {
        Csr::new(from.sizes.rows, from.sizes.cols, from.u32s("offsets")?, from.u32s("indices")?, from.values("values")?)
    }
}

impl<T: Expand> Stored for TileCsr<T> {
    fn kind() -> (&'static str, &'static str) {
        ("tile-csr", T::NAME)
    }

    fn to_parts(&self) -> Parts {
        let p = self.parts();
        let parts = vec![
            ("blocks", Part::U32(p.blocks.clone())),
            ("starts", Part::U32(p.starts.clone())),
            ("order", Part::U16(p.order.clone())),
            ("columns", columns(&p.columns)),
            ("values", Part::Values(T::list(p.values.clone()))),
        ];
        let sizes = Sizes { tile: Some(p.tile), ..Sizes::new::<T>("tile-csr", p.rows, p.cols) };
        with_scales::<T>(sizes, parts, &p.scales)
    }

    fn checked(mut from: Parts) -> Result<Self> {
        TileCsr::new(TileCsrParts {
            rows: from.sizes.rows,
            cols: from.sizes.cols,
            tile: from.sizes.tile()?,
            blocks: from.u32s("blocks")?,
            starts: from.u32s("starts")?,
            order: from.u16s("order")?,
            columns: from.columns()?,
            values: from.values("values")?,
            scales: from.scales::<T>()?,
        })
    }
}

impl<T: Value> Stored for TilePairs<T> {
    fn kind() -> (&'static str, &'static str) {
        ("tile-pairs", T::NAME)
    }

    fn to_parts(&self) -> Parts {
        let p = self.parts();
        let parts = vec![
            ("blocks", Part::U32(p.blocks.clone())),
            ("column_starts", Part::U32(p.column_starts.clone())),
            ("value_starts", Part::U32(p.value_starts.clone())),
            // Five numbers a pair: first, second, single, both, rest.
            ("pairs", Part::U16(p.pairs.iter().flat_map(|p| [p.first, p.second, p.single, p.both, p.rest]).collect())),
            ("columns", columns(&p.columns)),
            ("values", Part::Values(T::list(p.values.clone()))),
        ];
        let sizes = Sizes { tile: Some(p.tile), ..Sizes::new::<T>("tile-pairs", p.rows, p.cols) };
        with_scales::<T>(sizes, parts, &p.scales)
    }

    fn checked(mut from: Parts) -> Result<Self> {
        let pairs = from.u16s("pairs")?;
        let (pairs, rest) = pairs.as_chunks::<5>();
        if !rest.is_empty() {
            let numbers = 5 * pairs.len() + rest.len();
            return Err(Error::invalid_option("tile-pairs", format!("{numbers} numbers for pairs of five each")));
        }
        TilePairs::new(TilePairsParts {
            rows: from.sizes.rows,
            cols: from.sizes.cols,
            tile: from.sizes.tile()?,
            blocks: from.u32s("blocks")?,
            column_starts: from.u32s("column_starts")?,
            value_starts: from.u32s("value_starts")?,
            pairs: pairs.iter().map(|&[first, second, single, both, rest]| Pair { first, second, single, both, rest }).collect(),
            columns: from.columns()?,
            values: from.values("values")?,
            scales: from.scales::<T>()?,
        })
    }
}

impl<T: Expand> Stored for Bitmask<T> {
    fn kind() -> (&'static str, &'static str) {
        ("bitmask", T::NAME)
    }

    fn to_parts(&self) -> Parts {
        let p = self.clone().into_parts();
        let values = Part::Values(T::list(p.values));
        let parts = vec![
            ("blocks", Part::U32(p.blocks)),
            ("starts", Part::U32(p.starts)),
            ("words", Part::U64(p.words)),
            ("values", values),
        ];
        let sizes = Sizes { tile: Some(p.tile), ..Sizes::new::<T>("bitmask", p.rows, p.cols) };
        with_scales::<T>(sizes, parts, &p.scales)
    }

    fn checked(mut from: Parts) -> Result<Self> {
        Bitmask::new(BitmaskParts {
            rows: from.sizes.rows,
            cols: from.sizes.cols,
            tile: from.sizes.tile()?,
            blocks: from.u32s("blocks")?,
            starts: from.u32s("starts")?,
            words: from.u64s("words")?,
            values: from.values("values")?,
            scales: from.scales::<T>()?,
        })
    }
}

impl<T: Expand> Stored for Sell<T> {
    fn kind() -> (&'static str, &'static str) {
        ("sell", T::NAME)
    }

    fn to_parts(&self) -> Parts {
        let p = self.clone().into_parts();
        let (values, late_values) = (Part::Values(T::list(p.values)), Part::Values(T::list(p.late_values)));
        let parts = vec![
            ("order", Part::U32(p.order)),
            ("steps", Part::U8(p.steps)),
            ("place_starts", Part::U32(p.place_starts)),
            ("mask_starts", Part::U32(p.mask_starts)),
            ("value_starts", Part::U32(p.value_starts)),
            ("late_starts", Part::U32(p.late_starts)),
            ("places", Part::U32(p.places)),
            ("masks", Part::U16(p.masks)),
            ("values", values),
            ("late_lanes", Part::U8(p.late_lanes)),
            ("late_columns", Part::U32(p.late_columns)),
            ("late_values", late_values),
        ];
        let sizes = Sizes { tile: Some(p.lanes), slots: Some(p.slots), ..Sizes::new::<T>("sell", p.rows, p.cols) };
        with_scales::<T>(sizes, parts, &p.scales)
    }

    fn checked(mut from: Parts) -> Result<Self> {
        Sell::new(SellParts {
            rows: from.sizes.rows,
            cols: from.sizes.cols,
            lanes: from.sizes.tile()?,
            slots: from.sizes.slots()?,
            order: from.u32s("order")?,
            steps: from.u8s("steps")?,
            place_starts: from.u32s("place_starts")?,
            mask_starts: from.u32s("mask_starts")?,
            value_starts: from.u32s("value_starts")?,
            late_starts: from.u32s("late_starts")?,
            places: from.u32s("places")?,
            masks: from.u16s("masks")?,
            values: from.values("values")?,
            late_lanes: from.u8s("late_lanes")?,
            late_columns: from.u32s("late_columns")?,
            late_values: from.values("late_values")?,
            scales: from.scales::<T>()?,
        })
    }
}

impl<T: Expand> Stored for Nm<T> {
    fn kind() -> (&'static str, &'static str) {
        ("nm", T::NAME)
    }

    fn to_parts(&self) -> Parts {
        let p = self.clone().into_parts();
        let values = Part::Values(T::list(p.values));
        let parts = vec![
            ("blocks", Part::U32(p.blocks)),
            ("order", Part::U8(p.order)),
            ("words", Part::U64(p.words)),
            ("values", values),
        ];
        let sizes = Sizes { pattern: Some((p.n, p.m)), group: p.group, ..Sizes::new::<T>("nm", p.rows, p.cols) };
        with_scales::<T>(sizes, parts, &p.scales)
    }

    fn checked(mut from: Parts) -> Result<Self> {
        let (n, m) = from.sizes.pattern()?;
        Nm::new(NmParts {
            rows: from.sizes.rows,
            cols: from.sizes.cols,
            n,
            m,
            blocks: from.u32s("blocks")?,
            order: from.u8s("order")?,
            words: from.u64s("words")?,
            values: from.values("values")?,
            group: from.sizes.group,
            scales: from.scales::<T>()?,
        })
    }
}

impl<T: Value> Stored for Bsr<T> {
    fn kind() -> (&'static str, &'static str) {
        ("bsr", T::NAME)
    }

    fn to_parts(&self) -> Parts {
        let p = self.parts();
        let columns = match &p.columns {
            BlockColumns::Narrow(c) => Part::U16(c.clone()),
            BlockColumns::Wide(c) => Part::U32(c.clone()),
        };
        let parts = vec![
            ("shares", Part::U32(p.shares.clone())),
            ("starts", Part::U32(p.starts.clone())),
            ("value_starts", Part::U32(p.value_starts.clone())),
            ("columns", columns),
            ("values", Part::Values(T::list(p.values.clone()))),
        ];
        let sizes = Sizes { pattern: Some((p.r, p.c)), group: p.group, ..Sizes::new::<T>("bsr", p.rows, p.cols) };
        with_scales::<T>(sizes, parts, &p.scales)
    }

    fn checked(mut from: Parts) -> Result<Self> {
        let (r, c) = from.sizes.pattern()?;
        let columns = match from.any("columns")? {
            Part::U16(c) => BlockColumns::Narrow(c),
            Part::U32(c) => BlockColumns::Wide(c),
            other => return Err(Error::invalid_option("columns", format!("is {}, not U32", other.element()))),
        };
        Bsr::new(BsrParts {
            rows: from.sizes.rows,
            cols: from.sizes.cols,
            r,
            c,
            shares: from.u32s("shares")?,
            starts: from.u32s("starts")?,
            value_starts: from.u32s("value_starts")?,
            columns,
            values: from.values("values")?,
            group: from.sizes.group,
            scales: from.scales::<T>()?,
        })
    }
}

/// Codes and their factors.
struct Codes {
    bits: u8,
    group: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
    offsets: Offsets,
}

/// The lists of codes and their factors.
fn code_lists(codes: Vec<u8>, scales: Vec<f32>, offsets: Offsets) -> Vec<(&'static str, Part)> {
    let mut lists = vec![("codes", Part::U8(codes)), ("scales", Part::Values(in_few_bits(scales)))];
    match offsets {
        Offsets::Symmetric => {}
        Offsets::ZeroPoints(zeros) => lists.push(("zero_points", Part::Values(Values::I8(zeros)))),
        Offsets::Minimums(least) => lists.push(("minimums", Part::Values(in_few_bits(least)))),
    }
    lists
}

impl Parts {
    /// Refuses another format, and numbers that are no codes.
    fn check_codes(&self, wanted: &str) -> Result<()> {
        let (format, values) = (&self.sizes.format, &self.sizes.values);
        if format == wanted && ["i4", "u4", "i8", "u8"].contains(&values.as_str()) {
            return Ok(());
        }
        Err(Error::invalid_option("storage", format!("is '{format}' of '{values}', not {wanted} of i4, u4, i8 or u8")))
    }

    /// Bits, inputs of a group, codes, scales and offsets.
    fn codes(&mut self) -> Result<Codes> {
        let floats = |from: &mut Parts, name: &'static str| match from.any(name)? {
            Part::Values(Values::F32(v)) => Ok(v),
            Part::Values(Values::F16(v)) => Ok(v.into_iter().map(f16::to_f32).collect()),
            other => Err(Error::invalid_option(name, format!("is {}, not F32 or F16", other.element()))),
        };
        let bits = if self.sizes.values.ends_with('4') { 4 } else { 8 };
        let group = self.sizes.group.ok_or_else(|| Error::invalid_option("storage", "has no group"))?;
        let offsets = match (self.sizes.values.starts_with('u'), self.has("zero_points")) {
            (false, _) => Offsets::Symmetric,
            (true, true) => match self.any("zero_points")? {
                Part::Values(Values::I8(zeros)) => Offsets::ZeroPoints(zeros),
                other => return Err(Error::invalid_option("zero_points", format!("is {}, not I8", other.element()))),
            },
            (true, false) => Offsets::Minimums(floats(self, "minimums")?),
        };
        Ok(Codes { bits, group, codes: self.u8s("codes")?, scales: floats(self, "scales")?, offsets })
    }
}

impl Stored for Quantized {
    fn kind() -> (&'static str, &'static str) {
        ("quantized", "u8")
    }

    fn to_parts(&self) -> Parts {
        let QuantizedParts { rows, cols, group, codes, scales, offsets, .. } = self.parts();
        let sizes = Sizes { values: self.format().to_string(), group: Some(group), ..Sizes::new::<f32>("quantized", rows, cols) };
        Parts { sizes, lists: code_lists(codes, scales, offsets) }
    }

    fn from_parts(parts: Parts) -> Result<Self> {
        parts.check_codes("quantized")?;
        Self::checked(parts)
    }

    fn checked(mut from: Parts) -> Result<Self> {
        let Codes { bits, group, codes, scales, offsets } = from.codes()?;
        let Sizes { rows, cols, .. } = from.sizes;
        Quantized::new(QuantizedParts { rows, cols, bits, group, codes, scales, offsets })
    }
}

impl Stored for QuantizedNm {
    fn kind() -> (&'static str, &'static str) {
        ("quantized-nm", "u8")
    }

    fn to_parts(&self) -> Parts {
        let QuantizedNmParts { rows, cols, n, m, group, words, codes, scales, offsets, .. } = self.parts();
        let sizes = Sizes {
            values: self.numbers().to_string(),
            pattern: Some((n, m)),
            group: Some(group),
            ..Sizes::new::<f32>("quantized-nm", rows, cols)
        };
        let mut lists = vec![("words", Part::U64(words))];
        lists.extend(code_lists(codes, scales, offsets));
        Parts { sizes, lists }
    }

    fn from_parts(parts: Parts) -> Result<Self> {
        parts.check_codes("quantized-nm")?;
        Self::checked(parts)
    }

    fn checked(mut from: Parts) -> Result<Self> {
        let Codes { bits, group, codes, scales, offsets } = from.codes()?;
        let ((n, m), words) = (from.sizes.pattern()?, from.u64s("words")?);
        let Sizes { rows, cols, .. } = from.sizes;
        QuantizedNm::new(QuantizedNmParts { rows, cols, n, m, bits, group, words, codes, scales, offsets })
    }
}

impl Stored for QuantizedSparse {
    fn kind() -> (&'static str, &'static str) {
        ("quantized-sparse", "u8")
    }

    fn to_parts(&self) -> Parts {
        let QuantizedSparseParts { rows, cols, group, words, codes, scales, offsets, .. } = self.parts();
        let values = self.numbers().to_string();
        let sizes = Sizes { values, group: Some(group), ..Sizes::new::<f32>("quantized-sparse", rows, cols) };
        let mut lists = vec![("words", Part::U64(words))];
        lists.extend(code_lists(codes, scales, offsets));
        Parts { sizes, lists }
    }

    fn from_parts(parts: Parts) -> Result<Self> {
        parts.check_codes("quantized-sparse")?;
        Self::checked(parts)
    }

    fn checked(mut from: Parts) -> Result<Self> {
        let Codes { bits, group, codes, scales, offsets } = from.codes()?;
        let words = from.u64s("words")?;
        let Sizes { rows, cols, .. } = from.sizes;
        QuantizedSparse::new(QuantizedSparseParts { rows, cols, bits, group, words, codes, scales, offsets })
    }
}

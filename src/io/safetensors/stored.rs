//! What each storage writes, and how it is read: its parts, as they are named in memory.

use super::storages::{Part, Sizes, Source};
use crate::Result;
use crate::kernels::{Expand, Pair, Value};
use crate::sparse::{
    Bitmask, BitmaskParts, BlockColumns, Bsr, BsrParts, Columns, Csr, LinearOp, Nm, NmParts, Sell, SellParts, TileCsr,
    TileCsrParts, TilePairs, TilePairsParts,
};
use ::safetensors::tensor::Dtype as Element;

/// A storage that files can hold: all but [`Dense`](crate::sparse::Dense), which is a plain weight with its mask beside it.
pub trait Stored: LinearOp + Convert {}
impl<S: LinearOp + Convert> Stored for S {}

/// The way into a file and back, for the storages of this library.
pub trait Convert: Sized {
    /// Name of the format, and of the numbers.
    fn kind() -> (&'static str, &'static str);
    /// Sizes and parts.
    fn write(&self) -> (Sizes, Vec<(&'static str, Part)>);
    /// The storage, checked.
    fn read(from: &Source<'_>) -> Result<Self>;
}

/// Parts, with scales at the end where values have them.
fn with_scales<T: Value>(mut parts: Vec<(&'static str, Part)>, scales: &[f32]) -> Vec<(&'static str, Part)> {
    if T::SCALED {
        parts.push(("scales", Part::scales(scales)));
    }
    parts
}

impl Part {
    fn columns(columns: &Columns) -> Part {
        match columns {
            Columns::Narrow(c) => Part::U8(c.clone()),
            Columns::Wide(c) => Part::U16(c.clone()),
        }
    }
}

impl Source<'_> {
    fn columns(&self) -> Result<Columns> {
        Ok(match self.element("columns")? {
            Element::U8 => Columns::Narrow(self.u8s("columns")?),
            _ => Columns::Wide(self.u16s("columns")?),
        })
    }
}

impl Convert for Csr {
    fn kind() -> (&'static str, &'static str) {
        ("csr", "f32")
    }

    fn write(&self) -> (Sizes, Vec<(&'static str, Part)>) {
        let ((rows, cols), view) = (self.shape(), self.view());
        let parts = vec![
            ("offsets", Part::U32(view.offsets().to_vec())),
            ("indices", Part::U32(view.indices().to_vec())),
            ("values", Part::values(view.values())),
        ];
        (Sizes::new::<f32>("csr", rows, cols), parts)
    }

    fn read(from: &Source<'_>) -> Result<Self> {
        Csr::new(from.sizes.rows, from.sizes.cols, from.u32s("offsets")?, from.u32s("indices")?, from.values("values")?)
    }
}

impl<T: Value> Convert for TileCsr<T> {
    fn kind() -> (&'static str, &'static str) {
        ("tile-csr", T::NAME)
    }

    fn write(&self) -> (Sizes, Vec<(&'static str, Part)>) {
        let p = self.parts();
        let parts = vec![
            ("blocks", Part::U32(p.blocks.clone())),
            ("starts", Part::U32(p.starts.clone())),
            ("order", Part::U16(p.order.clone())),
            ("columns", Part::columns(&p.columns)),
            ("values", Part::values(&p.values)),
        ];
        let sizes = Sizes { tile: Some(p.tile), ..Sizes::new::<T>("tile-csr", p.rows, p.cols) };
        (sizes, with_scales::<T>(parts, &p.scales))
    }

    fn read(from: &Source<'_>) -> Result<Self> {
        TileCsr::new(TileCsrParts {
            rows: from.sizes.rows,
            cols: from.sizes.cols,
            tile: from.tile()?,
            blocks: from.u32s("blocks")?,
            starts: from.u32s("starts")?,
            order: from.u16s("order")?,
            columns: from.columns()?,
            values: from.values("values")?,
            scales: from.scales::<T>()?,
        })
    }
}

impl<T: Value> Convert for TilePairs<T> {
    fn kind() -> (&'static str, &'static str) {
        ("tile-pairs", T::NAME)
    }

    fn write(&self) -> (Sizes, Vec<(&'static str, Part)>) {
        let p = self.parts();
        let parts = vec![
            ("blocks", Part::U32(p.blocks.clone())),
            ("column_starts", Part::U32(p.column_starts.clone())),
            ("value_starts", Part::U32(p.value_starts.clone())),
            // Five numbers a pair: first, second, single, both, rest.
            ("pairs", Part::U16(p.pairs.iter().flat_map(|p| [p.first, p.second, p.single, p.both, p.rest]).collect())),
            ("columns", Part::columns(&p.columns)),
            ("values", Part::values(&p.values)),
        ];
        let sizes = Sizes { tile: Some(p.tile), ..Sizes::new::<T>("tile-pairs", p.rows, p.cols) };
        (sizes, with_scales::<T>(parts, &p.scales))
    }

    fn read(from: &Source<'_>) -> Result<Self> {
        let pairs = from.u16s("pairs")?;
        let (pairs, rest) = pairs.as_chunks::<5>();
        if !rest.is_empty() {
            let numbers = 5 * pairs.len() + rest.len();
            return Err(crate::Error::setting("tile-pairs", format!("{numbers} numbers for pairs of five each")));
        }
        TilePairs::new(TilePairsParts {
            rows: from.sizes.rows,
            cols: from.sizes.cols,
            tile: from.tile()?,
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

impl<T: Expand> Convert for Bitmask<T> {
    fn kind() -> (&'static str, &'static str) {
        ("bitmask", T::NAME)
    }

    fn write(&self) -> (Sizes, Vec<(&'static str, Part)>) {
        let p = self.clone().into_parts();
        let values = Part::values(&p.values);
        let parts = vec![
            ("blocks", Part::U32(p.blocks)),
            ("starts", Part::U32(p.starts)),
            ("words", Part::U64(p.words)),
            ("values", values),
        ];
        let sizes = Sizes { tile: Some(p.tile), ..Sizes::new::<T>("bitmask", p.rows, p.cols) };
        (sizes, with_scales::<T>(parts, &p.scales))
    }

    fn read(from: &Source<'_>) -> Result<Self> {
        Bitmask::new(BitmaskParts {
            rows: from.sizes.rows,
            cols: from.sizes.cols,
            tile: from.tile()?,
            blocks: from.u32s("blocks")?,
            starts: from.u32s("starts")?,
            words: from.u64s("words")?,
            values: from.values("values")?,
            scales: from.scales::<T>()?,
        })
    }
}

impl<T: Expand> Convert for Sell<T> {
    fn kind() -> (&'static str, &'static str) {
        ("sell", T::NAME)
    }

    fn write(&self) -> (Sizes, Vec<(&'static str, Part)>) {
        let p = self.clone().into_parts();
        let (values, late_values) = (Part::values(&p.values), Part::values(&p.late_values));
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
        let sizes = Sizes { tile: Some(p.lanes), slots: Some(p.slots.to_string()), ..Sizes::new::<T>("sell", p.rows, p.cols) };
        (sizes, with_scales::<T>(parts, &p.scales))
    }

    fn read(from: &Source<'_>) -> Result<Self> {
        Sell::new(SellParts {
            rows: from.sizes.rows,
            cols: from.sizes.cols,
            lanes: from.tile()?,
            slots: from.slots()?,
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

impl<T: Expand> Convert for Nm<T> {
    fn kind() -> (&'static str, &'static str) {
        ("nm", T::NAME)
    }

    fn write(&self) -> (Sizes, Vec<(&'static str, Part)>) {
        let p = self.clone().into_parts();
        let values = Part::values(&p.values);
        let parts = vec![
            ("blocks", Part::U32(p.blocks)),
            ("order", Part::U8(p.order)),
            ("words", Part::U64(p.words)),
            ("values", values),
        ];
        let sizes = Sizes { pattern: Some((p.n, p.m)), group: p.group, ..Sizes::new::<T>("nm", p.rows, p.cols) };
        (sizes, with_scales::<T>(parts, &p.scales))
    }

    fn read(from: &Source<'_>) -> Result<Self> {
        let (n, m) = from.pattern()?;
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

impl<T: Value> Convert for Bsr<T> {
    fn kind() -> (&'static str, &'static str) {
        ("bsr", T::NAME)
    }

    fn write(&self) -> (Sizes, Vec<(&'static str, Part)>) {
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
            ("values", Part::values(&p.values)),
        ];
        let sizes = Sizes { pattern: Some((p.r, p.c)), group: p.group, ..Sizes::new::<T>("bsr", p.rows, p.cols) };
        (sizes, with_scales::<T>(parts, &p.scales))
    }

    fn read(from: &Source<'_>) -> Result<Self> {
        let (r, c) = from.pattern()?;
        let columns = match from.element("columns")? {
            Element::U16 => BlockColumns::Narrow(from.u16s("columns")?),
            _ => BlockColumns::Wide(from.u32s("columns")?),
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

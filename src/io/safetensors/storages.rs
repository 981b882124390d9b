//! Sparse storages in files.
//!
//! A storage `fc.weight` is a metadata entry `fc.weight.storage`, a line of JSON that names the format and its version, the numbers it keeps and its
//! sizes, and one tensor a part, `fc.weight.values` and so on, named as the fields of the storage's parts. Reading goes through the
//! checks of the storage's constructor: a file that breaks an invariant is refused by the name of it.

use super::checkpoint::{Checkpoint, Tensor};
use super::dtype::Dtype;
use super::stored::{Convert, Stored};
use crate::io::{one_line, quoted};
use crate::kernels::Value;
use crate::mask::Mask;
use crate::sparse::{
    Bitmask, Bsr, Compress, Csr, Format, LinearOp, Nm, Precision, Sell, Slots, TileCsr, TilePairs, with_storage, with_values,
};
use crate::{Error, Result};
use ::safetensors::tensor::Dtype as Element;
use half::{bf16, f16};
use ndarray::ArrayRef2;
use serde::{Deserialize, Serialize};

const SUFFIX: &str = ".storage";
/// What is written. Names and meanings on disk are for ever: another meaning is another version.
const VERSION: u32 = 1;

/// The JSON beside a storage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    pub format: String,
    pub version: u32,
    /// What the numbers are: `f32`, `bf16`, `f16`, `i8`.
    pub values: String,
    pub rows: usize,
    pub cols: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile: Option<usize>,
    /// The two numbers of N:M, or of a block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<(usize, usize)>,
    /// Inputs of a row that share a scale, if not all do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<usize>,
    /// What slots without a weight hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<String>,
}

impl Sizes {
    pub fn new<T: Value>(format: &str, rows: usize, cols: usize) -> Sizes {
        let (format, values) = (format.to_string(), T::NAME.to_string());
        Sizes { format, version: VERSION, values, rows, cols, tile: None, pattern: None, group: None, slots: None }
    }
}

/// Numbers of one part.
pub enum Part {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I8(Vec<u8>),
    Floats(Vec<f32>, Dtype),
}

impl Part {
    /// Values of any kind.
    pub fn values<T: Value>(values: &[T]) -> Part {
        let floats = || values.iter().map(|v| v.decode()).collect();
        match T::NAME {
            "i8" => Part::I8(values.iter().map(|v| (v.decode() as i8).cast_unsigned()).collect()),
            "bf16" => Part::Floats(floats(), Dtype::BF16),
            "f16" => Part::Floats(floats(), Dtype::F16),
            _ => Part::Floats(floats(), Dtype::F32),
        }
    }

    /// Factors.
    pub fn scales(scales: &[f32]) -> Part {
        Part::Floats(scales.to_vec(), Dtype::F32)
    }

    fn into_tensor(self) -> Tensor {
        let opaque = |element, len, bytes| Tensor::Opaque { element, shape: vec![len], bytes };
        match self {
            Part::U8(v) => opaque(Element::U8, v.len(), v),
            Part::I8(v) => opaque(Element::I8, v.len(), v),
            Part::U16(v) => opaque(Element::U16, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Part::U32(v) => opaque(Element::U32, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Part::U64(v) => opaque(Element::U64, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Part::Floats(v, dtype) => Tensor::Weight(ndarray::Array1::from(v).into_dyn(), dtype),
        }
    }
}

/// Where the parts of one storage are read from.
pub struct Source<'a> {
    checkpoint: &'a Checkpoint,
    name: &'a str,
    pub sizes: Sizes,
}

impl Source<'_> {
    fn refuse(&self, part: &str, reason: &str) -> Error {
        self.checkpoint.malformed(&format!("{}.{part}", self.name), reason)
    }

    fn tensor(&self, part: &str) -> Result<&Tensor> {
        let tensor = self.checkpoint.find(&format!("{}.{part}", self.name));
        let tensor = tensor.ok_or_else(|| self.refuse(part, &format!("is missing; {} needs it", self.sizes.format)))?;
        match tensor.shape() {
            [_] => Ok(tensor),
            shape => Err(self.refuse(part, &format!("has shape {shape:?}; a part of a storage has one dimension"))),
        }
    }

    /// The element type of a part.
    pub fn element(&self, part: &str) -> Result<Element> {
        self.tensor(part).map(|t| t.element())
    }

    fn bytes(&self, part: &str, wanted: Element) -> Result<&[u8]> {
        match self.tensor(part)? {
            Tensor::Opaque { element, bytes, .. } if *element == wanted => Ok(bytes),
            other => Err(self.refuse(part, &format!("is {}, not {wanted}", other.element()))),
        }
    }

    pub fn u8s(&self, part: &str) -> Result<Vec<u8>> {
        self.bytes(part, Element::U8).map(<[u8]>::to_vec)
    }

    pub fn u16s(&self, part: &str) -> Result<Vec<u16>> {
        self.bytes(part, Element::U16).map(|b| b.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect())
    }

    pub fn u32s(&self, part: &str) -> Result<Vec<u32>> {
        self.bytes(part, Element::U32).map(|b| b.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect())
    }

    pub fn u64s(&self, part: &str) -> Result<Vec<u64>> {
        self.bytes(part, Element::U64).map(|b| b.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect())
    }

    fn floats(&self, part: &str, wanted: Dtype) -> Result<Vec<f32>> {
        match self.tensor(part)? {
            Tensor::Weight(values, dtype) if *dtype == wanted => Ok(values.iter().copied().collect()),
            other => Err(self.refuse(part, &format!("is {}, not {wanted}", other.element()))),
        }
    }

    /// The values, as numbers that they are exactly.
    pub fn values<T: Value>(&self, part: &str) -> Result<Vec<T>> {
        let dtype = match T::NAME {
            "bf16" => Dtype::BF16,
            "f16" => Dtype::F16,
            "f32" => Dtype::F32,
            _ => {
                let bytes = self.bytes(part, Element::I8)?;
                if bytes.contains(&0x80) {
                    return Err(self.refuse(part, "holds -128, where -127 to 127 are possible"));
                }
                return Ok(bytes.iter().map(|b| T::encode(f32::from(b.cast_signed()))).collect());
            }
        };
        Ok(self.floats(part, dtype)?.into_iter().map(T::encode).collect())
    }

    /// The factors; none where values are floats.
    pub fn scales<T: Value>(&self) -> Result<Vec<f32>> {
        if T::SCALED { self.floats("scales", Dtype::F32) } else { Ok(Vec::new()) }
    }

    /// The width of tiles.
    pub fn tile(&self) -> Result<usize> {
        self.sizes.tile.ok_or_else(|| self.refuse("storage", "has no tile"))
    }

    /// What empty slots hold.
    pub fn slots(&self) -> Result<Slots> {
        match self.sizes.slots.as_deref() {
            Some("padded") => Ok(Slots::Padded),
            Some("packed") => Ok(Slots::Packed),
            Some(other) => {
                Err(self.refuse("storage", &format!("has slots {}, where padded and packed are possible", quoted(other))))
            }
            None => Err(self.refuse("storage", "has no slots")),
        }
    }

    /// The two numbers of the pattern.
    pub fn pattern(&self) -> Result<(usize, usize)> {
        self.sizes.pattern.ok_or_else(|| self.refuse("storage", "has no pattern"))
    }
}

/// Every part that a storage of any format has.
const PARTS: [&str; 22] = [
    "offsets",
    "indices",
    "blocks",
    "starts",
    "order",
    "columns",
    "column_starts",
    "value_starts",
    "pairs",
    "words",
    "shares",
    "steps",
    "place_starts",
    "mask_starts",
    "late_starts",
    "places",
    "masks",
    "late_lanes",
    "late_columns",
    "late_values",
    "values",
    "scales",
];

impl Checkpoint {
    /// Puts a storage in under a name, `fc.weight`; one of that name is replaced. Other tensors stay as they are.
    ///
    /// # Errors
    /// [`Error::Setting`] if a tensor has the name of one of its parts and does not belong to a storage.
    pub fn insert_storage<S: Stored>(&mut self, name: &str, storage: &S) -> Result<()> {
        let (sizes, parts) = storage.write();
        let old = self.metadata.contains_key(&key(name));
        for (part, _) in &parts {
            let tensor = format!("{name}.{part}");
            if self.contains(&tensor) && !old {
                return Err(Error::setting("storage", format!("there is a tensor {} already", quoted(&tensor))));
            }
        }
        self.remove_storage(name);
        for (part, numbers) in parts {
            self.put(format!("{name}.{part}"), numbers.into_tensor());
        }
        let json = serde_json::to_string(&sizes).map_err(|e| Error::setting("storage", e.to_string()))?;
        self.insert_metadata(key(name), json);
        Ok(())
    }

    /// Packs what the mask keeps of a weight in a format, and puts it in as [`Checkpoint::insert_storage`] does.
    ///
    /// # Errors
    /// As there; [`Error::Setting`] for [`Format::Dense`], or if the format has no such numbers or cannot hold the mask.
    pub fn insert_packed(
        &mut self,
        name: &str,
        (weight, mask): (&ArrayRef2<f32>, &Mask),
        format: Format,
        values: Precision,
    ) -> Result<()> {
        match format {
            Format::Csr if values == Precision::F32 => self.insert_storage(name, &Csr::compress(weight, mask)?),
            Format::Dense | Format::Csr => {
                Err(Error::setting("format", format!("{format} of {values} is no storage that files hold")))
            }
            _ => with_storage!(format, values, weight, mask, |op| self.insert_storage(name, &op)),
        }
    }

    /// The names of all storages, in alphabetical order.
    pub fn storages(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().filter_map(|key| key.strip_suffix(SUFFIX))
    }

    /// A storage of whatever format the file says.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] if there is no storage of that name; [`Error::Malformed`] if the file's version or format is
    /// unknown, a part is missing or of another type, or an invariant of the storage is broken.
    pub fn storage(&self, name: &str) -> Result<Box<dyn LinearOp>> {
        let source = self.source(name)?;
        macro_rules! of {
            ($t:ident) => {
                match source.sizes.values.as_str() {
                    "f32" => self.read_storage::<$t<f32>>(source).map(|s| Box::new(s) as Box<dyn LinearOp>),
                    "bf16" => self.read_storage::<$t<bf16>>(source).map(|s| Box::new(s) as Box<dyn LinearOp>),
                    "f16" => self.read_storage::<$t<f16>>(source).map(|s| Box::new(s) as Box<dyn LinearOp>),
                    "i8" => self.read_storage::<$t<i8>>(source).map(|s| Box::new(s) as Box<dyn LinearOp>),
                    other => {
                        let reason = format!("{} is none of f32, bf16, f16, i8", quoted(other));
                        Err(source.refuse("storage", &reason))
                    }
                }
            };
        }
        match source.sizes.format.as_str() {
            "csr" => self.read_storage::<Csr>(source).map(|s| Box::new(s) as Box<dyn LinearOp>),
            "tile-csr" => of!(TileCsr),
            "tile-pairs" => of!(TilePairs),
            "bitmask" => of!(Bitmask),
            "sell" => of!(Sell),
            "nm" => of!(Nm),
            "bsr" => of!(Bsr),
            other => {
                let reason = format!("{} is none of csr, tile-csr, tile-pairs, bitmask, sell, nm, bsr", quoted(other));
                Err(source.refuse("storage", &reason))
            }
        }
    }

    /// A storage of a known format.
    ///
    /// # Errors
    /// As [`Checkpoint::storage`], and [`Error::Malformed`] if the file says another format or other numbers.
    pub fn storage_as<S: Stored>(&self, name: &str) -> Result<S> {
        let source = self.source(name)?;
        self.read_storage(source)
    }

    /// Takes a storage out; nothing happens if there is none.
    pub fn remove_storage(&mut self, name: &str) {
        if self.metadata.remove(&key(name)).is_some() {
            PARTS.iter().for_each(|part| self.take(&format!("{name}.{part}")));
        }
    }

    fn read_storage<S: Convert>(&self, source: Source<'_>) -> Result<S> {
        let (format, values) = S::kind();
        if (source.sizes.format.as_str(), source.sizes.values.as_str()) != (format, values) {
            let (f, v) = (quoted(&source.sizes.format), quoted(&source.sizes.values));
            return Err(source.refuse("storage", &format!("is {f} of {v}, not {format} of {values}")));
        }
        S::read(&source).map_err(|e| match e {
            Error::Setting { option, reason } => source.refuse("storage", &format!("is no {option}: {reason}")),
            other => other,
        })
    }

    /// The JSON of a storage, read.
    fn source<'a>(&'a self, name: &'a str) -> Result<Source<'a>> {
        let Some(json) = self.metadata.get(&key(name)) else {
            return Err(Error::unknown_layer(name, self.storages()));
        };
        let refuse = |reason: String| Err(self.malformed(&key(name), &reason));
        match serde_json::from_str::<Sizes>(json) {
            Err(e) => refuse(format!("does not describe a storage: {}", one_line(&e.to_string(), 200))),
            Ok(s) if s.version != VERSION => refuse(format!("is of version {}; this reads version {VERSION}", s.version)),
            Ok(s) if u32::try_from(s.rows.max(s.cols)).is_err() => {
                refuse(format!("says {} x {}, which is too large", s.rows, s.cols))
            }
            Ok(sizes) => Ok(Source { checkpoint: self, name, sizes }),
        }
    }
}

fn key(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

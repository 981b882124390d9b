//! Sparse storages in files.
//!
//! A storage `fc.weight` is a metadata entry `fc.weight.storage`, a line of JSON that names the format and its version, the numbers it keeps and its
//! sizes, and one tensor a part, `fc.weight.values` and so on, named as the fields of the storage's parts. Reading goes through the
//! checks of the storage's constructor: a file that breaks an invariant is refused by the name of it.

use super::checkpoint::{Checkpoint, Tensor};
use super::dtype::Dtype;
use crate::io::{one_line, quoted};
use crate::mask::Mask;
use crate::sparse::{CodeSource, Format, LinearOp, Part, Parts, Precision, Sizes, Slots, Stored, Values};
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
struct Line {
    format: String,
    version: u32,
    /// What the numbers are: `f32`, `bf16`, `f16`, `i8`.
    values: String,
    rows: usize,
    cols: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tile: Option<usize>,
    /// The two numbers of N:M, or of a block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pattern: Option<(usize, usize)>,
    /// Inputs of a row that share a scale, if not all do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<usize>,
    /// What slots without a weight hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slots: Option<String>,
}

impl Line {
    fn of(sizes: &Sizes) -> Line {
        let Sizes { format, values, rows, cols, tile, pattern, group, slots } = sizes.clone();
        Line { format, version: VERSION, values, rows, cols, tile, pattern, group, slots: slots.map(|s| s.to_string()) }
    }

    /// # Errors
    /// If slots are of no kind: what is said of them.
    fn sizes(self) -> std::result::Result<Sizes, String> {
        let Line { format, version: _, values, rows, cols, tile, pattern, group, slots } = self;
        let slots = match slots.as_deref() {
            None => None,
            Some("padded") => Some(Slots::Padded),
            Some("packed") => Some(Slots::Packed),
            Some(other) => return Err(format!("has slots {}, where padded and packed are possible", quoted(other))),
        };
        Ok(Sizes { format, values, rows, cols, tile, pattern, group, slots })
    }
}

/// A list of a storage as a tensor.
fn tensor_of(part: Part) -> Tensor {
    let opaque = |element, len, bytes| Tensor::Opaque { element, shape: vec![len], bytes };
    let weight = |values: Vec<f32>, dtype| Tensor::Weight(ndarray::Array1::from(values).into_dyn(), dtype);
    match part {
        Part::U8(v) => opaque(Element::U8, v.len(), v),
        Part::U16(v) => opaque(Element::U16, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Part::U32(v) => opaque(Element::U32, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Part::U64(v) => opaque(Element::U64, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Part::Values(Values::I8(v)) => opaque(Element::I8, v.len(), v.into_iter().map(i8::cast_unsigned).collect()),
        Part::Values(Values::F32(v)) => weight(v, Dtype::F32),
        Part::Values(Values::Bf16(v)) => weight(v.into_iter().map(bf16::to_f32).collect(), Dtype::BF16),
        Part::Values(Values::F16(v)) => weight(v.into_iter().map(f16::to_f32).collect(), Dtype::F16),
    }
}

/// A tensor as a list of a storage; none if storages have no such lists.
fn part_of(tensor: &Tensor) -> Option<Part> {
    Some(match tensor {
        Tensor::Opaque { element: Element::U8, bytes, .. } => Part::U8(bytes.clone()),
        Tensor::Opaque { element: Element::I8, bytes, .. } => {
            Part::Values(Values::I8(bytes.iter().map(|b| b.cast_signed()).collect()))
        }
        Tensor::Opaque { element: Element::U16, bytes, .. } => {
            Part::U16(bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect())
        }
        Tensor::Opaque { element: Element::U32, bytes, .. } => {
            Part::U32(bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect())
        }
        Tensor::Opaque { element: Element::U64, bytes, .. } => {
            Part::U64(bytes.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect())
        }
        Tensor::Weight(values, Dtype::F32) => Part::Values(Values::F32(values.iter().copied().collect())),
        Tensor::Weight(values, Dtype::BF16) => Part::Values(Values::Bf16(values.iter().map(|v| bf16::from_f32(*v)).collect())),
        Tensor::Weight(values, Dtype::F16) => Part::Values(Values::F16(values.iter().map(|v| f16::from_f32(*v)).collect())),
        _ => return None,
    })
}

impl Checkpoint {
    /// Puts a storage in under a name, `fc.weight`; one of that name is replaced. Other tensors stay as they are.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a tensor has the name of one of its parts and does not belong to a storage.
    pub fn insert_storage<S: Stored>(&mut self, name: &str, storage: &S) -> Result<()> {
        self.insert_parts(name, storage.to_parts())
    }

    fn insert_parts(&mut self, name: &str, Parts { sizes, lists }: Parts) -> Result<()> {
        let old = self.metadata.contains_key(&key(name));
        for (part, _) in &lists {
            let tensor = format!("{name}.{part}");
            if self.contains(&tensor) && !old {
                return Err(Error::invalid_option("storage", format!("there is a tensor {} already", quoted(&tensor))));
            }
        }
        self.remove_storage(name);
        for (part, numbers) in lists {
            self.put(format!("{name}.{part}"), tensor_of(numbers));
        }
        let json = serde_json::to_string(&Line::of(&sizes)).map_err(|e| Error::invalid_option("storage", e.to_string()))?;
        self.insert_metadata(key(name), json);
        Ok(())
    }

    /// Packs what the mask keeps of a weight in a format, and puts it in as [`Checkpoint::insert_storage`] does.
    ///
    /// # Errors
    /// As there; [`Error::InvalidOption`] for [`Format::Dense`], or if the format has no such numbers or cannot hold the mask.
    pub fn insert_packed(
        &mut self,
        name: &str,
        (weight, mask): (&ArrayRef2<f32>, &Mask),
        format: Format,
        values: Precision,
    ) -> Result<()> {
        self.insert_parts(name, format.parts(weight, mask, values)?)
    }

    /// Puts what the mask keeps of codes in as [`Checkpoint::insert_storage`] does, in a format that has such ([`CodeSource::parts`]); whether there are some.
    ///
    /// # Errors
    /// As there.
    pub fn insert_codes(&mut self, name: &str, (codes, mask): (CodeSource<'_>, &Mask), format: Format) -> Result<bool> {
        let parts = codes.parts(mask, format)?;
        let found = parts.is_some();
        parts.map_or(Ok(()), |parts| self.insert_parts(name, parts)).map(|()| found)
    }

    /// Packs what a storage keeps in another format, without its dense weight ([`Format::convert_to`]), and puts it in likewise.
    ///
    /// # Errors
    /// As [`Checkpoint::insert_packed`].
    pub fn insert_converted(&mut self, name: &str, op: &dyn LinearOp, format: Format, values: Precision) -> Result<()> {
        self.insert_parts(name, format.convert_parts(op, values)?)
    }

    /// The names of all storages, in alphabetical order.
    pub fn storages(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().filter_map(|key| key.strip_suffix(SUFFIX))
    }

    /// A storage of whatever format the file says.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no storage of that name; [`Error::Malformed`] if the file's version or format is
    /// unknown, a part is missing or of another type, or an invariant of the storage is broken.
    pub fn storage(&self, name: &str) -> Result<Box<dyn LinearOp>> {
        let parts = self.parts(name)?;
        let format = parts.sizes.format.clone();
        parts.into_storage().map_err(|e| self.of_part(name, &format, e))
    }

    /// A storage of a known format.
    ///
    /// # Errors
    /// As [`Checkpoint::storage`], and [`Error::Malformed`] if the file says another format or other numbers.
    pub fn storage_as<S: Stored>(&self, name: &str) -> Result<S> {
        let parts = self.parts(name)?;
        let format = parts.sizes.format.clone();
        S::from_parts(parts).map_err(|e| self.of_part(name, &format, e))
    }

    /// Takes a storage out; nothing happens if there is none.
    pub fn remove_storage(&mut self, name: &str) {
        if self.metadata.remove(&key(name)).is_some() {
            Parts::NAMES.iter().for_each(|part| self.take(&format!("{name}.{part}")));
        }
    }

    /// What is wrong with a storage, where it stands: a list that is named, or what the line says.
    fn of_part(&self, name: &str, format: &str, error: Error) -> Error {
        match error {
            Error::InvalidOption { option, reason } if option == format => {
                self.malformed(&key(name), &format!("is no {option}: {reason}"))
            }
            Error::InvalidOption { option, reason } => self.malformed(&format!("{name}.{option}"), &reason),
            other => other,
        }
    }

    /// The line of a storage and its lists.
    fn parts(&self, name: &str) -> Result<Parts> {
        let Some(json) = self.metadata.get(&key(name)) else {
            return Err(Error::unknown_layer(name, self.storages()));
        };
        let refuse = |reason: String| self.malformed(&key(name), &reason);
        let sizes = match serde_json::from_str::<Line>(json) {
            Err(e) => return Err(refuse(format!("does not describe a storage: {}", one_line(&e.to_string(), 200)))),
            Ok(s) if s.version != VERSION => {
                return Err(refuse(format!("is of version {}; this reads version {VERSION}", s.version)));
            }
            Ok(s) if u32::try_from(s.rows.max(s.cols)).is_err() => {
                return Err(refuse(format!("says {} x {}, which is too large", s.rows, s.cols)));
            }
            Ok(line) => line.sizes().map_err(refuse)?,
        };
        let mut lists = Vec::new();
        for part in Parts::NAMES {
            let Some(tensor) = self.find(&format!("{name}.{part}")) else { continue };
            let wrong = |reason: String| self.malformed(&format!("{name}.{part}"), &reason);
            if tensor.shape().len() != 1 {
                return Err(wrong(format!("has shape {:?}; a part of a storage has one dimension", tensor.shape())));
            }
            let list = part_of(tensor).ok_or_else(|| wrong(format!("is {}, which no storage has", tensor.element())))?;
            lists.push((part, list));
        }
        Ok(Parts { sizes, lists })
    }
}

fn key(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

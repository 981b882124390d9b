//! GGUF, the format of llama.cpp: one file with the weights, mostly quantised, the settings and the tokenizer.
//!
//! ```text
//! "GGUF" │ u32 version │ u64 tensors │ u64 keys │ keys and values │ name, shape, type, place of each tensor │ fill │ the bytes
//! ```
//!
//! [`Gguf`] opens a file of version 2 or 3: the front is read and checked against the file's length, the numbers stay on the disk
//! until a tensor is asked for. [`import`] turns a file into a folder that the Hugging Face libraries and
//! [`Folder`](crate::io::Folder) open.

mod arch;
mod arches;
mod k_quants;
mod quant;
mod encode;
mod write;
mod tokenizer;
mod value;
mod keys;
mod rope;
mod config;
mod import;
mod inverse;
mod words;
mod export;

pub use export::{ExportTypes, Exported, export};
pub use import::{Imported, import, import_checked};
pub use inverse::comes_back_as;
pub use quant::Quant;
pub use value::GgufValue;
pub(crate) use words::merge_sides;

use crate::io::foreign::MAGIC;
use crate::io::place::read_exact_at;
use crate::io::{open, quoted};
use crate::{Error, Result};
use ndarray::{ArrayD, IxDyn};
use rayon::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};
use value::Cursor;

/// The most dimensions of a tensor in this format.
const MAX_RANK: u32 = 4;
/// Blocks that are read at a time.
const CHUNK: usize = 1 << 13;

/// One tensor of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// Its dimensions, the slowest first; the file has them the other way round.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub quant: Quant,
    /// Bytes it takes in the file.
    pub bytes: u64,
    start: u64,
}

/// An open GGUF file.
///
/// ```no_run
/// let file = lacuna::io::gguf::Gguf::open("model.gguf")?;
/// println!("{}, {} tensors", file.text("general.architecture")?, file.tensors().len());
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: File,
    version: u32,
    metadata: BTreeMap<String, GgufValue>,
    tensors: Vec<GgufTensor>,
    /// Where keys and values stand in the file.
    keys: Range<u64>,
    alignment: u64,
}

impl Gguf {
    /// Opens a file and reads its front.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Malformed`] if it is no GGUF file, of another version than 2 and 3, has a
    /// tensor of a type that is not read (the line lists those that are), or is not whole.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf> {
        let path = path.as_ref();
        let (file, length) = open(path)?;
        let mut cursor = Cursor::new(path, BufReader::with_capacity(1 << 16, &file), length);
        if length < 4 || cursor.bytes::<4>()? != *MAGIC {
            return cursor.refuse("is no GGUF file: it does not begin with 'GGUF'".to_string());
        }
        let version = cursor.u32()?;
        if !(2..=3).contains(&version) {
            let hint = if (2..=3).contains(&version.swap_bytes()) { " (it is big-endian)" } else { "" };
            return cursor.refuse(format!("GGUF version {version}{hint}; versions 2 and 3, little-endian, are read"));
        }
        let (tensors, keys) = (cursor.u64()?, cursor.u64()?);
        let keys = cursor.count(keys, 13, "keys")?;
        let begin = cursor.at;
        let mut metadata = BTreeMap::new();
        for _ in 0..keys {
            let key = cursor.text("a key")?;
            let value = cursor.value(&key)?;
            if metadata.insert(key.clone(), value).is_some() {
                return cursor.refuse(format!("the key {} stands there twice", quoted(&key)));
            }
        }
        let keys = begin..cursor.at;
        let count = cursor.count(tensors, 24, "tensors")?;
        let mut listed = Vec::new();
        let mut names = HashSet::new();
        for _ in 0..count {
            let tensor = listing(&mut cursor)?;
            if !names.insert(tensor.name.clone()) {
                return cursor.refuse(format!("the tensor {} stands there twice", quoted(&tensor.name)));
            }
            listed.push(tensor);
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(GgufValue::Int(a)) if (1..=1 << 20).contains(a) && a.count_ones() == 1 => *a as u64,
            Some(other) => {
                return cursor.refuse(format!("general.alignment is {other:?}, which is no power of two up to 2^20"));
            }
        };
        let data = cursor.at.next_multiple_of(alignment);
        for tensor in &mut listed {
            let shown = quoted(&tensor.name);
            if tensor.start % alignment != 0 {
                return cursor.refuse(format!("tensor {shown} begins at {}, no multiple of {alignment}", tensor.start));
            }
            let end = data.checked_add(tensor.start).and_then(|start| start.checked_add(tensor.bytes));
            if end.is_none_or(|end| end > length) {
                let (start, bytes) = (tensor.start, tensor.bytes);
                return cursor.refuse(format!(
                    "truncated: tensor {shown} has {bytes} bytes from {start} behind byte {data}, the file has {length}"
                ));
            }
            tensor.start += data;
        }
        let mut order: Vec<&GgufTensor> = listed.iter().collect();
        order.sort_by_key(|t| (t.start, t.bytes));
        if let Some(pair) = order.windows(2).find(|pair| pair[0].start + pair[0].bytes > pair[1].start) {
            let (a, b) = (quoted(&pair[0].name), quoted(&pair[1].name));
            return cursor.refuse(format!("the bytes of tensors {a} and {b} overlap"));
        }
        Ok(Gguf { path: path.to_path_buf(), file, version, metadata, tensors: listed, keys, alignment })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The tensors, in the order of the listing.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// All keys with their values.
    pub fn metadata(&self) -> &BTreeMap<String, GgufValue> {
        &self.metadata
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// The bytes of a tensor as they stand in the file.
    ///
    /// # Errors
    /// As [`Gguf::read`].
    pub fn blocks(&self, name: &str) -> Result<Vec<u8>> {
        let known = || self.tensors.iter().map(|t| t.name.as_str());
        let tensor = self.tensor(name).ok_or_else(|| Error::unknown_layer(name, known()))?;
        self.bytes(tensor.start, tensor.bytes)
    }

    /// Keys and values as they stand in the file, and how many they are.
    fn key_section(&self) -> Result<(Vec<u8>, u64)> {
        Ok((self.bytes(self.keys.start, self.keys.end - self.keys.start)?, self.metadata.len() as u64))
    }

    fn bytes(&self, start: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        read_exact_at(&self.file, &mut bytes, start).map_err(|e| Error::io(&self.path, e))?;
        Ok(bytes)
    }

    /// Reads a tensor's numbers as `f32`, in its own shape. Memory: the result and some blocks a thread.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such tensor; [`Error::Io`] if the disk refuses or the file was cut short.
    pub fn read(&self, name: &str) -> Result<ArrayD<f32>> {
        let known = || self.tensors.iter().map(|t| t.name.as_str());
        let tensor = self.tensor(name).ok_or_else(|| Error::unknown_layer(name, known()))?;
        let (numbers, size) = tensor.quant.block();
        let mut values = vec![0.0; tensor.shape.iter().product()];
        values.par_chunks_mut(CHUNK * numbers).enumerate().try_for_each(|(i, values)| {
            let mut bytes = vec![0; values.len() / numbers * size];
            let place = tensor.start + (i * CHUNK * size) as u64;
            read_exact_at(&self.file, &mut bytes, place).map_err(|e| Error::io(&self.path, e))?;
            tensor.quant.decode(&bytes, values);
            Ok(())
        })?;
        let refuse = |e| Error::malformed(&self.path, format!("tensor {}: {e}", quoted(name)));
        ArrayD::from_shape_vec(IxDyn(&tensor.shape), values).map_err(refuse)
    }

    fn get<'a, T>(&'a self, key: &str, want: &str, read: impl Fn(&'a GgufValue) -> Option<T>) -> Result<Option<T>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| {
                let kind = match value {
                    GgufValue::Int(i) => format!("{i}"),
                    GgufValue::Float(f) => format!("{f}"),
                    GgufValue::Bool(b) => format!("{b}"),
                    GgufValue::Text(_) => "a text".to_string(),
                    _ => "a list".to_string(),
                };
                Error::malformed(&self.path, format!("{} is {kind}; it must be {want}", quoted(key)))
            }),
        }
    }

    fn must<T>(&self, key: &str, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| Error::malformed(&self.path, format!("lacks the key {}", quoted(key))))
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the key is missing or holds something else.
    pub fn text(&self, key: &str) -> Result<&str> {
        let found = self.text_or(key)?;
        self.must(key, found)
    }

    fn text_or(&self, key: &str) -> Result<Option<&str>> {
        self.get(key, "a text", |v| match v {
            GgufValue::Text(t) => Some(t.as_str()),
            _ => None,
        })
    }

    /// A count that must be there.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the key is missing or holds no integer of 0 to 2³².
    pub fn count(&self, key: &str) -> Result<usize> {
        let found = self.count_or(key)?;
        self.must(key, found)
    }

    fn count_or(&self, key: &str) -> Result<Option<usize>> {
        self.get(key, "an integer from 0 to 2^32", |v| match v {
            GgufValue::Int(i) if (0..=1 << 32).contains(i) => Some(*i as usize),
            _ => None,
        })
    }

    fn number_or(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a finite number", |v| match v {
            GgufValue::Float(f) if f.is_finite() => Some(*f),
            GgufValue::Int(i) => Some(*i as f64),
            _ => None,
        })
    }

    fn number(&self, key: &str) -> Result<f64> {
        let found = self.number_or(key)?;
        self.must(key, found)
    }

    fn flag_or(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "true or false", |v| match v {
            GgufValue::Bool(b) => Some(*b),
            _ => None,
        })
    }

    fn texts_or(&self, key: &str) -> Result<Option<&[String]>> {
        self.get(key, "a list of texts", |v| match v {
            GgufValue::Texts(t) => Some(t.as_slice()),
            _ => None,
        })
    }

    fn floats_or(&self, key: &str) -> Result<Option<&[f32]>> {
        self.get(key, "a list of numbers", |v| match v {
            GgufValue::Floats(f) => Some(f.as_slice()),
            _ => None,
        })
    }

    fn ints_or(&self, key: &str) -> Result<Option<&[i64]>> {
        self.get(key, "a list of integers", |v| match v {
            GgufValue::Ints(i) => Some(i.as_slice()),
            _ => None,
        })
    }
}

/// What the file lists of one tensor; `start` is still relative to the data.
fn listing<R: std::io::Read>(cursor: &mut Cursor<'_, R>) -> Result<GgufTensor> {
    let name = cursor.text("the name of a tensor")?;
    let shown = quoted(&name);
    let rank = cursor.u32()?;
    if rank == 0 || rank > MAX_RANK {
        return cursor.refuse(format!("tensor {shown} has {rank} dimensions; the format allows 1 to {MAX_RANK}"));
    }
    let mut shape = Vec::new();
    for _ in 0..rank {
        shape.push(usize::try_from(cursor.u64()?).unwrap_or(usize::MAX));
    }
    shape.reverse();
    let number = cursor.u32()?;
    let start = cursor.u64()?;
    let Some(quant) = Quant::of(number) else {
        return cursor.refuse(format!("tensor {shown} is of type {number}, which is not read; these are: {}", Quant::known()));
    };
    let (numbers, size) = quant.block();
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|n| *n <= isize::MAX as usize / 4);
    let row = shape.last().copied().unwrap_or(0);
    match count {
        Some(0) => cursor.refuse(format!("tensor {shown} has shape {shape:?}, which holds no numbers")),
        Some(_) if row % numbers != 0 => {
            cursor.refuse(format!("tensor {shown} of {quant} has rows of {row}, no multiple of the block of {numbers}"))
        }
        Some(count) => Ok(GgufTensor { name, shape, quant, bytes: (count / numbers) as u64 * size as u64, start }),
        None => cursor.refuse(format!("tensor {shown}: shape {shape:?} is larger than a machine can address")),
    }
}

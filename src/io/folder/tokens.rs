//! Token numbers out of safetensors files, and tables of numbers into them, a row at a time.

use super::shard::{Listed, Shard};
use crate::io::safetensors::{Dtype, Element, bytes_of, encode};
use crate::io::{atomic, quoted};
use crate::{Error, Result};
use ndarray::Array2;
use std::collections::BTreeMap;
use std::path::Path;

/// The most bytes of token numbers that are read from one tensor.
const MAX_IDS: u64 = 1 << 28;

/// Reads an integer tensor `(sequences, tokens)`, `None` if the file has none of this name; one of one dimension is one sequence.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] if the file is damaged, or the tensor has another element type or more dimensions.
pub fn read_ids(path: impl AsRef<Path>, name: &str) -> Result<Option<Array2<i64>>> {
    let shard = Shard::open(path.as_ref())?;
    let Some(tensor) = shard.tensors.iter().find(|t| t.name == name) else { return Ok(None) };
    let refuse = |reason: String| Error::malformed(path.as_ref(), format!("tensor {} {reason}", quoted(name)));
    let shape = match tensor.shape[..] {
        [tokens] => (1, tokens),
        [sequences, tokens] => (sequences, tokens),
        _ => return Err(refuse(format!("has shape {:?}; (sequences, tokens) is read", tensor.shape))),
    };
    if tensor.bytes > MAX_IDS {
        return Err(refuse(format!("has {} bytes; at most {MAX_IDS} are read", tensor.bytes)));
    }
    let mut bytes = vec![0; tensor.bytes as usize];
    shard.read_bytes(tensor, 0, &mut bytes)?;
    let ids: Vec<i64> = match tensor.element {
        Element::U8 => bytes.iter().map(|b| i64::from(*b)).collect(),
        Element::I16 => bytes.chunks_exact(2).map(|b| i64::from(i16::from_le_bytes([b[0], b[1]]))).collect(),
        Element::U16 => bytes.chunks_exact(2).map(|b| i64::from(u16::from_le_bytes([b[0], b[1]]))).collect(),
        Element::I32 => bytes.chunks_exact(4).map(|b| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect(),
        Element::U32 => bytes.chunks_exact(4).map(|b| i64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect(),
        Element::I64 => {
            bytes.chunks_exact(8).map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])).collect()
        }
        other => return Err(refuse(format!("is {other}; token numbers are I64, I32, U32, I16, U16 or U8"))),
    };
    Array2::from_shape_vec(shape, ids).map(Some).map_err(|e| refuse(e.to_string()))
}

/// Writes one F32 tensor `(sequences, rows, cols)` of this name, whole or not at all; `part` gives the rows of one sequence, which
/// are then written, so that one sequence is in memory.
///
/// # Errors
/// [`Error::Io`]; [`Error::InvalidOption`] if the tensor is larger than a machine can address; what `part` returns.
///
/// # Panics
/// If `part` gives another shape than `(rows, cols)`.
pub fn write_sequences(
    path: impl AsRef<Path>,
    name: &str,
    shape: (usize, usize, usize),
    mut part: impl FnMut(usize) -> Result<Array2<f32>>,
) -> Result<()> {
    let dims = vec![shape.0, shape.1, shape.2];
    write_parts(path.as_ref(), (name, Element::F32, dims), &BTreeMap::new(), shape.0, |i| {
        let rows = part(i)?;
        assert_eq!(rows.dim(), (shape.1, shape.2), "sequence {i}");
        Ok(rows.rows().into_iter().flat_map(|row| Dtype::F32.bytes_of(&row.to_vec())).collect())
    })
}

/// Writes one U8 tensor `(parts · rows, bytes)` of this name, whole or not at all; `part` gives the bytes of so many rows.
///
/// # Errors
/// As [`write_sequences`].
///
/// # Panics
/// If `part` gives another number of bytes.
pub(crate) fn write_byte_rows(
    path: &Path,
    (name, parts): (&str, usize),
    (rows, bytes): (usize, usize),
    metadata: &BTreeMap<String, String>,
    mut part: impl FnMut(usize) -> Result<Vec<u8>>,
) -> Result<()> {
    let all = parts.saturating_mul(rows);
    write_parts(path, (name, Element::U8, vec![all, bytes]), metadata, parts, |i| {
        let found = part(i)?;
        assert_eq!(found.len(), rows * bytes, "part {i}");
        Ok(found)
    })
}

/// Writes one tensor whose bytes come in so many parts, whole or not at all.
fn write_parts(
    path: &Path,
    (name, element, dims): (&str, Element, Vec<usize>),
    metadata: &BTreeMap<String, String>,
    parts: usize,
    mut part: impl FnMut(usize) -> Result<Vec<u8>>,
) -> Result<()> {
    let Some(bytes) = bytes_of(element, &dims) else {
        return Err(Error::invalid_option("ids", format!("{dims:?} numbers are more than a machine can address")));
    };
    let header = encode(path, [(name.to_string(), element, dims, bytes)].into_iter(), metadata)?;
    let mut failed = None;
    let written = atomic::write(path, |out| {
        out.write_all(&header)?;
        for i in 0..parts {
            match part(i) {
                Ok(bytes) => out.write_all(&bytes)?,
                Err(e) => {
                    failed = Some(e);
                    return Err(std::io::Error::other("stopped"));
                }
            }
        }
        Ok(())
    });
    match failed {
        Some(e) => Err(e),
        None => written,
    }
}

/// Rows of bytes of a file that [`write_byte_rows`] wrote, read where they lie.
#[derive(Debug)]
pub(crate) struct ByteRows {
    shard: Shard,
    tensor: Listed,
}

impl ByteRows {
    /// Opens a file with a U8 tensor `(rows, bytes)` of this name.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] if the file is damaged, or has no such tensor.
    pub fn open(path: &Path, name: &str) -> Result<ByteRows> {
        let shard = Shard::open(path)?;
        let fits = |t: &&Listed| t.name == name && t.element == Element::U8 && t.shape.len() == 2;
        match shard.tensors.iter().find(fits).cloned() {
            Some(tensor) => Ok(ByteRows { shard, tensor }),
            None => Err(Error::malformed(path, format!("has no tensor {} of rows of bytes", quoted(name)))),
        }
    }

    /// The metadata of the file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.shard.metadata
    }

    /// `(rows, bytes)`.
    pub fn dim(&self) -> (usize, usize) {
        (self.tensor.shape[0], self.tensor.shape[1])
    }

    /// Reads `count` rows from `first` on.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Panics
    /// If there are not so many.
    pub fn read(&self, first: usize, count: usize) -> Result<Vec<u8>> {
        let (rows, bytes) = self.dim();
        assert!(first + count <= rows, "rows {first} to {} of {rows}", first + count);
        let mut buffer = vec![0; count * bytes];
        self.shard.read_bytes(&self.tensor, (first * bytes) as u64, &mut buffer)?;
        Ok(buffer)
    }
}

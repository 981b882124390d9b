//! The JSON in front of a safetensors file: what it lists, and whether that can be true of the file.

use crate::io::foreign::{MAGIC, TO_IMPORT};
use crate::io::{one_line, open, quoted};
use crate::{Error, Result};
use ::safetensors::tensor::{Dtype as Element, Metadata, TensorInfo as Entry};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::Read;
use std::path::Path;

/// The longest header the format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;
/// More dimensions than any tensor has; it bounds the length of messages and of loops over dimensions.
const MAX_RANK: usize = 64;
/// The largest product of the dimensions other than 0 of a tensor without elements. Nothing in a file bounds them, and there are loops over
/// the rows of a matrix that has no columns.
const MAX_EMPTY: usize = 1 << 24;
/// The key under which the header holds the metadata.
pub(in crate::io) const METADATA: &str = "__metadata__";

/// One tensor as the header lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its element type as the format writes it: `F32`, `BF16`, `I64`, …
    pub dtype: String,
    /// Its dimensions, the slowest first.
    pub shape: Vec<usize>,
    /// Bytes it takes in the file.
    pub bytes: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a safetensors file holds, without the tensors' values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Header {
    /// The tensors in the order of their data.
    pub tensors: Vec<TensorInfo>,
    /// The text entries.
    pub metadata: BTreeMap<String, String>,
    /// Bytes of the whole file.
    pub file_bytes: u64,
}

/// Lists a safetensors file without reading its data: 8 bytes and the header are read, however large the file is. All the
/// checks of [`Checkpoint::read`](super::Checkpoint::read) on names, shapes and offsets are made.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("m.safetensors");
/// use lacuna::io::{Checkpoint, Dtype, read_header};
/// let mut model = Checkpoint::new();
/// model.insert("fc.weight", ndarray::array![[1.0, 2.0], [3.0, 4.0]], Dtype::BF16)?;
/// model.write(&path)?;
/// let header = read_header(&path)?;
/// assert_eq!((header.tensors[0].dtype.as_str(), header.tensors[0].bytes), ("BF16", 8));
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Malformed`] if it is no safetensors file or not a whole one.
pub fn read_header(path: impl AsRef<Path>) -> Result<Header> {
    let path = path.as_ref();
    let (mut file, file_bytes) = open(path)?;
    let table = Table::read(path, &mut file, file_bytes)?;
    let info = |(name, entry): (String, Entry)| TensorInfo {
        name,
        dtype: entry.dtype.to_string(),
        shape: entry.shape,
        bytes: (entry.data_offsets.1 - entry.data_offsets.0) as u64,
    };
    Ok(Header { tensors: table.tensors.into_iter().map(info).collect(), metadata: table.metadata, file_bytes })
}

/// A checked header.
///
/// # Invariants
/// - `tensors` are in the order of their offsets, which leave no gap and end where the file ends.
/// - Each tensor's shape and dtype take exactly the bytes of its offsets. Names are unique.
pub(in crate::io) struct Table {
    pub metadata: BTreeMap<String, String>,
    pub tensors: Vec<(String, Entry)>,
}

impl Table {
    /// Reads the header of a file of `file_bytes` bytes; `source` then stands at the first tensor.
    pub(in crate::io) fn read(path: &Path, source: &mut impl Read, file_bytes: u64) -> Result<Table> {
        let refuse = |reason: String| Err(Error::malformed(path, reason));
        let io = |e| Error::io(path, e);
        if file_bytes < 8 {
            let found = if file_bytes == 0 { "the file is empty".into() } else { format!("the file has {file_bytes} bytes") };
            return refuse(format!("{found}; a safetensors file begins with 8 bytes that hold the length of its header"));
        }
        let mut length = [0; 8];
        source.read_exact(&mut length).map_err(io)?;
        if length.starts_with(MAGIC) {
            return refuse(TO_IMPORT.to_string());
        }
        let (length, follow) = (u64::from_le_bytes(length), file_bytes - 8);
        if length > follow {
            return refuse(format!("truncated, or not safetensors: the header has {length} bytes, but only {follow} follow"));
        }
        if length > MAX_HEADER {
            return refuse(format!("the header has {length} bytes; the format allows {MAX_HEADER}"));
        }
        let mut json = vec![0; length as usize];
        source.read_exact(&mut json).map_err(io)?;
        let mut table: Table = serde_json::from_slice(&json).map_err(|e| {
            let what = if e.is_data() { "the header does not list tensors" } else { "the header is not JSON" };
            Error::malformed(path, format!("{what}: {}", one_line(&e.to_string(), 300)))
        })?;
        table.tensors.sort_by_key(|(_, entry)| entry.data_offsets);
        let data = table.check().map_err(|reason| Error::malformed(path, reason))?;
        if data > follow - length {
            let promised = 8 + u128::from(length) + u128::from(data);
            return refuse(format!(
                "truncated: the header promises {promised} bytes (8 + {length} + {data}), the file has {file_bytes}"
            ));
        }
        if data < follow - length {
            return refuse(format!("{} bytes follow the last tensor and belong to none", follow - length - data));
        }
        // The format's own judgement, which knows nothing of the file's length.
        if let Err(e) = Metadata::new(None, table.tensors.clone()) {
            return refuse(format!("the header is not valid: {e}"));
        }
        Ok(table)
    }

    /// The number of bytes that all tensors take, or what is wrong with one.
    fn check(&self) -> std::result::Result<u64, String> {
        let mut before: Option<(&str, usize, usize)> = None;
        for (name, Entry { dtype, shape, data_offsets: (start, end) }) in &self.tensors {
            let (start, end, shown) = (*start, *end, quoted(name));
            let (last, last_start, last_end) = before.unwrap_or(("", 0, 0));
            if end < start {
                return Err(format!("tensor {shown}: its bytes {start}..{end} end before they begin"));
            }
            if start < last_end {
                return Err(format!(
                    "tensor {shown}, bytes {start}..{end}, overlaps {}, bytes {last_start}..{last_end}",
                    quoted(last)
                ));
            }
            if start > last_end {
                return Err(format!("bytes {last_end}..{start}, before tensor {shown}, belong to no tensor"));
            }
            if shape.len() > MAX_RANK {
                return Err(format!("tensor {shown} has {} dimensions; at most {MAX_RANK} are read", shape.len()));
            }
            // Dimensions that have no product may have twenty digits each.
            let dims = || one_line(&format!("{shape:?}"), 200);
            match bytes_of(*dtype, shape) {
                None if shape.contains(&0) => {
                    return Err(format!(
                        "tensor {shown}: shape {} has no elements, and dimensions of more than {MAX_EMPTY}",
                        dims()
                    ));
                }
                None => {
                    return Err(format!(
                        "tensor {shown}: shape {} of {dtype} has no whole number of bytes a machine can hold",
                        dims()
                    ));
                }
                Some(bytes) if bytes != end - start => {
                    let found = end - start;
                    return Err(format!(
                        "tensor {shown}: shape {shape:?} of {dtype} takes {bytes} bytes, but {start}..{end} are {found}"
                    ));
                }
                Some(_) => before = Some((name, start, end)),
            }
        }
        Ok(before.map_or(0, |(_, _, end)| end as u64))
    }
}

/// Bytes of a tensor; `None` if that overflows, or an element of less than a byte leaves one unfilled, or there are no elements and dimensions
/// beyond [`MAX_EMPTY`].
pub(in crate::io) fn bytes_of(dtype: Element, shape: &[usize]) -> Option<usize> {
    let filled = shape.iter().filter(|d| **d != 0).try_fold(1usize, |n, &d| n.checked_mul(d))?;
    if shape.contains(&0) {
        return (filled <= MAX_EMPTY).then_some(0);
    }
    let bits = filled.checked_mul(dtype.bitsize())?;
    (bits % 8 == 0).then_some(bits / 8)
}

/// The header of tensors that follow one another in this order: its length, then the JSON, filled up to 8 bytes.
pub(in crate::io) fn encode(
    path: &Path,
    tensors: impl Iterator<Item = (String, Element, Vec<usize>, usize)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let refuse = |reason: String| Error::malformed(path, reason);
    let mut end = 0;
    let entries = tensors
        .map(|(name, dtype, shape, bytes)| {
            end += bytes;
            (name, Entry { dtype, shape, data_offsets: (end - bytes, end) })
        })
        .collect();
    // The crate keeps metadata in a hash map, whose order changes from run to run; so it writes the tensors, and the sorted
    // metadata is put in front of them.
    let table = Metadata::new(None, entries).map_err(|e| refuse(e.to_string()))?;
    let mut json = serde_json::to_string(&table).map_err(|e| refuse(e.to_string()))?;
    if !metadata.is_empty() {
        let text = serde_json::to_string(metadata).map_err(|e| refuse(e.to_string()))?;
        let comma = if json == "{}" { "" } else { "," };
        json = format!("{{\"{METADATA}\":{text}{comma}{}", &json[1..]);
    }
    let length = json.len().next_multiple_of(8);
    if length as u64 > MAX_HEADER {
        return Err(refuse(format!("the header would have {length} bytes; the format allows {MAX_HEADER}")));
    }
    let mut bytes = (length as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes.resize(8 + length, b' ');
    Ok(bytes)
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Table, A::Error> {
        let mut table = Table { metadata: BTreeMap::new(), tensors: Vec::new() };
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let shown = quoted(&name);
            let inside = |e: A::Error| de::Error::custom(format!("{shown}: {e}"));
            if !names.insert(name.clone()) {
                return Err(de::Error::custom(format!("the name {shown} stands there twice")));
            }
            if name == METADATA {
                table.metadata = map.next_value::<Option<Unique>>().map_err(inside)?.map_or_else(BTreeMap::new, |u| u.0);
            } else {
                let entry = map.next_value().map_err(inside)?;
                table.tensors.push((name, entry));
            }
        }
        Ok(table)
    }
}

/// Metadata; a key that stands there twice is refused.
struct Unique(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of text")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Unique, A::Error> {
        let mut found = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            let shown = quoted(&key);
            if found.insert(key, value).is_some() {
                return Err(de::Error::custom(format!("the key {shown} stands there twice")));
            }
        }
        Ok(Unique(found))
    }
}

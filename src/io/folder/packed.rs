//! Weights that a folder holds without their zeros: in the published layouts `sparse-bitmask` and `sparse-24-bitmask`, or as storages.
//!
//! A packed weight is read under its own name like any other; what it is made of ([`Checkpoint::published`],
//! [`Checkpoint::storage`]) does not show among the names of the folder.

use super::coded::{CodedParts, Raw, Scheme};
use super::packing::Packing;
use super::shard::{Listed, Shard};
use crate::io::quoted;
use crate::io::safetensors::{Checkpoint, Dtype, Element, encode};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// A packed weight: in which shard, out of which tensors of it.
pub(super) struct Packed {
    pub shard: usize,
    /// Places in the shard's list.
    parts: Vec<usize>,
    pub kind: Kind,
    /// What it is stored as: the name of a published layout, or of a storage.
    pub layout: String,
    pub shape: Vec<usize>,
    dtype: Option<Dtype>,
}

/// How a weight is packed.
pub(super) enum Kind {
    /// A published layout of sparse weights.
    Published,
    /// A storage of this library.
    Storage,
    /// Codes of a few bits.
    Codes(Box<CodedParts>),
}

impl Packed {
    /// Whether it is in codes of a few bits.
    pub fn coded(&self) -> Option<&CodedParts> {
        if let Kind::Codes(parts) = &self.kind { Some(parts) } else { None }
    }

    /// Whether its numbers are codes of a few bits, of this library's storages or others' layouts.
    pub fn has_codes(&self, shard: &Shard) -> bool {
        self.coded().is_some() || matches!(self.kind, Kind::Storage) && self.tensors(shard).any(|part| part.ends_with(".codes"))
    }

    /// Whether it is a published layout of sparse weights.
    pub fn is_published(&self) -> bool {
        matches!(self.kind, Kind::Published)
    }

    /// Finds the weights in codes of a shard.
    pub fn find_coded(number: usize, shard: &Shard, scheme: &Scheme) -> Result<Vec<(String, Packed)>> {
        let places: BTreeMap<&str, usize> = shard.tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
        let mut found = Vec::new();
        for tensor in &shard.tensors {
            let Some((layer, known)) = tensor.name.rsplit_once('.') else { continue };
            let place = |part: &str| places.get(format!("{layer}.{part}").as_str()).copied();
            let info = |part: &str| place(part).map(|i| (shard.tensors[i].element, shard.tensors[i].shape.clone()));
            let raw = |part: &str| match place(part) {
                Some(i) if shard.tensors[i].bytes <= 64 => shard.raw(&shard.tensors[i]),
                _ => Err(Error::invalid_option(part, "is no small list")),
            };
            let coded = CodedParts::find(scheme, known, &info, &raw).map_err(|e| shard.of_layer(layer, e))?;
            let Some(coded) = coded else { continue };
            few_enough(shard, layer, coded.rows, coded.cols)?;
            let parts = coded.suffixes.iter().filter_map(|part| place(part)).collect();
            let (shape, layout) = (vec![coded.rows, coded.cols], coded.layout.format().to_string());
            let packed = Packed { shard: number, parts, kind: Kind::Codes(Box::new(coded)), layout, shape, dtype: None };
            found.push((format!("{layer}.weight"), packed));
        }
        Ok(found)
    }

    /// Finds what is packed in a shard: names of weights and what they are made of.
    pub fn find(number: usize, shard: &Shard) -> Result<Vec<(String, Packed)>> {
        let places: BTreeMap<&str, usize> = shard.tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
        let mut found = Vec::new();
        for tensor in &shard.tensors {
            let Some(layer) = tensor.name.strip_suffix(".compressed") else { continue };
            let part = |part: &str| places.get(format!("{layer}.{part}").as_str()).copied();
            let (Some(shape), Some(_)) = (part("shape"), part("bitmask")) else { continue };
            let parts = ["shape", "compressed", "bitmask", "row_offsets"].into_iter().filter_map(part).collect();
            let shape = dimensions(shard, &shard.tensors[shape])?;
            few_enough(shard, layer, shape[0], shape[1])?;
            let name = if layer.ends_with(".weight") { layer.to_string() } else { format!("{layer}.weight") };
            let layout = if tensor.shape.len() == 2 { Packing::Sparse24Bitmask } else { Packing::SparseBitmask }.to_string();
            let dtype = Dtype::of(tensor.element);
            found.push((name, Packed { shard: number, parts, kind: Kind::Published, layout, shape, dtype }));
        }
        for (key, text) in &shard.metadata {
            let Some(name) = key.strip_suffix(".storage") else { continue };
            let Ok(sizes) = serde_json::from_str::<Value>(text) else { continue };
            let size = |key: &str| sizes[key].as_u64().and_then(|n| usize::try_from(n).ok());
            let (Some(rows), Some(cols)) = (size("rows"), size("cols")) else { continue };
            few_enough(shard, name, rows, cols)?;
            let prefix = format!("{name}.");
            let own = places.range(prefix.as_str()..).take_while(|(part, _)| part.starts_with(&prefix));
            let mut parts: Vec<usize> = own.filter(|(part, _)| part[prefix.len()..] != *"mask").map(|(_, i)| *i).collect();
            parts.sort_unstable();
            let dtype = parts.iter().find(|&&i| shard.tensors[i].name.ends_with(".values"));
            let dtype = dtype.and_then(|&i| Dtype::of(shard.tensors[i].element));
            let layout = sizes["format"].as_str().unwrap_or("an unknown storage").to_string();
            found.push((
                name.to_string(),
                Packed { shard: number, parts, kind: Kind::Storage, layout, shape: vec![rows, cols], dtype },
            ));
        }
        Ok(found)
    }

    /// The names of the tensors that it is made of.
    pub fn tensors<'a>(&'a self, shard: &'a Shard) -> impl Iterator<Item = &'a str> {
        self.parts.iter().map(|&i| shard.tensors[i].name.as_str())
    }

    pub fn shard(&self) -> usize {
        self.shard
    }

    /// Bytes of all parts.
    pub fn bytes(&self, shard: &Shard) -> u64 {
        self.parts.iter().map(|&i| shard.tensors[i].bytes).sum()
    }

    /// The dtype of its numbers, if they are weights.
    pub fn dtype(&self) -> Option<Dtype> {
        self.dtype
    }

    /// One of its tensors in codes, by what stands behind the layer's name.
    pub fn part(&self, name: &str, shard: &Shard) -> Result<Raw> {
        let mut all = self.parts.iter().map(|&i| &shard.tensors[i]);
        match all.find(|t| t.name.rsplit_once('.').is_some_and(|(_, part)| part == name)) {
            Some(tensor) => shard.raw(tensor),
            None => Err(Error::invalid_option(name, "is missing")),
        }
    }

    /// Its tensors, read.
    pub fn checkpoint(&self, name: &str, shard: &Shard) -> Result<Checkpoint> {
        let listed: Vec<&Listed> = self.parts.iter().map(|&i| &shard.tensors[i]).collect();
        let key = format!("{name}.storage");
        let metadata = shard.metadata.get_key_value(&key).map(|(k, v)| (k.clone(), v.clone())).into_iter().collect();
        let mut order = listed.clone();
        order.sort_by(|a, b| b.element.cmp(&a.element).then(a.name.cmp(&b.name)));
        let entries = order.iter().map(|t| (t.name.clone(), t.element, t.shape.clone(), t.bytes as usize));
        let mut bytes = encode(&shard.path, entries, &metadata)?;
        for tensor in order {
            let from = bytes.len();
            bytes.resize(from + tensor.bytes as usize, 0);
            shard.read_bytes(tensor, 0, &mut bytes[from..])?;
        }
        Checkpoint::from_bytes(&shard.path, &bytes)
    }
}

/// Refuses a weight of more numbers than can be counted in 32 bits: a few bytes of a file may state any size.
fn few_enough(shard: &Shard, name: &str, rows: usize, cols: usize) -> Result<()> {
    match rows.checked_mul(cols).filter(|n| u32::try_from(*n).is_ok()) {
        Some(_) => Ok(()),
        None => Err(Error::malformed(&shard.path, format!("weight {} says {rows} x {cols}, which is too large", quoted(name)))),
    }
}

/// The one or two lists of a `shape` tensor.
fn dimensions(shard: &Shard, tensor: &Listed) -> Result<Vec<usize>> {
    let refuse = |reason: &str| Error::malformed(&shard.path, format!("tensor {} {reason}", quoted(&tensor.name)));
    if tensor.element != Element::I64 || tensor.bytes != 16 {
        return Err(refuse("is no shape: that is two numbers of I64"));
    }
    let mut bytes = [0; 16];
    shard.read_bytes(tensor, 0, &mut bytes)?;
    let numbers = bytes.as_chunks::<8>().0.iter().map(|b| usize::try_from(i64::from_le_bytes(*b)));
    numbers.collect::<std::result::Result<_, _>>().map_err(|_| refuse("holds no counts"))
}

//! What a plain file of weights holds: numbers by what they are for, and what of them is zero or masked.

use super::census::{Sum, sparsity};
use crate::io::{Checkpoint, Role};
use crate::{Error, Result};
use serde::{Serialize, Serializer};

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileTensor {
    /// Its name.
    pub name: String,
    /// Its element type, as the file writes it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements.
    pub numbers: usize,
    /// Of numbers of the model those that its mask keeps or, without a mask, are not 0; `None` of all else.
    pub kept: Option<usize>,
    /// Share that went.
    pub sparsity: Option<f64>,
    /// How that is known: `mask` or `zeros`.
    pub by: Option<&'static str>,
    /// Bytes in the file.
    pub bytes: u64,
    /// What it is for, in words.
    #[serde(serialize_with = "in_words")]
    pub role: Role,
    /// What is wrong with its mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

fn in_words<S: Serializer>(role: &Role, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(role)
}

/// A weight that is stored without its zeros.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackedWeight {
    /// Its name.
    pub name: String,
    /// The storage or layout: `bitmask`, `sparse-bitmask`.
    pub layout: String,
    /// Rows and columns.
    pub shape: (usize, usize),
    /// Numbers that are kept.
    pub kept: usize,
    /// Bytes of its parts.
    pub bytes: u64,
}

/// A file of weights, counted.
#[derive(Debug, Clone, PartialEq)]
pub struct FileCensus {
    /// The tensors, in order.
    pub tensors: Vec<FileTensor>,
    /// The weights that some of the tensors are parts of.
    pub packed: Vec<PackedWeight>,
}

impl FileCensus {
    /// Counts a file. A mask that cannot be read is a note of its weight, whose zeros are counted then.
    ///
    /// # Errors
    /// [`Error::Malformed`] if a weight that is stored without its zeros cannot be read.
    pub fn of(file: &Checkpoint) -> Result<FileCensus> {
        let tensors: Vec<FileTensor> =
            file.roles().into_iter().map(|(name, role)| tensor(file, name, role)).collect::<Result<_>>()?;
        let bytes = |weight: &str| {
            tensors.iter().filter(|t| matches!(&t.role, Role::Packed { of } if of == weight)).map(|t| t.bytes).sum()
        };
        let mut packed = Vec::new();
        for name in file.storages() {
            let storage = file.storage(name)?;
            let (layout, shape, kept) = (storage.format().to_string(), storage.shape(), storage.nnz());
            packed.push(PackedWeight { name: name.to_string(), layout, shape, kept, bytes: bytes(name) });
        }
        for name in file.published_names() {
            let (weight, mask) = file.published(&name)?;
            let (shape, kept, bytes) = (weight.dim(), mask.kept(), bytes(&name));
            let layout = file.published_layout(&name).to_string();
            packed.push(PackedWeight { name, layout, shape, kept, bytes });
        }
        Ok(FileCensus { tensors, packed })
    }

    /// The weights of layers, those of types that are not read among them.
    pub fn weights(&self) -> Sum {
        self.sum(|t| t.role == Role::Weight || t.role == Role::Unread && t.shape.len() >= 2)
    }

    /// All numbers of the model: weights, vectors, and what is computed with; no masks, buffers and integers.
    pub fn whole(&self) -> Sum {
        self.sum(|t| t.role.is_counted())
    }

    fn sum(&self, of: impl Fn(&FileTensor) -> bool) -> Sum {
        let tensors = self.tensors.iter().filter(|t| of(t)).map(|t| Sum { numbers: t.numbers, kept: t.kept, bytes: t.bytes });
        let packed = self.packed.iter().map(|p| Sum { numbers: p.shape.0 * p.shape.1, kept: Some(p.kept), bytes: p.bytes });
        Sum::all(tensors.chain(packed))
    }
}

fn tensor(file: &Checkpoint, name: &str, role: Role) -> Result<FileTensor> {
    let info = file.info(name)?;
    let numbers = info.elements();
    let mask = if role.is_counted() { file.mask(name) } else { Ok(None) };
    let (mask, note) = match mask {
        Ok(mask) => (mask, None),
        Err(e @ Error::Malformed { .. }) => (None, Some(e.to_string())),
        Err(e) => return Err(e),
    };
    let (kept, by) = match &mask {
        Some(mask) => (Some(mask.kept()), "mask"),
        None => (if role.is_counted() { file.filled(name)? } else { None }, "zeros"),
    };
    Ok(FileTensor {
        name: info.name,
        dtype: info.dtype,
        shape: info.shape,
        numbers,
        kept,
        sparsity: kept.and_then(|kept| sparsity(kept, numbers)),
        by: kept.map(|_| by),
        bytes: info.bytes,
        role,
        note,
    })
}

//! One safetensors file whose header is in memory and whose tensors stay on the disk.

use super::coded::Raw;
use crate::io::place::read_exact_at;
use crate::io::safetensors::{Dtype, Element, Table};
use crate::io::{open, quoted};
use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Numbers that are read at a time.
pub(super) const CHUNK: usize = 1 << 18;

/// One tensor as the header lists it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub name: String,
    pub element: Element,
    pub shape: Vec<usize>,
    /// Where its bytes begin in the file.
    pub start: u64,
    pub bytes: u64,
}

impl Listed {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// An open file, its header checked against its length.
#[derive(Debug)]
pub(super) struct Shard {
    pub path: PathBuf,
    pub tensors: Vec<Listed>,
    pub metadata: BTreeMap<String, String>,
    pub file_bytes: u64,
    file: File,
}

impl Shard {
    /// Reads the header; the file must be as long as it says.
    pub fn open(path: &Path) -> Result<Shard> {
        let (file, file_bytes) = open(path)?;
        let mut source = BufReader::new(file);
        let table = Table::read(path, &mut source, file_bytes)?;
        let data: u64 = table.tensors.last().map_or(0, |(_, entry)| entry.data_offsets.1 as u64);
        let begin = file_bytes - data;
        let listed = |(name, entry): (String, safetensors::tensor::TensorInfo)| Listed {
            name,
            element: entry.dtype,
            shape: entry.shape,
            start: begin + entry.data_offsets.0 as u64,
            bytes: (entry.data_offsets.1 - entry.data_offsets.0) as u64,
        };
        let tensors = table.tensors.into_iter().map(listed).collect();
        Ok(Shard { path: path.to_path_buf(), tensors, metadata: table.metadata, file_bytes, file: source.into_inner() })
    }

    /// Bytes of a tensor from its byte `from` on.
    pub fn read_bytes(&self, tensor: &Listed, from: u64, bytes: &mut [u8]) -> Result<()> {
        assert!(from + bytes.len() as u64 <= tensor.bytes, "bytes {from}.. of {}", tensor.name);
        read_exact_at(&self.file, bytes, tensor.start + from).map_err(|e| {
            if e.kind() != std::io::ErrorKind::UnexpectedEof {
                return Error::io(&self.path, e);
            }
            let shown = quoted(&tensor.name);
            let now = self.file.metadata().map_or(0, |m| m.len());
            let was = self.file_bytes;
            Error::malformed(&self.path, format!("tensor {shown}: the file had {was} bytes when it was opened, now it has {now}"))
        })
    }

    /// A tensor as it lies in the file.
    pub fn raw(&self, tensor: &Listed) -> Result<Raw> {
        let mut bytes = vec![0; tensor.bytes as usize];
        self.read_bytes(tensor, 0, &mut bytes)?;
        Ok(Raw { element: tensor.element, shape: tensor.shape.clone(), bytes })
    }

    /// Says of an error of a part of a layer in codes which file and layer it is of.
    pub fn of_layer(&self, layer: &str, error: Error) -> Error {
        match error {
            Error::InvalidOption { option, reason } => {
                Error::malformed(&self.path, format!("tensor {} {reason}", quoted(&format!("{layer}.{option}"))))
            }
            e => e,
        }
    }

    /// How the numbers of a weight are stored.
    pub fn dtype(&self, tensor: &Listed) -> Result<Dtype> {
        Dtype::of(tensor.element).ok_or_else(|| {
            let reason = format!("tensor {} is {}; weights are F32, F16 or BF16", quoted(&tensor.name), tensor.element);
            Error::malformed(&self.path, reason)
        })
    }

    /// Some numbers of a weight, from number `from` on.
    pub fn read_numbers(&self, tensor: &Listed, from: usize, values: &mut [f32]) -> Result<()> {
        let dtype = self.dtype(tensor)?;
        let part = |(i, values): (usize, &mut [f32])| {
            let mut bytes = vec![0; values.len() * dtype.bytes()];
            self.read_bytes(tensor, ((from + i * CHUNK) * dtype.bytes()) as u64, &mut bytes)?;
            dtype.decode_into(&bytes, values);
            Ok(())
        };
        values.par_chunks_mut(CHUNK).enumerate().try_for_each(part)
    }
}

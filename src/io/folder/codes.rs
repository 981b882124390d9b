//! Weights in codes of a few bits: of an open folder, and of one that is being written.

use super::coded::{CodedParts, Decoded, QuantLayout, Raw, encoded, planned};
use super::layout::Layout;
use super::packed::Packed;
use super::read::Folder;
use super::write::FolderWriter;
use crate::io::quoted;
use crate::quantize::{CodeGrid, Codes, ScaleType};
use crate::sparse::{QuantizedNm, QuantizedSparse, Stored};
use crate::{Error, Result};
use std::collections::{BTreeMap, HashSet};

impl Folder {
    /// Whether a weight is in codes of a few bits.
    pub fn is_coded(&self, weight: &str) -> bool {
        self.packed.get(weight).is_some_and(|packed| packed.coded().is_some())
    }

    /// Whether a weight's numbers are codes of a few bits, as [`Folder::is_coded`] or in a storage of this library.
    pub fn has_codes(&self, weight: &str) -> bool {
        self.packed.get(weight).is_some_and(|packed| packed.has_codes(&self.shards[packed.shard]))
    }

    /// A weight's codes; `None` if it is not in codes, or in such that groups of consecutive inputs do not give.
    ///
    /// # Errors
    /// [`Error::Malformed`], naming the file and the part, where parts do not fit; [`Error::Io`] if the disk refuses.
    pub fn codes(&self, weight: &str) -> Result<Option<Codes>> {
        match self.packed.get(weight) {
            Some(packed) if packed.coded().is_some() => self.decoded(weight, packed).map(Decoded::codes),
            _ => Ok(None),
        }
    }

    /// What a pruned weight's mask keeps of its codes of 4 or 8 bits; `None` if it has no mask, is not in codes, or in such as [`Codes::storage`] has not.
    ///
    /// # Errors
    /// As [`Folder::codes`] and [`Folder::storage`].
    pub fn kept_codes(&self, weight: &str) -> Result<Option<QuantizedSparse>> {
        let Some(packed) = self.packed.get(weight).filter(|packed| packed.has_codes(&self.shards[packed.shard])) else {
            return Ok(None);
        };
        let Some(mask) = self.mask(weight)? else { return Ok(None) };
        if packed.coded().is_some() {
            let codes = self.codes(weight)?.and_then(|codes| codes.storage());
            return codes.map(|codes| QuantizedSparse::of_codes(&codes, &mask)).transpose();
        }
        let from = packed.checkpoint(weight, &self.shards[packed.shard])?;
        if packed.layout == <QuantizedNm as Stored>::kind().0 {
            return QuantizedSparse::of_nm(&from.storage_as(weight)?).map(Some);
        }
        from.storage_as(weight).map(Some)
    }

    /// A weight's codes and what they stand for.
    pub(super) fn decoded(&self, weight: &str, packed: &Packed) -> Result<Decoded> {
        let shard = &self.shards[packed.shard];
        let layer = layer_of(weight);
        let Some(coded) = packed.coded() else {
            return Err(Error::malformed(&shard.path, format!("weight {} is not in codes", quoted(weight))));
        };
        coded.decode(&|part| packed.part(part, shard)).map_err(|e| shard.of_layer(layer, e))
    }
}

impl Layout {
    /// Gives a weight's place to its codes.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such weight; [`Error::InvalidOption`] if the layout has not such codes, or not of such a matrix.
    pub fn codes(&mut self, weight: &str, layout: QuantLayout, grid: CodeGrid) -> Result<()> {
        let mut all = self.files.iter().flat_map(|f| &f.tensors);
        let Some((_, _, shape)) = all.find(|(name, _, _)| name == weight) else {
            let names = self.files.iter().flat_map(|f| f.tensors.iter().map(|(name, _, _)| name.as_str()));
            return Err(Error::unknown_layer(weight, names));
        };
        let &[rows, cols] = shape.as_slice() else {
            return Err(Error::shape(format!("weight {}", quoted(weight)), &[0, 0], shape));
        };
        let layer = layer_of(weight);
        let parts = planned(layout, (rows, cols), grid).map_err(|e| e.in_layer(layer))?;
        let parts = parts.into_iter().map(|(part, element, shape)| (format!("{layer}.{part}"), element, shape)).collect();
        self.replace(&HashSet::from([weight.to_string()]), parts, "", BTreeMap::new());
        Ok(())
    }
}

impl FolderWriter {
    /// Writes a weight's codes to their places.
    ///
    /// # Errors
    /// [`Error::UnknownName`] or [`Error::Shape`] if the layout of the folder was not made for them ([`Layout::codes`]);
    /// [`Error::InvalidOption`] if zero points are not whole; [`Error::Io`].
    pub fn write_codes(&mut self, weight: &str, layout: QuantLayout, codes: &Codes, scales: ScaleType) -> Result<()> {
        let grid = CodeGrid { bits: codes.bits, symmetric: codes.symmetric, granularity: codes.granularity, scales };
        let parts = planned(layout, codes.dim(), grid)?;
        let layer = layer_of(weight);
        for ((part, _, shape), bytes) in parts.iter().zip(encoded(layout, codes, scales)?) {
            self.write_bytes(&format!("{layer}.{part}"), shape, &bytes)?;
        }
        Ok(())
    }

    /// Whether a weight's codes were written.
    pub fn is_codes_written(&self, weight: &str, layout: QuantLayout, shape: (usize, usize), grid: CodeGrid) -> bool {
        let layer = layer_of(weight);
        planned(layout, shape, grid).is_ok_and(|parts| parts.iter().all(|(part, ..)| self.is_written(&format!("{layer}.{part}"))))
    }

    /// Reads back codes that were written, of a weight of this shape.
    ///
    /// # Errors
    /// As [`FolderWriter::read`]; [`Error::Malformed`] if they are none of this grid.
    pub fn read_codes(&self, weight: &str, layout: QuantLayout, shape: (usize, usize), grid: CodeGrid) -> Result<Codes> {
        let layer = layer_of(weight);
        let read = |part: &str| -> Result<Raw> { self.read_raw(&format!("{layer}.{part}")) };
        let refuse = |reason: String| Error::malformed(self.part(), format!("codes of {}: {reason}", quoted(weight)));
        let found = CodedParts::of(layout, shape, grid)?.decode(&read).map_err(|e| match e {
            Error::InvalidOption { option, reason } => refuse(format!("{option} {reason}")),
            e => e,
        })?;
        found.codes().ok_or_else(|| refuse("are none of this run".into()))
    }
}

/// The layer of a weight.
fn layer_of(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

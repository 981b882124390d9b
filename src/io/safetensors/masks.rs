//! Masks beside their weights.

use super::checkpoint::{Checkpoint, Tensor};
use crate::io::quoted;
use crate::mask::Mask;
use crate::{Error, Result};
use ::safetensors::tensor::Dtype as Element;

const SUFFIX: &str = ".mask";

fn tensor_name(weight: &str) -> String {
    format!("{weight}{SUFFIX}")
}

fn cols_key(weight: &str) -> String {
    format!("{weight}{SUFFIX}.cols")
}

impl Checkpoint {
    /// Puts the mask of a weight beside it; an earlier one is replaced. The weight's numbers stay as they are: nothing is set
    /// to zero here.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] if there is no such weight, [`Error::Shape`] if the mask's shape is not that of
    /// [`Checkpoint::matrix`]; a vector of `n` numbers has a mask of `(n, 1)`.
    pub fn insert_mask(&mut self, name: &str, mask: &Mask) -> Result<()> {
        let (rows, cols) = self.mask_shape(name)?;
        if mask.dim() != (rows, cols) {
            return Err(Error::shape(format!("mask of {}", quoted(name)), &[rows, cols], &[mask.rows(), mask.cols()]));
        }
        let shape = vec![rows, cols.div_ceil(8)];
        self.put(tensor_name(name), Tensor::Opaque { element: Element::U8, shape, bytes: mask.to_bytes() });
        self.insert_metadata(cols_key(name), cols.to_string());
        Ok(())
    }

    /// The mask beside a weight; `None` if it has none.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] if there is no such weight. [`Error::Malformed`] if half of the mask is missing (the tensor or
    /// the metadata entry), if it is not U8, if its shape is not the weight's, or if bits past the last column are set.
    pub fn mask(&self, name: &str) -> Result<Option<Mask>> {
        let stated = self.metadata.get(&cols_key(name));
        let found = self.find(&tensor_name(name));
        let weight = self.tensor(name);
        let malformed = |reason: &str| self.malformed(&tensor_name(name), reason);
        let (cols, bits) = match (stated, found) {
            (None, None) => return weight.map(|_| None),
            (None, Some(_)) => return Err(malformed(&format!("lacks its metadata entry {}", quoted(&cols_key(name))))),
            (Some(_), None) => return Err(malformed("is missing, though the metadata says how many columns it has")),
            (Some(cols), Some(bits)) => (cols, bits),
        };
        weight?;
        let Ok(cols) = cols.parse::<usize>() else {
            return Err(malformed(&format!("has {} columns by its metadata, which is no count", quoted(cols))));
        };
        let (rows, want) = self.mask_shape(name)?;
        let Tensor::Opaque { element: Element::U8, shape, bytes } = bits else {
            return Err(malformed("is no mask: masks are U8"));
        };
        if cols != want || *shape != [rows, cols.div_ceil(8)] {
            let width = want.div_ceil(8);
            return Err(malformed(&format!(
                "has shape {shape:?} and {cols} columns; the mask of a {rows} x {want} weight has shape [{rows}, {width}] and {want}"
            )));
        }
        Mask::from_bytes(rows, cols, bytes).map(Some).map_err(|e| malformed(&format!("is no mask: {e}")))
    }

    /// All masks with the names of their weights, in the order of the weights.
    ///
    /// # Errors
    /// As [`Checkpoint::mask`]; [`Error::UnknownLayer`] if a mask is there without its weight.
    pub fn masks(&self) -> Result<Vec<(String, Mask)>> {
        for weight in self.metadata.keys().filter_map(|key| key.strip_suffix(&cols_key(""))) {
            self.tensor(weight)?;
        }
        let mut masks = Vec::new();
        for name in self.names() {
            if let Some(mask) = self.mask(name)? {
                masks.push((name.to_string(), mask));
            }
        }
        Ok(masks)
    }

    /// Takes the mask of a weight away; nothing happens if it has none.
    pub fn remove_mask(&mut self, name: &str) {
        if self.metadata.remove(&cols_key(name)).is_some() {
            self.take(&tensor_name(name));
        }
    }

    /// Whether both halves of a mask are beside a weight that is there.
    pub(super) fn has_mask(&self, name: &str) -> bool {
        self.contains(name) && self.contains(&tensor_name(name)) && self.metadata.contains_key(&cols_key(name))
    }
}

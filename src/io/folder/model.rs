//! A folder that is written as the place of a model's tensors and masks.

use super::names::SUFFIX;
use super::write::FolderWriter;
use crate::io::{WeightsMut, quoted};
use crate::mask::Mask;
use crate::{Error, Result};
use ndarray::ArrayViewD;

impl WeightsMut for FolderWriter {
    fn write(&mut self, name: &str, values: ArrayViewD<'_, f32>) -> Result<()> {
        FolderWriter::write(self, name, &values)
    }

    fn write_mask(&mut self, name: &str, mask: &Mask) -> Result<()> {
        if !self.has_place(&mask_name(name)) {
            let reason = format!("{} has one, for which the layout has no place: say so to Layout::masks", quoted(name));
            return Err(Error::invalid_option("mask", reason));
        }
        FolderWriter::write_mask(self, name, mask)
    }
}

fn mask_name(weight: &str) -> String {
    format!("{weight}{SUFFIX}")
}

impl FolderWriter {
    /// Writes the mask of a weight.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if the layout has no mask for it, [`Error::Shape`] if the mask has another shape, [`Error::Io`] if
    /// the disk refuses.
    pub fn write_mask(&mut self, weight: &str, mask: &Mask) -> Result<()> {
        self.write_bytes(&mask_name(weight), &[mask.rows(), mask.cols().div_ceil(8)], &mask.to_bytes())
    }

    /// Whether the mask of a weight was written.
    pub(crate) fn is_mask_written(&self, weight: &str) -> bool {
        self.is_written(&mask_name(weight))
    }
}

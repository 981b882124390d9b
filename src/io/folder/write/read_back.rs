//! What a writer has written, read back.

use super::FolderWriter;
use crate::io::folder::coded::Raw;
use crate::io::place::read_exact_at;
use crate::io::quoted;
use crate::io::safetensors::Dtype;
use crate::{Error, Result};
use ndarray::{Array2, ArrayD};
use std::path::Path;

impl FolderWriter {
    /// Reads back numbers that were written, as they are in the file.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if the layout has no such tensor, [`Error::Malformed`] if it was not written, [`Error::Shape`] if it holds no
    /// numbers, [`Error::Io`] if the disk refuses.
    pub fn read(&self, name: &str) -> Result<ArrayD<f32>> {
        let slot = self.slot(name)?;
        if !self.is_written(name) {
            return Err(Error::malformed(self.out.path(), format!("tensor {} was not written yet", quoted(name))));
        }
        let misfit = || Error::shape(format!("tensor {}", quoted(name)), &[0, 0], &slot.shape);
        let dtype = Dtype::of(slot.element).ok_or_else(misfit)?;
        let mut bytes = vec![0; slot.bytes as usize];
        read_exact_at(&self.files[slot.file], &mut bytes, slot.start).map_err(|e| Error::io(self.out.path(), e))?;
        ArrayD::from_shape_vec(slot.shape.clone(), dtype.decode(&bytes)).map_err(|_| misfit())
    }

    /// Reads back a tensor that was written, as it lies in the file.
    pub(in crate::io::folder) fn read_raw(&self, name: &str) -> Result<Raw> {
        let slot = self.slot(name)?;
        if !self.is_written(name) {
            return Err(Error::malformed(self.out.path(), format!("tensor {} was not written yet", quoted(name))));
        }
        let mut bytes = vec![0; slot.bytes as usize];
        read_exact_at(&self.files[slot.file], &mut bytes, slot.start).map_err(|e| Error::io(self.out.path(), e))?;
        Ok(Raw { element: slot.element, shape: slot.shape.clone(), bytes })
    }

    /// The working folder.
    pub(in crate::io::folder) fn part(&self) -> &Path {
        &self.part
    }

    /// As [`FolderWriter::read`], a matrix.
    ///
    /// # Errors
    /// As [`FolderWriter::read`]; [`Error::Shape`] if it is none.
    pub fn read_matrix(&self, name: &str) -> Result<Array2<f32>> {
        let found = self.read(name)?;
        let shape = found.shape().to_vec();
        found.into_dimensionality().map_err(|_| Error::shape(format!("tensor {}", quoted(name)), &[0, 0], &shape))
    }

    /// How many dimensions a tensor of the layout has.
    pub(crate) fn rank(&self, name: &str) -> Option<usize> {
        self.slots.get(name).map(|slot| slot.shape.len())
    }
}

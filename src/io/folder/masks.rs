//! `masks.safetensors`: which weights of a pruned folder were kept.

use super::names::{MASKS, SUFFIX};
use super::shard::{Listed, Shard};
use crate::io::quoted;
use crate::io::safetensors::Element;
use crate::mask::Mask;
use crate::{Error, Result};
use std::path::Path;

/// The masks of a folder. They stay on the disk until they are asked for, one at a time.
///
/// The mask of `NAME`, `(rows, cols)` where the dimensions after the first are laid in one row, is the U8 tensor `NAME.mask`,
/// `(rows, ceil(cols / 8))`, with `cols` in the metadata under `NAME.mask.cols`.
#[derive(Debug)]
pub struct MaskFile {
    shard: Shard,
}

impl MaskFile {
    /// Opens the masks of a folder, if there are any.
    pub(crate) fn open(folder: &Path) -> Result<Option<MaskFile>> {
        let path = folder.join(MASKS);
        if path.exists() { Shard::open(&path).map(|shard| Some(MaskFile { shard })) } else { Ok(None) }
    }

    /// The masks that lie beside a file of weights, in `masks.safetensors` of its folder, if there are any.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Malformed`] if it is no safetensors file.
    pub fn beside(weights: &Path) -> Result<Option<MaskFile>> {
        let folder = weights.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if weights.file_name().is_some_and(|name| name == MASKS) { Ok(None) } else { MaskFile::open(folder) }
    }

    /// The weights that have masks.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shard.tensors.iter().filter_map(|t| t.name.strip_suffix(SUFFIX))
    }

    /// Reads the mask of a weight, `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no mask: of another dtype than U8, without its number of columns, or with bits past them;
    /// [`Error::Io`] if the disk refuses.
    pub fn read(&self, weight: &str) -> Result<Option<Mask>> {
        let Some(tensor) = self.find(weight) else { return Ok(None) };
        let (rows, cols) = self.shape(tensor)?;
        let mut bytes = vec![0; tensor.bytes as usize];
        self.shard.read_bytes(tensor, 0, &mut bytes)?;
        let refuse = |e| Error::malformed(&self.shard.path, format!("tensor {}: {e}", quoted(&tensor.name)));
        Mask::from_bytes(rows, cols, &bytes).map(Some).map_err(refuse)
    }

    fn find(&self, weight: &str) -> Option<&Listed> {
        self.shard.tensors.iter().find(|t| t.name.strip_suffix(SUFFIX) == Some(weight))
    }

    /// Rows and columns of a mask.
    fn shape(&self, tensor: &Listed) -> Result<(usize, usize)> {
        let cols = self.shard.metadata.get(&format!("{}.cols", tensor.name)).and_then(|c| c.parse::<usize>().ok());
        match (tensor.element, tensor.shape.as_slice(), cols) {
            (Element::U8, &[rows, width], Some(cols)) if width == cols.div_ceil(8) => Ok((rows, cols)),
            (element, shape, cols) => {
                let cols = cols.map_or("no number of".to_string(), |c| c.to_string());
                let reason =
                    format!("tensor {} is {element} of shape {shape:?} with {cols} columns: no mask", quoted(&tensor.name));
                Err(Error::malformed(&self.shard.path, reason))
            }
        }
    }
}

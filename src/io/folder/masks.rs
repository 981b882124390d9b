//! `masks.safetensors`: which weights of a pruned folder were kept.

use super::layout::{Layout, Planned};
use super::shard::{Listed, Shard};
use super::write::FolderWriter;
use crate::io::quoted;
use crate::io::safetensors::Element;
use crate::mask::Mask;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// The name of the file.
pub(super) const MASKS: &str = "masks.safetensors";
const SUFFIX: &str = ".mask";

/// The masks of a folder. They stay on the disk until they are asked for, one at a time.
///
/// The mask of `NAME`, `(rows, cols)` where the dimensions after the first are laid in one row, is the U8 tensor `NAME.mask`,
/// `(rows, ceil(cols / 8))`, with `cols` in the metadata under `NAME.mask.cols`.
pub struct MaskFile {
    shard: Shard,
}

impl MaskFile {
    /// Opens the masks of a folder, if there are any.
    pub(super) fn open(folder: &Path) -> Result<Option<MaskFile>> {
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

impl Layout {
    /// A file of masks for these weights of a folder, whose tensors may be packed here; none if there are no weights.
    pub(super) fn masks_of(&mut self, weights: &[String], folder: &super::Folder) -> Result<()> {
        self.files.retain(|f| f.file != MASKS);
        if weights.is_empty() {
            return Ok(());
        }
        let mut planned = Planned { file: MASKS.to_string(), tensors: Vec::new(), metadata: BTreeMap::new() };
        for weight in weights {
            let shape = folder.shape(weight)?;
            planned.add(weight, shape)?;
        }
        self.files.push(planned);
        Ok(())
    }

    /// Adds a file of masks for these weights, which must be in the layout.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] if there is no such weight, [`Error::Setting`] if one is named twice.
    pub fn masks<'a>(&mut self, weights: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let mut planned = Planned { file: MASKS.to_string(), tensors: Vec::new(), metadata: BTreeMap::new() };
        for weight in weights {
            let mut all = self.files.iter().flat_map(|f| &f.tensors);
            let Some((_, _, shape)) = all.find(|(name, _, _)| name == weight) else {
                let names = self.files.iter().flat_map(|f| f.tensors.iter().map(|(name, _, _)| name.as_str()));
                return Err(Error::unknown_layer(weight, names));
            };
            planned.add(weight, shape)?;
        }
        self.files.retain(|f| f.file != MASKS);
        self.files.push(planned);
        Ok(())
    }
}

impl Planned {
    /// Adds the mask of a weight of this shape.
    fn add(&mut self, weight: &str, shape: &[usize]) -> Result<()> {
        let rows = shape.first().copied().unwrap_or(1);
        let cols: usize = shape.iter().skip(1).product();
        let name = format!("{weight}{SUFFIX}");
        if self.metadata.insert(format!("{name}.cols"), cols.to_string()).is_some() {
            return Err(Error::setting("masks", format!("{} is named twice", quoted(weight))));
        }
        self.tensors.push((name, Element::U8, vec![rows, cols.div_ceil(8)]));
        Ok(())
    }
}

impl FolderWriter {
    /// Writes the mask of a weight.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] if the layout has no mask for it, [`Error::Shape`] if the mask has another shape, [`Error::Io`] if
    /// the disk refuses.
    pub fn write_mask(&mut self, weight: &str, mask: &Mask) -> Result<()> {
        self.write_bytes(&format!("{weight}{SUFFIX}"), &[mask.rows(), mask.cols().div_ceil(8)], &mask.to_bytes())
    }

    /// Whether the mask of a weight was written.
    pub(crate) fn is_mask_written(&self, weight: &str) -> bool {
        self.is_written(&format!("{weight}{SUFFIX}"))
    }
}

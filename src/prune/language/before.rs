//! What an earlier run has left.

use crate::Result;
use crate::io::Folder;
use crate::mask::Mask;

/// A mask in the other layout of the weight, if that is how the checkpoint holds it.
pub(super) fn turned(mask: Mask, transposed: bool) -> Mask {
    if transposed { mask.transpose() } else { mask }
}

/// The mask `(out, in)` that an earlier run has left beside the weight.
pub(in crate::prune) fn mask_before(tensor: &str, transposed: bool, folder: &Folder) -> Result<Option<Mask>> {
    let found = folder.masks().map(|m| m.read(tensor)).transpose()?.flatten();
    Ok(found.map(|mask| turned(mask, transposed)))
}

//! What the numbers of a folder's tensors say without being kept: how many are not 0, and which tensors are no parameters.

use super::Folder;
use super::shard::CHUNK;
use crate::Result;
use crate::io::safetensors::{buffer, filled, is_float};

/// Numbers that a buffer is looked at for, at most; the causal mask of 8192 tokens has as many.
const LOOKED_AT: usize = 1 << 26;

impl Folder {
    /// Numbers of a tensor of any floating-point type that are not 0; `None` for other types. Memory: 1 MB, but for packed weights, which
    /// are read whole.
    ///
    /// # Errors
    /// As [`Folder::stream`].
    pub fn filled(&self, name: &str) -> Result<Option<usize>> {
        if self.packed.contains_key(name) {
            let mut sum = 0;
            self.stream(name, |part| sum += part.iter().filter(|w| **w != 0.0).count())?;
            return Ok(Some(sum));
        }
        let (shard, tensor) = self.find(name)?;
        if filled(tensor.element, &[]).is_none() {
            return Ok(None);
        }
        // Whole numbers of every width.
        let mut bytes = vec![0; (4 * CHUNK as u64).min(tensor.bytes) as usize];
        let (mut at, mut sum) = (0, 0);
        while at < tensor.bytes {
            let part = bytes.len().min((tensor.bytes - at) as usize);
            shard.read_bytes(tensor, at, &mut bytes[..part])?;
            sum += filled(tensor.element, &bytes[..part]).unwrap_or(0);
            at += part as u64;
        }
        Ok(Some(sum))
    }

    /// Numbers of a weight that its mask keeps, from beside it or out of its layout; `None` if it has none.
    ///
    /// # Errors
    /// As [`Folder::mask`].
    pub fn kept(&self, weight: &str) -> Result<Option<usize>> {
        Ok(self.mask(weight)?.map(|mask| mask.kept()))
    }

    /// What a tensor is if its numbers are no parameters of the model: integers, or a buffer such as a causal mask; `None` if they are.
    /// With `look` its numbers are read where its name does not settle it; a tensor that the model has a layer for should not be asked
    /// about.
    ///
    /// # Errors
    /// As [`Folder::read`].
    pub fn set_aside(&self, name: &str, look: bool) -> Result<Option<&'static str>> {
        if self.packed.contains_key(name) {
            return Ok(None);
        }
        let (_, tensor) = self.find(name)?;
        if let Some(what) = buffer(name, &tensor.shape, None) {
            return Ok(Some(what));
        }
        if !is_float(tensor.element) {
            return Ok(Some("no floating-point numbers"));
        }
        let look = look && tensor.shape.len() >= 2 && tensor.len() <= LOOKED_AT && self.dtype(name).is_ok();
        if look { Ok(buffer(name, &tensor.shape, Some(&self.read(name)?))) } else { Ok(None) }
    }
}

//! Masks beside their weights: those of this library, and those that other tools leave.
//!
//! A mask of this library is bits, with its number of columns in the metadata (see the module above). Other tools keep one
//! number a weight, 0 or 1, of any type, in a tensor of the weight's own shape:
//!
//! ```text
//! weight                          mask                                  left by
//! NAME_orig                       NAME_mask                             torch.nn.utils.prune
//! P.parametrizations.NAME.original  P.parametrizations.NAME.0.mask      torch.ao.pruning
//! P.weight, P.bias                P.weight_mask, P.bias_mask            wrappers; the weight may be P.module.weight
//! P.weight                        P.mask, P.mask_weight, P.mask_w,      masked layers of many codes
//!                                 P.pruning_mask, P.__weight_mma_mask   (the last: apex ASP)
//! NAME                            NAME.mask                             and bits whose metadata was lost
//! ```
//!
//! Such a mask stays what it is: [`Checkpoint::insert_mask`] writes the new one in its type, under its name.

use super::binary::{truths, with_truths};
use super::buffers::buffer;
use super::checkpoint::{Checkpoint, Tensor};
use crate::io::quoted;
use crate::mask::Mask;
use crate::{Error, Result};
use ::safetensors::tensor::Dtype as Element;
use ndarray::{ArrayD, IxDyn};

const SUFFIX: &str = ".mask";
/// The last parts of names under which tools keep the mask of a tensor `weight` beside it.
const OF_WEIGHTS: [&str; 5] = ["mask", "mask_weight", "mask_w", "pruning_mask", "__weight_mma_mask"];

fn tensor_name(weight: &str) -> String {
    format!("{weight}{SUFFIX}")
}

fn cols_key(weight: &str) -> String {
    format!("{weight}{SUFFIX}.cols")
}

/// The last part of a name, and what stands before it with its point.
fn parts(name: &str) -> (&str, &str) {
    name.rfind('.').map_or(("", name), |at| name.split_at(at + 1))
}

/// The names under which tools keep the mask of a weight.
fn candidates(weight: &str) -> Vec<String> {
    let mut names = vec![tensor_name(weight), format!("{weight}_mask")];
    if let Some(bare) = weight.strip_suffix("_orig") {
        names.push(format!("{bare}_mask"));
    }
    if let Some(path) = weight.strip_suffix("original").filter(|path| path.contains("parametrizations.")) {
        names.push(format!("{path}0.mask"));
    }
    let (path, last) = parts(weight);
    if last == "weight" {
        names.extend(OF_WEIGHTS.map(|mask| format!("{path}{mask}")));
    }
    if let Some(above) = path.strip_suffix("module.").filter(|above| above.is_empty() || above.ends_with('.')) {
        names.push(format!("{above}{last}_mask"));
    }
    names
}

/// The weights of which a mask of this name may be: all whose [`candidates`] have it.
fn weights_of(mask: &str) -> Vec<String> {
    let (path, last) = parts(mask);
    let mut names: Vec<String> = mask.strip_suffix(SUFFIX).map(String::from).into_iter().collect();
    if let Some(bare) = mask.strip_suffix("_mask") {
        names.extend([bare.to_string(), format!("{bare}_orig"), format!("{path}module.{}", parts(bare).1)]);
    }
    if let Some(path) = mask.strip_suffix("0.mask").filter(|path| path.contains("parametrizations.")) {
        names.push(format!("{path}original"));
    }
    if OF_WEIGHTS.contains(&last) {
        names.push(format!("{path}weight"));
    }
    names
}

/// A mask that another tool has left, or bits without their entry of metadata.
struct Foreign {
    name: String,
    mask: Mask,
    /// Bits, or a number a weight.
    bits: bool,
}

impl Checkpoint {
    /// Puts the mask of a weight beside it; an earlier one is replaced, and keeps its name and type if another tool has left it. The
    /// weight's numbers stay as they are: nothing is set to zero here.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such weight, [`Error::Shape`] if the mask's shape is not that of
    /// [`Checkpoint::matrix`]; a vector of `n` numbers has a mask of `(n, 1)`. [`Error::Malformed`] if a tensor that is no mask of this
    /// weight has the name that its mask would get.
    pub fn insert_mask(&mut self, name: &str, mask: &Mask) -> Result<()> {
        let (rows, cols) = self.mask_shape(name)?;
        if mask.dim() != (rows, cols) {
            return Err(Error::shape(format!("mask of {}", quoted(name)), &[rows, cols], &[mask.rows(), mask.cols()]));
        }
        let own = self.metadata.contains_key(&cols_key(name));
        if let Some(found) = self.foreign(name).filter(|found| !own && !found.bits) {
            let kept: Vec<bool> = mask.to_array().into_iter().collect();
            if let Some(tensor) = self.find(&found.name).and_then(|old| with_truths(old, &kept)) {
                self.put(found.name, tensor);
                return Ok(());
            }
        }
        let place = tensor_name(name);
        if self.contains(&place) && !own && self.foreign(name).is_none() {
            let shape = self.tensor(&place)?.shape();
            let reason = format!("of shape {shape:?} is no mask of {} and stands where that would go; rename it", quoted(name));
            return Err(self.malformed(&place, &reason));
        }
        let shape = vec![rows, cols.div_ceil(8)];
        self.put(place, Tensor::Opaque { element: Element::U8, shape, bytes: mask.to_bytes() });
        self.insert_metadata(cols_key(name), cols.to_string());
        Ok(())
    }

    /// The mask of a weight, in whatever form it is there (see the [module](crate::io::safetensors)); `None` if it has none.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such weight. [`Error::Malformed`] if the metadata says that there is a mask and it
    /// is missing, is not U8, has not the weight's shape, or sets bits past the last column.
    pub fn mask(&self, name: &str) -> Result<Option<Mask>> {
        let weight = self.tensor(name);
        let malformed = |reason: &str| self.malformed(&tensor_name(name), reason);
        let Some(cols) = self.metadata.get(&cols_key(name)) else {
            return weight.map(|_| self.foreign(name).map(|found| found.mask));
        };
        let Some(bits) = self.find(&tensor_name(name)) else {
            return Err(malformed("is missing, though the metadata says how many columns it has"));
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

    /// The tensor that holds the mask of a weight, if it has one that can be read.
    pub fn mask_name(&self, weight: &str) -> Option<String> {
        if self.metadata.contains_key(&cols_key(weight)) {
            return self.mask(weight).ok().flatten().map(|_| tensor_name(weight));
        }
        self.foreign(weight).map(|found| found.name)
    }

    /// All masks with the names of their weights, in the order of the weights.
    ///
    /// # Errors
    /// As [`Checkpoint::mask`]; [`Error::UnknownName`] if the metadata has a mask without its weight.
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

    /// The tensor of a weight by the name that its layer has for it: `fc.weight` for `fc.weight_orig` of `torch.nn.utils.prune` and for
    /// `fc.parametrizations.weight.original`, and each of them for the layer's own name, `fc`. A tensor of that very name goes first.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is none.
    pub fn tensor_of<'a>(&'a self, weight: &'a str) -> Result<&'a str> {
        if self.contains(weight) {
            return Ok(weight);
        }
        let of_layer = format!("{weight}.weight");
        let hidden = [weight, &of_layer].into_iter().flat_map(|weight| {
            let (path, last) = parts(weight);
            [weight.to_string(), format!("{weight}_orig"), format!("{path}parametrizations.{last}.original")]
        });
        let found = hidden.into_iter().find_map(|hidden| self.names().find(|name| *name == hidden));
        found.ok_or_else(|| Error::unknown_layer(weight, self.names()))
    }

    /// Takes the mask of a weight away; nothing happens if it has none.
    pub fn remove_mask(&mut self, name: &str) {
        if self.metadata.remove(&cols_key(name)).is_some() {
            self.take(&tensor_name(name));
        } else if let Some(found) = self.foreign(name) {
            self.take(&found.name);
        }
    }

    /// Whether both halves of a mask, or a mask of another tool, are beside a weight that is there.
    pub(super) fn has_mask(&self, name: &str) -> bool {
        let own = self.contains(&tensor_name(name)) && self.metadata.contains_key(&cols_key(name));
        self.contains(name) && (own || self.foreign(name).is_some())
    }

    /// Whether a tensor has a name that masks have, beside the weight that it would be of.
    pub(super) fn is_named_as_mask(&self, mask: &str) -> bool {
        parts(mask).1.contains("mask") && weights_of(mask).iter().any(|weight| weight != mask && self.contains(weight))
    }

    /// The mask that stands beside a weight without an entry of the metadata.
    fn foreign(&self, weight: &str) -> Option<Foreign> {
        let of = self.find(weight)?;
        let (rows, cols) = self.mask_shape(weight).ok()?;
        candidates(weight).into_iter().filter(|name| name != weight).find_map(|name| {
            let found = self.find(&name)?;
            if found.shape() == of.shape() && !self.is_attention(&name, found) {
                let kept = truths(found)?;
                let mask = Mask::from_fn(rows, cols, |r, c| kept[r * cols + c]);
                return Some(Foreign { name, mask, bits: false });
            }
            match found {
                Tensor::Opaque { element: Element::U8, shape, bytes }
                    if name == tensor_name(weight) && *shape == [rows, cols.div_ceil(8)] =>
                {
                    Mask::from_bytes(rows, cols, bytes).ok().map(|mask| Foreign { name, mask, bits: true })
                }
                _ => None,
            }
        })
    }

    /// Whether a square of zeros and ones in an attention says what is seen, not what is kept.
    fn is_attention(&self, name: &str, tensor: &Tensor) -> bool {
        let (path, _) = parts(name);
        if !(path.contains("attn.") || path.contains("attention.")) {
            return false;
        }
        let numbers = match tensor {
            Tensor::Weight(values, _) => Some(values.clone()),
            Tensor::Opaque { shape, .. } => truths(tensor).and_then(|kept| {
                let numbers = kept.into_iter().map(|t| f32::from(u8::from(t))).collect();
                ArrayD::from_shape_vec(IxDyn(shape), numbers).ok()
            }),
        };
        buffer(name, tensor.shape(), numbers.as_ref()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_of_a_mask_are_those_whose_mask_it_may_be() {
        let weights =
            ["fc.weight", "fc.weight_orig", "weight", "fc.parametrizations.weight.original", "a.module.fc", "module.weight"];
        for weight in weights {
            for mask in candidates(weight) {
                assert!(weights_of(&mask).iter().any(|w| w == weight), "{mask} of {weight}: {:?}", weights_of(&mask));
                for other in weights_of(&mask) {
                    assert!(candidates(&other).contains(&mask), "{mask} is none of {other}");
                }
            }
        }
        assert!(weights_of("attn.bias").is_empty());
    }
}

//! The weights of a file as layers.

use super::{Checkpoint, Role};
use crate::mask::Mask;
use crate::nn::{LayerInfo, Layers};
use crate::solve::Pruned;
use crate::{Error, Result};
use ndarray::{CowArray, Ix2};
use std::borrow::Cow;

/// The tensors that are weights of linear or convolutional layers, as far as a plain file can tell ([`Checkpoint::role`]), under their own names;
/// `fc1` is understood for `fc1.weight`. One of more than two dimensions counts as `(first, rest)`. A mask that is written stands beside its
/// weight.
impl Layers for Checkpoint {
    fn layers(&self) -> Vec<LayerInfo> {
        let weights = self.roles().into_iter().filter(|(_, role)| *role == Role::Weight);
        let one = |(name, _): (&str, Role)| {
            let tensor = self.get(name).ok()?;
            let kernel = if let [_, _, h, w] = tensor.shape() { Some((*h, *w)) } else { None };
            let rows = tensor.shape().first().copied().unwrap_or(0);
            let shape = (rows, tensor.shape().iter().skip(1).product());
            Some(LayerInfo { name: name.to_string(), parameter: name.to_string(), shape, kernel, positions: 1 })
        };
        weights.filter_map(one).collect()
    }

    fn read(&self, name: &str) -> Result<CowArray<'_, f32, Ix2>> {
        let tensor = self.tensor_of(name)?;
        let (found, dim) = (self.get(tensor)?, self.matrix_shape(tensor)?);
        found.to_shape(dim).map_err(|_| Error::shape(tensor, &[dim.0, dim.1], found.shape()))
    }

    fn mask(&self, name: &str) -> Result<Option<Cow<'_, Mask>>> {
        Ok(Checkpoint::mask(self, self.tensor_of(name)?)?.map(Cow::Owned))
    }

    fn write(&mut self, name: &str, pruned: Pruned) -> Result<()> {
        let tensor = self.tensor_of(name)?.to_string();
        let found = self.matrix_shape(&tensor)?;
        pruned.check(&tensor, found)?;
        self.set_matrix(&tensor, pruned.weight)?;
        self.insert_mask(&tensor, &pruned.mask)
    }
}

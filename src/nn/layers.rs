//! Named linear maps, read and written one at a time: what scores, allocations and pruners are written against.

use super::parameters::{Change, Parameters, See, check_mask};
use crate::mask::Mask;
use crate::solve::Pruned;
use crate::{Error, Result};
use ndarray::{Array2, CowArray, Ix2};
use std::borrow::Cow;

/// A linear map of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Its name, for example `fc1`, or `model.layers.0.mlp.up_proj`.
    pub name: String,
    /// What its weight is called among the parameters: `fc1.weight`.
    pub parameter: String,
    /// `(out, in)`; for a convolution `in` is channels · height · width.
    pub shape: (usize, usize),
    /// Height and width of a convolution's kernel; `None` for a linear layer.
    pub kernel: Option<(usize, usize)>,
    /// Times each weight is used for one sample or token; a weight costs `2 * positions` FLOPs.
    pub positions: usize,
}

impl LayerInfo {
    /// A linear layer whose weight is called `NAME.weight`.
    pub fn linear(name: impl Into<String>, shape: (usize, usize)) -> Self {
        let name = name.into();
        LayerInfo { parameter: format!("{name}.weight"), name, shape, kernel: None, positions: 1 }
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.shape.0 * self.shape.1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is called so: by its name, or by that of its weight.
    ///
    /// ```
    /// use lacuna::nn::LayerInfo;
    /// let layer = LayerInfo::linear("fc1", (2, 3));
    /// assert!(layer.is_called("fc1") && layer.is_called("fc1.weight") && !layer.is_called("fc"));
    /// ```
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.parameter == name
    }
}

/// Named linear maps `(out, in)`, read and written one at a time: a network, a language model, a file of weights, or layers of one's own
/// ([`NamedLayers`]).
pub trait Layers {
    /// All layers that may be pruned, in the order in which they run.
    fn layers(&self) -> Vec<LayerInfo>;

    /// The weight of a layer, `(out, in)`.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is none of this name; if it cannot be read.
    fn read(&self, name: &str) -> Result<CowArray<'_, f32, Ix2>>;

    /// The mask that a layer has already, if any.
    ///
    /// # Errors
    /// As [`Layers::read`].
    fn mask(&self, name: &str) -> Result<Option<Cow<'_, Mask>>>;

    /// Gives a layer the weight and the mask that pruning left.
    ///
    /// # Errors
    /// As [`Layers::read`]; [`Error::Shape`] if the shapes differ; if it cannot be written.
    fn write(&mut self, name: &str, pruned: Pruned) -> Result<()>;
}

/// A layer's name from its own or that of its weight.
pub(crate) fn layer_name(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

/// The layer that is called so, by its name or by that of its weight.
///
/// # Errors
/// [`Error::UnknownName`] with the nearest name.
pub fn find_layer<'l>(layers: &'l [LayerInfo], name: &str) -> Result<&'l LayerInfo> {
    let found = layers.iter().find(|l| l.is_called(name));
    found.ok_or_else(|| Error::unknown_layer(name, layers.iter().map(|l| l.name.as_str())))
}

/// Weights of one's own, by their names: what a researcher has in `ndarray`s and wants pruned together.
///
/// ```
/// use lacuna::nn::{Layers, NamedLayers};
/// use ndarray::array;
/// let own = NamedLayers::new([("a", array![[1., 2.]]), ("b", array![[3.], [4.]])])?;
/// assert_eq!(own.layers()[1].shape, (2, 1));
/// assert_eq!(own.read("b.weight")?, array![[3.], [4.]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NamedLayers(Vec<(LayerInfo, Array2<f32>, Option<Mask>)>);

impl NamedLayers {
    /// Of weights `(out, in)` by their names.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a name is given twice.
    pub fn new<N: Into<String>>(weights: impl IntoIterator<Item = (N, Array2<f32>)>) -> Result<Self> {
        let mut layers: Vec<(LayerInfo, Array2<f32>, Option<Mask>)> = Vec::new();
        for (name, weight) in weights {
            let layer = LayerInfo::linear(name, weight.dim());
            if layers.iter().any(|(other, ..)| other.is_called(&layer.name) || layer.is_called(&other.name)) {
                return Err(Error::invalid_option("layers", format!("'{}' is given twice", layer.name)));
            }
            layers.push((layer, weight, None));
        }
        Ok(NamedLayers(layers))
    }

    /// The weights, the masks and the names of all layers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Array2<f32>, Option<&Mask>)> {
        self.0.iter().map(|(layer, weight, mask)| (layer.name.as_str(), weight, mask.as_ref()))
    }

    fn place(&self, name: &str) -> Result<usize> {
        let found = self.0.iter().position(|(layer, ..)| layer.is_called(name));
        found.ok_or_else(|| Error::unknown_layer(name, self.0.iter().map(|(layer, ..)| layer.name.as_str())))
    }
}

/// The weights, as `NAME.weight`: a model of one's own that keeps them so has its parameters from here.
impl Parameters for NamedLayers {
    fn visit(&self, f: &mut See<'_>) {
        self.0.iter().for_each(|(layer, weight, mask)| f(&layer.parameter, weight.view().into_dyn(), mask.as_ref()));
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        for (layer, weight, mask) in &mut self.0 {
            if !weight.is_standard_layout() {
                *weight = weight.as_standard_layout().into_owned();
            }
            f(&layer.parameter, weight.as_slice_mut().unwrap_or_default(), mask.as_ref());
        }
        Ok(())
    }

    fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()> {
        let place = self.place(name)?;
        let (layer, weight, held) = &mut self.0[place];
        if let Some(mask) = &mask {
            check_mask(&layer.parameter, layer.shape, mask)?;
            mask.apply(weight);
        }
        *held = mask;
        Ok(())
    }
}

impl Layers for NamedLayers {
    fn layers(&self) -> Vec<LayerInfo> {
        self.0.iter().map(|(layer, ..)| layer.clone()).collect()
    }

    fn read(&self, name: &str) -> Result<CowArray<'_, f32, Ix2>> {
        Ok(self.0[self.place(name)?].1.view().into())
    }

    fn mask(&self, name: &str) -> Result<Option<Cow<'_, Mask>>> {
        Ok(self.0[self.place(name)?].2.as_ref().map(Cow::Borrowed))
    }

    fn write(&mut self, name: &str, pruned: Pruned) -> Result<()> {
        let place = self.place(name)?;
        let (layer, weight, mask) = &mut self.0[place];
        pruned.check(&layer.name, layer.shape)?;
        *weight = pruned.weight;
        *mask = Some(pruned.mask);
        Ok(())
    }
}

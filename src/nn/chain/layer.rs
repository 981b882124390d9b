//! One layer of a network.

use super::{Affine, BatchNorm, Map, Pact, Param, Pool, Saved};
use crate::nn::{Activation, Mode};
use ndarray::Array2;

/// One layer of a network.
#[derive(Debug, Clone, PartialEq)]
pub enum Layer {
    /// Linear or convolutional.
    Affine(Affine),
    /// Batch normalisation.
    BatchNorm(BatchNorm),
    /// A function of every feature.
    Activation(Activation),
    /// Pooling over windows.
    Pool(Pool),
    /// A clipped rectifier of few levels.
    Pact(Pact),
}

impl Layer {
    /// The parameters with their names within the layer: weight before bias, γ before β.
    pub fn params(&self) -> Vec<(&'static str, &Param)> {
        match self {
            Layer::Affine(a) => std::iter::once(("weight", &a.weight)).chain(a.bias.as_ref().map(|b| ("bias", b))).collect(),
            Layer::BatchNorm(b) => vec![("weight", &b.gamma), ("bias", &b.beta)],
            Layer::Pact(p) => vec![("alpha", &p.alpha)],
            Layer::Activation(_) | Layer::Pool(_) => vec![],
        }
    }

    /// As [`Layer::params`].
    pub fn params_mut(&mut self) -> Vec<(&'static str, &mut Param)> {
        match self {
            Layer::Affine(a) => std::iter::once(("weight", &mut a.weight)).chain(a.bias.as_mut().map(|b| ("bias", b))).collect(),
            Layer::BatchNorm(b) => vec![("weight", &mut b.gamma), ("bias", &mut b.beta)],
            Layer::Pact(p) => vec![("alpha", &mut p.alpha)],
            Layer::Activation(_) | Layer::Pool(_) => vec![],
        }
    }

    /// Features of the output, given those of the input.
    pub(crate) fn outputs(&self, inputs: usize) -> usize {
        match self {
            Layer::Affine(a) => a.map.outputs(),
            Layer::Pool(p) => {
                let (c, h, w) = p.output();
                c * h * w
            }
            Layer::BatchNorm(_) | Layer::Activation(_) | Layer::Pact(_) => inputs,
        }
    }

    /// Features of the input, where the layer fixes them.
    pub(crate) fn inputs(&self) -> Option<usize> {
        match self {
            Layer::Affine(a) => Some(a.map.inputs()),
            Layer::Pool(p) => Some(p.input.0 * p.input.1 * p.input.2),
            Layer::BatchNorm(b) => Some(b.channels() * b.positions),
            Layer::Activation(_) | Layer::Pact(_) => None,
        }
    }

    /// Whether the layer takes its input for `units` units (channels, features) one after the other, and not for channels that
    /// cut them up or take several together.
    pub(crate) fn reads_units(&self, units: usize) -> bool {
        match self {
            Layer::Affine(a) => !matches!(&a.map, Map::Conv2d(conv) if conv.input.0 != units),
            Layer::BatchNorm(b) => b.channels() == units,
            Layer::Pool(p) => p.input.0 == units,
            Layer::Activation(_) | Layer::Pact(_) => true,
        }
    }

    pub(crate) fn forward(&self, x: &Array2<f32>, mode: Mode) -> (Array2<f32>, Saved) {
        match self {
            Layer::Affine(a) => (a.forward(x), Saved::Nothing),
            Layer::BatchNorm(b) => b.forward(x, mode),
            Layer::Activation(f) => (f.forward(x), Saved::Nothing),
            Layer::Pool(p) => p.forward(x),
            Layer::Pact(p) => (p.forward(x), Saved::Nothing),
        }
    }
}

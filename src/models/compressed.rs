//! A network that multiplies by what is stored.

use crate::mask::Mask;
use crate::nn::{Affine, Layer, Mode, Network};
use crate::sparse::{LinearOp, apply};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};

/// A network for inference whose linear and convolutional weights are [`LinearOp`]s.
///
/// A convolution multiplies its patches: `(batch * positions, in)` tokens.
#[derive(Debug)]
pub struct Compressed {
    network: Network,
    ops: Vec<Option<Box<dyn LinearOp>>>,
}

impl Compressed {
    /// Stores every linear and convolutional weight with `compress(name, weight, mask)`; the mask is full where none is held.
    ///
    /// # Errors
    /// Those of `compress`, naming the layer.
    pub fn new(
        network: &Network,
        mut compress: impl FnMut(&str, &ArrayRef2<f32>, &Mask) -> Result<Box<dyn LinearOp>>,
    ) -> Result<Self> {
        let mut ops = Vec::new();
        for (name, layer) in network.layers() {
            ops.push(match layer {
                Layer::Affine(a) => {
                    let weight = a.weight.value();
                    let full = || Mask::full(weight.nrows(), weight.ncols());
                    let mask = a.weight.mask().cloned().unwrap_or_else(full);
                    let op = compress(name, weight, &mask).map_err(|e| e.in_layer(name))?;
                    if op.shape() != weight.dim() {
                        let (expected, found) = (weight.dim(), op.shape());
                        let what = format!("compressed weight of {name}");
                        return Err(Error::shape(what, &[expected.0, expected.1], &[found.0, found.1]));
                    }
                    Some(op)
                }
                _ => None,
            });
        }
        Ok(Compressed { network: network.clone(), ops })
    }

    /// The output `(batch, outputs)` of `x (batch, inputs)`.
    ///
    /// # Panics
    /// If `x` has another number of features than the network's inputs.
    pub fn forward(&self, x: &Array2<f32>) -> Array2<f32> {
        assert_eq!(x.ncols(), self.network.inputs(), "the network has another number of inputs");
        let mut value = x.as_standard_layout().into_owned();
        for ((_, layer), op) in self.network.layers().iter().zip(&self.ops) {
            value = match (layer, op) {
                (Layer::Affine(a), Some(op)) => product(a, op.as_ref(), &value),
                (layer, _) => layer.forward(&value, Mode::Eval).0,
            };
        }
        value
    }

    /// Bytes of the weights as stored; biases and norms are not counted.
    pub fn bytes(&self) -> usize {
        self.ops.iter().flatten().map(|op| op.bytes()).sum()
    }

    /// Number of weights stored.
    pub fn nnz(&self) -> usize {
        self.ops.iter().flatten().map(|op| op.nnz()).sum()
    }
}

fn product(a: &Affine, op: &dyn LinearOp, x: &Array2<f32>) -> Array2<f32> {
    let positions = a.map.positions();
    let tokens = apply(op, &a.map.patches(x)); // (batch * positions, out)
    let mut y = if positions == 1 {
        tokens
    } else {
        // (batch, positions, out) -> (batch, out, positions)
        let out = op.shape().0;
        Array2::from_shape_fn((x.nrows(), out * positions), |(n, f)| tokens[[n * positions + f % positions, f / positions]])
    };
    if let Some(bias) = &a.bias {
        a.add_bias(bias.value(), &mut y);
    }
    y
}

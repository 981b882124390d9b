//! Multi-layer perceptrons.

use crate::Result;
use crate::models::{Builder, Init};
use crate::nn::{Activation, Network};
use crate::rng::Seed;

/// Fully connected layers of these widths (inputs first, outputs last), with an activation between them and none after the
/// last. Layers are named `fc1`, `fc2`, …
///
/// # Errors
/// If there are fewer than two widths, or one is 0.
pub fn mlp(widths: &[usize], activation: Activation, init: Init, seed: Seed) -> Result<Network> {
    let [inputs, hidden @ .., outputs] = widths else {
        return Err(crate::Error::invalid_option(
            "widths",
            format!("{widths:?}: at least an input and an output width are needed"),
        ));
    };
    let builder = Builder::vector(*inputs, init, seed);
    hidden.iter().fold(builder, |b, &w| b.linear(w).activation(activation)).linear(*outputs).build()
}

/// LeNet-300-100 (LeCun, Bottou, Bengio, Haffner 1998): 784-300-100-10 with ReLU and Glorot weights, as the pruning papers
/// since Han et al. 2015 have it; 266 610 parameters.
///
/// ```
/// let net = lacuna::models::lenet_300_100(lacuna::rng::Seed(0)).unwrap();
/// assert_eq!(net.parameters(), 266_610);
/// ```
///
/// # Errors
/// Never.
pub fn lenet_300_100(seed: Seed) -> Result<Network> {
    mlp(&[784, 300, 100, 10], Activation::Relu, Init::Glorot, seed)
}

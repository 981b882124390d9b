//! Convolutional networks.

use crate::Result;
use crate::mask::Mask;
use crate::models::{Builder, Init};
use crate::nn::{Activation, Network, Pooling};
use crate::rng::Seed;

/// LeNet-5 as Caffe and the pruning papers since Han et al. 2015 have it: 20 and 50 filters of 5×5, each followed by ReLU
/// and 2×2 max pooling, 500 hidden units; 431 080 parameters. Input `(1, 28, 28)`.
///
/// Departure from Caffe's: a ReLU after each convolution (Caffe's has one after the hidden layer only).
///
/// # Errors
/// Never.
pub fn lenet_5(seed: Seed) -> Result<Network> {
    Builder::image((1, 28, 28), Init::He, seed)
        .conv(20, 5, 1, 0) // (20, 24, 24)
        .activation(Activation::Relu)
        .pool(Pooling::Max, 2) // (20, 12, 12)
        .conv(50, 5, 1, 0) // (50, 8, 8)
        .activation(Activation::Relu)
        .pool(Pooling::Max, 2) // (50, 4, 4)
        .linear(500)
        .activation(Activation::Relu)
        .linear(10)
        .build()
}

/// The shared-weight network of LeCun et al. 1989, *Backpropagation applied to handwritten zip code recognition*: 12 and 12
/// feature maps of 5×5 kernels with stride 2, 30 hidden units, 10 outputs, scaled tanh everywhere. Input `(1, 16, 16)`.
///
/// Departures: every map of the second layer reads all twelve of the first (the paper's read eight, by a table it does not
/// print), biases are shared over a map, and the border is 0 (the paper's −1 is the background).
///
/// # Errors
/// Never.
pub fn lecun_1989(seed: Seed) -> Result<Network> {
    Builder::image((1, 16, 16), Init::LeCun, seed)
        .conv(12, 5, 2, 2) // (12, 8, 8)
        .activation(Activation::ScaledTanh)
        .conv(12, 5, 2, 2) // (12, 4, 4)
        .activation(Activation::ScaledTanh)
        .linear(30)
        .activation(Activation::ScaledTanh)
        .linear(10)
        .activation(Activation::ScaledTanh)
        .build()
}

/// The shared-weight network that Optimal Brain Damage was tried on (LeCun et al. 1990, *Handwritten digit recognition with a
/// back-propagation network*): 4 maps of 5×5 kernels, halved by averaging, 12 maps of 5×5 kernels that read one or two of the 4,
/// halved again, 10 outputs; scaled tanh. Input `(1, 28, 28)`. The table of who reads whom is held as a mask.
///
/// Departures: the averages have no coefficient and bias of their own, so there are 2546 parameters where the paper counts 2578;
/// the paper's table is not used, but one of as many connections (four maps read one, eight read two, each of the 4 maps is read
/// five times).
///
/// ```
/// let net = lacuna::models::lecun_1990(lacuna::rng::Seed(0)).unwrap();
/// assert_eq!(net.kept_parameters(), 4 * 26 + 20 * 25 + 12 + 192 * 10 + 10);
/// ```
///
/// # Errors
/// Never.
pub fn lecun_1990(seed: Seed) -> Result<Network> {
    let mut network = Builder::image((1, 28, 28), Init::LeCun, seed)
        .conv(4, 5, 1, 0) // (4, 24, 24)
        .activation(Activation::ScaledTanh)
        .pool(Pooling::Average, 2) // (4, 12, 12)
        .conv(12, 5, 1, 0) // (12, 8, 8)
        .activation(Activation::ScaledTanh)
        .pool(Pooling::Average, 2) // (12, 4, 4)
        .linear(10)
        .activation(Activation::ScaledTanh)
        .build()?;
    let table: [&[usize]; 12] = [&[0], &[1], &[2], &[3], &[0, 1], &[1, 2], &[2, 3], &[0, 3], &[0, 2], &[1, 3], &[0, 1], &[2, 3]];
    let conv2 = network.param_mut("conv2.weight")?;
    conv2.set_mask(Mask::from_fn(12, 100, |map, col| table[map].contains(&(col / 25))))?;
    Ok(network)
}

/// The kin of [`lecun_1989`] for 8×8 digits: 8 and 12 maps of 3×3 kernels with stride 2, 20 hidden units, 10 outputs, scaled
/// tanh everywhere; 2 146 parameters, about as many as Optimal Brain Damage's network had. Input `(1, 8, 8)`.
///
/// ```
/// assert_eq!(lacuna::models::digits_shared(lacuna::rng::Seed(0)).unwrap().parameters(), 2146);
/// ```
///
/// # Errors
/// Never.
pub fn digits_shared(seed: Seed) -> Result<Network> {
    Builder::image((1, 8, 8), Init::LeCun, seed)
        .conv(8, 3, 2, 1) // (8, 4, 4)
        .activation(Activation::ScaledTanh)
        .conv(12, 3, 2, 1) // (12, 2, 2)
        .activation(Activation::ScaledTanh)
        .linear(20)
        .activation(Activation::ScaledTanh)
        .linear(10)
        .activation(Activation::ScaledTanh)
        .build()
}

/// A small convnet for 8×8 digits: two 3×3 convolutions with batch normalisation and ReLU, pooling, one hidden layer. Input
/// `(1, 8, 8)`.
///
/// # Errors
/// If a width is 0.
pub fn digits_convnet(channels: [usize; 2], hidden: usize, seed: Seed) -> Result<Network> {
    Builder::image((1, 8, 8), Init::He, seed)
        .conv(channels[0], 3, 1, 1) // (c0, 8, 8)
        .batch_norm()
        .activation(Activation::Relu)
        .pool(Pooling::Max, 2) // (c0, 4, 4)
        .conv(channels[1], 3, 1, 1) // (c1, 4, 4)
        .batch_norm()
        .activation(Activation::Relu)
        .pool(Pooling::Max, 2) // (c1, 2, 2)
        .linear(hidden)
        .activation(Activation::Relu)
        .linear(10)
        .build()
}

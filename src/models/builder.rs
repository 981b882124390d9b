//! Chains of layers, with their shapes worked out and their weights drawn.

use crate::nn::{Activation, Affine, BatchNorm, Conv2d, Layer, Map, Network, Pact, Pool, Pooling};
use crate::rng::Seed;
use crate::{Error, Result};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// How initial weights are drawn, from the number of inputs and outputs of one unit. Biases begin at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Normal, variance 2 / (in + out) (Glorot and Bengio 2010).
    Glorot,
    /// Normal, variance 2 / in (He et al. 2015), for ReLU.
    He,
    /// Uniform in ±2.4 / in (LeCun et al. 1989).
    LeCun,
}

/// Builds a [`Network`] layer by layer. Layers are named by kind and number: `conv1`, `bn1`, `fc1`, …
///
/// ```
/// use lacuna::{models::{Builder, Init}, nn::{Activation, Pooling}, rng::Seed};
/// let net = Builder::image((1, 8, 8), Init::He, Seed(0))
///     .conv(4, 3, 1, 1).activation(Activation::Relu).pool(Pooling::Max, 2) // (4, 4, 4)
///     .linear(10)
///     .build().unwrap();
/// assert_eq!((net.inputs(), net.parameters()), (64, 4 * 9 + 4 + 64 * 10 + 10));
/// ```
#[derive(Debug)]
pub struct Builder {
    shape: (usize, usize, usize),
    inputs: usize,
    init: Init,
    seed: Seed,
    layers: Vec<(String, Layer)>,
    error: Option<Error>,
}

impl Builder {
    /// A network over images of `(channels, height, width)`.
    pub fn image(shape: (usize, usize, usize), init: Init, seed: Seed) -> Self {
        Builder { shape, inputs: shape.0 * shape.1 * shape.2, init, seed, layers: Vec::new(), error: None }
    }

    /// A network over vectors of `features`.
    pub fn vector(features: usize, init: Init, seed: Seed) -> Self {
        Builder::image((features, 1, 1), init, seed)
    }

    fn features(&self) -> usize {
        self.shape.0 * self.shape.1 * self.shape.2
    }

    fn name(&self, kind: &str) -> String {
        let count = self.layers.iter().filter(|(n, _)| n.strip_prefix(kind).is_some_and(|r| r.parse::<usize>().is_ok())).count();
        format!("{kind}{}", count + 1)
    }

    fn affine(&mut self, kind: &str, map: Map, fan_in: usize, fan_out: usize) {
        let name = self.name(kind);
        let (rows, cols) = map.weight_dim();
        let mut stream = self.seed.stream(&format!("init/{name}"));
        let weight = match self.init {
            Init::Glorot => stream.normal_array(rows, cols, (2.0 / (fan_in + fan_out) as f32).sqrt()),
            Init::He => stream.normal_array(rows, cols, (2.0 / fan_in as f32).sqrt()),
            Init::LeCun => stream.uniform_array(rows, cols, 2.4 / fan_in as f32),
        };
        self.layers.push((name, Layer::Affine(Affine::new(map, weight, Some(Array2::zeros((rows, 1)))))));
    }

    fn refuse(&mut self, what: &str, reason: String) {
        self.error.get_or_insert(Error::invalid_option(what, reason));
    }

    /// A fully connected layer with bias.
    pub fn linear(mut self, outputs: usize) -> Self {
        let inputs = self.features();
        if outputs == 0 || inputs == 0 {
            self.refuse("linear layer", format!("{inputs} inputs and {outputs} outputs: neither may be 0"));
            return self;
        }
        self.affine("fc", Map::Linear { inputs, outputs }, inputs, outputs);
        self.shape = (outputs, 1, 1);
        self
    }

    /// A convolution of `channels` square kernels with bias.
    pub fn conv(mut self, channels: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        let (c, h, w) = self.shape;
        if channels * kernel * stride * c == 0 || kernel > h.min(w) + 2 * padding {
            let reason =
                format!("{channels} kernels of {kernel} x {kernel}, stride {stride}, padding {padding} over {c} x {h} x {w}");
            self.refuse("convolution", reason);
            return self;
        }
        let conv = Conv2d { input: self.shape, out_channels: channels, kernel: (kernel, kernel), stride, padding };
        self.affine("conv", Map::Conv2d(conv), conv.patch(), channels * kernel * kernel);
        self.shape = conv.output();
        self
    }

    /// Pooling over `size x size` windows that do not overlap.
    pub fn pool(mut self, pooling: Pooling, size: usize) -> Self {
        let (c, h, w) = self.shape;
        if size == 0 || size > h.min(w) {
            self.refuse("pooling", format!("windows of {size} x {size} over {c} x {h} x {w}"));
            return self;
        }
        let pool = Pool { pooling, input: self.shape, size, stride: size };
        self.layers.push((self.name("pool"), Layer::Pool(pool)));
        self.shape = pool.output();
        self
    }

    /// Batch normalisation of every channel.
    pub fn batch_norm(mut self) -> Self {
        let (c, h, w) = self.shape;
        self.layers.push((self.name("bn"), Layer::BatchNorm(BatchNorm::new(c, h * w))));
        self
    }

    /// A function of every feature.
    pub fn activation(mut self, f: Activation) -> Self {
        self.layers.push((self.name("act"), Layer::Activation(f)));
        self
    }

    /// A rectifier that is cut off at a height that is learnt, from `alpha` on, of 2^bits levels or of all ([`Pact`]).
    pub fn pact(mut self, alpha: f32, bits: Option<u32>) -> Self {
        if !(alpha.is_finite() && alpha > 0.0) || bits.is_some_and(|bits| !(1..=16).contains(&bits)) {
            self.refuse("pact", format!("cut off at {alpha}, in {bits:?} bits: a finite number above 0, and 1 to 16 bits"));
            return self;
        }
        self.layers.push((self.name("act"), Layer::Pact(Pact::new(alpha, bits))));
        self
    }

    /// The network.
    ///
    /// # Errors
    /// If a layer had no inputs or outputs, or a window did not fit; the first such.
    pub fn build(self) -> Result<Network> {
        match self.error {
            Some(e) => Err(e),
            None => Network::new(self.inputs, self.layers),
        }
    }
}

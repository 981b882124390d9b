//! Small networks with random numbers, data for them, and a way to stay clear of kinks.

use crate::close::assert_close;
use lacuna::nn::{Activation, Affine, BatchNorm, Conv2d, Layer, Loss, Map, Mode, Network, Pact, Param, Pool, Pooling};
use lacuna::rng::{Seed, Stream};
use ndarray::{Array2, Axis};

pub const ACTIVATIONS: [Activation; 6] =
    [Activation::Tanh, Activation::ScaledTanh, Activation::Relu, Activation::Sigmoid, Activation::Gelu, Activation::Silu];
pub const LOSSES: [Loss; 3] = [Loss::CrossEntropy, Loss::SquaredError, Loss::TemperedCrossEntropy { temperature: 0.7 }];

/// A chain in the making: every layer fits the one before it, and every number is random.
pub struct Net {
    random: Stream,
    inputs: usize,
    features: usize,
    layers: Vec<(String, Layer)>,
}

impl Net {
    pub fn new(seed: u64, inputs: usize) -> Self {
        Net { random: Seed(seed).stream("net"), inputs, features: inputs, layers: Vec::new() }
    }

    fn push(mut self, layer: Layer) -> Self {
        match &layer {
            Layer::Affine(a) => self.features = a.map.outputs(),
            Layer::Pool(p) => {
                let (c, h, w) = p.output();
                self.features = c * h * w;
            }
            Layer::BatchNorm(_) | Layer::Activation(_) | Layer::Pact(_) => {}
        }
        self.layers.push((format!("layer{}", self.layers.len()), layer));
        self
    }

    /// Weights of variance 1 / inputs, biases of standard deviation 0.3.
    pub fn affine(mut self, map: Map, bias: bool) -> Self {
        let (out, inputs) = map.weight_dim();
        let weight = self.random.normal_array(out, inputs, (inputs as f32).sqrt().recip());
        let bias = bias.then(|| self.random.normal_array(out, 1, 0.3));
        self.push(Layer::Affine(Affine::new(map, weight, bias)))
    }

    pub fn linear(self, outputs: usize) -> Self {
        let inputs = self.features;
        self.affine(Map::Linear { inputs, outputs }, true)
    }

    pub fn linear_without_bias(self, outputs: usize) -> Self {
        let inputs = self.features;
        self.affine(Map::Linear { inputs, outputs }, false)
    }

    pub fn conv(
        self,
        input: (usize, usize, usize),
        out_channels: usize,
        kernel: (usize, usize),
        stride: usize,
        padding: usize,
    ) -> Self {
        self.affine(Map::Conv2d(Conv2d { input, out_channels, kernel, stride, padding }), true)
    }

    pub fn pool(self, pooling: Pooling, input: (usize, usize, usize), size: usize, stride: usize) -> Self {
        self.push(Layer::Pool(Pool { pooling, input, size, stride }))
    }

    /// A rectifier that is cut off, without levels: these have no derivative.
    pub fn pact(self, alpha: f32) -> Self {
        self.push(Layer::Pact(Pact::new(alpha, None)))
    }

    pub fn act(self, f: Activation) -> Self {
        self.push(Layer::Activation(f))
    }

    /// Batch normalisation of the features as `channels`, with nothing left at its default.
    pub fn norm(mut self, channels: usize) -> Self {
        let mut norm = BatchNorm::new(channels, self.features / channels);
        let mut column = |mean: f32| Param::new(self.random.normal_array(channels, 1, 0.3) + mean, vec![channels]);
        (norm.gamma, norm.beta) = (column(1.0), column(0.0));
        norm.mean.iter_mut().for_each(|m| *m = 0.5 * self.random.normal());
        norm.variance.iter_mut().for_each(|v| *v = 0.5 + self.random.uniform());
        self.push(Layer::BatchNorm(norm))
    }

    pub fn build(self) -> Network {
        Network::new(self.inputs, self.layers).unwrap()
    }
}

/// Normal inputs, and targets: soft for the cross-entropy, with row sums from 0.5 to 1.5 (the formulas have Σt in them);
/// normal for the squared error.
pub fn data(net: &Network, seed: u64, batch: usize, loss: Loss) -> (Array2<f32>, Array2<f32>) {
    let mut random = Seed(seed).stream("data");
    let x = random.normal_array(batch, net.inputs(), 1.0);
    let outputs = net.forward(&x).ncols();
    let target = match loss {
        Loss::SquaredError => random.normal_array(batch, outputs, 1.0),
        Loss::CrossEntropy | Loss::TemperedCrossEntropy { .. } => {
            let weights = Array2::from_shape_simple_fn((batch, outputs), || random.uniform() + 0.05);
            let sums = Array2::from_shape_simple_fn((batch, 1), || random.uniform() + 0.5);
            &weights / &weights.sum_axis(Axis(1)).insert_axis(Axis(1)) * sums
        }
    };
    (x, target)
}

/// How far the nearest kink is: the least |a| before a ReLU, the least lead of a maximum over the second in its window. Equal
/// zeros behind a ReLU are no kink, for they do not move.
pub fn clearance(net: &Network, x: &Array2<f32>, mode: Mode) -> f32 {
    let before = |i: usize| {
        let prefix = Network::new(net.inputs(), net.layers()[..i].to_vec()).unwrap();
        prefix.run(x.clone(), mode).output().clone()
    };
    let mut least = f32::INFINITY;
    for (i, (_, layer)) in net.layers().iter().enumerate() {
        match layer {
            Layer::Activation(Activation::Relu) => least = before(i).fold(least, |m, a| m.min(a.abs())),
            Layer::Pact(p) => least = before(i).fold(least, |m, a| m.min(a.abs()).min((a - p.height()).abs())),
            Layer::Pool(p) if p.pooling == Pooling::Max => {
                let (a, (c, h, w), (_, oh, ow)) = (before(i), p.input, p.output());
                for (n, ch, oi, oj) in indices4(a.nrows(), c, oh, ow) {
                    let at = |(k, l): (usize, usize)| a[[n, (ch * h + oi * p.stride + k) * w + oj * p.stride + l]];
                    let mut window: Vec<f32> = (0..p.size * p.size).map(|o| at((o / p.size, o % p.size))).collect();
                    window.sort_by(f32::total_cmp);
                    let (second, first) = (window[window.len() - 2], window[window.len() - 1]);
                    if (first, second) != (0.0, 0.0) {
                        least = least.min(first - second);
                    }
                }
            }
            _ => {}
        }
    }
    least
}

/// The first seed whose network and data keep `margin` from every kink, with what it makes: always the same one.
pub fn clear_of_kinks(
    margin: f32,
    mode: Mode,
    loss: Loss,
    batch: usize,
    make: impl Fn(u64) -> Network,
) -> (Network, Array2<f32>, Array2<f32>) {
    for seed in 0..20_000 {
        let net = make(seed);
        let (x, target) = data(&net, seed, batch, loss);
        if clearance(&net, &x, mode) > margin {
            return (net, x, target);
        }
    }
    panic!("no seed keeps {margin} from the kinks");
}

/// The largest absolute entry; infinite where one is NaN.
pub fn largest<'a>(values: impl IntoIterator<Item = &'a f32>) -> f64 {
    values.into_iter().fold(0.0, |m, &v| if v.is_nan() { f64::INFINITY } else { m.max(f64::from(v).abs()) })
}

/// Random directions of unit length over all parameters.
pub fn direction(net: &Network, seed: u64) -> Vec<Array2<f32>> {
    let mut random = Seed(seed).stream("direction");
    let mut v: Vec<Array2<f32>> =
        net.params().iter().map(|(_, p)| random.normal_array(p.value().nrows(), p.value().ncols(), 1.0)).collect();
    let length = dot(&v, &v).sqrt() as f32;
    v.iter_mut().for_each(|v| *v /= length);
    v
}

/// The inner product over all parameters, in f64.
pub fn dot(a: &[Array2<f32>], b: &[Array2<f32>]) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).flat_map(|(a, b)| a.iter().zip(b));
    pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Asserts `max |found − expected| ≤ absolute + relative · max |expected|` for each parameter, naming it.
pub fn assert_near(what: &str, net: &Network, found: &[Array2<f32>], expected: &[Array2<f32>], absolute: f64, relative: f64) {
    let names = net.params();
    assert!(found.len() == names.len() && expected.len() == names.len(), "{what}: one array a parameter");
    for (((name, param), found), expected) in names.iter().zip(found).zip(expected) {
        assert!(found.dim() == param.value().dim() && found.dim() == expected.dim(), "{what}, {name}: shapes");
        let bound = absolute + relative * largest(expected);
        // An infinite bound would let everything through.
        assert!(bound.is_finite(), "{what}, {name}: the largest is {:.2e}", largest(expected));
        assert_close(&found.mapv(f64::from), &expected.mapv(f64::from), bound, format!("{what}, {name}"));
    }
}

/// All quadruples, the last fastest.
pub fn indices4(a: usize, b: usize, c: usize, d: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..a * b * c * d).map(move |i| (i / (b * c * d), i / (c * d) % b, i / d % c, i % d))
}

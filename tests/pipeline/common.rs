//! Networks, data and criteria that all these tests use.

use lacuna::allocate::{Allocate, Er, Erk, Global, Lamp, Target, Uniform};
use lacuna::criteria::{Fisher, Grasp, Magnitude, MagnitudeNorm, Obd, Random, Saliency, Snip, SynFlow, Taylor};
use lacuna::data::digits;
use lacuna::mask::{Pattern, Scope};
use lacuna::models::{Builder, Init, mlp};
use lacuna::nn::{Activation, Loss, Method, Network, Pooling};
use lacuna::prune::Pruning;
use lacuna::rng::Seed;
use lacuna::train::{Decay, TrainConfig};
use ndarray::{Array2, Axis};

/// Samples with one-hot targets.
pub type Data = (Array2<f32>, Array2<f32>);

/// `train` and `test` digits of a random split.
pub fn split_digits(seed: u64, train: usize, test: usize) -> (Data, Data) {
    let all = digits();
    let order = Seed(seed).stream("split").permutation(all.len());
    let part = |rows: &[usize]| (all.select(rows).x().clone(), all.select(rows).one_hot(1.0, 0.0));
    (part(&order[..train]), part(&order[train..train + test]))
}

/// Standardised digits with targets ±1, as the demo has them.
pub fn standardised(seed: Seed) -> Data {
    let all = digits();
    let order = seed.stream("held-out samples").permutation(all.len());
    let (train, _) = all.split(&order[..450]);
    let mean = train.x().mean_axis(Axis(0)).unwrap();
    let sd = train.x().std_axis(Axis(0), 0.0).mapv(|s| s.max(0.3));
    ((train.x() - &mean) / &sd, train.one_hot(1.0, -1.0))
}

pub fn recipe(method: Method, learning_rate: f32, epochs: usize) -> TrainConfig {
    TrainConfig { loss: Loss::CrossEntropy, method, learning_rate, decay: Decay::Cosine, epochs, batch: 32, seed: Seed(1) }
}

pub const ADAM: Method = Method::Adam { weight_decay: 0.0 };

/// 64-24-12-10.
pub fn small_mlp(seed: u64) -> Network {
    mlp(&[64, 24, 12, 10], Activation::Tanh, Init::Glorot, Seed(seed)).unwrap()
}

/// A convnet with batch normalisation after every convolution, one with padding and one with a stride, pooling, two linear layers.
pub fn small_convnet(seed: u64) -> Network {
    Builder::image((1, 8, 8), Init::He, Seed(seed))
        .conv(4, 3, 1, 1) // (4, 8, 8)
        .batch_norm()
        .activation(Activation::Relu)
        .pool(Pooling::Max, 2) // (4, 4, 4)
        .conv(8, 3, 2, 1) // (8, 2, 2)
        .batch_norm()
        .activation(Activation::Gelu)
        .linear(16)
        .activation(Activation::Relu)
        .linear(10)
        .build()
        .unwrap()
}

/// Every criterion.
pub fn criteria() -> Vec<Box<dyn Saliency>> {
    vec![
        Box::new(Random { seed: Seed(5) }),
        Box::new(Magnitude { norm: MagnitudeNorm::L1 }),
        Box::new(Magnitude { norm: MagnitudeNorm::L2 }),
        Box::new(Taylor),
        Box::new(Snip),
        Box::new(Grasp),
        Box::new(SynFlow),
        Box::new(Fisher),
        Box::new(Obd),
    ]
}

/// Every allocation.
pub fn allocations() -> Vec<Box<dyn Allocate>> {
    vec![Box::new(Uniform), Box::new(Global), Box::new(Er), Box::new(Erk), Box::new(Lamp)]
}

/// Unstructured, in layer scope, nothing skipped.
pub fn pruning<'a>(saliency: &'a dyn Saliency, allocate: &'a dyn Allocate, sparsity: f64) -> Pruning<'a> {
    let (pattern, scope) = (Pattern::Unstructured, Scope::Layer);
    Pruning { saliency, allocate, target: Target::Sparsity(sparsity), pattern, scope, skip: &[] }
}

/// The bits of all parameters, and of batch normalisation's averages through a forward pass.
pub fn bits(network: &Network, x: &Array2<f32>) -> Vec<u32> {
    let output = network.forward(x);
    let params = network.params();
    params.iter().flat_map(|(_, p)| p.as_slice()).chain(&output).map(|v| v.to_bits()).collect()
}

/// `f` on a pool of this many threads.
pub fn on_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

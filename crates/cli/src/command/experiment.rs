//! What the demo measures: one network after another, all from the library.

use lacuna::Result;
use lacuna::allocate::{Global, Target};
use lacuna::calibrate::Calibration;
use lacuna::criteria::{Magnitude, MagnitudeNorm, Obd, Random, Saliency, Snip};
use lacuna::data::digits;
use lacuna::eval::{Score, Size, score};
use lacuna::mask::{Pattern, Scope};
use lacuna::models::{digits_convnet, digits_shared};
use lacuna::nn::{Curvature, Loss, Method, Network};
use lacuna::prune::{Outcome, Pruning, one_shot, prune_units, shrink};
use lacuna::report::median;
use lacuna::rng::Seed;
use lacuna::train::{Decay, TrainConfig, fit};
use ndarray::{Array2, Axis};
use serde::Serialize;
use std::time::Instant;

/// The criteria that are compared.
pub const METHODS: [&str; 4] = ["random", "magnitude", "snip", "obd"];
/// Shares of the weights that go.
pub const SPARSITIES: [f64; 12] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98];
/// Shares of the units that go.
pub const UNITS: [f64; 4] = [0.0, 0.25, 0.5, 0.75];
/// Samples kept aside.
const HELD_OUT: usize = 450;

/// The digits of one seed: a random split, every pixel standardised by the training part's mean and deviation.
///
/// Standardised inputs are what makes Optimal Brain Damage's diagonal a fair picture of the Hessian: inputs that are all
/// positive couple all the weights of a unit.
pub struct Data {
    pub seed: Seed,
    pub train: (Array2<f32>, Array2<f32>),
    pub test: (Array2<f32>, Array2<f32>),
    /// Of each pixel: what was subtracted, and what was divided by.
    pub standard: (Vec<f32>, Vec<f32>),
}

impl Data {
    /// Targets are `on` for the digit and `off` for the others.
    pub fn new(seed: Seed, on: f32, off: f32) -> Self {
        let all = digits();
        let order = seed.stream("held-out samples").permutation(all.len());
        let (train, test) = all.split(&order[..HELD_OUT]);
        let mean = train.x().mean_axis(Axis(0)).unwrap_or_default();
        let sd = train.x().std_axis(Axis(0), 0.0).mapv(|s| s.max(0.3)); // some border pixels are hardly ever inked
        let standardise = |x: &Array2<f32>| (x - &mean) / &sd;
        Data {
            seed,
            train: (standardise(train.x()), train.one_hot(on, off)),
            test: (standardise(test.x()), test.one_hot(on, off)),
            standard: (mean.to_vec(), sd.to_vec()),
        }
    }
}

/// One network of the comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub seed: u64,
    pub method: &'static str,
    pub retrained: bool,
    /// Share of the linear and convolutional weights that went.
    pub sparsity: f64,
    /// On the samples kept aside.
    pub accuracy: f64,
    /// Mean squared error on the training samples.
    pub loss: f64,
    /// Sum of the saliencies of what went, where the method predicts the loss and nothing was retrained.
    pub predicted_increase: Option<f64>,
    /// Loss less the dense network's.
    pub measured_increase: f64,
    /// Share that went of each layer.
    pub layers: Vec<(String, f64)>,
}

/// A trained network, and the one it began as.
pub struct Trained {
    pub data: Data,
    pub initial: Network,
    pub dense: Network,
    pub score: Score,
}

const LOSS: Loss = Loss::SquaredError;

/// Epochs from the initial weights, and epochs that a pruned network trains on.
const EPOCHS: (usize, usize) = (40, 8);

/// No weight decay: it holds the network off the minimum of the loss, and Optimal Brain Damage's prediction, which leaves the
/// first-order term out, then falls short (to 0.51 to 0.66 of the measured at 30 % with a decay of 0.1).
fn recipe(epochs: usize, seed: Seed) -> TrainConfig {
    let method = Method::Adam { weight_decay: 0.0 };
    TrainConfig { loss: LOSS, method, learning_rate: 5e-3, decay: Decay::Cosine, epochs, batch: 32, seed }
}

/// Trains the shared-weight network of one seed.
pub fn train(seed: Seed) -> Result<Trained> {
    let data = Data::new(seed, 0.9, -0.9);
    let initial = digits_shared(seed)?;
    let mut dense = initial.clone();
    fit(&mut dense, &data.train.0, &data.train.1, &recipe(EPOCHS.0, seed))?;
    let score = score(&dense, &data.train.0, &data.train.1, LOSS);
    Ok(Trained { data, initial, dense, score })
}

fn saliency(method: &str, seed: Seed) -> Box<dyn Saliency> {
    match method {
        "random" => Box::new(Random { seed }),
        "magnitude" => Box::new(Magnitude { norm: MagnitudeNorm::L1 }),
        "snip" => Box::new(Snip),
        _ => Box::new(Obd),
    }
}

/// Prunes `network` by one of [`METHODS`], all weights ranked together.
fn prune(network: &Network, t: &Trained, method: &str, sparsity: f64) -> Result<Outcome> {
    // The exact recursion: the Gauss-Newton form's predictions are a tenth lower.
    let data = Calibration { curvature: Curvature::Exact, ..Calibration::new(&t.data.train.0, &t.data.train.1, LOSS) };
    let saliency = saliency(method, t.data.seed);
    let pruning = Pruning {
        saliency: saliency.as_ref(),
        allocate: &Global,
        target: Target::Sparsity(sparsity),
        pattern: Pattern::Unstructured,
        scope: Scope::Layer,
        skip: &[],
    };
    one_shot(network, &data, &pruning)
}

/// One row, and its network. SNIP finds its mask on the initial network, as its paper does: one-shot, that mask is laid on
/// the trained network; retrained, the initial network is trained under it from the start. The others score the trained
/// network and then train on for a fifth of the epochs. At sparsity 0 the retrained row is the control: the same training
/// with nothing pruned.
pub fn compare(t: &Trained, method: &'static str, retrained: bool, sparsity: f64) -> Result<(Row, Network)> {
    let (x, target) = &t.data.train;
    let seed = t.data.seed;
    let (mut network, predicted) = if method == "snip" {
        let masks = prune(&t.initial, t, method, sparsity)?.masks;
        let mut network = if retrained { t.initial.clone() } else { t.dense.clone() };
        for (name, mask) in masks {
            network.param_mut(&format!("{name}.weight"))?.set_mask(mask)?;
        }
        (network, None)
    } else {
        let outcome = prune(&t.dense, t, method, sparsity)?;
        (outcome.model, outcome.predicted_increase)
    };
    if retrained {
        let recipe = recipe(if method == "snip" { EPOCHS.0 } else { EPOCHS.1 }, seed);
        fit(&mut network, x, target, &recipe)?;
    }
    let (train, test) = (score(&network, x, target, LOSS), score(&network, &t.data.test.0, &t.data.test.1, LOSS));
    let layers = Size::of(&network)?.layers.into_iter().map(|(name, n, kept)| (name, 1.0 - kept as f64 / n as f64)).collect();
    let row = Row {
        seed: seed.0,
        method,
        retrained,
        sparsity,
        accuracy: test.accuracy,
        loss: train.loss,
        predicted_increase: predicted.filter(|_| !retrained),
        measured_increase: train.loss - t.score.loss,
        layers,
    };
    Ok((row, network))
}

/// A convnet whose channels and hidden units were removed for real.
#[derive(Debug, Clone, Serialize)]
pub struct Shrunk {
    pub seed: u64,
    /// Share of the units of every group that went.
    pub units: f64,
    pub parameters: usize,
    pub flops: usize,
    /// On the samples kept aside, after retraining.
    pub accuracy: f64,
    /// Largest difference between an output of the masked and of the smaller network.
    pub difference: f64,
    /// Microseconds for one pass over the samples kept aside: masked, and smaller.
    pub masked_us: f64,
    pub shrunk_us: f64,
}

/// Trains a convnet with batch normalisation, masks units by Optimal Brain Damage, retrains, and removes them. Nothing is
/// timed here: see [`time`].
pub fn remove_units(seed: Seed) -> Result<Vec<(Shrunk, [Network; 2])>> {
    let data = Data::new(seed, 1.0, 0.0);
    let mut dense = digits_convnet([16, 32], 64, seed)?;
    let (x, target) = &data.train;
    let recipe = |epochs| TrainConfig {
        loss: Loss::CrossEntropy,
        method: Method::AdamW { weight_decay: 0.01 },
        learning_rate: 3e-3,
        decay: Decay::Cosine,
        epochs,
        batch: 64,
        seed,
    };
    fit(&mut dense, x, target, &recipe(10))?;
    let row = |units: f64| {
        let mut masked = prune_units(&dense, &Calibration::new(x, target, Loss::CrossEntropy), &Obd, units)?;
        fit(&mut masked, x, target, &recipe(5))?;
        let small = shrink(&masked)?;
        let (a, b) = (masked.forward(&data.test.0), small.forward(&data.test.0));
        let row = Shrunk {
            seed: seed.0,
            units,
            parameters: small.parameters(),
            flops: small.flops(),
            accuracy: score(&small, &data.test.0, &data.test.1, Loss::CrossEntropy).accuracy,
            difference: super::largest_difference(&a, &b)?,
            masked_us: 0.0,
            shrunk_us: 0.0,
        };
        Ok((row, [masked, small]))
    };
    UNITS.into_iter().map(row).collect()
}

/// Fills in the times of a row, measured alternately on otherwise idle cores.
pub fn time(row: &mut Shrunk, networks: &[Network; 2]) -> Result<()> {
    let data = Data::new(Seed(row.seed), 1.0, 0.0);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..15 {
        for (network, times) in networks.iter().zip(&mut times) {
            let start = Instant::now();
            std::hint::black_box(network.forward(&data.test.0));
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    (row.masked_us, row.shrunk_us) = (median(&times[0])?, median(&times[1])?);
    Ok(())
}

//! Images of digits, as several papers have them: MNIST in a full run, the embedded digits in a quick one.

use super::Options;
use crate::Result;
use crate::calibrate::Calibration;
use crate::data::{Dataset, data_dir, digits, mnist};
use crate::eval::score;
use crate::models::{Init, lenet_300_100, mlp};
use crate::nn::{Activation, Loss, Method, Network};
use crate::rng::Seed;
use crate::train::{Decay, TrainConfig, fit};
use ndarray::{Array2, s};

/// Digits to learn and digits to be judged on, `(samples, pixels)` in [0, 1] with targets `(samples, 10)` of cross-entropy.
#[derive(Debug, Clone, PartialEq)]
pub struct DigitImages {
    /// To be learnt.
    pub train: (Array2<f32>, Array2<f32>),
    /// To be judged on.
    pub test: (Array2<f32>, Array2<f32>),
}

impl DigitImages {
    /// In a quick run 1347 and 450 of the embedded digits, in a full one `samples` of MNIST's training images (or all, if there are fewer), drawn by the seed, and all
    /// its test images; with `--held-out` both are of the training images.
    ///
    /// # Errors
    /// If MNIST is not there: the message says how to get it.
    pub fn load(options: &Options, samples: usize, seed: Seed) -> Result<DigitImages> {
        let (train, test) = if options.quick {
            let all = digits();
            all.split(&seed.stream("held-out samples").permutation(all.len())[..450])
        } else {
            mnist(data_dir().join("mnist"))?
        };
        let (train, test) = options.samples(train, test);
        let chosen = seed.stream("training samples").permutation(train.len());
        let train = if options.quick { train } else { train.select(&chosen[..samples.min(train.len())]) };
        let part = |set: &Dataset| (set.x().clone(), set.one_hot(1.0, 0.0));
        Ok(DigitImages { train: part(&train), test: part(&test) })
    }

    /// LeNet-300-100, or in a quick run 64-60-30-10; rectifiers, Glorot weights.
    ///
    /// # Errors
    /// Never.
    pub fn network(options: &Options, seed: Seed) -> Result<Network> {
        if options.quick { mlp(&[64, 60, 30, 10], Activation::Relu, Init::Glorot, seed) } else { lenet_300_100(seed) }
    }

    /// Training by Adam at 1.2e-3 in batches of 60, as Frankle and Carbin train LeNet-300-100; to be changed.
    pub fn config(epochs: usize, seed: Seed) -> TrainConfig {
        let (loss, method, decay) = (Loss::CrossEntropy, Method::Adam { weight_decay: 0.0 }, Decay::Constant);
        TrainConfig { loss, method, learning_rate: 1.2e-3, decay, epochs, batch: 60, seed }
    }

    /// The training samples, to be trained or measured on.
    pub fn samples(&self) -> Calibration<'_> {
        Calibration::new(&self.train.0, &self.train.1, Loss::CrossEntropy)
    }

    /// Trains, masks held.
    ///
    /// # Errors
    /// As [`fit`].
    pub fn fit(&self, network: &mut Network, config: &TrainConfig) -> Result<()> {
        fit(network, &self.train.0, &self.train.1, config).map(drop)
    }

    /// How many of the test samples are right, %.
    pub fn accuracy(&self, network: &Network) -> f64 {
        100.0 * score(network, &self.test.0, &self.test.1, Loss::CrossEntropy).accuracy
    }

    /// The mean loss on the first test samples, up to 2000, nats: soon enough to be looked at after every epoch.
    pub fn test_loss(&self, network: &Network) -> f64 {
        let some = s![..self.test.0.nrows().min(2000), ..];
        score(network, &self.test.0.slice(some), &self.test.1.slice(some), Loss::CrossEntropy).loss
    }
}

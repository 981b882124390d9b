//! One seed's task: samples, the network, training, deleting.

use lacuna::Result;
use lacuna::allocate::{Global, Target};
use lacuna::calibrate::Calibration;
use lacuna::criteria::{Obd, Saliency};
use lacuna::data::{Dataset, Standard, data_dir, digits, mnist};
use lacuna::eval::{Size, score};
use lacuna::mask::{Pattern, Scope};
use lacuna::models::{digits_shared, lecun_1990};
use lacuna::nn::{Curvature, Loss, Method, Network};
use lacuna::paper::Options;
use lacuna::prune::{Outcome, Pruning, one_shot};
use lacuna::rng::Seed;
use lacuna::train::{Decay, TrainConfig, fit};
use ndarray::{Array2, s};

const LOSS: Loss = Loss::SquaredError;
/// Deleted in these steps, each by saliencies measured anew, and trained on after each.
pub const STEPS: [f64; 4] = [0.2, 0.4, 0.5, 0.6];

/// The samples of one seed with their targets, the network's beginning, and epochs: at first, and after each step of deletion.
pub struct Task {
    pub train: (Array2<f32>, Array2<f32>),
    pub test: (Array2<f32>, Array2<f32>),
    pub network: Network,
    pub epochs: (usize, usize),
    pub seed: Seed,
}

/// Training and test MSE, and test error in %.
pub type Errors = (f64, f64, f64);

impl Task {
    pub fn load(options: &Options, seed: Seed) -> Result<Task> {
        let (train, test, network) = if options.quick {
            let all = digits();
            let (train, test) = all.split(&seed.stream("held-out samples").permutation(all.len())[..450]);
            (train, test, digits_shared(seed)?)
        } else {
            // As many digits as the paper had, scaled as the paper scaled them: 16×16 in the middle of 28×28.
            let (train, test) = mnist(data_dir().join("mnist"))?;
            let some = |set: Dataset, n: usize| -> Result<Dataset> {
                let chosen = seed.stream("digits").permutation(set.len());
                set.select(&chosen[..n]).centred(20, 20, 0.0)?.resized(16, 16)?.centred(28, 28, 0.0)
            };
            (some(train, 9300)?, some(test, 3350)?, lecun_1990(seed)?)
        };
        // Standardised inputs: positive ones couple all weights of a unit, and the Hessian is then far from diagonal.
        let standard = if options.quick { Standard::each(train.x(), 0.3) } else { Standard::whole(train.x()) };
        let part = |set: &Dataset| standard.samples(set, 0.9, -0.9);
        Ok(Task { train: part(&train), test: part(&test), network, epochs: options.pick((40, 10), (14, 3)), seed })
    }

    pub fn fit(&self, mut network: Network, epochs: usize) -> Result<Network> {
        let method = Method::Adam { weight_decay: 0.0 };
        let recipe =
            TrainConfig { loss: LOSS, method, learning_rate: 5e-3, decay: Decay::Cosine, epochs, batch: 32, seed: self.seed };
        fit(&mut network, &self.train.0, &self.train.1, &recipe).map(|_| network)
    }

    pub fn errors(&self, network: &Network) -> Errors {
        let [train, test] = [&self.train, &self.test].map(|(x, t)| score(network, x, t, LOSS));
        (train.loss, test.loss, 100.0 * (1.0 - test.accuracy))
    }

    /// The same with so few samples to learn from, four times as often.
    pub fn little(mut self, samples: usize) -> Task {
        self.train = (self.train.0.slice(s![..samples, ..]).to_owned(), self.train.1.slice(s![..samples, ..]).to_owned());
        self.epochs = (4 * self.epochs.0, 4 * self.epochs.1);
        self
    }

    /// Errors after each step of deleting and training on, then of the dense network trained on for as long.
    pub fn retrained(&self, dense: &Network) -> Result<Vec<Errors>> {
        let (mut pruned, mut control, mut found) = (dense.clone(), dense.clone(), Vec::new());
        for share in STEPS {
            pruned = self.fit(self.prune(&pruned, &Obd, share)?.model, self.epochs.1)?;
            found.push(self.errors(&pruned));
            control = self.fit(control, self.epochs.1)?;
        }
        Ok([found, vec![self.errors(&control)]].concat())
    }

    /// Deletes until this share of the dense network's weights is gone.
    pub fn prune(&self, network: &Network, saliency: &dyn Saliency, share: f64) -> Result<Outcome> {
        let of = Size::of(&self.network)?.kept_weights as f64;
        let data = Calibration { curvature: Curvature::Exact, ..Calibration::new(&self.train.0, &self.train.1, LOSS) };
        let target = Target::Parameters((of * (1.0 - share)).round() as usize);
        let (allocate, pattern, scope) = (&Global, Pattern::Unstructured, Scope::Layer);
        one_shot(network, &data, &Pruning { saliency, allocate, target, pattern, scope, skip: &[] })
    }
}

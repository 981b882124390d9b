//! LeCun, Denker, Solla 1989, *Optimal Brain Damage*: the curves of the paper on a shared-weight network for digits.
//!
//! `cargo run --release --example optimal_brain_damage -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::allocate::{Global, Target};
use lacuna::calibrate::Calibration;
use lacuna::criteria::{Magnitude, Obd, Random, Saliency};
use lacuna::data::{Dataset, Standard, data_dir, digits, mnist};
use lacuna::eval::{Size, score};
use lacuna::mask::{Pattern, Scope};
use lacuna::models::{digits_shared, lecun_1990};
use lacuna::nn::{Curvature, Loss, Method, Network};
use lacuna::paper::{Figures, Options, Study};
use lacuna::prune::{Outcome, Pruning, one_shot};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::train::{Decay, TrainConfig, fit};
use ndarray::Array2;

const LOSS: Loss = Loss::SquaredError;
const SHARES: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
/// Deleted in these steps, each by saliencies measured anew, and trained on after each.
const STEPS: [f64; 4] = [0.2, 0.4, 0.5, 0.6];

/// The samples of one seed with their targets, the network's beginning, and epochs: at first, and after each step of deletion.
struct Task {
    train: (Array2<f32>, Array2<f32>),
    test: (Array2<f32>, Array2<f32>),
    network: Network,
    epochs: (usize, usize),
    seed: Seed,
}

impl Task {
    fn load(options: &Options, seed: Seed) -> Result<Task> {
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

    fn fit(&self, mut network: Network, epochs: usize) -> Result<Network> {
        let method = Method::Adam { weight_decay: 0.0 };
        let recipe =
            TrainConfig { loss: LOSS, method, learning_rate: 5e-3, decay: Decay::Cosine, epochs, batch: 32, seed: self.seed };
        fit(&mut network, &self.train.0, &self.train.1, &recipe).map(|_| network)
    }

    /// Training and test MSE, and test error in %.
    fn errors(&self, network: &Network) -> (f64, f64, f64) {
        let [train, test] = [&self.train, &self.test].map(|(x, t)| score(network, x, t, LOSS));
        (train.loss, test.loss, 100.0 * (1.0 - test.accuracy))
    }

    /// Deletes until this share of the dense network's weights is gone.
    fn prune(&self, network: &Network, saliency: &dyn Saliency, share: f64) -> Result<Outcome> {
        let of = Size::of(&self.network)?.kept_weights as f64;
        let data = Calibration { curvature: Curvature::Exact, ..Calibration::new(&self.train.0, &self.train.1, LOSS) };
        let target = Target::Parameters((of * (1.0 - share)).round() as usize);
        let (allocate, pattern, scope) = (&Global, Pattern::Unstructured, Scope::Layer);
        one_shot(network, &data, &Pruning { saliency, allocate, target, pattern, scope, skip: &[] })
    }
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let mut study = Study::default();
    let mut rows = Table::new(["seed", "method", "share deleted", "training MSE", "test MSE", "test error, %", "predicted"]);
    let mut values: [Vec<(Seed, f64)>; 9] = Default::default();
    let mut parameters = 0;
    for &seed in options.seeds() {
        let task = Task::load(options, seed)?;
        parameters = task.network.kept_parameters();
        let dense = task.fit(task.network.clone(), task.epochs.0)?;
        let base = task.errors(&dense);
        let methods: [&dyn Saliency; 3] = [&Obd, &Magnitude::default(), &Random { seed }];
        let mut increase = vec![Vec::new(); 3];
        for (m, saliency) in methods.into_iter().enumerate() {
            for share in SHARES {
                let outcome = task.prune(&dense, saliency, share)?;
                let e = task.errors(&outcome.model);
                rows.row((seed.0, saliency.name(), share, e.0, e.1, e.2, outcome.predicted_increase));
                increase[m].push((e.0 - base.0, outcome.predicted_increase));
            }
        }
        let share = |i: usize| increase[0][i].1.unwrap_or(f64::NAN) / increase[0][i].0;
        let (mut pruned, mut control) = (dense.clone(), dense.clone());
        for share in STEPS {
            pruned = task.fit(task.prune(&pruned, &Obd, share)?.model, task.epochs.1)?;
            let e = task.errors(&pruned);
            rows.row((seed.0, "OBD, retrained", share, e.0, e.1, e.2, None::<f64>));
            control = task.fit(control, task.epochs.1)?;
        }
        let (after, same) = (task.errors(&pruned), task.errors(&control));
        rows.row((seed.0, "dense, trained as long", 0.0, same.0, same.1, same.2, None::<f64>));
        let change = |a: f64, b: f64| vec![100.0 * (a / b - 1.0)];
        let ratios = (0..3).map(share).collect();
        let over = (1..7).map(|i| increase[0][i].0 / increase[1][i].0).collect();
        let changes = [change(after.0, base.0), change(after.1, base.1), change(after.1, same.1)];
        let all = [vec![base.2], vec![base.1], ratios, vec![share(5)], over, vec![increase[2][2].0 / increase[0][2].0]]
            .into_iter()
            .chain(changes);
        values.iter_mut().zip(all).for_each(|(v, numbers)| v.extend(numbers.into_iter().map(|n| (seed, n))));
    }
    let ours = options.pick("digits 8×8, 1347 and 450", "MNIST at 16×16 in 28×28, 9300 and 3350");
    let ours = format!("{parameters} shared parameters, {ours} samples");
    let c = study.claims.setting("2578 shared parameters, 9300 and 3350 digits", ours);
    let texts = [
        ("dense: test error, %", "–", "mean < 5", 1),
        ("dense: test MSE", "–", "mean < 0.6", 3),
        ("predicted over measured increase, 10, 20 and 30 % deleted", "about 1 up to 30 %", "every in 0.5 .. 1.5", 2),
        ("the same, 60 % deleted", "they part", "mean < 0.5", 2),
        ("increase by OBD over that by magnitude, 20 to 70 % deleted", "far below 1", "every < 1", 2),
        ("increase by random over that by OBD, 30 % deleted", "off the scale", "every > 5", 0),
        ("change of training MSE, 60 % deleted and retrained, %", "almost none", "mean <= 5", 1),
        ("change of test MSE, 60 % deleted and retrained, %", "almost none", "mean <= 5", 1),
        ("the same against the dense network trained on as long, %", "–", "mean <= 5", 1),
    ];
    for ((what, paper, rule, digits), v) in texts.into_iter().zip(values) {
        c.add(what, paper, rule, digits)?.extend(v);
    }
    study.tables.push(("curves".into(), rows));
    Ok(study)
}

/// The training error against the share deleted.
pub fn draw(study: &Study) -> Result<Figures> {
    let rows = study.table("curves")?;
    let mut figure = Figure::new("Deleted without retraining", "share deleted", "training MSE").percent_x().log_y();
    for (name, method) in [("OBD", "obd"), ("magnitude", "magnitude"), ("random", "random")] {
        figure = figure.line(name, &rows.only("method", method)?, "share deleted", "training MSE")?;
    }
    Ok(vec![("deleted".into(), figure.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("optimal_brain_damage", run, draw)
}

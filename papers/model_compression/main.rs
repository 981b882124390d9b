//! Bucilă, Caruana, Niculescu-Mizil 2006, *Model compression*: a large ensemble in one small network, through synthetic samples.
//!
//! `cargo run --release --example model_compression -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::io::{Dataset, data_dir, digits, table};
use lacuna::metrics::agreement;
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Loss, Method, Network, softmax};
use lacuna::paper::{Options, Study};
use lacuna::recover::{Decay, Munge, Recipe, fit, munge};
use lacuna::report::{Figure, Point, Table};
use lacuna::rng::Seed;
use ndarray::{Array2, Axis};
use rayon::prelude::*;

/// A table split into training and test samples, standardised, and the sizes of the experiment.
struct Task {
    name: &'static str,
    train: Dataset,
    test: Dataset,
    members: u64,
    hidden: usize,
    epochs: usize,
    times: Vec<usize>, // synthetic samples, in training sets
    steps: usize,      // of training on them, whatever their number
}

fn tasks(options: &Options, seed: Seed) -> Result<Vec<Task>> {
    let task = |name, all: Dataset, samples: usize, members, hidden, epochs, times: &[usize], steps| -> Result<Task> {
        let order = seed.stream("training samples").permutation(all.len());
        let (train, test) = (all.select(&order[..samples]), all.select(&order[samples..]));
        let mean = train.x().mean_axis(Axis(0)).unwrap_or_default();
        let sd = train.x().std_axis(Axis(0), 0.0).mapv(|s| if s > 0.05 { s } else { 1.0 });
        let standard = |d: &Dataset| Dataset::new((d.x() - &mean) / &sd, d.labels().to_vec(), d.classes(), d.shape());
        Ok(Task { name, train: standard(&train)?, test: standard(&test)?, members, hidden, epochs, times: times.to_vec(), steps })
    };
    if options.quick {
        return Ok(vec![task("digits 8×8", digits(), 300, 20, 12, 40, &[1, 10], 6000)?]);
    }
    let file = |name: &str| table(data_dir().join(name).join(format!("{name}.csv")));
    Ok(vec![
        task("letter", file("letter")?, 4000, 100, 64, 40, &[1, 3, 10], 30_000)?,
        task("satellite", file("satellite")?, 1500, 100, 32, 60, &[1, 3, 10], 20_000)?,
    ])
}

impl Task {
    fn fit(&self, x: &Array2<f32>, target: &Array2<f32>, loss: Loss, epochs: usize, seed: Seed) -> Result<Network> {
        let mut network = mlp(&[x.ncols(), self.hidden, target.ncols()], Activation::Tanh, Init::Glorot, seed)?;
        let method = Method::Adam { weight_decay: 0.0 };
        let recipe = Recipe { loss, method, learning_rate: 5e-3, decay: Decay::Cosine, epochs, batch: 64, seed };
        fit(&mut network, x, target, &recipe)?;
        Ok(network)
    }

    /// Networks of one size, each on a bootstrap sample.
    fn ensemble(&self, seed: Seed) -> Result<Vec<Network>> {
        let member = |k: u64| {
            let mut draw = seed.stream(&format!("bootstrap/{k}"));
            let rows: Vec<usize> = (0..self.train.len()).map(|_| draw.below(self.train.len())).collect();
            let part = self.train.select(&rows);
            self.fit(part.x(), &part.one_hot(1.0, 0.0), Loss::CrossEntropy, self.epochs, Seed(1000 * seed.0 + k + 1))
        };
        (0..self.members).into_par_iter().map(member).collect()
    }

    fn accuracy(&self, output: &Array2<f32>) -> f64 {
        100.0 * agreement(output, self.test.labels())
    }
}

/// The logarithm of the mean of the members' probabilities, each row of mean 0: what the small network learns.
fn logits(members: &[Network], x: &Array2<f32>) -> Array2<f32> {
    let parts: Vec<Array2<f32>> = members.par_iter().map(|n| softmax(&n.forward(x))).collect();
    let mut sum = Array2::<f32>::zeros(parts[0].dim());
    parts.iter().for_each(|p| sum += p);
    let log = sum.mapv(|p| (p / members.len() as f32).max(1e-4).ln());
    let mean = log.mean_axis(Axis(1)).unwrap_or_default().insert_axis(Axis(1));
    log - mean
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    let mut study = Study::default();
    let mut rows = Table::new(["table", "seed", "model", "synthetic samples", "parameters", "test accuracy, %"]);
    let names: Vec<&str> = tasks(options, options.seeds[0])?.iter().map(|t| t.name).collect();
    for (k, name) in names.iter().enumerate() {
        let [mut alone, mut whole, mut small, mut share, mut size] = [const { Vec::new() }; 5];
        let (mut curve, mut setting) = (Vec::new(), String::new());
        for &seed in &options.seeds {
            let task = tasks(options, seed)?.swap_remove(k);
            let direct = task.fit(task.train.x(), &task.train.one_hot(1.0, 0.0), Loss::CrossEntropy, task.epochs, seed)?;
            let members = task.ensemble(seed)?;
            let parameters = direct.parameters();
            let base = task.accuracy(&direct.forward(task.test.x()));
            let best = task.accuracy(&logits(&members, task.test.x()));
            rows.row((*name, seed.0, "direct", 0, parameters, base));
            rows.row((*name, seed.0, "ensemble", 0, parameters * members.len(), best));
            let mut last = base;
            for (i, &times) in task.times.iter().enumerate() {
                let how = Munge { times, swap: 0.3, variance: 3.0, seed };
                let x = munge(task.train.x(), &vec![false; task.train.features()], &how)?;
                let x = ndarray::concatenate![Axis(0), task.train.x().view(), x];
                let epochs = (task.steps * 64).div_ceil(x.nrows());
                let pupil = task.fit(&x, &logits(&members, &x), Loss::SquaredError, epochs, seed)?;
                last = task.accuracy(&pupil.forward(task.test.x()));
                rows.row((*name, seed.0, "compressed", times * task.train.len(), parameters, last));
                if curve.len() == i {
                    curve.push((times * task.train.len(), Vec::new()));
                }
                curve[i].1.push(last);
            }
            eprintln!("{name}, seed {}: direct {base:.2}, ensemble {best:.2}, compressed {last:.2}", seed.0);
            alone.push((seed, base));
            whole.push((seed, best));
            small.push((seed, last));
            share.push((seed, 100.0 * (last - base) / (best - base)));
            size.push((seed, members.len() as f64));
            let n = task.train.len();
            setting =
                format!("{name}, {n} training samples, nets of {} hidden units, {} in the ensemble", task.hidden, task.members);
        }
        let c = study.claims.setting("eight tables, ensembles of hundreds of models", setting);
        c.add("direct: test accuracy, %", "–", "mean > 80", 2)?.extend(alone);
        c.add("ensemble: test accuracy, %", "–", "mean > 80", 2)?.extend(whole);
        c.add("compressed: test accuracy, %", "–", "mean > 80", 2)?.extend(small);
        c.add("share of the ensemble's gain that the compressed net has, %", "97", "mean > 50", 0)?.extend(share);
        let enough = options.pick("every >= 20", "every >= 100");
        c.add("parameters of the ensemble over those of the compressed net", "1000", enough, 0)?.extend(size);
        let line = Point::line(curve.into_iter().map(|(n, a)| (n as f64, a)))?;
        let figure = Figure::new(format!("Compressed: {name}"), "synthetic samples", "test accuracy, %").log_x();
        study.figures.push((name.split(' ').next().unwrap_or(name).to_string(), figure.series("compressed", line).to_svg()?));
    }
    study.tables.push(("models".into(), rows));
    Ok(study)
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("model_compression", run)
}

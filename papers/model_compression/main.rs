//! Bucilă, Caruana, Niculescu-Mizil 2006, *Model compression*: a large ensemble in one small network, through synthetic samples.
//!
//! `cargo run --release --example model_compression -- [--quick] [--held-out] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::data::{Dataset, data_dir, digits, table};
use lacuna::eval::agreement;
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Dropout, Loss, Method, Network, softmax};
use lacuna::paper::{Figures, Options, Study};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::train::{Decay, Distil, Munge, Objective, Regularization, Targets, TrainConfig, munge, side_by_side, train};
use ndarray::{Array2, Axis};

/// Samples a step.
const BATCH: usize = 64;

/// A table split into training and test samples, standardised, and the sizes of the experiment.
struct Task {
    name: &'static str,
    train: Dataset,
    test: Dataset,
    large: (u64, usize, usize), // networks in the ensemble, hidden units and epochs of each
    small: (usize, usize),      // hidden units of the small network, and epochs on the training samples alone
    swap: f32,                  // p of MUNGE
    times: Vec<usize>,          // synthetic samples, in training sets
    steps: usize,               // of training on them, whatever their number
}

fn tasks(options: &Options) -> Result<Vec<Task>> {
    let task = |name, all: Dataset, samples: usize, large, small, swap, times: &[usize], steps| -> Result<Task> {
        // The same test samples for every seed: they choose nothing.
        let order = Seed(0).stream("training samples").permutation(all.len());
        let (train, test) = options.samples(all.select(&order[..samples]), all.select(&order[samples..]));
        let mean = train.x().mean_axis(Axis(0)).unwrap_or_default();
        let sd = train.x().std_axis(Axis(0), 0.0).mapv(|s| if s > 0.05 { s } else { 1.0 });
        let standard = |d: &Dataset| Dataset::new((d.x() - &mean) / &sd, d.labels().to_vec(), d.classes(), d.shape());
        Ok(Task { name, train: standard(&train)?, test: standard(&test)?, large, small, swap, times: times.to_vec(), steps })
    };
    if options.quick {
        return Ok(vec![task("digits 8×8", digits(), 300, (10, 48, 60), (12, 200), 0.2, &[1, 10], 6000)?]);
    }
    let file = |name: &str| table(data_dir().join(name).join(format!("{name}.csv")));
    Ok(vec![
        task("letter", file("letter")?, 4000, (13, 512, 100), (64, 100), 0.4, &[10, 60], 200_000)?,
        task("pendigits", file("pendigits")?, 2000, (8, 256, 100), (20, 250), 0.4, &[5, 20], 40_000)?,
        task("satellite", file("satellite")?, 1500, (8, 256, 200), (16, 100), 0.4, &[3, 10, 30], 30_000)?,
    ])
}

impl Task {
    /// A network trained for so many steps; the members of the ensemble with dropout.
    fn fit(&self, width: usize, x: &Array2<f32>, l: &dyn Objective, steps: usize, large: bool, seed: Seed) -> Result<Network> {
        let mut network = mlp(&[x.ncols(), width, l.dim().1], Activation::Relu, Init::He, seed)?;
        let (loss, method, decay) = (Loss::CrossEntropy, Method::Adam { weight_decay: 0.0 }, Decay::Cosine);
        let epochs = (steps * BATCH).div_ceil(x.nrows());
        let learning_rate = if large { 3e-3 } else { 5e-3 };
        let recipe = TrainConfig { loss, method, learning_rate, decay, epochs, batch: BATCH, seed };
        let care = Regularization { dropout: large.then_some(Dropout { inputs: 0.0, hidden: 0.3 }), ..Regularization::default() };
        train(&mut network, x, l, &recipe, &care, &mut |_, _| {})?;
        Ok(network)
    }

    /// A network trained on the training samples alone.
    fn taught(&self, width: usize, epochs: usize, large: bool, seed: Seed) -> Result<Network> {
        let target = self.train.one_hot(1.0, 0.0);
        let labels = Targets { target: &target, loss: Loss::CrossEntropy };
        self.fit(width, self.train.x(), &labels, epochs * self.train.len().div_ceil(BATCH), large, seed)
    }

    fn accuracy(&self, output: &Array2<f32>) -> f64 {
        100.0 * agreement(output, self.test.labels())
    }
}

/// The logarithm of the mean of the members' probabilities: what the small network learns.
fn logits(members: &[Network], x: &Array2<f32>) -> Array2<f32> {
    let share = 1.0 / members.len() as f32;
    let parts = members.iter().map(|n| softmax(&n.forward(x)) * share);
    parts.reduce(|a, b| a + b).unwrap_or_default().mapv(|p| p.max(1e-6).ln())
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    let mut study = Study::default();
    let mut rows = Table::new(["table", "seed", "model", "synthetic samples", "parameters", "test accuracy, %"]);
    let (seeds, n) = (options.seeds(), options.seeds().len());
    for task in tasks(options)? {
        let ((members, width, epochs), (small, small_epochs)) = (task.large, task.small);
        let each = 1 + members as usize; // the small network on the labels alone, and the ensemble
        let networks = side_by_side(n * each, |k| match (seeds[k / each], k % each) {
            (seed, 0) => task.taught(small, small_epochs, false, seed),
            (seed, member) => task.taught(width, epochs, true, Seed(1000 * seed.0 + member as u64)),
        })?;
        let of_seed: Vec<&[Network]> = networks.chunks(each).collect();
        let compressed = side_by_side(n * task.times.len(), |k| {
            let (i, times) = (k % n, task.times[k / n]);
            let how = Munge { times, swap: task.swap, variance: 1.0, seed: seeds[i] };
            let x = munge(task.train.x(), &vec![false; task.train.features()], &how)?;
            let x = ndarray::concatenate![Axis(0), task.train.x().view(), x];
            let target = logits(&of_seed[i][1..], &x);
            let lesson = Distil::new(&target, &target, 1.0, 0.0)?;
            Ok(task.accuracy(&task.fit(small, &x, &lesson, task.steps, false, seeds[i])?.forward(task.test.x())))
        })?;
        let base: Vec<f64> = of_seed.iter().map(|o| task.accuracy(&o[0].forward(task.test.x()))).collect();
        let best: Vec<f64> = of_seed.iter().map(|o| task.accuracy(&logits(&o[1..], task.test.x()))).collect();
        let last = &compressed[n * (task.times.len() - 1)..];
        let whole: usize = of_seed[0][1..].iter().map(Network::parameters).sum();
        let alone = of_seed[0][0].parameters();
        for (i, seed) in seeds.iter().enumerate() {
            rows.row((task.name, seed.0, "direct", 0, alone, base[i]));
            rows.row((task.name, seed.0, "ensemble", 0, whole, best[i]));
            for (k, times) in task.times.iter().enumerate() {
                rows.row((task.name, seed.0, "compressed", times * task.train.len(), alone, compressed[k * n + i]));
            }
        }
        let ours = format!(
            "{}, {} training samples, {members} nets of {width} hidden units against one of {small}",
            task.name,
            task.train.len()
        );
        let each = |f: &dyn Fn(usize) -> f64| -> Vec<(Seed, f64)> { (0..n).map(|i| (seeds[i], f(i))).collect() };
        let c = study.claims.setting("eight tables, ensembles of hundreds of models", ours);
        c.add("direct: test accuracy, %", "–", "mean > 80", 2)?.extend(each(&|i| base[i]));
        c.add("ensemble: test accuracy, %", "–", "mean > 80", 2)?.extend(each(&|i| best[i]));
        c.add("compressed: test accuracy, %", "–", "mean > 80", 2)?.extend(each(&|i| last[i]));
        let share = each(&|i| 100.0 * (last[i] - base[i]) / (best[i] - base[i]));
        c.add("share of the ensemble's gain that the compressed net has, %", "97", options.pick("mean > 0", "mean > 50"), 0)?
            .extend(share);
        let enough = options.pick("every >= 20", "every >= 100");
        let size = each(&|_| whole as f64 / alone as f64);
        c.add("parameters of the ensemble over those of the compressed net", "1000", enough, 0)?.extend(size);
    }
    study.tables.push(("models".into(), rows));
    Ok(study)
}

/// Of each table the compressed network's accuracy against its synthetic samples, with the ensemble's and the direct network's.
pub fn draw(study: &Study) -> Result<Figures> {
    let (x, y, models) = ("synthetic samples", "test accuracy, %", study.table("models")?);
    let figure = |name: String| -> Result<(String, String)> {
        let of = |model: &str| models.only("table", &name)?.only("model", model);
        let figure = Figure::new(format!("{name}: a small network taught by an ensemble"), x, y).log_x();
        let figure = figure.line("compressed", &of("compressed")?, x, y)?;
        // These two see no synthetic samples.
        let figure = figure.level("ensemble", &of("ensemble")?, y)?.level("direct", &of("direct")?, y)?;
        Ok((name.split(' ').next().unwrap_or(&name).into(), figure.to_svg()?))
    };
    models.distinct("table")?.into_iter().map(figure).collect()
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("model_compression", run, draw)
}

//! Fiesler, Choudry, Caulfield 1990, *A weight discretization paradigm for optical neural networks*: weights of few levels.
//!
//! `cargo run --release --example weight_discretization -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::data::digits;
use lacuna::eval::{binary_accuracy, score};
use lacuna::models::{Builder, Init};
use lacuna::nn::{Activation, Loss, Method, Network};
use lacuna::paper::{Figures, Options, Study};
use lacuna::quantize::Grid;
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::train::{Decay, Regularization, Targets, TrainConfig, discretised, fit, train_discretised};
use ndarray::Array2;

const LEVELS: [usize; 4] = [2, 3, 5, 7];
const PROBLEMS: [&str; 3] = ["XOR", "parity of 4", "digits"];

/// A problem: samples, targets, and a network's widths.
struct Task {
    name: &'static str,
    train: (Array2<f32>, Array2<f32>),
    test: (Array2<f32>, Array2<f32>),
    hidden: usize,
    epochs: usize,
    batch: usize,
    starts: u64,
}

/// Parity of `bits` bits of ±1: two bits are XOR.
fn parity(name: &'static str, bits: usize, hidden: usize, options: &Options) -> Task {
    let bit = |n: usize, k: usize| if n >> k & 1 == 1 { 1.0 } else { -1.0 };
    let x = Array2::from_shape_fn((1 << bits, bits), |(n, k)| bit(n, k));
    let target = Array2::from_shape_fn((1 << bits, 1), |(n, _)| if n.count_ones() % 2 == 1 { 0.9 } else { -0.9 });
    let (train, test) = ((x.clone(), target.clone()), (x, target));
    Task { name, train, test, hidden, epochs: options.pick(150, 500), batch: 1 << bits, starts: options.pick(3, 10) }
}

fn scanned(options: &Options) -> Task {
    let all = digits();
    let (train, test) = all.split(&Seed(0).stream("held-out samples").permutation(all.len())[..450]);
    let part = |set: &lacuna::data::Dataset| (set.x() * 2.0 - 1.0, set.one_hot(0.9, -0.9));
    let (train, test) = (part(&train), part(&test));
    Task { name: PROBLEMS[2], train, test, hidden: 30, epochs: options.pick(10, 40), batch: 32, starts: 1 }
}

impl Task {
    fn start(&self, seed: Seed) -> Result<(Network, TrainConfig)> {
        let builder = Builder::vector(self.train.0.ncols(), Init::Glorot, seed).linear(self.hidden).activation(Activation::Tanh);
        let network = builder.linear(self.train.1.ncols()).activation(Activation::Tanh).build()?;
        let (loss, method, decay) = (Loss::SquaredError, Method::Adam { weight_decay: 0.0 }, Decay::Cosine);
        Ok((network, TrainConfig { loss, method, learning_rate: 0.01, decay, epochs: self.epochs, batch: self.batch, seed }))
    }

    /// Test accuracy in %; with one output, on which side of 0 it lies.
    fn accuracy(&self, network: &Network) -> f64 {
        let (x, t) = &self.test;
        100.0
            * if t.ncols() == 1 { binary_accuracy(network, x, t, 0.0) } else { score(network, x, t, Loss::SquaredError).accuracy }
    }

    /// Of one seed: the mean accuracy over the starts with continuous weights, and for each grid rounded afterwards and trained through.
    fn compare(&self, seed: Seed, grids: &[Grid]) -> Result<(f64, Vec<[f64; 2]>)> {
        let (mut continuous, mut of) = (0.0, vec![[0.0; 2]; grids.len()]);
        let share = 1.0 / self.starts as f64;
        for start in 0..self.starts {
            let (begun, recipe) = self.start(Seed(1000 * seed.0 + start))?;
            let mut network = begun.clone();
            fit(&mut network, &self.train.0, &self.train.1, &recipe)?;
            continuous += share * self.accuracy(&network);
            for (grid, of) in grids.iter().zip(&mut of) {
                of[0] += share * self.accuracy(&discretised(&network, *grid, true)?);
                let lesson = Targets { target: &self.train.1, loss: recipe.loss };
                let mut shadow = network.clone();
                let (through, _) =
                    train_discretised(&mut shadow, &self.train.0, &lesson, &recipe, &Regularization::default(), *grid, true)?;
                of[1] += share * self.accuracy(&through);
            }
        }
        Ok((continuous, of))
    }
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let mut study = Study::default();
    let mut rows = Table::new(["problem", "seed", "grid", "levels", "rounded afterwards, %", "trained through, %"]);
    let mut grids: Vec<Grid> = LEVELS.into_iter().map(|levels| Grid::Uniform { levels }).collect();
    grids.extend([Grid::Ternary, Grid::PowerOfTwo { levels: 5 }, Grid::PowerOfTwo { levels: 7 }]);
    for task in [parity(PROBLEMS[0], 2, 4, options), parity(PROBLEMS[1], 4, 12, options), scanned(options)] {
        let (mut dense, mut gains) = (Vec::new(), vec![Vec::new(); LEVELS.len()]);
        let mut seven = Vec::new();
        for &seed in options.seeds() {
            let (continuous, of) = task.compare(seed, &grids)?;
            dense.push((seed, continuous));
            for (i, (grid, [rounded, through])) in grids.iter().zip(of).enumerate() {
                let name = match grid {
                    Grid::Uniform { .. } => "uniform",
                    Grid::PowerOfTwo { .. } => "powers of two",
                    Grid::Ternary => "ternary",
                };
                rows.row((task.name, seed.0, name, grid.levels()?.len(), rounded, through));
                if i < LEVELS.len() {
                    gains[i].push((seed, through - rounded));
                }
                if i + 1 == LEVELS.len() {
                    seven.push((seed, continuous - through));
                }
            }
        }
        let nets = format!("{}-{}-{} net", task.train.0.ncols(), task.hidden, task.train.1.ncols());
        let c = study
            .claims
            .setting("optical networks; no numbers at hand", format!("{}, {nets}, {} starts a seed", task.name, task.starts));
        c.add("continuous weights: accuracy, %", "–", "mean > 90", 1)?.extend(dense);
        for (levels, gain) in LEVELS.into_iter().zip(gains) {
            let what = format!("{levels} levels: trained through less rounded afterwards, points");
            c.add(what, "above 0", if levels < 5 { "mean > 0" } else { "mean >= 0" }, 1)?.extend(gain);
        }
        c.add("7 levels, trained through: points lost to continuous weights", "few levels are enough", "mean < 5", 1)?
            .extend(seven);
    }
    study.tables.push(("levels".into(), rows));
    Ok(study)
}

/// Of each problem the accuracy against the number of evenly spaced levels.
pub fn draw(study: &Study) -> Result<Figures> {
    let rows = study.table("levels")?.only("grid", "uniform")?;
    let figure = |problem: &str| -> Result<(String, String)> {
        let mut figure = Figure::new(format!("{problem}: weights of a few levels"), "levels", "accuracy, %");
        for name in ["rounded afterwards", "trained through"] {
            figure = figure.line(name, &rows.only("problem", problem)?, "levels", &format!("{name}, %"))?;
        }
        Ok((problem.replace(' ', "_").to_lowercase(), figure.to_svg()?))
    };
    PROBLEMS.into_iter().map(figure).collect()
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("weight_discretization", run, draw)
}

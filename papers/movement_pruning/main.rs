//! Sanh, Wolf, Rush 2020, *Movement pruning*: a network trained on one task is fine-tuned on another, and pruned meanwhile.
//!
//! `cargo run --release --example movement_pruning -- [--quick] [--held-out] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::calibrate::Calibration;
use lacuna::eval::score;
use lacuna::nn::{Loss, Network};
use lacuna::paper::{DigitImages, Figures, Options, Study};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::sparse_training::{GradualMagnitude, MaskChoice, Movement, OwnTraining, Reparametrized, SparseMethod, train_sparse};
use lacuna::train::{Decay, TrainConfig, fit, side_by_side};
use ndarray::{Array2, ArrayRef2, Axis};

/// The layer that is new in each task, and stays dense.
const HEAD: &str = "fc3";
const METHODS: [&str; 2] = ["movement", "magnitude"];

/// Samples of a task with their targets.
type Samples = (Array2<f32>, Array2<f32>);

/// The samples of digits 0 to 4, or of 5 to 9; targets stay (samples, 10).
fn of_digits(set: &Samples, low: bool) -> Samples {
    let is_low = |t: ndarray::ArrayView1<'_, f32>| t.iter().take(5).any(|v| *v > 0.0);
    let rows: Vec<usize> = (0..set.1.nrows()).filter(|r| is_low(set.1.row(*r)) == low).collect();
    (set.0.select(Axis(0), &rows), set.1.select(Axis(0), &rows))
}

/// As many samples as that, the first.
fn first(set: Samples, n: usize) -> Samples {
    let rows: Vec<usize> = (0..n.min(set.0.nrows())).collect();
    (set.0.select(Axis(0), &rows), set.1.select(Axis(0), &rows))
}

/// How many of the samples are right, %.
fn accuracy(network: &Network, (x, t): (&ArrayRef2<f32>, &ArrayRef2<f32>)) -> f64 {
    100.0 * score(network, x, t, Loss::CrossEntropy).accuracy
}

/// Of one seed: the accuracy of dense fine-tuning, of the new task learnt from the beginning, and by method at each fraction that stays.
struct Found {
    dense: f64,
    scratch: f64,
    pruned: Vec<[f64; 2]>,
}

fn of_seed(options: &Options, kept: &[f64], seed: Seed) -> Result<Found> {
    let images = DigitImages::load(options, 15_000, seed)?;
    let (old, new) = (of_digits(&images.train, true), first(of_digits(&images.train, false), options.pick(300, 1000)));
    let test = of_digits(&images.test, false);
    let start = DigitImages::network(options, seed)?;
    let mut trained = start.clone();
    let before = DigitImages::config(options.pick(15, 4), seed);
    fit(&mut trained, &old.0, &old.1, &before)?;
    // Fine-tuning moves weights by less than training does.
    let tuning = TrainConfig {
        learning_rate: 3e-4,
        decay: Decay::Linear,
        batch: options.pick(20, 32),
        ..DigitImages::config(options.pick(40, 20), seed)
    };
    let dense = |from: &Network| -> Result<f64> {
        let mut network = from.clone();
        fit(&mut network, &new.0, &new.1, &tuning)?;
        Ok(accuracy(&network, (&test.0, &test.1)))
    };
    let mut pruned = Vec::new();
    for &kept in kept {
        let mut of = [0.0; 2];
        for (name, of) in METHODS.into_iter().zip(&mut of) {
            let choice = MaskChoice::uniform(1.0 - kept).skipping([HEAD]);
            let mut method: Box<dyn SparseMethod> = if name == "movement" {
                // The paper's rates: 3e-5 for the weights, 1e-2 for the scores.
                Box::new(Reparametrized::trained(Movement::new(choice), OwnTraining { rate: 300.0, method: None }))
            } else {
                let mut gradual = GradualMagnitude::new(choice).every(1);
                (gradual.start, gradual.end) = (0.1, 0.7);
                Box::new(gradual)
            };
            let mut network = trained.clone();
            let data = Calibration::new(&new.0, &new.1, Loss::CrossEntropy);
            train_sparse(&mut network, &data, &tuning, &mut *method, &mut |_, _, _| Ok(()))?;
            *of = accuracy(&network, (&test.0, &test.1));
        }
        pruned.push(of);
    }
    Ok(Found { dense: dense(&trained)?, scratch: dense(&start)?, pruned })
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    let mut study = Study::default();
    let kept: Vec<f64> = options.pick(vec![0.1, 0.05], vec![0.5, 0.15, 0.1, 0.05, 0.03]);
    let seeds = options.seeds();
    let found = side_by_side(seeds.len(), |k| of_seed(options, &kept, seeds[k]))?;
    let mut rows = Table::new(["seed", "method", "fraction of weights kept", "test accuracy, %"]);
    for (seed, found) in seeds.iter().zip(&found) {
        rows.row((seed.0, "dense", 1.0, found.dense));
        rows.row((seed.0, "from the beginning", 1.0, found.scratch));
        for (kept, of) in kept.iter().zip(&found.pruned) {
            METHODS.iter().zip(of).for_each(|(name, accuracy)| {
                rows.row((seed.0, *name, *kept, *accuracy));
            });
        }
    }
    let each = |f: &dyn Fn(&Found) -> f64| -> Vec<(Seed, f64)> { seeds.iter().copied().zip(found.iter().map(f)).collect() };
    let ours =
        options.pick("64-60-30-10, digits 0 to 4, then 300 of 5 to 9", "LeNet-300-100, MNIST's 0 to 4, then 1000 of 5 to 9");
    let c = study.claims.setting("BERT-base, fine-tuned on SQuAD, MNLI, QQP", ours);
    let least = options.pick("mean > 65", "mean > 85");
    c.add("dense, fine-tuned: test accuracy, %", "80.4 (SQuAD EM)", least, 2)?.extend(each(&|f| f.dense));
    for (k, kept) in kept.iter().enumerate().filter(|(_, kept)| **kept <= 0.15) {
        let paper = match (100.0 * kept).round() as u64 {
            15 => "10.7 at 15 %",
            10 => "15.4 at 10 %",
            3 => "24.2 at 3 %",
            _ => "above 0",
        };
        let what = format!("movement less magnitude, {:.0} % kept: points of accuracy", 100.0 * kept);
        c.add(what, paper, "mean > 0", 2)?.extend(each(&|f| f.pruned[k][0] - f.pruned[k][1]));
    }
    if !options.quick {
        let what = "magnitude less movement, 50 % kept: points of accuracy";
        c.add(what, "above 0", "mean > 0", 2)?.extend(each(&|f| f.pruned[0][1] - f.pruned[0][0]));
    }
    study.tables.push(("accuracy".into(), rows));
    Ok(study)
}

/// The accuracy against the fraction that is kept.
pub fn draw(study: &Study) -> Result<Figures> {
    let (x, y, rows) = ("fraction of weights kept", "test accuracy, %", study.table("accuracy")?);
    let mut figure = Figure::new("Pruned while fine-tuned", x, y).log_x();
    for name in METHODS {
        figure = figure.line(name, &rows.only("method", name)?, x, y)?;
    }
    for name in ["dense", "from the beginning"] {
        figure = figure.level(name, &rows.only("method", name)?, y)?;
    }
    Ok(vec![("accuracy".into(), figure.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("movement_pruning", run, draw)
}

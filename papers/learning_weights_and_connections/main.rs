//! Han, Pool, Tran, Dally 2015, *Learning both weights and connections for efficient neural networks*: prune, train again, repeat.
//!
//! `cargo run --release --example learning_weights_and_connections -- [--quick] [--held-out] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::allocate::{Lamp, Target};
use lacuna::criteria::Magnitude;
use lacuna::eval::Size;
use lacuna::mask::{Pattern, Scope};
use lacuna::models::{digits_convnet, lenet_5};
use lacuna::nn::{Method, Network};
use lacuna::paper::{DigitImages, Figures, Options, Study};
use lacuna::prune::{Outcome, Pruning, Schedule, iterative, one_shot};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::train::{Decay, TrainConfig, side_by_side};

/// A network, and how it is trained.
struct Case {
    name: &'static str,
    paper: (&'static str, &'static str, &'static str), // error of the dense network, of the pruned, weights of both
    network: fn(&Options, Seed) -> Result<Network>,
    samples: usize,
    epochs: (usize, usize), // dense, and after each step
    steps: usize,
    keep: usize, // weights that stay at last
}

fn cases(options: &Options) -> Vec<Case> {
    let (fully, conv) = (("1.64", "1.59", "267K to 22K"), ("0.80", "0.77", "431K to 36K"));
    let convolutional = |options: &Options, seed| if options.quick { digits_convnet([4, 8], 24, seed) } else { lenet_5(seed) };
    let case = |name, paper, network, samples, epochs, steps, keep| Case { name, paper, network, samples, epochs, steps, keep };
    let names = options.pick(("64-60-30-10", "a convnet"), ("LeNet-300-100", "LeNet-5"));
    vec![
        case(names.0, fully, DigitImages::network, 60_000, options.pick((20, 5), (15, 5)), 5, options.pick(1800, 21_900)),
        case(names.1, conv, convolutional, 20_000, options.pick((20, 5), (12, 5)), 4, options.pick(700, 35_900)),
    ]
}

/// As the paper has it, weights are held small in training and in training again.
const WEIGHT_DECAY: f32 = 1e-4;

/// Weights kept, and the error before and after training again.
type Step = (usize, f64, f64);

/// Of one seed: rows of weights kept, error without and with training again; the dense error; that of one step.
struct Found {
    dense: (usize, f64),
    steps: Vec<Step>,
    at_once: f64,
}

fn of_seed(options: &Options, case: &Case, seed: Seed) -> Result<Found> {
    let images = DigitImages::load(options, case.samples, seed)?;
    let error = |network: &Network| 100.0 - images.accuracy(network);
    let method = Method::Adam { weight_decay: WEIGHT_DECAY };
    let config = |epochs, part: f32, decay| TrainConfig {
        method,
        learning_rate: part * 1.2e-3,
        decay,
        ..DigitImages::config(epochs, seed)
    };
    let mut dense = (case.network)(options, seed)?;
    images.fit(&mut dense, &config(case.epochs.0, 1.0, Decay::Cosine))?;
    let of = Size::of(&dense)?.weights;
    let sparsity = 1.0 - case.keep as f64 / of as f64;
    let (pattern, scope) = (Pattern::Unstructured, Scope::Layer);
    let (saliency, allocate) = (&Magnitude::default(), &Lamp);
    let pruning = Pruning { saliency, allocate, target: Target::Sparsity(sparsity), pattern, scope, skip: &[] };
    let mut steps = Vec::new();
    let schedule = Schedule::Exponential { steps: case.steps };
    iterative(&dense, &images.samples(), &pruning, schedule, sparsity, |network: &mut Network, _| {
        let before = error(network);
        images.fit(network, &config(case.epochs.1, 0.3, Decay::Cosine))?;
        steps.push((Size::of(network)?.kept_weights, before, error(network)));
        Ok(())
    })?;
    let Outcome { model: mut at_once, .. } = one_shot(&dense, &images.samples(), &pruning)?;
    images.fit(&mut at_once, &config(case.epochs.1 * case.steps, 0.3, Decay::Cosine))?;
    Ok(Found { dense: (of, error(&dense)), steps, at_once: error(&at_once) })
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    let mut study = Study::default();
    let seeds = options.seeds();
    let mut rows = Table::new(["network", "seed", "trained again", "weights kept", "test error, %"]);
    for case in cases(options) {
        let found = side_by_side(seeds.len(), |k| of_seed(options, &case, seeds[k]))?;
        for (seed, found) in seeds.iter().zip(&found) {
            rows.row((case.name, seed.0, "dense", found.dense.0, found.dense.1));
            for (kept, before, after) in &found.steps {
                rows.row((case.name, seed.0, "no", *kept, *before));
                rows.row((case.name, seed.0, "in steps", *kept, *after));
            }
            rows.row((case.name, seed.0, "at once", case.keep, found.at_once));
        }
        let each = |f: &dyn Fn(&Found, Step) -> f64| -> Vec<(Seed, f64)> {
            let last = |found: &Found| f(found, found.steps[found.steps.len() - 1]);
            seeds.iter().copied().zip(found.iter().map(last)).collect()
        };
        let samples = options.pick("digits 8×8".to_string(), format!("{} of MNIST", case.samples));
        let c = study.claims.setting("MNIST, Caffe", format!("{}, {samples}, {} epochs", case.name, case.epochs.0));
        let (most, within) = (options.pick("mean < 20", "mean < 5"), options.pick("mean <= 3", "mean <= 0.1"));
        c.add("dense: test error, %", case.paper.0, most, 2)?.extend(each(&|f, _| f.dense.1));
        let every = format!("every <= {}", options.pick(1800, if case.keep < 30_000 { 22_000 } else { 36_000 }));
        c.add("weights that stay", case.paper.2, &every, 0)?.extend(each(&|_, last| last.0 as f64));
        let what = "pruned and trained again, less dense: points of error";
        c.add(what, format!("{} less {}", case.paper.1, case.paper.0), within, 2)?.extend(each(&|f, last| last.2 - f.dense.1));
        let what = "what the last step costs before training again: points of error";
        c.add(what, "far above 0", "mean > 0", 2)?.extend(each(&|_, last| last.1 - last.2));
        if !options.quick {
            let what = "pruned at once less in steps, trained again as long: points of error";
            c.add(what, "above 0", "mean > 0", 2)?.extend(each(&|f, last| f.at_once - last.2));
        }
    }
    study.tables.push(("errors".into(), rows));
    Ok(study)
}

/// The error against the weights that are kept, for each network.
pub fn draw(study: &Study) -> Result<Figures> {
    let (x, y, rows) = ("weights kept", "test error, %", study.table("errors")?);
    let mut figures = Vec::new();
    for (network, file) in rows.distinct("network")?.into_iter().zip(["fully_connected", "convolutional"]) {
        let of = rows.only("network", network.as_str())?;
        let mut figure = Figure::new(network, x, y).log_x().log_y();
        for (name, which) in [("pruned", "no"), ("pruned, trained again", "in steps")] {
            figure = figure.line(name, &of.only("trained again", which)?, x, y)?;
        }
        figures.push((file.to_string(), figure.level("dense", &of.only("trained again", "dense")?, y)?.to_svg()?));
    }
    Ok(figures)
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("learning_weights_and_connections", run, draw)
}

//! Evci, Gale, Menick, Castro, Elsen 2020, *Rigging the lottery*; Lee, Park, Mo, Ahn, Shin 2021, *Layer-adaptive sparsity* (LAMP).
//!
//! `cargo run --release --example rigging_the_lottery -- [--quick] [--held-out] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::allocate::{Allocate, Erk, Global, Lamp, Target, Uniform};
use lacuna::criteria::Magnitude;
use lacuna::mask::{Pattern, Scope};
use lacuna::models::{Init, mlp};
use lacuna::nn::Activation;
use lacuna::paper::{DigitImages, Figures, Options, Study};
use lacuna::prune::{Pruning, one_shot};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::sparse_training::{FixedMask, MaskChoice, Rigl, SparseEvolution, SparseMethod, train_sparse};
use lacuna::train::{Decay, TrainConfig, side_by_side};
use std::collections::BTreeMap;

const METHODS: [&str; 5] = ["static, uniform", "static, ERK", "SET, ERK", "RigL, uniform", "RigL, ERK"];
const ALLOCATIONS: [&str; 3] = ["uniform", "global", "LAMP"];

/// The method of this name, at a sparsity; weights are exchanged this many steps apart.
fn method(name: &str, sparsity: f64, every: usize) -> Box<dyn SparseMethod> {
    let choice = match name.ends_with("ERK") {
        true => MaskChoice::allocated(sparsity, Erk),
        false => MaskChoice::uniform(sparsity),
    };
    match name.split(',').next() {
        Some("SET") => Box::new(SparseEvolution::new(choice).every(every)),
        Some("RigL") => Box::new(Rigl::new(choice).every(every)),
        _ => Box::new(FixedMask::random(choice)),
    }
}

/// Of one seed: accuracy and FLOPs of training over those of dense training, by method and sparsity in thousandths; and the accuracy by allocation
/// of a dense network that is pruned by magnitude, not trained on.
type Found = (BTreeMap<(&'static str, u64), (f64, f64)>, BTreeMap<(&'static str, u64), f64>);

fn of_seed(options: &Options, sparsities: &[f64], seed: Seed) -> Result<Found> {
    let images = DigitImages::load(options, 5000, seed)?;
    let config = TrainConfig { decay: Decay::Cosine, ..DigitImages::config(options.pick(25, 8), seed) };
    let start = DigitImages::network(options, seed)?;
    let thousandths = |sparsity: f64| (1000.0 * sparsity).round() as u64;
    let mut dense = start.clone();
    images.fit(&mut dense, &config)?;
    let mut found = BTreeMap::from([(("dense", 0), (images.accuracy(&dense), 1.0))]);
    let mut pruned = BTreeMap::new();
    for &sparsity in sparsities {
        for name in METHODS {
            let (mut network, mut method) = (start.clone(), method(name, sparsity, options.pick(20, 30)));
            let run = train_sparse(&mut network, &images.samples(), &config, &mut *method, &mut |_, _, _| Ok(()))?;
            found.insert((name, thousandths(sparsity)), (images.accuracy(&network), run.flops.fraction()));
        }
        // A dense network of as many weights: hidden layers in the same proportion.
        let pixels = images.train.0.ncols() as f64;
        let weights = (1.0 - sparsity) * options.pick(64 * 60 + 60 * 30 + 300, 784 * 300 + 30_000 + 1000) as f64;
        let ratio = options.pick(2.0, 3.0);
        let width = |second: f64| pixels * ratio * second + ratio * second * second + 10.0 * second;
        let second = (1..400).take_while(|second| width(f64::from(*second)) <= weights).last().unwrap_or(1) as usize;
        let widths = [pixels as usize, ratio as usize * second, second, 10];
        let mut small = mlp(&widths, Activation::Relu, Init::Glorot, seed)?;
        images.fit(&mut small, &config)?;
        found.insert(("small dense", thousandths(sparsity)), (images.accuracy(&small), 1.0 - sparsity));
        for (name, allocate) in ALLOCATIONS.into_iter().zip([&Uniform as &dyn Allocate, &Global, &Lamp]) {
            let (saliency, target) = (&Magnitude::default(), Target::Sparsity(sparsity));
            let (pattern, scope) = (Pattern::Unstructured, Scope::Layer);
            let pruning = Pruning { saliency, allocate, target, pattern, scope, skip: &[] };
            let mut network = one_shot(&dense, &images.samples(), &pruning)?.model;
            images.fit(&mut network, &TrainConfig { epochs: options.pick(2, 1), ..config.clone() })?;
            pruned.insert((name, thousandths(sparsity)), images.accuracy(&network));
        }
    }
    Ok((found, pruned))
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    let mut study = Study::default();
    let sparsities: Vec<f64> = options.pick(vec![0.95], vec![0.95, 0.98]);
    let seeds = options.seeds();
    let found = side_by_side(seeds.len(), |k| of_seed(options, &sparsities, seeds[k]))?;
    let mut rows = Table::new(["seed", "method", "sparsity", "test accuracy, %", "FLOPs of training over dense"]);
    let mut layers = Table::new(["seed", "allocation", "sparsity", "test accuracy, %"]);
    for (seed, (found, pruned)) in seeds.iter().zip(&found) {
        for ((method, sparsity), (accuracy, flops)) in found {
            rows.row((seed.0, *method, *sparsity as f64 / 1000.0, *accuracy, *flops));
        }
        for ((allocation, sparsity), accuracy) in pruned {
            layers.row((seed.0, *allocation, *sparsity as f64 / 1000.0, *accuracy));
        }
    }
    let each = |f: &dyn Fn(&Found) -> f64| -> Vec<(Seed, f64)> { seeds.iter().copied().zip(found.iter().map(f)).collect() };
    let ours = options.pick("64-60-30-10, digits 8×8, 25 epochs", "LeNet-300-100, 5000 of MNIST, 8 epochs");
    let c = study.claims.setting("ResNet-50, ImageNet; 1x training", ours);
    let least = options.pick("mean > 90", "mean > 92");
    c.add("dense: test accuracy, %", "76.8", least, 2)?.extend(each(&|f| f.0[&("dense", 0)].0));
    let mut gap = |better: &'static str, worse: &'static str, sparsity: u64, paper: &str| -> Result<()> {
        let what = format!("{better} less {worse}, {} %: points of accuracy", sparsity as f64 / 10.0);
        let less = |f: &Found| f.0[&(better, sparsity)].0 - f.0[&(worse, sparsity)].0;
        c.add(what, paper, "mean > 0", 2)?.extend(each(&less));
        Ok(())
    };
    if options.quick {
        gap("RigL, ERK", "static, ERK", 950, "above 0")?;
        gap("RigL, uniform", "static, uniform", 950, "above 0")?;
    } else {
        for sparsity in [950, 980] {
            gap("RigL, ERK", "static, ERK", sparsity, "5.3 at 90 %")?;
            gap("RigL, ERK", "SET, ERK", sparsity, "0.7 at 90 %")?;
            gap("RigL, uniform", "static, uniform", sparsity, "5.6 at 90 %")?;
            gap("RigL, ERK", "RigL, uniform", sparsity, "1 at 90 %")?;
            gap("RigL, ERK", "small dense", sparsity, "above 0")?;
        }
    }
    // Three products a step, of which one is dense once in ΔT steps: what is above the density.
    let what = "RigL, ERK, 95 %: FLOPs of training over dense";
    c.add(what, "0.24 with its convolutions", "every < 0.1", 3)?.extend(each(&|f| f.0[&("RigL, ERK", 950)].1));
    let c = study.claims.setting("VGG-16, CIFAR-10, trained on after pruning", format!("{ours}, trained on for an epoch or two"));
    for sparsity in sparsities.iter().map(|s| (1000.0 * s).round() as u64).filter(|_| !options.quick) {
        for other in ["uniform", "global"] {
            let what = format!("LAMP less {other}, {} %: points of accuracy", sparsity as f64 / 10.0);
            let less = |f: &Found| f.1[&("LAMP", sparsity)] - f.1[&(other, sparsity)];
            c.add(what, "at least 0", "mean >= 0", 2)?.extend(each(&less));
        }
    }
    study.tables = vec![("accuracy".into(), rows), ("allocations".into(), layers)];
    Ok(study)
}

/// The accuracy against the sparsity: methods, and allocations.
pub fn draw(study: &Study) -> Result<Figures> {
    let (x, y, rows, layers) = ("sparsity", "test accuracy, %", study.table("accuracy")?, study.table("allocations")?);
    let mut methods = Figure::new("Sparse from the beginning", x, y).percent_x().error_bars();
    for name in METHODS.into_iter().chain(["small dense"]) {
        methods = methods.line(name, &rows.only("method", name)?, x, y)?;
    }
    let mut allocations = Figure::new("Pruned by magnitude, trained on briefly", x, y).percent_x().error_bars();
    for name in ALLOCATIONS {
        allocations = allocations.line(name, &layers.only("allocation", name)?, x, y)?;
    }
    let methods = methods.level("dense", &rows.only("method", "dense")?, y)?;
    Ok(vec![("methods".into(), methods.to_svg()?), ("allocations".into(), allocations.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("rigging_the_lottery", run, draw)
}

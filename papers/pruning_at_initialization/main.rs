//! Lee, Ajanthan, Torr 2019, *SNIP*; Wang, Zhang, Grosse 2020, *GraSP*; Tanaka, Kunin, Yamins, Ganguli 2020, *SynFlow*: masks before training.
//!
//! `cargo run --release --example pruning_at_initialization -- [--quick] [--held-out] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::allocate::{Global, Uniform};
use lacuna::calibrate::Calibration;
use lacuna::criteria::{Grasp, Magnitude, MagnitudeNorm, Random, Saliency, Snip, SynFlow};
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Loss, Method, Network, Parameters};
use lacuna::paper::{DigitImages, Figures, Options, Study};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::sparse_training::prune_before_training;
use lacuna::train::{Decay, TrainConfig, side_by_side};
use ndarray::s;
use std::collections::BTreeMap;

const METHODS: [&str; 6] = ["SNIP", "iterative SNIP", "GraSP", "SynFlow", "magnitude", "random"];
/// Of iterative SNIP.
const ROUNDS: usize = 20;
/// Of the logits, as GraSP's authors have it.
const TEMPERATURE: f32 = 200.0;
/// Ratios of compression at which a deep network is masked, 10 to this power.
const RATIOS: [f64; 6] = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5];

/// The network masked by a method, and the weights that the emptiest layer keeps.
fn masked(network: &Network, images: &DigitImages, method: &str, sparsity: f64, seed: Seed) -> Result<(Network, usize)> {
    // As many samples as SNIP's mini-batch of 100, ten times for the noisier scores of GraSP.
    let samples = if method == "GraSP" { 1000 } else { 100 };
    let (x, target) = (images.train.0.slice(s![..samples, ..]), images.train.1.slice(s![..samples, ..]));
    let (random, magnitude) = (Random { seed }, Magnitude { norm: MagnitudeNorm::L1 });
    let (saliency, rounds): (&dyn Saliency, usize) = match method {
        "SNIP" => (&Snip, 1),
        "iterative SNIP" => (&Snip, ROUNDS),
        "GraSP" => (&Grasp, 1),
        "SynFlow" => (&SynFlow, 100),
        "magnitude" => (&magnitude, 1),
        _ => (&random, 1),
    };
    let loss = if method == "GraSP" { Loss::TemperedCrossEntropy { temperature: TEMPERATURE } } else { Loss::CrossEntropy };
    let data = Calibration::new(&x, &target, loss);
    let (_, masks) = match method {
        "random" => prune_before_training(network, &data, saliency, &Uniform, sparsity, rounds)?,
        _ => prune_before_training(network, &data, saliency, &Global, sparsity, rounds)?,
    };
    let mut masked = network.clone();
    masks.iter().try_for_each(|(layer, mask)| masked.set_mask(&format!("{layer}.weight"), Some(mask.clone())))?;
    Ok((masked, masks.iter().map(|(_, mask)| mask.kept()).min().unwrap_or(0)))
}

/// Of one seed: the error of each method at each sparsity, and of the dense network ("dense", 0); and of a deep network the largest ratio of
/// compression, as its power of ten, up to which every layer keeps a weight.
type Found = (BTreeMap<(&'static str, u64), f64>, BTreeMap<&'static str, f64>);

fn of_seed(options: &Options, sparsities: &[f64], seed: Seed) -> Result<Found> {
    let images = DigitImages::load(options, 60_000, seed)?;
    // SNIP's own: momentum, the rate and the decay of weights, batches of 100. The digits 8×8 are few: Adam.
    let config = TrainConfig { decay: Decay::Cosine, ..DigitImages::config(options.pick(12, 20), seed) };
    let method = Method::Sgd { momentum: 0.9, weight_decay: 5e-4 };
    let config = options.pick(config.clone(), TrainConfig { method, learning_rate: 0.1, batch: 100, ..config });
    let start = DigitImages::network(options, seed)?;
    let trained = |mut network: Network| -> Result<f64> {
        images.fit(&mut network, &config)?;
        Ok(100.0 - images.accuracy(&network))
    };
    let mut errors = BTreeMap::from([(("dense", 0), trained(start.clone())?)]);
    for method in METHODS.into_iter().filter(|m| *m != "magnitude") {
        for &sparsity in sparsities {
            let network = masked(&start, &images, method, sparsity, seed)?.0;
            errors.insert((method, (1000.0 * sparsity).round() as u64), trained(network)?);
        }
    }
    // Ten hidden layers of which none is large: whatever ranks over all layers may empty one.
    let pixels = images.train.0.ncols();
    let widths: Vec<usize> = [vec![pixels], vec![options.pick(30, 100); 10], vec![10]].concat();
    let deep = mlp(&widths, Activation::Relu, Init::He, seed)?;
    let mut survives = BTreeMap::new();
    for method in METHODS.into_iter().filter(|m| !(options.quick && ["iterative SNIP", "random"].contains(m))) {
        let mut largest = 0.0;
        for ratio in RATIOS {
            if masked(&deep, &images, method, 1.0 - 10f64.powf(-ratio), seed)?.1 == 0 {
                break;
            }
            largest = ratio;
        }
        survives.insert(method, largest);
    }
    Ok((errors, survives))
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    let mut study = Study::default();
    let sparsities: Vec<f64> = options.pick(vec![0.5], vec![0.95, 0.98, 0.99]);
    let seeds = options.seeds();
    let found = side_by_side(seeds.len(), |k| of_seed(options, &sparsities, seeds[k]))?;
    let mut rows = Table::new(["seed", "method", "sparsity", "test error, %"]);
    let mut deep = Table::new(["seed", "method", "largest compression without an empty layer, power of 10"]);
    for (seed, (errors, survives)) in seeds.iter().zip(&found) {
        for ((method, sparsity), error) in errors {
            rows.row((seed.0, *method, *sparsity as f64 / 1000.0, *error));
        }
        survives.iter().for_each(|(method, ratio)| {
            deep.row((seed.0, *method, *ratio));
        });
    }
    let each = |f: &dyn Fn(&Found) -> f64| -> Vec<(Seed, f64)> { seeds.iter().copied().zip(found.iter().map(f)).collect() };
    let cost = |method: &'static str, sparsity: u64| move |f: &Found| f.0[&(method, sparsity)] - f.0[&("dense", 0)];
    let ours = options.pick("64-60-30-10, digits 8×8, 12 epochs", "LeNet-300-100, 60000 of MNIST, 20 epochs");
    let c = study.claims.setting("LeNet-300-100, MNIST", ours);
    c.add("dense: test error, %", "1.7", options.pick("mean < 15", "mean < 8"), 2)?.extend(each(&|f| f.0[&("dense", 0)]));
    if options.quick {
        c.add("SNIP at 50 % less dense: points of error", "below 0.1", "mean < 10", 2)?.extend(each(&cost("SNIP", 500)));
    } else {
        c.add("SNIP at 95 % less dense: points of error", "-0.1", "mean <= 0.1", 2)?.extend(each(&cost("SNIP", 950)));
        c.add("SNIP at 98 % less dense: points of error", "0.7", "mean <= 1", 2)?.extend(each(&cost("SNIP", 980)));
        for (what, better, worse, at) in [
            ("random less SNIP at 98 %: points of error", "SNIP", "random", 980),
            ("random less GraSP at 98 %: points of error", "GraSP", "random", 980),
            ("random less SynFlow at 98 %: points of error", "SynFlow", "random", 980),
            ("SNIP at once less in rounds, 99 %: points of error", "iterative SNIP", "SNIP", 990),
        ] {
            let less = move |f: &Found| f.0[&(worse, at)] - f.0[&(better, at)];
            c.add(what, "above 0", "mean > 0", 2)?.extend(each(&less));
        }
    }
    let deepest = options.pick("64-[30 × 10]-10", "784-[100 × 10]-10");
    let c = study.claims.setting("VGG-16, VGG-19, ResNet-18; CIFAR, Tiny ImageNet", format!("{deepest}, He weights"));
    let what = "SynFlow: largest compression without an empty layer, power of 10";
    let rule = options.pick("every >= 2", "every >= 3");
    c.add(what, "up to the last path", rule, 1)?.extend(each(&|f| f.1["SynFlow"]));
    for method in ["SNIP", "GraSP", "magnitude"] {
        let what = format!("SynFlow's power of 10 less that of {method}");
        c.add(what, "above 0", options.pick("mean >= 0", "mean > 0"), 1)?.extend(each(&|f| f.1["SynFlow"] - f.1[method]));
    }
    study.tables = vec![("errors".into(), rows), ("collapse".into(), deep)];
    Ok(study)
}

/// The error against the sparsity.
pub fn draw(study: &Study) -> Result<Figures> {
    let (x, y, rows) = ("sparsity", "test error, %", study.table("errors")?);
    let mut figure = Figure::new("Masked before training", x, y).percent_x().log_y().error_bars();
    for method in METHODS.into_iter().filter(|m| *m != "magnitude") {
        figure = figure.line(method, &rows.only("method", method)?, x, y)?;
    }
    Ok(vec![("errors".into(), figure.level("dense", &rows.only("method", "dense")?, y)?.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("pruning_at_initialization", run, draw)
}

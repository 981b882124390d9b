//! Zhu, Gupta 2017, *To prune, or not to prune*: a large network made sparse against a small dense one of as many weights.
//!
//! `cargo run --release --example to_prune_or_not -- [--quick] [--held-out] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::allocate::Lamp;
use lacuna::eval::Size;
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Network};
use lacuna::paper::{DigitImages, Figures, Options, Study};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::sparse_training::{GradualMagnitude, MaskChoice, train_sparse};
use lacuna::train::{Decay, TrainConfig, side_by_side};

/// Of one seed: the dense network's accuracy and weights; of each small network its weights, its accuracy and that of the large network with as many.
struct Found {
    dense: (usize, f64),
    pairs: Vec<(usize, f64, f64)>,
}

fn of_seed(options: &Options, seed: Seed) -> Result<Found> {
    let images = DigitImages::load(options, 5000, seed)?;
    let config = TrainConfig { decay: Decay::Cosine, ..DigitImages::config(options.pick(30, 10), seed) };
    let pixels = images.train.0.ncols();
    let of_width = |(first, second): (usize, usize)| mlp(&[pixels, first, second, 10], Activation::Relu, Init::Glorot, seed);
    let large = of_width(options.pick((60, 30), (300, 100)))?;
    let mut dense = large.clone();
    images.fit(&mut dense, &config)?;
    let weights = |network: &Network| Size::of(network).map(|size| size.weights);
    let mut pairs = Vec::new();
    for widths in options.pick(vec![(15, 8), (7, 4)], vec![(75, 25), (36, 12), (18, 6), (9, 3)]) {
        let mut small = of_width(widths)?;
        images.fit(&mut small, &config)?;
        let sparsity = 1.0 - weights(&small)? as f64 / weights(&large)? as f64;
        let (mut sparse, every) = (large.clone(), options.pick(10, 30));
        let mut method = GradualMagnitude::new(MaskChoice::allocated(sparsity, Lamp)).every(every);
        train_sparse(&mut sparse, &images.samples(), &config, &mut method, &mut |_, _, _| Ok(()))?;
        pairs.push((weights(&small)?, images.accuracy(&small), images.accuracy(&sparse)));
    }
    Ok(Found { dense: (weights(&large)?, images.accuracy(&dense)), pairs })
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    let mut study = Study::default();
    let seeds = options.seeds();
    let found = side_by_side(seeds.len(), |k| of_seed(options, seeds[k]))?;
    let mut rows = Table::new(["seed", "network", "weights that are not 0", "test accuracy, %"]);
    for (seed, found) in seeds.iter().zip(&found) {
        rows.row((seed.0, "dense", found.dense.0, found.dense.1));
        for (weights, small, sparse) in &found.pairs {
            rows.row((seed.0, "small dense", *weights, *small));
            rows.row((seed.0, "large sparse", *weights, *sparse));
        }
    }
    let each = |f: &dyn Fn(&Found) -> f64| -> Vec<(Seed, f64)> { seeds.iter().copied().zip(found.iter().map(f)).collect() };
    let ours = options.pick("64-60-30-10, digits 8×8, 30 epochs", "LeNet-300-100, 5000 of MNIST, 10 epochs");
    let c = study.claims.setting("MobileNet, ImageNet; 90 % sparse against 0.25 of the width", ours);
    let least = options.pick("mean > 90", "mean > 92");
    c.add("dense: test accuracy, %", "70.6", least, 2)?.extend(each(&|f| f.dense.1));
    for (k, (weights, ..)) in found[0].pairs.iter().enumerate() {
        let sparsity = 100.0 * (1.0 - *weights as f64 / found[0].dense.0 as f64);
        let what = format!("large sparse less small dense, {weights} weights ({sparsity:.1} % sparse): points of accuracy");
        c.add(what, "11.2 at 90 %", "mean > 0", 2)?.extend(each(&|f| f.pairs[k].2 - f.pairs[k].1));
    }
    let what = "what the first of these sparsities costs: points of accuracy";
    let rule = options.pick("mean <= 6", "mean <= 0.5");
    c.add(what, "1.1 at 50 %, 2.9 at 75 %", rule, 2)?.extend(each(&|f| f.dense.1 - f.pairs[0].2));
    study.tables.push(("accuracy".into(), rows));
    Ok(study)
}

/// The accuracy against the weights that are not 0.
pub fn draw(study: &Study) -> Result<Figures> {
    let (x, y, rows) = ("weights that are not 0", "test accuracy, %", study.table("accuracy")?);
    let mut figure = Figure::new("As many weights", x, y).log_x();
    for name in ["large sparse", "small dense"] {
        figure = figure.line(name, &rows.only("network", name)?, x, y)?;
    }
    Ok(vec![("accuracy".into(), figure.level("dense", &rows.only("network", "dense")?, y)?.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("to_prune_or_not", run, draw)
}

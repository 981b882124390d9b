//! Singh, Alistarh 2020, *WoodFisher: efficient second-order approximation for neural network compression*: one-shot pruning.
//!
//! `cargo run --release --example woodfisher -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::allocate::Global;
use lacuna::criteria::{Magnitude, MagnitudeNorm};
use lacuna::data::{Dataset, data_dir, digits, mnist};
use lacuna::models::{Init, lenet_300_100, mlp};
use lacuna::nn::{Activation, Loss, Method};
use lacuna::paper::{Figures, Options, Study};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::solve::WoodFisher;
use lacuna::study::{Candidate, Compare, Comparison, Networks, Trained, Trial};
use lacuna::train::{Decay, TrainConfig, fit, side_by_side};
use ndarray::{Array2, s};
use std::collections::HashMap;

const LOSS: Loss = Loss::CrossEntropy;
const SPARSITIES: [f64; 4] = [0.5, 0.8, 0.9, 0.95];
const MAGNITUDE: Magnitude = Magnitude { norm: MagnitudeNorm::L1 };
const METHODS: [&str; 4] = ["magnitude", "diagonal Fisher", "WoodFisher, mask alone", "WoodFisher"];

/// A network of one seed, trained, with its samples.
fn trained(options: &Options, seed: Seed) -> Result<Trained> {
    let (train, test, mut network) = if options.quick {
        let all = digits();
        let (train, test) = all.split(&seed.stream("held-out samples").permutation(all.len())[..450]);
        (train, test, mlp(&[64, 40, 20, 10], Activation::Relu, Init::He, seed)?)
    } else {
        let (train, test) = mnist(data_dir().join("mnist"))?;
        (train, test, lenet_300_100(seed)?)
    };
    let part = |set: &Dataset| (set.x().clone(), set.one_hot(1.0, 0.0));
    let (train, test) = (part(&train), part(&test));
    let method = Method::Adam { weight_decay: 0.0 };
    let (epochs, batch) = options.pick((40, 32), (6, 128));
    let recipe = TrainConfig { loss: LOSS, method, learning_rate: 1e-3, decay: Decay::Cosine, epochs, batch, seed };
    fit(&mut network, &train.0, &train.1, &recipe)?;
    let some = |array: Array2<f32>| array.slice(s![..options.pick(300, 400), ..]).to_owned();
    Ok(Trained::new(network, (some(train.0), some(train.1)), test, LOSS))
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let mut study = Study::default();
    let mut rows = Table::new(["seed", "method", "sparsity", "test accuracy, %"]);
    let mut sizes = Table::new(["seed", "weights of a block", "test accuracy, %"]);
    let blocks: Vec<usize> = options.pick(vec![1, 50, usize::MAX], vec![1, 10, 100, 1000, usize::MAX]);
    let (largest, at) = options.pick((2560, 0.8), (235_200, 0.9));
    let usual = WoodFisher { damping: 1e-5, block: options.pick(50, 100) };
    // Of a quick run a seed has two networks, which differ in accuracy by more than methods do; of a full one only one.
    let each = options.pick(2, 1);
    let numbered = |seed: &Seed| (0..each).map(|k| options.pick(Seed(1000 * seed.0 + k), *seed)).collect::<Vec<_>>();
    let seeds: Vec<Seed> = options.seeds().iter().flat_map(numbered).collect();
    let networks = side_by_side(seeds.len(), |k| Ok((seeds[k].0, trained(options, seeds[k])?)))?;
    let networks: HashMap<u64, Trained> = networks.into_iter().collect();
    let networks = Networks::new(|seed| Ok(networks[&seed.0].clone()));
    let values = |t: &Trial| t.outcome.clone().map(|m| m.values);
    let say = |t: &Trial| eprintln!("network {}, {} at {}: {:.1?}", t.seed.0, t.method, t.sparsity, values(t));
    let compare = Compare::new().only_own().allocate(&Global).seeds(seeds.clone()).seen(&say);
    let fisher = WoodFisher { block: 1, ..usual }; // with the same damping
    let methods = compare.clone().criterion(&MAGNITUDE).with(Candidate::criterion(&fisher).named(METHODS[1]));
    let methods = methods.with(Candidate::criterion(&usual).named(METHODS[2]));
    let methods = methods.with(Candidate::pruner(&usual).ranked_by(&usual).named(METHODS[3]));
    let methods = methods.sparsities(SPARSITIES).run(&networks)?.complete()?;
    let sizes_of: Vec<WoodFisher> = blocks.iter().map(|&block| WoodFisher { block, ..usual }).collect();
    let mut by_size = compare.sparsities([at]);
    for of in &sizes_of {
        by_size = by_size.with(Candidate::pruner(of).ranked_by(of).named(of.block.to_string()));
    }
    let by_size = by_size.run(&networks)?.complete()?;
    // The mean over the networks of a seed.
    let mean = |found: &Comparison, method: &str, sparsity: f64, seed: usize| -> Result<f64> {
        let all = &found.values(method, sparsity)?[seed * each as usize..(seed + 1) * each as usize];
        Ok(all.iter().map(|(_, accuracy)| accuracy).sum::<f64>() / each as f64)
    };
    let (mut dense, mut gaps, mut halves) = (Vec::new(), vec![Vec::new(); 3], Vec::new());
    let mut by_block = vec![Vec::new(); blocks.len()];
    for (i, &seed) in options.seeds().iter().enumerate() {
        let base = mean(&methods, "dense", SPARSITIES[0], i)?;
        dense.push((seed, base));
        rows.row((seed.0, "dense", 0.0, base));
        for sparsity in SPARSITIES {
            let of = METHODS.map(|method| mean(&methods, method, sparsity, i));
            let of = of.into_iter().collect::<Result<Vec<f64>>>()?;
            for (method, accuracy) in METHODS.into_iter().zip(&of) {
                rows.row((seed.0, method, sparsity, *accuracy));
            }
            if sparsity == 0.5 {
                halves.push((seed, base - of[3]));
            } else if options.pick(sparsity == 0.8, sparsity < 0.95) {
                gaps[0].push((seed, of[1] - of[0]));
                gaps[1].push((seed, of[2] - of[1]));
                gaps[2].push((seed, of[3] - of[1]));
            }
        }
        for (b, &block) in blocks.iter().enumerate() {
            let accuracy = mean(&by_size, &block.to_string(), at, i)?;
            sizes.row((seed.0, block.min(largest), accuracy)); // the largest layer's: all of every layer
            by_block[b].push((seed, accuracy));
        }
    }
    let net = options.pick("64-40-20-10 on digits 8×8", "LeNet-300-100 on MNIST");
    let samples = options.pick(300, 400);
    let c = study
        .claims
        .setting("ResNet-50, ImageNet, 400 gradients", format!("{net}, {samples} gradients, blocks of {}", usual.block));
    c.add("dense: test accuracy, %", "77.01", "mean > 90", 2)?.extend(dense);
    c.add("accuracy that 50 % sparsity costs, nothing retrained", "–", "mean < 2", 2)?.extend(halves);
    let [diagonal, mask, whole] = [gaps.remove(0), gaps.remove(0), gaps.remove(0)];
    if !options.quick {
        // On the small net both hang on the seed.
        c.add("diagonal Fisher less magnitude, 80 and 90 %: points of accuracy", "above 0", "mean > 0", 2)?.extend(diagonal);
        c.add("WoodFisher's mask alone less diagonal Fisher", "above 0", "mean > 0", 2)?.extend(mask);
    }
    let what = options.pick("WoodFisher less diagonal Fisher, 80 %: points of accuracy", "WoodFisher less diagonal Fisher");
    c.add(what, "above 0", "mean > 0", 2)?.extend(whole);
    let (first, last) = (by_block[0].clone(), by_block[by_block.len() - 1].clone());
    let gain = first.iter().zip(&last).map(|((seed, a), (_, b))| (*seed, b - a));
    let what = format!("blocks as large as the layer less blocks of 1, {} %", 100.0 * at);
    c.add(what, "larger is better", "mean > 0", 2)?.extend(gain);
    study.tables = vec![("one_shot".into(), rows), ("blocks".into(), sizes)];
    Ok(study)
}

/// The accuracy against the sparsity, and against the size of the blocks.
pub fn draw(study: &Study) -> Result<Figures> {
    let accuracy = "test accuracy, %";
    let mut methods = Figure::new("Pruned at once, nothing retrained", "sparsity", accuracy).percent_x();
    for method in METHODS {
        methods = methods.line(method, &study.table("one_shot")?.only("method", method)?, "sparsity", accuracy)?;
    }
    let blocks = Figure::new("Size of the blocks", "weights of a block", accuracy).log_x();
    let blocks = blocks.line("WoodFisher", study.table("blocks")?, "weights of a block", accuracy)?;
    Ok(vec![("one_shot".into(), methods.to_svg()?), ("blocks".into(), blocks.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("woodfisher", run, draw)
}

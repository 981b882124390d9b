//! Singh, Alistarh 2020, *WoodFisher: efficient second-order approximation for neural network compression*: one-shot pruning.
//!
//! `cargo run --release --example woodfisher -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::allocate::{Global, Target};
use lacuna::calibrate::Calibration;
use lacuna::criteria::{Magnitude, Saliency};
use lacuna::data::{Dataset, data_dir, digits, mnist};
use lacuna::eval::score;
use lacuna::mask::{Pattern, Scope};
use lacuna::models::{Init, lenet_300_100, mlp};
use lacuna::nn::{Activation, Loss, Method, Network};
use lacuna::paper::{Figures, Options, Study};
use lacuna::prune::{Pruning, compensated, one_shot};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::solve::WoodFisher;
use lacuna::train::{Decay, TrainConfig, fit};
use ndarray::{Array2, s};

const LOSS: Loss = Loss::CrossEntropy;
const SPARSITIES: [f64; 4] = [0.5, 0.8, 0.9, 0.95];
const METHODS: [&str; 4] = ["magnitude", "diagonal Fisher", "WoodFisher, mask alone", "WoodFisher"];

/// One seed's network and data.
struct Task {
    train: (Array2<f32>, Array2<f32>),
    test: (Array2<f32>, Array2<f32>),
    network: Network,
    samples: usize,
}

impl Task {
    /// Of a quick run the `k`-th of a seed's networks, which differ in accuracy by more than methods do; of a full one the only one.
    fn new(options: &Options, seed: Seed, k: u64) -> Result<Task> {
        let seed = options.pick(Seed(1000 * seed.0 + k), seed);
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
        Ok(Task { train, test, network, samples: options.pick(300, 400) })
    }

    /// Test accuracy in % after pruning at once, nothing retrained.
    fn accuracy(&self, method: &str, sparsity: f64, fisher: WoodFisher) -> Result<f64> {
        let (x, t) = (self.train.0.slice(s![..self.samples, ..]), self.train.1.slice(s![..self.samples, ..]));
        let data = Calibration::new(&x, &t, LOSS);
        let saliency: &dyn Saliency = match method {
            "magnitude" => &Magnitude::default(),
            "diagonal Fisher" => &WoodFisher { block: 1, ..fisher }, // with the same damping
            _ => &fisher,
        };
        let (target, pattern, scope) = (Target::Sparsity(sparsity), Pattern::Unstructured, Scope::Layer);
        let pruning = Pruning { saliency, allocate: &Global, target, pattern, scope, skip: &[] };
        let pruned = if method == "WoodFisher" {
            compensated(&self.network, &data, &pruning, &fisher)?.model
        } else {
            one_shot(&self.network, &data, &pruning)?.model
        };
        Ok(100.0 * score(&pruned, &self.test.0, &self.test.1, LOSS).accuracy)
    }
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
    let (mut dense, mut gaps, mut halves) = (Vec::new(), vec![Vec::new(); 3], Vec::new());
    let mut by_block = vec![Vec::new(); blocks.len()];
    for &seed in &options.seeds {
        let tasks = (0..options.pick(2, 1)).map(|k| Task::new(options, seed, k)).collect::<Result<Vec<_>>>()?;
        let mean = |of: &dyn Fn(&Task) -> Result<f64>| -> Result<f64> {
            tasks.iter().map(of).sum::<Result<f64>>().map(|sum| sum / tasks.len() as f64)
        };
        let base = mean(&|t| Ok(100.0 * score(&t.network, &t.test.0, &t.test.1, LOSS).accuracy))?;
        dense.push((seed, base));
        rows.row((seed.0, "dense", 0.0, base));
        for sparsity in SPARSITIES {
            let mut of = Vec::new();
            for method in METHODS {
                let accuracy = mean(&|t| t.accuracy(method, sparsity, usual))?;
                rows.row((seed.0, method, sparsity, accuracy));
                of.push(accuracy);
            }
            if sparsity == 0.5 {
                halves.push((seed, base - of[3]));
            } else if options.pick(sparsity == 0.8, sparsity < 0.95) {
                gaps[0].push((seed, of[1] - of[0]));
                gaps[1].push((seed, of[2] - of[1]));
                gaps[2].push((seed, of[3] - of[1]));
            }
            eprintln!("seed {} at {sparsity}: {of:.1?} of {base:.1}", seed.0);
        }
        for (b, &block) in blocks.iter().enumerate() {
            let accuracy = mean(&|t| t.accuracy("WoodFisher", at, WoodFisher { block, ..usual }))?;
            eprintln!("seed {} block {block}: {accuracy:.1}", seed.0);
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
